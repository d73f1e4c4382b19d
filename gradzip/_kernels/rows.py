"""The largest entries of every block of an array.

The plain form is `lax.top_k` of every row of a matrix. On CPU that costs far more than memory
bandwidth, and on GPU it sorts whole rows, so large arrays are handled there by comparing the
entries of short blocks with each other, or a few candidates of longer ones. On TPU, where gathers
are slow, XLA has a kernel for the plain form. It turns the matrix around, so that large arrays of
float32 have a kernel that takes the entries out of the array in one pass.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.candidates import from_candidates, groups_for
from gradzip._kernels.fused import LANES, Flat, fused
from gradzip._kernels.magnitude import magnitude, sortable
from gradzip._kernels.platform import choose
from gradzip._kernels.rank import by_rank

SORT_ROWS_UP_TO = 1 << 17  # entries; here `lax.top_k` takes milliseconds and compiles faster
SORTED_AT_ONCE = 1 << 18  # entries, so that no temporary is as large as the array
RANK_WHOLE_UP_TO = 64  # entries of a block whose entries are all compared with each other
# A kernel handles blocks of whole rows of lanes, and blocks that divide one.
SHORTEST, LONGEST = 32, 1 << 13  # entries of a block in a kernel; 128 blocks are on the chip
MOST_KEPT = LANES  # entries of a block


def top_k(x: Array, block: int, k: int) -> Array:
    """Where the k entries of largest magnitude are in each whole block of a flat array.

    Ties go to the lower index; all NaN are equal, and larger than infinity.

    Returns:
      i32[x.size // block, k], ascending in each block.
    """
    if x.size <= SORT_ROWS_UP_TO or x.size < block:
        return _plain(x, block, k)
    return choose(
        x, default=lambda x: _by_comparing(x, block, k), tpu=lambda x: _plain(x, block, k)
    )


def has_kernel(size: int, dtype: Any, block: int, k: int) -> bool:
    """Whether `take_on_tpu` handles such an array in the place where this is traced."""
    whole = LANES % block == 0 or block % LANES == 0
    handled = SHORTEST <= block <= LONGEST and whole and k <= MOST_KEPT
    return handled and size >= block and fused(size, dtype)


def take_on_tpu(x: Flat, block: int, k: int) -> tuple[Array, Array, Array]:
    """The entries f32[blocks * k], what `top_k` returns but flat, and x with zeros there."""
    from gradzip._kernels import mosaic  # there is a TPU, or Pallas to compile for one

    values, offsets, rest = mosaic.blocks.take_largest(x, block, k)
    return values, offsets, rest


def _plain(x: Array, block: int, k: int) -> Array:
    _, indices = lax.top_k(sortable(magnitude(_rows(x, block))), k)
    return lax.sort(indices, dimension=1)


def _by_comparing(x: Array, block: int, k: int) -> Array:
    groups = groups_for(block, k)
    if block <= RANK_WHOLE_UP_TO:
        return by_rank(magnitude(_rows(x, block)), k)
    if groups:
        return from_candidates(x, block, k, groups, lambda: _in_batches(x, block, k))
    return _in_batches(x, block, k)


def _rows(x: Array, block: int) -> Array:
    return x[: x.size // block * block].reshape(-1, block)


def _in_batches(x: Array, block: int, k: int) -> Array:
    """The plain form, some rows at a time."""
    count = x.size // block
    batch = min(count, max(1, SORTED_AT_ONCE // block))

    def some(start: Array) -> Array:
        first = jnp.minimum(start, count - batch)  # the last batch overlaps the one before
        return _plain(lax.dynamic_slice(x, (first * block,), (batch * block,)), block, k)

    batches = -(-count // batch)
    out = lax.map(some, lax.iota(jnp.int32, batches) * batch)
    last = out[-1, batches * batch - count :]
    return jnp.concatenate([out[:-1].reshape(-1, k), last])
