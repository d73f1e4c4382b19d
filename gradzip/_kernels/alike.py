"""One function on many arrays, compiled once for all arrays of a shape.

XLA:CPU compiles equal kernels once, so that the calls for large arrays of one shape cost little
time to compile. A loop over small ones saves the rest, in which XLA handles every operation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Like
from gradzip._kernels.parts import entries

# A loop over arrays of one shape compiles its body once, but copies the arrays in and out. It pays
# if there are at least so many of a shape and they are small, or if a selection takes long to
# compile: 150 leaves of TopK took 41 s without loops, and 9 s with them at a tenth more time a
# step.
FEWEST_ALIKE = 3
LOOP_UP_TO = 1 << 14  # entries; here the copies cost less than the calls that they replace


def each(function: Callable, likes: list[Like], largest: float, *columns: list) -> list:
    """The results of function(like, *row) for every array.

    Args:
      function: of the shape and dtype of an array and of one entry of each column, to a tree.
      likes: shape and dtype of every array.
      largest: entries of the largest array that may be handled in a loop with others of its shape.
      *columns: lists with one tree of arrays for each array.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, like in enumerate(likes):
        groups.setdefault((like.shape, like.dtype), []).append(i)
    out: list = [None] * len(likes)
    for members in groups.values():
        one = jax.jit(functools.partial(function, likes[members[0]]))  # traced once
        rows = [[column[i] for column in columns] for i in members]
        if len(members) < FEWEST_ALIKE or likes[members[0]].size > largest:
            results = [one(*row) for row in rows]
        else:
            stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *rows)
            found = lax.map(lambda row, one=one: one(*row), stacked)
            leaves, treedef = jax.tree.flatten(found)
            split = zip(*(entries(leaf) for leaf in leaves), strict=True)
            results = [treedef.unflatten(parts) for parts in split]
        for i, result in zip(members, results, strict=True):
            out[i] = result
    return out
