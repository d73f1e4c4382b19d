"""An exact mean inside a node, and any exchange between nodes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from gradzip import (
    _axes as axes,
    _checks as checks,
    _collectives as collectives,
    _validation as validation,
)
from gradzip._base import Array, Like, PerWorker, PyTree, memory_like
from gradzip._buffer import LANES
from gradzip._compat import varying

TILE_ROWS = 16


def hierarchical(
    inner: optax.GradientTransformation, local_axis: str, local_size: int
) -> optax.GradientTransformationExtraArgs:
    """Averages exactly over `local_axis`; each worker runs `inner` on its share of the result.

    A step is one reduce-scatter over the fast local links, `inner` over the slow links for
    1 / local_size of the entries, and one all-gather over the local links. The share of a leaf with
    two or more axes is a band of its rows, so that PowerSGD still sees a matrix; that of any other
    leaf is a piece of the flat array. Both are padded with zeros. The shares of a node's workers
    differ, so every part of inner's state is marked with the local axis, including metrics. Random
    schemes draw the same numbers for each share of a leaf.

    Args:
      inner: an exchange over the outer axis, such as `error_feedback(TopK(0.01), 'node')`. The
        optimizer, which comes after it, belongs outside.
      local_axis: the mapped axis of the workers inside a node.
      local_size: its size, at least 1.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      ValueError: local_size below 1; at trace time, an axis that is not mapped or has another size.
      TypeError: local_size is not an integer, or local_axis is not a string.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> tx = gz.hierarchical(gz.error_feedback(gz.TopK(0.1), 'node'), 'gpu', local_size=4)
      >>> tx.init(jnp.zeros(100)).error.axes
      ('node', 'gpu')
    """
    checks.integer('hierarchical', 'local_size', local_size, 1)
    if not isinstance(local_axis, str):
        raise TypeError(f'hierarchical(local_axis=...) must be a string; got {local_axis!r}.')
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> PyTree:
        validation.check_updates(params, params)
        shares = [_share_like(p, local_size) for p in jax.tree.leaves(params)]
        zeros = [jnp.zeros(share.shape, share.dtype) for share in shares]
        return _mark(
            inner.init(jax.tree.unflatten(jax.tree.structure(params), zeros)),
            local_axis,
            running=False,
        )

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any):
        validation.check_updates(updates, updates if params is None else params)
        axes.check_local(updates, local_axis)
        _check_size(local_axis, local_size)
        by_axes = {part.axes: part for part in jax.tree.leaves(state, is_leaf=_is_marked)}
        for part in by_axes.values():
            updates = axes.nan_if_misplaced(updates, part, part.axes)
        own = axes.localize(_unmark(state, local_axis, local_size), local_axis)
        my_params = None if params is None else _own_blocks(params, local_axis, local_size)
        shares = _scattered_means(updates, local_axis, local_size)
        shares, own = inner.update(shares, own, my_params, **extra)
        return _restored(shares, updates, local_axis), _mark(own, local_axis, running=True)

    return optax.GradientTransformationExtraArgs(init, update)


def _mark(state: PyTree, local_axis: str, *, running: bool) -> PyTree:
    """Marks every part of a state as differing over the local axis, in addition to other axes."""

    def one(part: PyTree) -> PerWorker:
        names = (*part.axes, local_axis) if isinstance(part, PerWorker) else (local_axis,)
        rows = part.rows if isinstance(part, PerWorker) else part[None]
        worker = axes.worker_index(names)[None] if running else jnp.full([1], -1, jnp.int32)
        return PerWorker(rows, names, worker)

    return jax.tree.map(one, state, is_leaf=_is_marked)


def _unmark(state: PyTree, local_axis: str, local_size: int) -> PyTree:
    """Returns the state as `inner` itself made it, without the marks that `_mark` added."""

    def one(part: PerWorker) -> PyTree:
        outer = part.axes[:-1]
        if not outer:
            return axes.unwrap_local(part, local_axis)
        worker = None if part.worker is None else part.worker // local_size  # -1 stays -1
        return PerWorker(part.rows, outer, worker)

    return jax.tree.map(one, state, is_leaf=_is_marked)


def _is_marked(part: PyTree) -> bool:
    return isinstance(part, PerWorker)


def _check_size(local_axis: str, local_size: int) -> None:
    size = lax.axis_size(local_axis)
    if size != local_size:
        raise ValueError(
            f'hierarchical(local_size={local_size}), but axis {local_axis!r} has {size} workers: '
            f'pass local_size={size}.'
        )


def _share_like(x: Any, size: int) -> Like:
    """Returns the shape of a share: a band of rows if there are enough, else a flat piece."""
    if x.ndim >= 2 and x.shape[0] >= size:
        return Like((-(-x.shape[0] // size), *x.shape[1:]), memory_like(x).dtype)
    return Like((-(-x.size // size),), memory_like(x).dtype)


def _blocks(x: Array, size: int) -> Array:
    """Returns x cut into its shares: (size, *share)."""
    share = _share_like(x, size)
    bands = x if share.ndim == x.ndim and x.ndim >= 2 else x.ravel()
    padding = [(0, size * share.shape[0] - bands.shape[0])] + [(0, 0)] * (bands.ndim - 1)
    return jnp.pad(bands, padding).reshape(size, *share.shape).astype(share.dtype)


def _joined(blocks: Array, like: Array) -> Array:
    """Inverts `_blocks`; the result has like's shape and dtype."""
    flat = blocks.reshape(-1)[: like.size]  # in both forms, the padding is at the end
    return flat.reshape(like.shape).astype(like.dtype)


