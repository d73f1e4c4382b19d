"""The trap: inside shard_map, jax.grad has already summed over the workers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from tests.mappers import AXIS, P, map_step, mesh_of, start, train_step
from tests.zoo import COMPRESSORS, TRANSFORMATIONS, representatives

pytestmark = pytest.mark.usefixtures('fast_compilation')

# One row for each verb and wrapper: which reducer exchanges makes no difference to the check.
NAMES = [*representatives(TRANSFORMATIONS), 'compress gather topk', 'ef21 gather topk']
MESSAGE = (
    r"(?s)gradient at \"\['w'\]\" is the same on every worker of 'data', so there is nothing to "
    r"exchange\..*differentiate with respect to gradzip\.localize\(params, 'data'\)\..*"
    r'averaged or exchanged before'
)


def loss(params, batch):
    return jnp.mean(batch @ params['w'])


def all_but_w(params):
    return {'unused': gz.localize(params['unused'], AXIS), 'w': params['w']}


def gradient_inside(tx, grad_of, mesh=None, axis=AXIS):
    """The shapes of the updates of all workers: the check is made while tracing."""
    mesh = mesh or mesh_of(2)
    params = {'w': jnp.ones(3), 'unused': jnp.ones(2)}

    specs = gz.state_specs(jax.eval_shape(tx.init, params))

    def worker(params, state, batch):
        grads = jax.grad(loss)(grad_of(params), batch)
        return jax.tree.map(lambda u: u[None], tx.update(grads, state, params)[0])

    init = jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=specs)
    step = jax.shard_map(
        worker, mesh=mesh, in_specs=(P(), specs, P(axis)), out_specs=P(axis), check_vma=True
    )
    batch = jnp.ones((mesh.size, 3))
    return jax.eval_shape(lambda: step(params, init(params), batch))


@pytest.mark.parametrize('name', NAMES)
def test_it_is_caught(name):
    with pytest.raises(ValueError, match='the same on every worker') as error:
        gradient_inside(TRANSFORMATIONS[name].scheme(AXIS), all_but_w)
    assert re.search(MESSAGE, str(error.value)), error.value


@pytest.mark.parametrize('name', NAMES)
def test_localize_avoids_it_unused_leaves_included(name):
    tx = TRANSFORMATIONS[name].scheme(AXIS)
    out = gradient_inside(tx, lambda p: gz.localize(p, AXIS))
    assert out['unused'].shape[-1] == 2


def test_marina_grads_are_each_workers_own():
    """Both gradients inside shard_map, and none of them summed over the workers."""
    mesh, batch = mesh_of(2), jnp.arange(6.0).reshape(2, 3)

    def worker(params, batch):
        return jax.tree.map(
            lambda x: x[None],
            gz.marina_grads(loss, params, {'w': 2 * params['w']}, batch, axis_name=AXIS),
        )

    mapped = jax.shard_map(worker, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS))
    value, now, before = jax.jit(mapped)({'w': jnp.ones(3)}, batch)
    np.testing.assert_allclose(value, batch.sum(1))
    np.testing.assert_allclose(now['w'], batch)
    np.testing.assert_allclose(before['w'], batch)


def test_a_tuple_of_axes_must_be_localized_over_each():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ('node', 'gpu'))
    both = ('node', 'gpu')
    tx = gz.error_feedback(gz.TopK(0.5), both)
    with pytest.raises(ValueError, match="same on every worker of 'gpu'"):
        gradient_inside(tx, lambda p: gz.localize(p, 'node'), mesh, both)
    out = gradient_inside(tx, lambda p: gz.localize(p, both), mesh, both)
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
        gradient_inside(tx, lambda p: gz.localize(p, AXIS))


@pytest.mark.parametrize('make', [lambda: gz.delay(2), lambda: gz.error_feedback(gz.TopK(0.5))])
def test_but_not_inside_per_worker(make):
    """There the memory is the worker's own."""
    tx = gz.per_worker(make(), AXIS)
    out = gradient_inside(tx, lambda p: gz.localize(p, AXIS))
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


@pytest.mark.parametrize('name', ['topk', 'qsgd 4 bits', 'scaled sign'])
def test_gradients_that_are_sharded_by_type_are_refused(name):
    """Some compressors failed in XLA on them, and others compressed no traffic."""
    mesh = jax.make_mesh((2,), ('model',), devices=jax.devices()[:2])
    tx = gz.error_feedback(COMPRESSORS[name], key=0)
    with jax.set_mesh(mesh):
        grads = jax.device_put(jnp.ones((4, 3)), jax.P('model', None))
        with pytest.raises(ValueError, match=r"sharded over \('model',\) of an explicit mesh"):
            jax.jit(tx.update)(grads, tx.init(jnp.ones((4, 3))))
