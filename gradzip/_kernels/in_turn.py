"""A total to which every worker's contribution is added, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array, Like, PyTree
from gradzip._kernels.platform import choose

TOGETHER = 1 << 18  # entries that are computed at once on CPU, which its cache holds


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

    On CPU, small contributions are computed for many workers at once: a thousand turns of a loop
    take longer than to add arrays of a hundred entries.

    Args:
      one: computes an array with the shape and dtype of `like`.
      rows: trees of arrays with a leading axis of workers, which is not empty.
      like: shape and dtype.
      at_once: workers whose contributions an accelerator adds in one pass over memory.
    """
    workers = jax.tree.leaves(rows)[0].shape[0]
    several = min(workers, TOGETHER // max(like.size, 1))

    def contribution(rows: tuple, worker: Array | int) -> Array:
        return one(*jax.tree.map(lambda a: a[worker], rows))

    def in_turn(rows: tuple) -> Array:
        def add(worker: Array, total: Array) -> Array:
            return total + contribution(rows, worker + 1)

        return add_in_turn(add, contribution(rows, 0), workers - 1, at_once)

    def together(rows: tuple) -> Array:
        def of_some(start: Array | int, count: int) -> Array:
            def some(a: Array) -> Array:
                return a if count == workers else lax.dynamic_slice_in_dim(a, start, count)

            return _sum_of_rows(jax.vmap(one)(*jax.tree.map(some, rows)))

        def add(turn: Array, total: Array) -> Array:
            return total + of_some(turn * several, several)

        turns, rest = divmod(workers, several)
        total = lax.fori_loop(1, turns, add, of_some(0, several))
        return total + of_some(workers - rest, rest) if rest else total

    return in_turn(rows) if several < 2 else choose(rows, cpu=together, default=in_turn)


def _sum_of_rows(x: Array) -> Array:
    """The sum over the first axis, as a product, which XLA:CPU computes with vectors."""
    ones = jnp.ones(x.shape[0], x.dtype)
    return jnp.tensordot(ones, x, 1, precision='highest')
