"""A total to which every worker's contribution is added, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import lax

from gradzip._base import PyTree
from gradzip._kernels.platform import choose


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
