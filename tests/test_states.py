"""A state knows what it was made for, and its rows know their worker."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, P, map_step, mesh_of, start

PARAMS = {'w': jnp.ones((6, 4)), 'b': jnp.ones(5)}

# What makes a state, and what receives it. Each pair used to pass in silence, or to end in an
# AttributeError.
MISMATCHES = {
    'a longer delay': (gz.delay(2), gz.delay(4)),
    'another model with the same bound': (gz.delay(2), gz.delay(gz.Cyclic(3))),
    'arrivals of another bound': (
        gz.iag(gz.QSGD(7), None, gz.Cyclic(2), key=0),
        gz.iag(gz.QSGD(7), None, gz.Cyclic(4), key=0),
    ),
    'another rank': (gz.ef21(gz.PowerSGD(2)), gz.ef21(gz.PowerSGD(8))),
    'a scheme that draws': (gz.compress(gz.TopK(0.5)), gz.compress(gz.QSGD(7), key=0)),
    'another scheme': (gz.error_feedback(gz.TopK(0.5)), gz.error_feedback(gz.TopK(0.1))),
    'another period': (gz.every(optax.sgd(1.0), 2), gz.every(optax.sgd(1.0), 4)),
    'momentum': (gz.ef21(gz.TopK(0.5)), gz.ef21(gz.TopK(0.5), momentum=0.1)),
    'another memory': (
        gz.error_feedback(gz.TopK(0.5)),
        gz.error_feedback(gz.TopK(0.5), memory_dtype='int8', key=0),
    ),
    'no axis': (gz.error_feedback(gz.TopK(0.5)), gz.error_feedback(gz.TopK(0.5), AXIS)),
    'an axis': (gz.error_feedback(gz.TopK(0.5), AXIS), gz.error_feedback(gz.TopK(0.5))),
    'another axis': (gz.delay(2, 'model'), gz.delay(2, AXIS)),
}


@pytest.mark.parametrize('name', MISMATCHES)
def test_a_state_of_another_setting_is_refused(name):
    """The error names both sides."""
    made, receives = MISMATCHES[name]
    state = made.init(PARAMS)
    update = jax.vmap(lambda g: receives.update(g, state, PARAMS)[0], axis_name=AXIS)
    grads = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    with pytest.raises(ValueError, match=r'was made for .* received it') as error:
        jax.eval_shape(update, grads)
    assert str(state.made_for) in str(error.value)
    assert str(receives.init(PARAMS).made_for) in str(error.value)


@pytest.mark.parametrize(
    'tx', [gz.compress(gz.TopK(0.5)), gz.error_feedback(gz.TopK(0.5)), gz.ef21(gz.TopK(0.5))]
)
def test_a_state_of_another_transformation_is_refused(tx):
    state = gz.delay(2).init(PARAMS)
    with pytest.raises(TypeError, match='received a state of type DelayState'):
        tx.update(PARAMS, state, PARAMS)


def test_a_marked_part_without_its_axis_is_refused():
    tx = gz.per_worker(optax.trace(0.9), AXIS)
    update = jax.vmap(lambda g: tx.update(g, optax.trace(0.9).init(PARAMS))[0], axis_name=AXIS)
    with pytest.raises(ValueError, match=r"made for no axis.*has the axis 'data'"):
        jax.eval_shape(update, jax.tree.map(lambda p: jnp.stack([p, p]), PARAMS))


def test_functions_of_the_leaf_are_not_compared():
    """Two equal functions need not be one object, as where a program is run again."""
    state = gz.error_feedback(lambda p: gz.TopK(0.5)).init(PARAMS)
    jax.eval_shape(gz.error_feedback(lambda p: gz.TopK(0.5)).update, PARAMS, state, PARAMS)


def test_a_function_that_now_draws_needs_a_key():
    state = gz.compress(lambda p: gz.TopK(0.5)).init(PARAMS)
    with pytest.raises(ValueError, match='pass key='):
        gz.compress(lambda p: gz.QSGD(7), key=0).update(PARAMS, state, PARAMS)


def test_keys_may_be_integers_of_numpy():
    made = [gz.compress(gz.RandK(0.5), key=key).init(PARAMS) for key in (3, np.int64(3))]
    assert jnp.array_equal(*(jax.random.key_data(state.exchange.key) for state in made))


def test_a_decay_may_be_scheduled_from_outside():
    """`inject_hyperparams` passes arrays, and takes the other arguments for static."""
    make = optax.inject_hyperparams(gz.error_feedback, static_args=('scheme', 'key', 'metrics'))
    tx = make(gz.TopK(0.5), decay=lambda step: jnp.where(step == 0, 1.0, 0.5))
    state, update = tx.init(jnp.zeros(2)), jax.jit(tx.update)
    for left in (1.0, 1 + 0.5 * 1.0, 1 + 0.5 * 1.5):
        _, state = update(jnp.array([1.0, 2.0]), state)
        np.testing.assert_allclose(state.inner_state.error, [left, 0])


CHAINS = {
    'error_feedback': gz.error_feedback(gz.TopK(0.3), AXIS),
    'ef21': gz.ef21(gz.TopK(0.3), AXIS),
    'iag': gz.iag(gz.QSGD(7), AXIS, gz.Cyclic(3), key=0),
    'delay': optax.chain(gz.delay(2, AXIS), gz.compress(gz.Identity(), AXIS)),
    'per_worker': optax.chain(
        gz.per_worker(optax.trace(0.9), AXIS), gz.compress(gz.Identity(), AXIS)
    ),
    'every': gz.every(gz.compress(gz.Identity(), AXIS), 2, AXIS),
}


def scaled_step(tx):
    def step(params, state, scale):
        grads = jax.tree.map(lambda p: p * jnp.ravel(scale)[0], gz.localize(params, AXIS))
        updates, state = tx.update(grads, state, params)
        return updates, state, jnp.zeros([])

    return step


def host(state):
    """Arrays as NumPy holds them, as after a checkpoint; keys, which NumPy lacks, stay."""
    return jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), state
    )


@pytest.mark.parametrize('name', CHAINS)
def test_rows_that_pose_as_replicated_are_noticed(name):
    """From out_axes=None under pmap, every worker receives the rows of the first."""
    tx, workers, scales = CHAINS[name], 3, jnp.arange(1.0, 4.0)
    params, state = start(tx, PARAMS, 'pmap', workers)
    places = {'axis_name': AXIS, 'devices': jax.devices()[:workers]}
    step = jax.pmap(scaled_step(tx), **places)
    for _ in range(3):
        updates, state, _ = jax.block_until_ready(step(params, state, scales))
        assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))
    state = host(jax.pmap(lambda s: s, out_axes=None, **places)(state))
    step = jax.pmap(scaled_step(tx), in_axes=(0, None, 0), out_axes=(0, None, 0), **places)
    for _ in range(3):
        updates, state, _ = jax.block_until_ready(step(params, state, scales))
        state = host(state)
    assert all(np.isnan(u).any() for u in jax.tree.leaves(updates))


def test_rows_that_leave_an_unchecked_shard_map_as_replicated_are_noticed():
    tx, workers = CHAINS['error_feedback'], 3
    mesh, state = mesh_of(workers), CHAINS['error_feedback'].init(PARAMS)
    step = jax.jit(
        jax.shard_map(
            scaled_step(tx),
            mesh=mesh,
            in_specs=(P(), P(), P(AXIS)),
            out_specs=P(),
            check_vma=False,
        )
    )
    updates, state, _ = step(PARAMS, state, jnp.arange(1.0, 4.0))
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))
    updates, state, _ = step(PARAMS, jax.device_get(state), jnp.arange(1.0, 4.0))
    assert all(np.isnan(u).any() for u in jax.tree.leaves(updates))


def test_more_rows_than_workers_is_an_error_about_their_number():
    tx = CHAINS['error_feedback']
    _, state = start(tx, PARAMS, 'shard_map', 8)
    step = map_step(scaled_step(tx), jax.eval_shape(lambda s: s, state), 'shard_map', 4)
    with pytest.raises(ValueError, match=r'made for 8 workers. Use gradzip.resize\(state, 4\)'):
        step(PARAMS, jax.device_get(state), jnp.arange(4.0))


@pytest.mark.parametrize(
    ('before', 'after', 'mapper'),
    [(8, 4, 'shard_map'), (4, 8, 'vmap'), (8, 6, 'shard_map'), (3, 1, 'vmap'), (1, 3, 'vmap')],
)
def test_another_number_of_workers_keeps_the_mean_of_the_memories(before, after, mapper):
    """Nothing is lost across the change, and training goes on."""
    tx = CHAINS['error_feedback']
    _, state = start(tx, PARAMS, mapper, before)
    like = jax.eval_shape(lambda s: s, state)
    step = map_step(scaled_step(tx), like, mapper, before)
    _, state, _ = step(PARAMS, state, jnp.linspace(-1.0, 2.0, before))
    resized = gz.resize(jax.device_get(state), after)
    for a, b in zip(
        jax.tree.leaves(resized.error.rows), jax.tree.leaves(state.error.rows), strict=True
    ):
        assert a.shape == (after, *b.shape[1:])
        np.testing.assert_allclose(np.mean(a, 0), np.mean(b, 0), rtol=1e-6, atol=1e-7)
    step = map_step(scaled_step(tx), jax.eval_shape(lambda s: s, resized), mapper, after)
    updates, moved, _ = step(PARAMS, resized, jnp.linspace(-1.0, 2.0, after))
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))
    np.testing.assert_array_equal(np.ravel(moved.error.worker), np.arange(after))


def test_halving_takes_the_means_of_neighbours_and_doubling_repeats():
    rows = jnp.array([[1.0, 0.0], [3.0, 4.0]])
    marked = gz.PerWorker(rows, (AXIS,))
    np.testing.assert_array_equal(gz.resize(marked, 1).rows, [[2, 2]])
    np.testing.assert_array_equal(gz.resize(marked, 4).rows, rows[jnp.array([0, 0, 1, 1])])


def test_packed_messages_have_no_mean():
    tx = CHAINS['iag']
    _, state = start(tx, PARAMS, 'vmap', 3)
    step = map_step(scaled_step(tx), jax.eval_shape(lambda s: s, state), 'vmap', 3)
    _, state, _ = step(PARAMS, state, jnp.arange(1.0, 4.0))
    with pytest.raises(ValueError, match=r'uint32 and differ between workers'):
        gz.resize(state, 2)


def test_the_state_of_an_nnx_optimizer_keeps_its_marks():
    """NNX shows a PerWorker as a dict of its fields."""
    nnx = pytest.importorskip('flax.nnx')
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = optax.chain(CHAINS['error_feedback'], optax.sgd(0.1))
    state = nnx.state(nnx.Optimizer(model, tx, wrt=nnx.Param))
    specs = gz.state_specs(state, worker=P(AXIS))
    assert specs['opt_state'][0]['error'] == P(AXIS)
    assert specs['opt_state'][0]['exchange']['count'].get_value() == P()
    with pytest.raises(ValueError, match='does not keep the axes'):
        gz.state_specs(state)
