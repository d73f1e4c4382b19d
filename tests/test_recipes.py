"""Recipes are the chains that their docstrings name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz


def test_compressed_adam_is_a_memory_before_adam_without_momentum():
    """Written out from the papers: error feedback, then Adam with b1 = 0 and decoupled decay."""
    rate, b2, eps, decay, kept = 0.01, 0.99, 1e-8, 0.1, 1  # one of eight entries is sent
    tx = gz.compressed_adam(rate, None, gz.TopK(1 / 8), weight_decay=decay)
    gradients = np.random.default_rng(0).normal(size=(6, 8))
    params = w = np.linspace(-1, 1, 8)
    error = square = np.zeros(8)
    params = jnp.asarray(params, jnp.float32)
    state = tx.init(params)
    with jax.numpy_dtype_promotion('standard'):
        for step, g in enumerate(gradients, 1):
            target = g + error
            sent = np.where(np.abs(target) == np.sort(np.abs(target))[-kept], target, 0)
            error = target - sent
            square = b2 * square + (1 - b2) * sent**2
            direction = sent / (np.sqrt(square / (1 - b2**step)) + eps)
            w = w - rate * (direction + decay * w)
            updates, state = tx.update(jnp.asarray(g, jnp.float32), state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(params, w, rtol=1e-5, atol=1e-6)


def test_the_default_scheme_sends_a_hundred_times_fewer_bits():
    """Through step_bytes, so that the scheme of the chain is the one that counts."""
    with jax.numpy_dtype_promotion('standard'):
        tx = gz.compressed_adam(1.0, 'data')
        sent = gz.step_bytes(tx, jnp.zeros(1_000_000), {'data': 2})
    assert sent == gz.payload_bytes(gz.TopK(0.04) >> gz.ScaledSign(), jnp.zeros(1_000_000))
    assert 100 < 4_000_000 / sent < 110


def newton_schulz(matrix):
    """Muon's iteration, five steps of which act on each singular value."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u * s @ vt


def test_dion_has_its_momentum_in_the_memory_and_orthonormal_updates():
    """Two steps of one worker, compared with the equations of the paper."""
    rank, mu, rate = 2, 0.75, 0.5
    rng = np.random.default_rng(0)
    # of rank 2, so that two columns hold it whole
    factors = rng.normal(size=(6, rank)), rng.normal(size=(rank, 10))
    gradient = {'w': jnp.float32(factors[0] @ factors[1]), 'b': jnp.ones(3)}
    params = jax.tree.map(jnp.zeros_like, gradient)
    tx = gz.dion(rate, None, rank, mu=mu)
    state = tx.init(params)
    memory = np.zeros((6, 10))
    for _ in range(2):
        with jax.numpy_dtype_promotion('standard'):
            updates, state = tx.update(gradient, state, params)
        total = memory + np.asarray(gradient['w'])
        memory = total - (1 - mu) * total
        moved = -rate * (10 / 6) ** 0.5 * newton_schulz(total)
        np.testing.assert_allclose(updates['w'], moved, rtol=1e-3, atol=1e-3)
        singular = np.linalg.svd(np.asarray(updates['w']) / (rate * (10 / 6) ** 0.5))[1]
        assert np.all(np.abs(singular[:rank] - 1) < 0.35)  # as Muon's iteration leaves them
        np.testing.assert_allclose(singular[rank:], 0, atol=1e-3)
        assert np.sum(np.asarray(updates['w']) * total) < 0
    kept = state.inner_states['matrix'].inner_state[0].error['w']
    np.testing.assert_allclose(kept, memory, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(updates['b'], -rate, rtol=1e-5)  # Adam, of a constant gradient


def test_dion_refuses_a_momentum_of_one():
    with pytest.raises(ValueError, match=r'dion\(mu=...\) must be in \[0, 1\)'):
        gz.dion(0.1, None, 1, mu=1.0)
