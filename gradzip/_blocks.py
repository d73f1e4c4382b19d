"""A leaf as blocks of consecutive entries, each of which shares a few numbers.

The quantizers share this. All arrays here are flat.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def block_of(size: int, block: int | None) -> int:
    """The length of a block in a leaf of some size; None means that the leaf is one block."""
    return max(1, size if block is None else min(block, size))


def wide(x: Array) -> Array:
    """All entries in row-major order, in at least float32: f[n]."""
    return x.ravel().astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def in_rows(flat: Array, block: int) -> Array:
    """The blocks as the rows of a matrix, the last one padded with zeros: [blocks, block]."""
    return jnp.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def per_entry(numbers: Array, block: int, size: int, start: int = 0) -> Array:
    """The number of its block for each of `size` entries from place `start` on: f[size].

    Args:
      numbers: one a block.
      block: entries of a block; `start` is a multiple of it unless there is one block.
      size: how many entries; those after the last block get zero.
      start: the place of the first entry.
    """
    if numbers.size == 1:
        return jnp.broadcast_to(numbers, (size,))
    first, count = start // block, -(-size // block)
    numbers = numbers[first : first + count]
    numbers = jnp.pad(numbers, (0, count - numbers.size))
    return jnp.broadcast_to(numbers[:, None], (count, block)).ravel()[:size]


def reciprocal(scale: Array) -> Array:
    """1 / scale, and 0 for 0.

    Codes are defined by products with it on every platform, so that all platforms write the same
    codes. On CPU, XLA stores the quotient of every entry, because it holds a division for too
    expensive to compute twice, but it fuses a product.
    """
    return jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)


def rescaled(payload: Any, factor: Array | float) -> Any:
    """The payload with its field `scale` multiplied by `factor`."""
    return payload._replace(scale=payload.scale * jnp.asarray(factor, payload.scale.dtype))
