"""A training step over a mesh of devices, without writing shard_map."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradzip import (
    _agreement as agreement,
    _axes as axes,
    _collectives as collectives,
    _traffic as traffic,
)
from gradzip._base import Array, AxisName, PyTree
from gradzip._compat import varying
from gradzip._compressors.identity import Identity
from gradzip._feedback.compress import compress
from gradzip._quantities import speed

COSTS = 100, 10, 1  # ms of a step that an exchange may take longer than the mean's, in the report

Loss = Callable[[PyTree, PyTree], Array]


class Training(NamedTuple):
    """What a step takes and returns, placed on the mesh."""

    params: PyTree  # the same on every worker
    state: PyTree  # of the chain


def data_parallel(
    loss: Loss,
    params: PyTree,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    axis_name: AxisName,
    *,
    printer: Callable[[str], Any] | None = print,
) -> tuple[Training, Callable[[Training, PyTree], tuple[Training, Array]]]:
    """Places params and state on a mesh and returns them together with a compiled step.

    Every worker takes the gradient of `loss` on its part of the batch; `tx` exchanges the gradients
    and computes the update. Parameters are the same on every worker, and each worker keeps its own
    memory. A step donates the buffers of its input: use the state that it returns.

    What a step sends is printed once: the bytes that a worker passes to collectives, the ratio to
    the exact float32 mean, and the link speed (for ring algorithms) below which compression pays,
    for three assumptions of what it costs to compute. `gradzip.plan` measures that cost.

    Args:
      loss: function of (params, batch) to a scalar, the mean over the batch that it is given.
      params: tree of arrays; they are copied.
      tx: a chain with an exchange over axis_name, then an optimizer.
      mesh: the devices. Over several processes, all of them pass the same params.
      axis_name: the axis of workers, or a tuple of axes. It must name all axes of the mesh.
      printer: a function that receives the report; None prints nothing.

    Returns:
      `(state, step)`. `step(state, batch)` returns the next state and the mean loss. The batch is a
      tree of arrays whose leading axis is split among the workers in order. Over several processes,
      each passes a batch of the same shape, of which the rows of its own workers are used, or an
      array that is placed on the mesh already.

    Raises:
      TypeError: mesh is not a Mesh.
      ValueError: axes that are not those of the mesh; over several processes, params whose shapes
        differ between them (`check_same_shapes`). At the first step: a chain without an exchange, a
        leaf of the batch that cannot be split evenly, a loss that is not a scalar, or a batch whose
        shape differs between processes. Batches are compared again when their shapes change; a
        change on a single process is not detected.

    Example:
      >>> import jax, jax.numpy as jnp, optax, gradzip as gz
      >>> mesh = jax.make_mesh((jax.device_count(),), ('data',))
      >>> tx = optax.chain(gz.error_feedback(gz.TopK(0.5), 'data'), optax.sgd(0.1))
      >>> state, step = gz.data_parallel(
      ...     lambda w, x: jnp.mean((x @ w - 1) ** 2), jnp.zeros(4), tx, mesh, 'data', printer=None)
      >>> state, value = step(state, jnp.ones((8, 4)))
      >>> float(value)
      1.0
    """
    names = _check_mesh(mesh, axis_name)
    agreement.check_same_shapes(params, mesh)
    seen: set[tuple] = set()  # batches that are known to be of one shape everywhere
    shapes = jax.eval_shape(tx.init, params)
    specs = Training(params=jax.P(), state=axes.state_specs(shapes))
    if printer is not None:
        printer(report(tx, params, dict(mesh.shape)))

    def start(params: PyTree) -> Training:
        # A step donates its input, and the caller's params must not be donated with it.
        return Training(jax.tree.map(jnp.copy, params), tx.init(params))

    def worker(training: Training, batch: PyTree) -> tuple[Training, Array]:
        value, grads = jax.value_and_grad(loss)(axes.localize(training.params, axis_name), batch)
        updates, state = tx.update(grads, training.state, training.params)
        _check_exchanged(updates, names)
        moved = Training(optax.apply_updates(training.params, updates), state)
        return moved, collectives.mean(value, axis_name)

    whole, split = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P(names))
    mapped = jax.shard_map(
        worker, mesh=mesh, in_specs=(specs, jax.P(names)), out_specs=(specs, jax.P())
    )
    compiled = jax.jit(mapped, donate_argnums=0)

    def step(training: Training, batch: PyTree) -> tuple[Training, Array]:
        if not split.is_fully_addressable:
            _agree_once(batch, mesh, seen)
        _check_batch(batch, mesh.size)
        return compiled(training, jax.tree.map(lambda x: _place(x, split), batch))

    make = jax.jit(jax.shard_map(start, mesh=mesh, in_specs=jax.P(), out_specs=specs))
    return make(jax.device_put(params, whole)), step


def report(tx: optax.GradientTransformation, params: PyTree, axis_sizes: dict[str, int]) -> str:
    """Returns a few lines on what a step sends, compared with the exact float32 mean."""
    likes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    exact = compress(Identity(), tuple(axis_sizes))
    entries = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(likes))
    size, full = traffic.step_bytes(tx, likes, axis_sizes), 4 * entries
    workers = math.prod(axis_sizes.values())
    if workers == 1:
        return 'gradzip: with one worker, nothing is sent.'
    saved = traffic.link_bytes(exact, likes, axis_sizes) - traffic.link_bytes(tx, likes, axis_sizes)
    head = (
        f'gradzip: {workers} workers, {entries:,} entries; {size:,} bytes per worker and step, '
        f'{full / max(size, 1):.3g} times fewer than float32.'
    )
    if saved <= 0:
        return f'{head}\nIt never pays: every link carries {-saved:,} bytes more than for a mean.'
    below = ', '.join(f'{speed(8e3 * saved / cost)} if it costs {cost} ms' for cost in COSTS)
    return (
        f'{head}\nEvery link carries {saved:,} bytes less per step. Compression pays on links '
        f'slower than {below}.'
    )


def _check_mesh(mesh: Any, axis_name: AxisName) -> tuple[str, ...]:
    if not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f'data_parallel(mesh=...) must be a jax.sharding.Mesh; got {mesh!r}.')
    names = axes.names_of(axis_name)
    missing = [name for name in names if name not in mesh.shape]
    if missing or not names:
        raise ValueError(
            f'data_parallel(axis_name={axis_name!r}): the mesh has the axes {mesh.axis_names}. '
            'Pass the one of the workers, or a tuple of all of them.'
        )
    rest = [name for name in mesh.axis_names if name not in names]
    if rest:
        raise ValueError(
            f'data_parallel(axis_name={axis_name!r}) leaves out {rest} of the axes of the mesh. '
            'All must be axes of workers: parameters that are sharded are not supported.'
        )
    return names


def _place(x: Any, split: jax.NamedSharding) -> Array:
    """Returns one leaf of a batch, placed on the mesh. Each process places the rows of its workers.

    `device_put` would send the whole batch between the processes in every step to compare it.
    """
    if split.is_fully_addressable or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, split)
    rows = np.asarray(x)
    return jax.make_array_from_callback(rows.shape, split, lambda index: rows[index])


def _agree_once(batch: PyTree, mesh: jax.sharding.Mesh, seen: set[tuple]) -> None:
    """Compares the shapes of a batch between processes when they are new, not in every step."""
    leaves, tree = jax.tree.flatten(batch)
    shapes = tree, *((jnp.shape(x), getattr(x, 'dtype', None)) for x in leaves)
    if shapes not in seen:
        agreement.check_same_shapes(batch, mesh)
        seen.add(shapes)


def _check_batch(batch: PyTree, workers: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        shape = jnp.shape(leaf)
        if not shape or shape[0] % workers:
            raise ValueError(
                f'The batch at {axes.path_of(path)!r} has shape {shape}: its leading axis must be '
                f'a multiple of the {workers} workers, among whom it is split.'
            )


def _check_exchanged(updates: PyTree, names: tuple[str, ...]) -> None:
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        if left := sorted(varying(update) & set(names)):
            raise ValueError(
                f'The chain leaves an update at {axes.path_of(path)!r} that differs between the '
                f'workers of {tuple(left)}: nothing exchanges over them. Put an exchange into it, '
                f'such as gradzip.error_feedback(gradzip.TopK(0.01), axis_name={names!r}).'
            )
