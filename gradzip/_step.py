"""A compiled training step, and what it takes: a state on a mesh, and a batch to split."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradzip import _agreement as agreement, _axes as axes
from gradzip._base import Array, PyTree


class Training(NamedTuple):
    """What a step takes and returns, placed on the mesh."""

    params: PyTree  # the same on every worker
    state: PyTree  # of the chain
    aux: PyTree = None  # auxiliary state of the model, the same on every worker
    key: PyTree = None  # the base key of the loss; None if it takes none
    count: Any = None  # i32[], the number of steps taken


class Step:
    """A compiled training step: `step(state, batch)` returns the next state and the mean loss."""

    def __init__(
        self,
        worker: Callable,
        mesh: jax.sharding.Mesh,
        names: tuple[str, ...],
        specs: Training,
        donate: bool,
    ):
        self._mesh, self._split = mesh, jax.NamedSharding(mesh, jax.P(names))
        self._workers = math.prod(mesh.shape[name] for name in names)
        self._seen: set[tuple] = set()  # batches that are known to have one shape everywhere
        mapped = jax.shard_map(
            worker,
            mesh=mesh,
            in_specs=(specs, self._split.spec),
            out_specs=(specs, jax.P(), jax.P()),
        )
        self._jitted = jax.jit(mapped, donate_argnums=0 if donate else ())

    def __call__(self, training: Training, batch: PyTree) -> tuple:
        """Returns the next state, the mean loss and, if the loss has any, its metrics."""
        _check_not_donated(training)
        batch = self._placed(batch)
        training, value, metrics = self._jitted(training, batch)
        return (training, value, metrics) if metrics else (training, value)

    def lower(self, training: Training, batch: PyTree) -> jax.stages.Lowered:
        """Returns the lowered step, as `jax.jit(...).lower` does. Nothing is run or donated."""
        return self._jitted.lower(training, self._placed(batch))

    def _placed(self, batch: PyTree) -> PyTree:
        if not self._split.is_fully_addressable:
            _agree_once(batch, self._mesh, self._seen)
        _check_batch(batch, self._workers)
        return jax.tree.map(lambda x: _place(x, self._split), batch)


def _check_not_donated(training: Training) -> None:
    if any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(training)):
        raise ValueError(
            'This state was given to an earlier step, which reused its buffers. Continue with the '
            'state that the step returned, or call data_parallel(..., donate=False).'
        )


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
