"""The trap: inside shard_map, jax.grad has already summed over the workers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, P, map_step, mesh_of, start, train_step

pytestmark = pytest.mark.usefixtures('fast_compilation')

VERBS = {
    'compress': lambda axis: gz.compress(gz.TopK(0.5), axis),
    'error_feedback': lambda axis: gz.error_feedback(gz.TopK(0.5), axis),
    'ef21': lambda axis: gz.ef21(gz.TopK(0.5), axis),
    'delay': lambda axis: gz.delay(2, axis),
    'every': lambda axis: gz.every(optax.sgd(1.0), 2, axis),
    'per_worker': lambda axis: gz.per_worker(optax.trace(0.9), axis),
    'participate': lambda axis: gz.participate(1, axis, key=0),
}
MESSAGE = (
    r"The gradient at \"\['w'\]\" is the same on every worker of 'data', so there is nothing to "
    r'exchange\.\nInside shard_map, jax\.grad sums over workers by itself: differentiate with '
    r"respect to gradzip\.localize\(params, 'data'\)\."
)


def loss(params, batch):
    return jnp.mean(batch @ params['w'])


def all_but_w(params):
    return {'unused': gz.localize(params['unused'], AXIS), 'w': params['w']}


def gradient_inside(tx, grad_of, jit, mesh=None, axis=AXIS):
    mesh = mesh or mesh_of(2)
    params = {'w': jnp.ones(3), 'unused': jnp.ones(2)}

    def worker(params, batch):
        grads = jax.grad(loss)(grad_of(params), batch)
        return jax.tree.map(lambda u: u[None], tx.update(grads, tx.init(params))[0])

    step = jax.shard_map(
        worker, mesh=mesh, in_specs=(P(), P(axis)), out_specs=P(axis), check_vma=True
    )
    return (jax.jit(step) if jit else step)(params, jnp.ones((mesh.size, 3)))


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('verb', VERBS)
def test_it_is_caught(verb, jit):
    with pytest.raises(ValueError, match='the same on every worker') as error:
        gradient_inside(VERBS[verb](AXIS), all_but_w, jit)
    assert re.search(MESSAGE, str(error.value)), error.value


@pytest.mark.parametrize('verb', VERBS)
def test_localize_avoids_it_unused_leaves_included(verb):
    out = gradient_inside(VERBS[verb](AXIS), lambda p: gz.localize(p, AXIS), True)
    assert out['unused'].shape[-1] == 2


def test_a_tuple_of_axes_must_be_localized_over_each():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ('node', 'gpu'))
    both = ('node', 'gpu')
    tx = gz.error_feedback(gz.TopK(0.5), both)
    with pytest.raises(ValueError, match="same on every worker of 'gpu'"):
        gradient_inside(tx, lambda p: gz.localize(p, 'node'), True, mesh, both)
    out = gradient_inside(tx, lambda p: gz.localize(p, both), True, mesh, both)
    assert out['w'].shape == (8, 3)


@pytest.mark.parametrize('mapper', ['vmap', 'pmap', 'shard_map unchecked'])
def test_where_nothing_is_tracked_gradients_are_local_already(mapper):
    """No localize needed, and none refused: the update is the mean of the workers' gradients."""
    tx = gz.error_feedback(gz.TopK(1.0), AXIS)
    params = {'w': jnp.ones(3)}
    params_, state = start(tx, params, mapper, 2)

    def step(params, state, batch):
        updates, state = tx.update(jax.grad(loss)(params, batch), state)
        return updates, state, jnp.zeros([])

    batch = jnp.arange(6.0).reshape(2, 1, 3)
    if mapper.startswith('shard_map'):
        batch = batch.reshape(2, 3)
    mapped = map_step(step, jax.eval_shape(lambda s: s, state), mapper, 2)
    updates, _, _ = mapped(params_, state, batch)
    got = updates['w'][0] if mapper == 'pmap' else updates['w']
    np.testing.assert_allclose(got, np.arange(6.0).reshape(2, 3).mean(0))


def test_a_memory_without_an_axis_is_refused_where_gradients_differ():
    tx = gz.error_feedback(gz.TopK(0.5))
    with pytest.raises(ValueError, match="pass axis_name='data'"):
        gradient_inside(tx, lambda p: gz.localize(p, AXIS), True)


@pytest.mark.parametrize('make', [lambda: gz.delay(2), lambda: gz.error_feedback(gz.TopK(0.5))])
def test_but_not_inside_per_worker(make):
    """There the memory is the worker's own."""
    tx = gz.per_worker(make(), AXIS)
    out = gradient_inside(tx, lambda p: gz.localize(p, AXIS), True)
    assert out['w'].shape == (2, 3)


def test_an_axis_that_is_not_mapped():
    tx = gz.error_feedback(gz.TopK(0.5), 'workers')
    params = jnp.zeros(3)
    with pytest.raises(ValueError, match="No axis named 'workers' is mapped here"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match='No axis named'):
        gz.localize(params, 'workers')
    step = train_step(tx, loss)
    with pytest.raises(ValueError, match='No axis named'):
        step({'w': params}, tx.init({'w': params}), jnp.ones((1, 3)))
