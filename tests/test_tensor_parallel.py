"""A transformer whose shards are compressed on a 2 x 4 mesh trains as one on two devices does."""

import jax
import numpy as np
import optax
import pytest

import gradzip as gz
from experiments.models import Model, Size, text
from tests.mappers import AXIS, adam, mesh_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('fast_compilation')]

SIZE = Size(layers=1, width=16, heads=4, context=8)
WORKERS, SHARDS = 2, 4


@pytest.fixture(autouse=True)
def as_users_configure_jax():
    """The transformer adds biases to batches."""
    with jax.numpy_rank_promotion('allow'):
        yield


def trained(scheme, steps, *, sharded):
    """The losses and the parameters, with tensor parallelism or with data parallelism alone."""
    model = Model(SIZE, sharded=sharded)
    tx = optax.chain(gz.error_feedback(scheme, AXIS), adam(3e-3))
    mesh = jax.make_mesh((WORKERS, SHARDS), (AXIS, 'model')) if sharded else mesh_of(WORKERS)
    state, step = gz.data_parallel(
        model.loss,
        model.params,
        tx,
        mesh,
        AXIS,
        specs=model.specs if sharded else None,
        printer=None,
    )
    losses = []
    for i in range(steps):
        state, value = jax.block_until_ready(step(state, text().batch(8, SIZE, seed=i)))
        losses.append(float(value))
    return losses, state.params


def test_rounding_each_entry_gives_the_same_parameters():
    """It does not matter to bfloat16 which entries are in a leaf, so the runs are equal.

    A last bit of a gradient may decide how an entry is rounded; Adam's steps are of size 0.003.
    """
    losses, params = trained(gz.Cast('bfloat16'), 8, sharded=True)
    expected_losses, expected = trained(gz.Cast('bfloat16'), 8, sharded=False)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_topk_reaches_the_same_loss():
    """Each shard keeps its own largest entries, so the runs differ, but not in where they lead."""
    both = [trained(gz.TopK(0.1), 300, sharded=sharded)[0] for sharded in (True, False)]
    ends = [np.mean(losses[-50:]) for losses in both]
    assert ends[0] < 0.6 * both[0][0]
    np.testing.assert_allclose(*ends, rtol=0.01)
