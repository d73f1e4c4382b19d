"""The front door does what the steps by hand do, and says what it sends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, mesh_of, train

pytestmark = pytest.mark.usefixtures('fast_compilation')

PARAMS = {'w': jnp.zeros((5, 3)), 'b': jnp.zeros(3)}
X = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
BATCH = X[:, :5], X[:, 5:]


def loss(params, batch):
    x, y = batch
    return jnp.mean((x @ params['w'] + params['b'][None] - y) ** 2)


TOP = gz.TopK(0.3)


def chain(scheme=TOP, axis=AXIS):
    return optax.chain(gz.error_feedback(scheme, axis, key=0), optax.sgd(0.1))


def quiet(params, tx, mesh, axis=AXIS):
    return gz.data_parallel(loss, params, tx, mesh, axis, printer=None)


@pytest.mark.parametrize('scheme', [gz.TopK(0.3), gz.TwoShot(gz.QSGD(7)), gz.PowerSGD(1, 1)])
def test_it_trains_as_the_simulator_does(scheme):
    state, step = quiet(PARAMS, chain(scheme), mesh_of(4))
    values = []
    for _ in range(5):
        given = state
        state, value = step(state, BATCH)
        values.append(float(value))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params))  # donated
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(PARAMS))  # but not the caller's
    batches = jax.tree.map(lambda a: np.stack([a.reshape(4, 4, -1)] * 5), BATCH)
    params, _, expected = train(chain(scheme), loss, PARAMS, batches, 'vmap')
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    for name, leaf in params.items():
        np.testing.assert_allclose(state.params[name], leaf, rtol=1e-5, atol=1e-6)


def test_two_axes_of_workers():
    mesh = jax.make_mesh((2, 4), ('node', 'gpu'))
    state, step = quiet(PARAMS, chain(axis=('node', 'gpu')), mesh, ('node', 'gpu'))
    state, value = step(state, BATCH)
    assert state.state[0].error.rows['w'].shape == (8, 5, 3)
    assert np.isfinite(value)


def test_what_is_printed():
    said = []
    params = jnp.zeros(1_000_000)
    gz.data_parallel(loss, params, chain(gz.TopK(0.01)), mesh_of(4), AXIS, printer=said.append)
    [text] = said
    size = gz.payload_bytes(gz.TopK(0.01), params)
    saved = 2 * 3 * 4_000_000 // 4 - 3 * size
    assert f'4 workers, 1,000,000 entries; {size:,} bytes a worker' in text
    assert f'{4_000_000 / size:.3g} times fewer than float32' in text
    assert f'{saved:,} bytes less a step. Compression pays on links below 4' in text
    assert f'below {8e-6 * saved / 0.1:.3g} Mbit/s if it costs 100 ms' in text
    assert f'{8e-9 * saved / 0.001:.3g} Gbit/s if it costs 1 ms.' in text


def test_it_says_where_nothing_is_won():
    """Eight payloads of a quarter of the entries are more than an all-reduce of all."""
    said = []
    params = jnp.zeros(100_000)
    gz.data_parallel(loss, params, chain(gz.TopK(0.25)), mesh_of(8), AXIS, printer=said.append)
    assert 'It pays nowhere' in said[0]
    gz.data_parallel(loss, params, chain(), mesh_of(1), AXIS, printer=said.append)
    assert said[1] == 'gradzip: one worker, nothing is sent.'


BAD = {
    'no such axis': (lambda: quiet(PARAMS, chain(axis='x'), mesh_of(2), 'x'), r"axes \('data',\)"),
    'no axis': (lambda: quiet(PARAMS, chain(), mesh_of(2), None), r"axes \('data',\)"),
    'another axis': (
        lambda: quiet(PARAMS, chain(), jax.make_mesh((2, 4), (AXIS, 'model'))),
        r"leaves out \['model'\] of the axes",
    ),
    'uneven batch': (
        lambda: step_once(chain(), jax.tree.map(lambda a: a[:7], BATCH)),
        r"at '\[0\]' has shape \(7, 5\): its leading axis must be a multiple of the 2 workers",
    ),
    'no batch axis': (lambda: step_once(chain(), (np.ones(4), np.float32(1))), r'has shape \(\)'),
    'no exchange': (lambda: step_once(optax.sgd(0.1), BATCH), 'nothing exchanges over them'),
    'chain without its axis': (lambda: step_once(chain(axis=None), BATCH), 'pass axis_name='),
}


def step_once(tx, batch):
    state, step = quiet(PARAMS, tx, mesh_of(2))
    return step(state, batch)


@pytest.mark.parametrize('name', BAD)
def test_refused(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_mesh_is_a_mesh():
    with pytest.raises(TypeError, match=r'mesh=...\) must be a jax.sharding.Mesh; got 4'):
        quiet(PARAMS, chain(), 4)
