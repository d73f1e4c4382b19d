"""The state of another number of workers, with the same mean of every memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradzip import _axes as axes, _checks as checks, _narrow as narrow
from gradzip._base import Array, PerWorker, PyTree


def resize(state: PyTree, workers: int) -> PyTree:
    """Returns a state for another number of workers, in which every memory keeps its mean.

    What the workers have not sent yet is shared out anew: the old memories are laid out over the
    unit interval, and each new worker receives the average over its part. From 8 to 4 workers, each
    new memory is the mean of two old ones; from 4 to 8, each old one is used twice. The mean over
    the workers stays as it was, so that nothing is lost: the sum of all updates plus the mean of
    the memories still equals the sum of the mean gradients. (A memory in bfloat16 or int8 keeps it
    up to one rounding to the nearest.)

    Args:
      state: a state as it is outside of the mapper, where a `PerWorker` part has one row for each
        worker, from `shard_map`, `vmap` or a checkpoint. Parts that are replicated stay as they are
        (under `pmap`, where they have a leading axis too, pass one worker's copy of them).
      workers: the new number of workers, at least 1.

    Returns:
      The state, with arrays on the default device. Place it as the mapper needs it.

    Raises:
      ValueError: workers below 1, or integers in a memory that differ between workers, such as the
        packed messages of `iag`: these have no mean. Start anew from `init` for those.
      TypeError: workers is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> memory = gz.PerWorker(jnp.array([[1.0], [3.0], [5.0], [7.0]]), axes=('data',))
      >>> gz.resize(memory, 2).rows
      Array([[2.],
             [6.]], dtype=float32)
    """
    checks.integer('resize', 'workers', workers, 1)

    def one(path: tuple, part: PyTree) -> PyTree:
        if not isinstance(part, PerWorker):
            return part
        rows = jax.tree_util.tree_map_with_path(
            lambda inner, row: _resized((*path, *inner), row, workers),
            part.rows,
            is_leaf=narrow.is_int8,
        )
        return PerWorker(rows, part.axes, _numbers(part.worker, workers))

    return jax.tree_util.tree_map_with_path(one, state, is_leaf=_is_marked)


def _is_marked(part: Any) -> bool:
    return isinstance(part, PerWorker)


def _numbers(worker: Array | None, workers: int) -> Array | None:
    """Returns the numbers of the new workers, or -1 for all if no step has been taken."""
    if worker is None:
        return None
    numbers = np.arange(workers) if np.all(np.asarray(worker) >= 0) else np.full(workers, -1)
    return jnp.asarray(numbers.reshape(workers, *[1] * (worker.ndim - 1)), jnp.int32)


def _resized(path: tuple, rows: Any, workers: int) -> Any:
    """Returns the rows of the new workers, each the average over its part of the old rows."""
    if narrow.is_int8(rows):
        new = jax.vmap(narrow.in_int8)(_resized(path, jax.vmap(narrow.wide)(rows), workers))
        return new._replace(scales=new.scales.reshape(workers, *rows.scales.shape[1:]))
    old = np.asarray(rows)
    if not jnp.issubdtype(rows.dtype, jnp.floating):
        if old.size and not (old == old[:1]).all():
            raise ValueError(
                f'The rows at {axes.path_of(path)!r} have dtype {rows.dtype} and differ between '
                'workers, so they have no mean. Make a new state with init for this part.'
            )
        return jnp.asarray(np.broadcast_to(old[:1], (workers, *old.shape[1:])))
    new = _shares(len(old), workers) @ old.astype(np.float64).reshape(len(old), -1)
    return jnp.asarray(new.reshape(workers, *old.shape[1:]), rows.dtype)


def _shares(old: int, new: int) -> np.ndarray:
    """Returns by how much new worker j covers old row i; each row sums to 1: f64[new, old].

    Every column sums to new / old, so the mean of the new rows is that of the old ones.
    """
    ends = [np.linspace(0, 1, count + 1) for count in (new, old)]
    low = np.maximum(ends[0][:-1, None], ends[1][None, :-1])
    high = np.minimum(ends[0][1:, None], ends[1][None, 1:])
    return np.maximum(high - low, 0) * new
