"""An array of any size as whole blocks and a short padded rest, for the CPU forms.

The shape of an array decides which loops XLA makes of it on CPU. If an array is padded as a whole,
its computation and the padding become one slow loop with a branch for each entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradzip._base import Array
from gradzip._kernels.words import WORD_BITS

PAD_WHOLE_UP_TO = 1 << 12  # entries; here padding the whole array costs less than a second piece


def in_one_piece(size: int, block: int) -> bool:
    """Whether `in_pieces` makes one piece of an array, padded or not."""
    return size <= PAD_WHOLE_UP_TO or size % _multiple(size, block) == 0


def in_pieces(encode: Callable[..., Any], flats: Array | tuple[Array, ...], block: int) -> Any:
    """encode(*pieces, start) of the whole blocks and of the padded rest, concatenated.

    Args:
      encode: computes a tree of arrays, each with as many entries for each block or word, from
        pieces whose size is a multiple of 32 and of `block`. `start` is the place of their first
        entry in the array.
      flats: arrays of one size.
      block: entries that must be in one piece. If one block holds the whole array, it may be cut.
    """
    flats = flats if isinstance(flats, tuple) else (flats,)
    size, multiple = flats[0].size, _multiple(flats[0].size, block)
    whole = 0 if in_one_piece(size, block) and size % multiple else size // multiple * multiple
    parts = [encode(*(flat[:whole] for flat in flats), 0)] if whole or not size else []
    if whole < size:
        padding = 0, (whole - size) % multiple
        parts.append(encode(*(jnp.pad(flat[whole:], padding) for flat in flats), whole))
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def _multiple(size: int, block: int) -> int:
    """The size of a piece is a multiple of this."""
    return WORD_BITS if block >= size else math.lcm(block, WORD_BITS)
