"""A new state on a mesh: every worker receives its own memory, and the same of all else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradzip import _axes as axes
from gradzip._base import PerWorker, PyTree
from gradzip._specs import state_specs

P = jax.P


def distribute(state: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
    """Places a new state on a mesh, for a `shard_map` of your own.

    It takes what `tx.init` returns, and any tree that contains such a state: a
    `flax.training.train_state.TrainState`, an `nnx.Optimizer`, or a tuple of an NNX model and its
    optimizer. Every `PerWorker` part receives one row for each worker, and all other arrays are
    replicated. `gradzip.state_specs` of the result is its specification for `in_specs` and
    `out_specs`. Under `pmap`, use `flax.jax_utils.replicate` in its place.

    On a mesh of `jax.make_mesh`, whose axes are Explicit, a `shard_map` takes only arrays that lie
    as its `in_specs` say: place batches too, by
    `jax.device_put(batch, jax.NamedSharding(mesh, jax.P('data')))`.

    Args:
      state: a state that no step has changed yet, made outside of a mapper.
      mesh: a mesh with the axes of the workers. Over several processes, all of them pass the same
        state.

    Returns:
      The tree with its arrays on the mesh. They are copies, so that a step may be given them as
      donated arguments.

    Raises:
      TypeError: mesh is not a Mesh.
      ValueError: the mesh lacks an axis of the state; the state has been distributed before; or it
        is one of `flax.nnx.state`, which does not keep the axes of a memory.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> mesh = jax.make_mesh((jax.device_count(),), ('data',))
      >>> state = gz.distribute(gz.error_feedback(gz.TopK(0.5), 'data').init(jnp.zeros(3)), mesh)
      >>> state.error.rows.shape == (jax.device_count(), 3)
      True
    """
    if not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f'distribute(mesh=...) must be a jax.sharding.Mesh; got {mesh!r}.')
    specs = state_specs(state)
    leaves = jax.tree_util.tree_leaves_with_path(state, is_leaf=_is_marked)
    for path, part in leaves:
        if isinstance(part, PerWorker):
            _check_new(axes.path_of(path), part, mesh)
    whole = jax.device_put(state, jax.NamedSharding(mesh, P()))
    copy = jax.shard_map(
        lambda tree: jax.tree.map(jnp.copy, tree), mesh=mesh, in_specs=P(), out_specs=specs
    )
    return jax.jit(copy)(whole)


def _is_marked(part: Any) -> bool:
    return isinstance(part, PerWorker)


def _check_new(where: str, part: PerWorker, mesh: jax.sharding.Mesh) -> None:
    if missing := [name for name in part.axes if name not in mesh.shape]:
        raise ValueError(
            f'distribute: the memory at {where!r} is of the workers of {part.axes}, but the mesh '
            f'has the axes {mesh.axis_names} and not {missing}.'
        )
    rows = {row.shape[0] for row in jax.tree.leaves(part.rows)} - {1}
    if rows:
        raise ValueError(
            f'distribute: the memory at {where!r} has rows of {rows.pop()} workers already. It '
            'takes what init returns; continue with another number of workers by gradzip.resize.'
        )
