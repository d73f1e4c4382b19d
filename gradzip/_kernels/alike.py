"""One function on many arrays, computed together for all arrays of a shape.

XLA:CPU compiles equal kernels once, so that the calls for large arrays of one shape cost little
time to compile.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Like
from gradzip._kernels.parts import entries

# Arrays of one shape are computed together, if there are at least so many. Small ones are stacked
# and computed at once: then an accelerator starts one kernel for all of them instead of one for
# each. A selection in a larger array has branches and takes long to compile, so it runs in a loop:
# 150 leaves of TopK took 41 s to compile without loops, and 9 s with them at a tenth more time a
# step.
FEWEST_ALIKE = 3
AT_ONCE_UP_TO = 1 << 14  # entries; here the copies cost less than the calls that they replace


def one_by_one(likes: list[Like], at_once: float, in_loop: float) -> list[bool]:
    """Which arrays `each`, with the same limits, does not stack with others."""
    count = collections.Counter((like.shape, like.dtype) for like in likes)
    largest = max(at_once, in_loop)
    return [count[x.shape, x.dtype] < FEWEST_ALIKE or x.size > largest for x in likes]


def each(
    function: Callable, likes: list[Like], at_once: float, in_loop: float, *columns: list
) -> list:
    """The results of function(like, *row) for every array.

    Args:
      function: of the shape and dtype of an array and of one entry of each column, to a tree.
      likes: shape and dtype of every array.
      at_once: entries of the largest array that is stacked with others of its shape, for one call.
      in_loop: the same for a loop over them; arrays that are larger are handled one by one.
      *columns: lists with one tree of arrays for each array.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, like in enumerate(likes):
        groups.setdefault((like.shape, like.dtype), []).append(i)
    out: list = [None] * len(likes)
    for members in groups.values():
        one = jax.jit(functools.partial(function, likes[members[0]]))  # traced once
        rows = [[column[i] for column in columns] for i in members]
        size = likes[members[0]].size
        if len(members) < FEWEST_ALIKE or size > max(at_once, in_loop):
            results = [one(*row) for row in rows]
        else:
            stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *rows)
            over = jax.vmap if size <= at_once else _looped
            found = over(lambda row, one=one: one(*row))(stacked)
            leaves, treedef = jax.tree.flatten(found)
            split = zip(*(entries(leaf) for leaf in leaves), strict=True)
            results = [treedef.unflatten(parts) for parts in split]
        for i, result in zip(members, results, strict=True):
            out[i] = result
    return out


def _looped(function: Callable) -> Callable:
    return lambda stacked: lax.map(function, stacked)
