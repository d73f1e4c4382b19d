"""A total to which every worker's contribution is added, one after the other.

On CPU, small contributions of many workers are computed at once: a thousand turns of a loop take
longer than to add arrays of a hundred entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._axes import vary_like, varying
from gradzip._base import Array, Like, PyTree
from gradzip._kernels.platform import choose

TOGETHER = 1 << 18  # entries that are computed at once on CPU, which its cache holds
ENTRIES_TOGETHER = 1 << 16  # of sparse contributions, each with an index


def add_in_turn(
    add: Callable[[Any, PyTree], PyTree], total: PyTree, workers: int, at_once: int = 8
) -> PyTree:
    """add(worker, total) for worker 0, 1, ... in turn.

    An accelerator adds `at_once` contributions in one pass over memory. On CPU a contribution is
    added in a pass of its own, which takes no longer, because computing it takes most of the time,
    and is compiled once. The total is a tree of arrays.
    """
    return choose(
        total,
        cpu=lambda total: lax.fori_loop(0, workers, add, total),
        default=lambda total: lax.fori_loop(
            0, workers, add, total, unroll=max(1, min(workers, at_once))
        ),
    )


def sum_in_turn(one: Callable[..., Array], rows: tuple, like: Like, at_once: int = 8) -> Array:
    """The sum of one(*row) over the rows of workers.

    Args:
      one: computes an array with the shape and dtype of `like`.
      rows: trees of arrays with a leading axis of workers, which is not empty.
      like: shape and dtype.
      at_once: workers whose contributions an accelerator adds in one pass over memory.
    """
    workers = _workers(rows)
    several = min(workers, TOGETHER // max(like.size, 1))

    def in_turn(rows: tuple) -> Array:
        def add(worker: Array, total: Array) -> Array:
            return total + one(*_row(rows, worker + 1))

        return add_in_turn(add, one(*_row(rows, 0)), workers - 1, at_once)

    def together(rows: tuple) -> Array:
        def add(total: Array, some: tuple) -> Array:
            return total + _sum_of_rows(jax.vmap(one)(*some))

        return _in_chunks(add, _zeros(like, rows), rows, several)

    return in_turn(rows) if several < 2 else choose(rows, cpu=together, default=in_turn)


def add_entries(
    add: Callable[[Array, Array, Array], Array],
    entries: Callable[..., tuple[Array, Array]],
    rows: tuple,
    like: Like,
    kept: int,
) -> Array:
    """The sum of arrays that are zero but for the entries of one worker each.

    Args:
      add: adds values at indices to an array.
      entries: the values and indices of a worker, given its row.
      rows: trees of arrays with a leading axis of workers, which is not empty.
      like: shape and dtype of the sum.
      kept: how many entries a worker has.
    """
    workers, zeros = _workers(rows), _zeros(like, rows)
    several = min(workers, ENTRIES_TOGETHER // max(kept, 1))

    def in_turn(rows: tuple) -> Array:
        def receive(worker: Array | int, total: Array) -> Array:
            return add(total, *entries(*_row(rows, worker)))

        return lax.fori_loop(1, workers, receive, receive(0, zeros))

    def together(rows: tuple) -> Array:
        def receive(total: Array, some: tuple) -> Array:
            values, indices = jax.vmap(entries)(*some)
            return add(total, values.ravel(), indices.ravel())

        return _in_chunks(receive, zeros, rows, several)

    return in_turn(rows) if several < 2 else choose(rows, cpu=together, default=in_turn)


def _in_chunks(
    add: Callable[[Array, tuple], Array], total: Array, rows: tuple, several: int
) -> Array:
    """add(total, some rows) for so many rows at a time, and then for the rest."""
    workers = _workers(rows)

    def some(start: Array | int, count: int) -> tuple:
        cut = lax.dynamic_slice_in_dim
        return rows if count == workers else jax.tree.map(lambda a: cut(a, start, count), rows)

    turns, rest = divmod(workers, several)
    if turns == 1:
        total = add(total, some(0, several))
    else:
        total = lax.fori_loop(
            0, turns, lambda turn, total: add(total, some(turn * several, several)), total
        )
    return add(total, some(workers - rest, rest)) if rest else total


def _zeros(like: Like, rows: tuple) -> Array:
    """Zeros that vary over the axes of `jax.shard_map` as the rows do, which loops ask for."""
    most = max(jax.tree.leaves(rows), key=lambda row: len(varying(row)))
    return vary_like(jnp.zeros(like.shape, like.dtype), most)


def _workers(rows: tuple) -> int:
    return jax.tree.leaves(rows)[0].shape[0]


def _row(rows: tuple, worker: Array | int) -> tuple:
    return jax.tree.map(lambda a: a[worker], rows)


def _sum_of_rows(x: Array) -> Array:
    """The sum over the first axis, as a product, which XLA:CPU computes with vectors."""
    return jnp.tensordot(jnp.ones(x.shape[0], x.dtype), x, 1, precision='highest')
