"""Memories in bfloat16 and int8: the mean of the rounding is right, and nothing is lost by it."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import gradzip as gz
from gradzip import _narrow as narrow
from tests.arrays import HARD
from tests.mappers import AXIS, P, start

pytestmark = pytest.mark.usefixtures('fast_compilation')

NARROW = {'bfloat16': narrow.BFLOAT16, 'int8': narrow.INT8}
WORKERS, SIZE = 4, 64


def rounded(x, dtype, keys):
    """The array as a memory of this dtype keeps it, once for each key."""
    one = jax.jit(jax.vmap(lambda key: narrow.wide(narrow.stored([x], dtype, key)[0])))
    return np.asarray(one(keys).astype(x.dtype), np.float64)


@pytest.mark.parametrize('dtype', NARROW)
@pytest.mark.parametrize('name', ['gaussian', 'cauchy', 'zeros', 'one nonzero', 'tiny', 'huge'])
def test_the_mean_of_the_rounding_is_right(name, dtype):
    """Within 5 standard errors of 4000 draws; an entry would fail once in 1.7 million tests."""
    x = jnp.asarray(HARD[name], jnp.float32)
    got, exact = rounded(x, NARROW[dtype], jax.random.split(jax.random.key(1), 4000)), np.float64(x)
    unit = np.full(x.shape, np.abs(exact).max() / 127)
    if dtype == 'bfloat16':
        unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), 1e-300))) - 7)
    assert (np.abs(got - exact) <= unit * (1 + 1e-6)).all()
    spread = got.std(0) / np.sqrt(len(got))
    assert (np.abs(got.mean(0) - exact) <= 5 * spread + unit * 1e-5).all()


@pytest.mark.parametrize('dtype', NARROW)
def test_what_fits_is_kept_as_it_is(dtype):
    x = jnp.array([127.0, -126.0, 0.0, -0.0, 1.0])  # multiples of the block's scale, 1
    got = rounded(x, NARROW[dtype], jax.random.split(jax.random.key(0), 20))
    np.testing.assert_array_equal(got, np.broadcast_to(x, got.shape))


def test_what_is_not_finite_stays_so():
    x = jnp.array([jnp.inf, -jnp.inf, jnp.nan, 1.0])
    got = rounded(x, narrow.BFLOAT16, jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(got, np.broadcast_to(x, got.shape))
    x = jnp.concatenate([x, jnp.ones(300)])
    [got] = rounded(x, narrow.INT8, jax.random.split(jax.random.key(0), 1))
    assert np.isnan(got[:256]).all()
    np.testing.assert_allclose(got[256:], 1, rtol=1e-6)


@pytest.mark.parametrize('dtype', NARROW)
def test_a_gradient_too_small_for_the_format_arrives(dtype):
    """Rounded to the nearest, a bfloat16 memory that grows by 1/2 a step stops at 128."""
    tx = gz.error_feedback(gz.TopK(0.01), memory_dtype=dtype, key=0)
    g = jnp.full(100, 0.5).at[0].set(1000.0)  # the first entry is always the one that is sent
    state, _ = jax.lax.scan(lambda s, _: (tx.update(g, s)[1], None), tx.init(g), length=600)
    memory = np.asarray(narrow.wide(state.error)[1:].astype(jnp.float32))
    assert memory.mean() == pytest.approx(300, rel=0.02)


@pytest.mark.parametrize(
    ('dtype', 'steps'),
    [
        ('bfloat16', 3000),
        ('int8', 3000),
        pytest.param('float32', 200_000, marks=pytest.mark.slow),
        pytest.param('bfloat16', 200_000, marks=pytest.mark.slow),
        pytest.param('int8', 200_000, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures('x64', 'full_compilation')  # few kernels a step, for many steps
def test_nothing_is_lost_over_many_steps_of_bfloat16_gradients(dtype, steps):
    """The sums are float64; the largest memory is no larger in the last tenth than before it."""
    tx = gz.error_feedback(gz.TopK(0.05), AXIS, memory_dtype=dtype, key=0)
    like = jnp.zeros(SIZE, jnp.bfloat16)
    specs = gz.state_specs(jax.eval_shape(tx.init, like), 0, None)

    def worker(state, step, index):
        own = jax.random.normal(jax.random.fold_in(jax.random.key(0), index), SIZE, jnp.float32)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), index), step)
        gradient = (own + 0.3 + jax.random.normal(key, SIZE, jnp.float32)).astype(jnp.bfloat16)
        update, state = tx.update(gradient, state)
        error = narrow.wide(jax.tree.map(lambda x: x[0], state.error.rows))
        mean = jax.lax.pmean(gradient.astype(jnp.float64), AXIS)
        return state, (update.astype(jnp.float64), mean, jnp.linalg.norm(error)), error

    mapped = jax.vmap(worker, (specs, None, 0), (specs, (None, None, 0), 0), axis_name=AXIS)

    def body(carry, step):
        state, updates, gradients, _ = carry
        state, (update, mean, norms), errors = mapped(state, step, jnp.arange(WORKERS))
        carry = state, updates + update, gradients + mean, errors.astype(jnp.float32)
        return carry, norms.astype(jnp.float32)

    _, state = start(tx, like, 'vmap', WORKERS)
    zeros = jnp.zeros(SIZE), jnp.zeros(SIZE), jnp.zeros((WORKERS, SIZE), jnp.float32)
    (_, updates, gradients, errors), norms = jax.jit(jax.lax.scan, static_argnums=0)(
        body, (state, *zeros), jnp.arange(steps)
    )
    difference = updates + np.asarray(errors, np.float64).mean(0) - gradients
    assert np.linalg.norm(difference) <= 1e-3 * np.linalg.norm(gradients)
    last = len(norms) // 10
    assert np.isfinite(norms).all()
    assert norms[-last:].max() <= 1.1 * norms[last:-last].max()


def test_another_number_of_workers_keeps_the_mean_of_an_int8_memory():
    tx = gz.error_feedback(gz.TopK(0.1), AXIS, memory_dtype='int8', key=0)
    params = {'w': jnp.zeros((20, 30)), 's': jnp.zeros([])}
    state = tx.init(params)

    def memory(worker):
        def one(p):
            return narrow.in_int8(jnp.cos(worker + jnp.arange(1.0 * p.size).reshape(p.shape)))

        return jax.tree.map(one, params)

    stacked = jax.vmap(memory)(jnp.arange(4.0))
    state = state._replace(error=gz.PerWorker(stacked, (AXIS,)))
    resized = gz.resize(state, 2)
    assert jax.tree.structure(resized) == jax.tree.structure(state)
    for name, before in stacked.items():
        after = jax.vmap(narrow.wide)(resized.error.rows[name])
        before = jax.vmap(narrow.wide)(before)
        assert after.shape == (2, *params[name].shape)
        np.testing.assert_allclose(after.mean(0), before.mean(0), atol=0.5 / 127)


def test_an_int8_memory_is_sharded_as_its_params():
    """Its scales have one block for each shard."""
    tx = gz.error_feedback(gz.TopK(0.1), AXIS, memory_dtype='int8', key=0)
    shards = {'w': jnp.zeros((30, 20)), 'b': jnp.zeros(30)}
    layout = {'w': P(None, 'model'), 'b': P()}
    specs = gz.state_specs(jax.eval_shape(tx.init, shards), params=layout)
    assert specs.error.rows['w'].codes == P(AXIS, None, 'model')
    assert specs.error.rows['w'].scales == P(AXIS, ('model',))
    assert specs.error.rows['b'] == gz.types.Int8Blocks(P(AXIS), P(AXIS))


@pytest.mark.slow
def test_an_int8_memory_survives_a_checkpoint(tmp_path):
    tx = gz.error_feedback(gz.TopK(0.1), memory_dtype='int8', key=0)
    g = jnp.cos(jnp.arange(300.0))
    _, state = tx.update(g, tx.init(g))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / 'state', state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / 'state', jax.eval_shape(lambda s: s, state))
    np.testing.assert_array_equal(tx.update(g, restored)[0], tx.update(g, state)[0])
    assert restored.error.codes.dtype == jnp.int8
