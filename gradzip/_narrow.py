"""A memory in fewer bits than its leaf: bfloat16, or int8 in blocks, rounded at random.

A memory grows by small steps: an entry that is sent once in a thousand steps is a thousand times
as large by then as what each step adds. Rounded to the nearest bfloat16, which has eight digits, it
would stop growing when it is 256 times as large, and what it still receives would be lost. Rounded
up or down at random, with the probabilities that make the mean right, every gradient arrives in
expectation:

    E e' = v - drop C(v)

An int8 memory has one scale, max / 127, for every block of 256 consecutive entries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _noise as noise
from gradzip._base import Array, Key, PyTree, memory_like

BLOCK = 256
LEVELS = 127
WIDE = jnp.dtype('float32'), jnp.dtype('float64')
BFLOAT16, INT8 = jnp.dtype('bfloat16'), jnp.dtype('int8')


class Int8Blocks(NamedTuple):
    """An array in eight bits an entry, and one scale for each block of 256 entries.

    `codes` is i8 in the shape of the array, where code c stands for c times the scale of its block.
    `scales` is f[blocks], in the dtype of the array.
    """

    codes: Array
    scales: Array


def check_dtype(owner: str, dtype: Any) -> Any:
    """Returns a dtype that a memory may have, or None for the leaf's own; raises for others."""
    if dtype is None:
        return None
    try:
        known = jnp.dtype(dtype)
    except TypeError:
        known = None
    if known not in (*WIDE, BFLOAT16, INT8):
        raise TypeError(
            f"{owner}(memory_dtype=...) must be 'float32', 'float64', 'bfloat16' or 'int8'; got "
            f'{dtype!r}.'
        )
    return known


def rounds_at_random(dtype: Any) -> bool:
    """Whether a memory of a dtype that `check_dtype` returned needs a key."""
    return dtype in (BFLOAT16, INT8)


def zeros(params: PyTree, dtype: Any) -> PyTree:
    """Returns a memory of zeros for every leaf."""

    def one(leaf: Any) -> Any:
        like = memory_like(leaf)
        if dtype != INT8:
            return jnp.zeros(like.shape, dtype or like.dtype)
        scales = jnp.zeros(-(-leaf.size // BLOCK), like.dtype)
        return Int8Blocks(jnp.zeros(like.shape, INT8), scales)

    return jax.tree.map(one, params)


def stored(tree: PyTree, dtype: Any, key: Key) -> PyTree:
    """Returns every leaf of a tree as a memory of a dtype that rounds at random.

    Args:
      tree: tree of arrays, in at least float32.
      dtype: bfloat16 or int8.
      key: of this step and worker, for these roundings alone.
    """
    leaves, treedef = jax.tree.flatten(tree)
    store = in_int8 if dtype == INT8 else _in_bfloat16
    draws = [
        noise.bits(jax.random.fold_in(key, i), leaf.shape) >> 16 for i, leaf in enumerate(leaves)
    ]
    return treedef.unflatten(map(store, leaves, draws))


def wide(memory: Array | Int8Blocks) -> Array:
    """Returns one memory as an array; all but `Int8Blocks` is one already.

    It also takes a memory with a leading axis of one row.
    """
    if not isinstance(memory, Int8Blocks):
        return memory
    codes, scales = memory.codes, memory.scales.ravel()
    each = blocks.per_entry(scales, BLOCK, codes.size)
    return codes.astype(scales.dtype) * each.reshape(codes.shape)


def is_int8(part: Any) -> bool:
    """Whether part of a state is an int8 memory."""
    return isinstance(part, Int8Blocks)


def in_int8(x: Array, draws: Array | None = None) -> Int8Blocks:
    """Returns an array in eight bits an entry, rounded by uniform 16-bit draws or to the nearest.

    A block with a NaN becomes NaN as a whole.
    """
    rows = blocks.in_rows(x.ravel(), BLOCK)
    scales = jnp.max(jnp.abs(rows), axis=1, initial=0) / LEVELS
    ratio = x * blocks.per_entry(blocks.reciprocal(scales), BLOCK, x.size).reshape(x.shape)
    shift = 0.5 if draws is None else draws.astype(x.dtype) * 2.0**-16
    codes = jnp.clip(jnp.floor(ratio + shift), -LEVELS, LEVELS).astype(INT8)
    return Int8Blocks(codes, scales)


def _in_bfloat16(x: Array, draws: Array) -> Array:
    """Adds a random number below one unit of the last place that stays, and cuts the rest off."""
    x = x.astype(jnp.float32)
    words = lax.bitcast_convert_type(x, jnp.uint32) + draws
    cut = lax.bitcast_convert_type(words & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), cut, x).astype(BFLOAT16)
