"""1-bit Adam as a chain: Adam in the warm-up, the paper's algorithm after it, and exact zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests import reference
from tests.mappers import AXIS
from tests.test_reference import workers_run

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS, SIZE, WARMUP = 3, 20, 10


def chain(warmup=WARMUP):
    scheme = gz.Schedule((gz.Identity(), gz.ScaledSign()), (warmup,))
    return optax.chain(
        gz.shared_momentum(gz.error_feedback(scheme, AXIS), 0.9), gz.scale_by_frozen_adam(warmup)
    )


def gradients(steps):
    """Of workers that differ, with two entries that are never used."""
    gs = np.random.default_rng(0).normal(size=(steps, WORKERS, SIZE)) + 0.5
    gs[..., :2] = 0
    return gs


def test_the_warm_up_is_adam():
    """With both corrections of its biases, so that the first step is not ten times too short."""
    gs = gradients(8)
    updates, _ = workers_run(chain(8), gs)
    adam = optax.scale_by_adam()
    state = adam.init(jnp.zeros(SIZE))
    for g, update in zip(gs.mean(1), updates, strict=True):
        with jax.numpy_dtype_promotion('standard'):  # on which optax counts
            expected, state = adam.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-5)


def test_after_the_warm_up_it_is_the_algorithm_of_the_paper():
    gs = gradients(20)
    updates, (shared, frozen) = workers_run(chain(), gs)
    expected, errors = reference.one_bit_adam(
        gs, reference.scaled_sign, WARMUP, b1=0.9, b2=0.999, eps=1e-8
    )
    np.testing.assert_allclose(updates, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shared.inner.error.rows[:, 0], errors, rtol=1e-3, atol=1e-4)
    assert (np.asarray(frozen.squares)[2:] > 0).all()


def test_entries_that_are_never_used_stay_and_their_memory_is_bounded():
    """ScaledSign cannot send a zero. Divided by eps, what it sends would be 1e7."""
    updates, (shared, _) = workers_run(chain(), gradients(200))
    assert np.abs(updates[WARMUP:, 2:]).min() > 0
    np.testing.assert_array_equal(updates[:, :2], 0)
    memory = np.asarray(shared.inner.error.rows)[..., :2]
    assert 0 < np.abs(memory).max() < 5


def test_both_ways_compressed():
    """The chain of the docstring: the memories of workers and servers lose nothing."""
    gs = gradients(40)
    scheme = gz.Schedule((gz.Identity(), gz.TwoShot(gz.ScaledSign())), (WARMUP,))
    tx = gz.shared_momentum(gz.error_feedback(scheme, AXIS), 0.9)
    momenta, state = workers_run(tx, gs)
    before = np.concatenate([np.zeros((1, SIZE)), momenta[:-1]])
    given = (0.9 * before + 0.1 * gs.mean(1)).sum(0)  # what the workers wanted to send
    left = momenta.sum(0) + np.mean(state.inner.error.rows[:, 0], 0)
    np.testing.assert_allclose(left, given, atol=1e-3)
