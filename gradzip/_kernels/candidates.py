"""The k largest of each of many rows, from a few candidates a row.

Every row is cut into groups. The k-th largest of the groups' maxima is at most the k-th largest
entry of the row, so that only entries not below it, hardly more than k, can be among the k largest.
These candidates are gathered into a few places a row and ranked. Groups are strided, so that
neighbours, which are often large together, are in different ones.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.bits import select
from gradzip._kernels.magnitude import magnitude
from gradzip._kernels.rank import by_rank, kth_of_rows
from gradzip._kernels.words import WORD_BITS, pack_masks

MOST_GROUPS = 128  # that are ranked; with more, `lax.top_k` is as fast
FEWEST_MEMBERS = 8  # of a group; with fewer, the maxima are as many as entries worth ranking


def groups_for(block: int, k: int) -> int:
    """The fewest groups that are at least 2 k; 0 if there is no such division."""
    sizes = [s for s in (32, 16, FEWEST_MEMBERS) if 2 * k * s <= block <= MOST_GROUPS * s]
    return block // sizes[0] if sizes and block % WORD_BITS == 0 else 0


def from_candidates(
    x: Array, block: int, k: int, groups: int, otherwise: Callable[[], Array]
) -> Array:
    """Where the k entries of largest magnitude are in each block, ascending: i32[blocks, k].

    Args:
      x: a flat array; what is left after the last whole block is ignored.
      block: entries of a block, which is a row.
      k: entries to find in each row.
      groups: of a row, at least 2 k.
      otherwise: computes the result if a row has more candidates than there are places for (many
        ties, or large entries in one group).
    """
    rows = x[: x.size // block * block].reshape(-1, block)
    grouped = magnitude(rows).reshape(rows.shape[0], -1, groups)
    bound = kth_of_rows(lax.reduce(grouped, jnp.zeros((), grouped.dtype), _larger, (1,)), k)
    words = _at_least(rows, jnp.maximum(bound, 1))
    # If fewer than k entries are not zero, the first k entries hold as many zeros as are missing.
    first = pack_masks(lax.iota(jnp.int32, block) < k)[0]
    words |= jnp.where(bound[:, None] == 0, first[None], 0)
    held = jnp.sum(lax.population_count(words), axis=1, dtype=jnp.int32)
    places = -(-(k + k // 2 + 16) // WORD_BITS) * WORD_BITS
    return lax.cond(
        jnp.all(held <= places), lambda: _ranked(x, block, k, words, held, places), otherwise
    )


def _larger(a: Array, b: Array) -> Array:
    return jnp.where(a > b, a, b)  # XLA vectorises this on CPU, but not `maximum` of integers


def _at_least(rows: Array, bound: Array) -> Array:
    """One bit an entry, set where it is not below the bound of its row: u32[rows, words]."""
    u = magnitude(rows).reshape(rows.shape[0], -1, WORD_BITS)
    # The sign of a difference of non-negative integers takes a third of the time of a comparison.
    below = bound[:, None, None] - 1 - u
    bits = lax.shift_right_logical(below, jnp.full_like(below, jnp.iinfo(u.dtype).bits - 1))
    shifts = lax.iota(jnp.uint32, WORD_BITS)
    return jnp.sum(bits.astype(jnp.uint32) << shifts[None, None], axis=2, dtype=jnp.uint32)


def _ranked(x: Array, block: int, k: int, words: Array, held: Array, places: int) -> Array:
    """Of the candidates in a mask, at most `places` a row, the k largest."""
    offsets = jax.vmap(lambda row: select(row, places))(words)
    starts = lax.iota(jnp.int32, words.shape[0]) * block
    u = magnitude(x.at[starts[:, None] + offsets].get(mode='promise_in_bounds'))
    chosen = by_rank(jnp.where(lax.iota(jnp.int32, places)[None] < held[:, None], u, -1), k)
    return jnp.take_along_axis(offsets, chosen, axis=1, mode='promise_in_bounds')
