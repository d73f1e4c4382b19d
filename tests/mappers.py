"""The mapper is a parameter of a test: one worker function under vmap, pmap and shard_map.

`train` takes a chain and a loss, places params and state as each mapper wants them, and gives
back what the simulator would.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradzip as gz

P = jax.P
AXIS = 'data'
MAPPERS = ('vmap', 'pmap', 'shard_map', 'shard_map unchecked')
Step = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


def adam(learning_rate: float) -> optax.GradientTransformation:
    """optax.adam, which counts on the promotion that the tests forbid to gradzip."""
    inner = optax.adam(learning_rate)

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion('standard'):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def train_step(tx: optax.GradientTransformation, loss: Callable, axis: Any = AXIS) -> Step:
    """(params, state, batch) -> (params, state, mean loss), as a user would write it."""

    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(gz.localize(params, axis), batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, jax.lax.pmean(value, axis)

    return step


def mesh_of(workers: int) -> jax.sharding.Mesh:
    """The first so many devices in a row."""
    return jax.sharding.Mesh(jax.devices()[:workers], (AXIS,))


def map_step(step: Step, state: Any, mapper: str, workers: int) -> Callable:
    """A jitted (params, state, batch) -> (params, state, out) over all workers."""
    if mapper == 'vmap':
        specs = gz.state_specs(state, 0, None)
        axes = (None, specs, 0)
        return jax.jit(jax.vmap(step, axes, (None, specs, None), axis_name=AXIS))
    if mapper == 'pmap':
        return jax.pmap(step, axis_name=AXIS, devices=jax.devices()[:workers])
    specs = gz.state_specs(state)
    return jax.jit(
        jax.shard_map(
            step,
            mesh=mesh_of(workers),
            in_specs=(P(), specs, P(AXIS)),
            out_specs=(P(), specs, P()),
            check_vma=mapper == 'shard_map',
        )
    )


def start(tx: optax.GradientTransformation, params: Any, mapper: str, workers: int) -> Any:
    """params and state as each mapper's idiom makes them, for all workers."""
    shapes = jax.eval_shape(tx.init, params)
    if mapper == 'vmap':
        specs = gz.state_specs(shapes, 0, None)
        rows = jnp.arange(workers)
        return params, jax.vmap(lambda _: tx.init(params), out_axes=specs, axis_name=AXIS)(rows)
    if mapper == 'pmap':
        return jax.tree.map(lambda x: jnp.stack([x] * workers), (params, tx.init(params)))
    mesh, specs = mesh_of(workers), gz.state_specs(shapes)
    init = jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=specs)
    return params, jax.jit(init)(params)


def train(
    tx: optax.GradientTransformation,
    loss: Callable,
    params: Any,
    batches: Any,
    mapper: str,
) -> tuple[Any, Any, list]:
    """Steps over batches of (steps, workers, ...): final params, final state, mean losses."""
    steps, workers = jax.tree.leaves(batches)[0].shape[:2]
    params, state = start(tx, params, mapper, workers)
    step = map_step(train_step(tx, loss), jax.eval_shape(lambda s: s, state), mapper, workers)
    values = []
    for i in range(steps):
        batch = jax.tree.map(lambda a, i=i: a[i], batches)
        if mapper.startswith('shard_map'):  # here the workers' batches are pieces of one array
            batch = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), batch)
        params, state, value = jax.block_until_ready(step(params, state, batch))
        values.append(value if mapper != 'pmap' else value[0])
    if mapper == 'pmap':
        for leaf in jax.tree.leaves(params):
            assert (leaf == leaf[:1]).all(), 'the workers drifted apart'
        params = jax.tree.map(lambda x: x[0], params)
    return params, state, values
