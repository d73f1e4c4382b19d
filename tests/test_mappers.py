"""A chain gives the same parameters after 20 Adam steps under vmap, pmap and shard_map."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, adam, train
from tests.zoo import TRANSFORMATIONS, representatives

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS, STEPS = 4, 20


def problem():
    """A small regression, its data spread over workers. One leaf, because compiling takes long."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (STEPS, WORKERS, 6, 8))
    y = x @ jax.random.normal(keys[1], (8, 4)) + jax.random.normal(keys[2], (STEPS, WORKERS, 6, 4))
    return {'w': jnp.zeros((8, 4))}, (x, y)


def loss(params, batch):
    x, y = batch
    return jnp.mean((x @ params['w'] - y) ** 2)


def chain_of(name):
    row = TRANSFORMATIONS[name]
    tx = row.scheme(AXIS)
    if not row.exchanges:
        tx = optax.chain(tx, gz.compress(gz.Identity(), AXIS))
    return optax.chain(tx, adam(1e-2))


# Only marina has collectives in the branches of a conditional; its state is as others' are.
@pytest.mark.parametrize(
    'name', [*representatives(TRANSFORMATIONS), pytest.param('marina', marks=pytest.mark.slow)]
)
def test_parameters_agree(name):
    """The rows of other reducers differ in no collective; law 2 compares two mappers for each."""
    params, batches = problem()
    # jit compiles each mapper's sums in an order of its own: float32 to 1e-6 after 20 steps, as
    # long as no selection or rounding sits on an edge; these data have none.
    mappers = ('vmap', 'pmap', 'shard_map')
    results = {m: train(chain_of(name), loss, params, batches, m)[0] for m in mappers}
    for mapper, result in results.items():
        for leaf, expected in results['vmap'].items():
            np.testing.assert_allclose(result[leaf], expected, rtol=1e-6, atol=1e-6, err_msg=mapper)
    moved = [
        np.abs(np.asarray(v) - np.asarray(params[k])).max() for k, v in results['vmap'].items()
    ]
    assert max(moved) > 1e-3