def _own_blocks(params: PyTree, local_axis: str, size: int) -> PyTree:
    me = lax.axis_index(local_axis)
    return jax.tree.map(lambda p: _blocks(p, size)[me], params)


def _alike(arrays: list[Array]) -> list[list[int]]:
    """Returns the indices of arrays that can be joined: of one dtype, and varying over one set."""
    groups: dict[Any, list[int]] = {}
    for i, x in enumerate(arrays):
        groups.setdefault((x.dtype, varying(x)), []).append(i)
    return list(groups.values())


def _scattered_means(updates: PyTree, local_axis: str, size: int) -> PyTree:
    """Returns this worker's share of the local mean, with one reduce-scatter for each dtype."""
    leaves_, treedef = jax.tree.flatten(updates)
    blocks = [_blocks(x, size) for x in leaves_]
    shares = list(blocks)
    for group in _alike(blocks):
        table = _tiled(jnp.concatenate([blocks[i].reshape(size, -1) for i in group], axis=1))
        mine = (lax.psum_scatter(table, local_axis) / size).reshape(-1)
        _cut(mine, group, [blocks[i].shape[1:] for i in group], shares)
    return treedef.unflatten(shares)


def _restored(shares: PyTree, updates: PyTree, local_axis: str) -> PyTree:
    """Returns the shares of all workers together, with one all-gather for each dtype."""
    leaves_, treedef = jax.tree.flatten(updates)
    mine = jax.tree.leaves(shares)
    whole = list(mine)
    for group in _alike(mine):
        table = _tiled(jnp.concatenate([mine[i].reshape(1, -1) for i in group], axis=1))[0]
        everyones = collectives.gather(table, local_axis)
        everyones = everyones.reshape(everyones.shape[0], -1)
        _cut(everyones, group, [mine[i].shape for i in group], whole)
    return treedef.unflatten([_joined(w, x) for w, x in zip(whole, leaves_, strict=True)])


def _tiled(table: Array) -> Array:
    """Returns (n, total) as (n, 16 r, 128), padded with zeros.

    On TPU, a gather of any other shape becomes an all-reduce of as many times the bytes.
    """
    padded = jnp.pad(table, ((0, 0), (0, -table.shape[1] % (TILE_ROWS * LANES))))
    return padded.reshape(table.shape[0], -1, LANES)


def _cut(flat: Array, group: list[int], shapes: list[tuple[int, ...]], into: list[Array]) -> None:
    """Cuts [..., total] into arrays of these shapes and stores them at the group's indices."""
    start = 0
    for i, shape in zip(group, shapes, strict=True):
        stop = start + math.prod(shape)
        into[i] = flat[..., start:stop].reshape(*flat.shape[:-1], *shape)
        start = stop
