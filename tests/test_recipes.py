"""Recipes are the chains that their docstrings name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
