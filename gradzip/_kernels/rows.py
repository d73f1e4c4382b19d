"""The largest entries of every block of an array, in plain XLA.

`lax.top_k` of every row of a matrix costs far more than memory bandwidth on a CPU. Here every block
is cut into groups. The k-th largest of the groups' maxima is at most the k-th largest entry of the
block, so only entries not below it can be among the k largest: hardly more than k of them. These
candidates are gathered into a few places a block and ranked by comparing each with each; so are all
entries of a short block. Where a block has more candidates than places (many ties, large entries in
one group), `lax.top_k` decides for all. Groups are strided, so that neighbours, which are often
large together, are in different ones.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._blocks import WORD_BITS
from gradzip._kernels.selection import magnitude, pack_mask, select, sortable

Test = Callable[[Array, Array, Array], Array]

SMALL = 1 << 17  # entries up to which lax.top_k costs milliseconds, and compiles faster
CHUNK = 1 << 18  # entries that lax.top_k is given at a time: no temporary as large as the array
SHORT = 64  # a block that is ranked whole
MANY = 128  # groups that are ranked; with more, lax.top_k is as fast
FEWEST = 8  # members of a group; with fewer, the maxima are no easier than the entries


def top_k(x: Array, block: int, k: int) -> Array:
    """Where the k entries of largest magnitude are in each whole block of a flat array.

    Ties go to the lower index; all NaN are equal, and larger than infinity.

    Returns:
      i32[x.size // block, k], ascending in each block.
    """
    groups = _groups(block, k)
    if x.size > SMALL and block <= SHORT:
        return _by_rank(magnitude(_rows(x, block)), k)
    if x.size > SMALL and groups:
        return _filtered_top_k(x, block, k, groups)
    return _sorted_top_k(x, block, k)


def _rows(x: Array, block: int) -> Array:
    return x[: x.size // block * block].reshape(-1, block)


def _groups(block: int, k: int) -> int:
    """The fewest groups that are at least 2 k; 0 if there is no such division."""
    sizes = [size for size in (32, 16, FEWEST) if 2 * k * size <= block <= MANY * size]
    return block // sizes[0] if sizes and block % WORD_BITS == 0 else 0


def _sorted_top_k(x: Array, block: int, k: int) -> Array:
    count = x.size // block
    batch = min(count, max(1, CHUNK // block))
    if not count:
        return jnp.zeros((0, k), jnp.int32)

    def some(start: Array) -> Array:
        first = jnp.minimum(start, count - batch)  # the last batch overlaps the one before
        rows = lax.dynamic_slice(x, (first * block,), (batch * block,)).reshape(batch, block)
        return lax.sort(lax.top_k(sortable(magnitude(rows)), k)[1], dimension=1)

    batches = -(-count // batch)
    out = lax.map(some, lax.iota(jnp.int32, batches) * batch)
    last = out[-1, batches * batch - count :]
    return jnp.concatenate([out[:-1].reshape(-1, k), last])


def _filtered_top_k(x: Array, block: int, k: int, groups: int) -> Array:
    rows = _rows(x, block)
    grouped = magnitude(rows).reshape(rows.shape[0], -1, groups)
    bound = _kth(lax.reduce(grouped, jnp.zeros((), grouped.dtype), _larger, (1,)), k)
    words = _at_least(rows, jnp.maximum(bound, 1))
    # Below k entries that are not zero, the first k entries hold as many zeros as are missing.
    first = pack_mask(lax.iota(jnp.int32, block) < k)
    words |= jnp.where(bound[:, None] == 0, first, 0)
    held = jnp.sum(lax.population_count(words), axis=1, dtype=jnp.int32)
    places = -(-(k + k // 2 + 16) // WORD_BITS) * WORD_BITS
    return lax.cond(
        jnp.all(held <= places),
        lambda: _ranked(x, block, k, words, held, places),
        lambda: _sorted_top_k(x, block, k),
    )


def _larger(a: Array, b: Array) -> Array:
    return jnp.where(a > b, a, b)  # vectorised, where max of integers is not


def _kth(u: Array, k: int) -> Array:
    """The k-th largest of every row, by comparing each with each."""
    reached = _count_others(u, lambda mine, other, _: other >= mine) >= k
    return jnp.max(jnp.where(reached, u, 0), axis=1)


def _count_others(u: Array, test: Test) -> Array:
    """How many entries of its row pass a test with each entry: i32[rows, places]."""
    places = lax.iota(jnp.int32, u.shape[1])
    u = lax.optimization_barrier(u)  # stored, not computed anew for each comparison

    def count(first: int) -> Array:
        some = slice(first, first + WORD_BITS)
        earlier = places[some] < places[:, None]
        passed = test(u[:, :, None], u[:, None, some], earlier)
        return jnp.sum(passed, axis=2, dtype=jnp.int32)

    # XLA fuses comparison and sum over a minor axis of 32; a longer one it would store.
    return sum(map(count, range(WORD_BITS, u.shape[1], WORD_BITS)), count(0))


def _at_least(rows: Array, bound: Array) -> Array:
    """One bit an entry, set where it is not below its row's bound: u32[rows, words]."""
    u = magnitude(rows).reshape(rows.shape[0], -1, WORD_BITS)
    # The sign of a difference of non-negative integers: a third of the time of a comparison.
    below = bound[:, None, None] - 1 - u
    bits = lax.shift_right_logical(below, jnp.full_like(below, jnp.iinfo(u.dtype).bits - 1))
    shifts = lax.iota(jnp.uint32, WORD_BITS)
    return jnp.sum(bits.astype(jnp.uint32) << shifts, axis=2, dtype=jnp.uint32)


def _ranked(x: Array, block: int, k: int, words: Array, held: Array, places: int) -> Array:
    """Of the candidates in a mask, at most `places` a row, the k largest."""
    offsets = jax.vmap(lambda row: select(row, places))(words)
    starts = lax.iota(jnp.int32, words.shape[0]) * block
    u = magnitude(x.at[starts[:, None] + offsets].get(mode='promise_in_bounds'))
    chosen = _by_rank(jnp.where(lax.iota(jnp.int32, places) < held[:, None], u, -1), k)
    return jnp.take_along_axis(offsets, chosen, axis=1, mode='promise_in_bounds')


def _by_rank(u: Array, k: int) -> Array:
    """Where the k largest of each row are: those that fewer than k others precede."""
    places = u.shape[1]
    rank = _count_others(
        u, lambda mine, other, earlier: (other > mine) | ((other == mine) & earlier)
    )
    chosen = (rank < k).ravel()
    chosen = jnp.pad(chosen, (0, -chosen.size % WORD_BITS))
    flat = select(pack_mask(chosen), u.shape[0] * k)
    return flat.reshape(-1, k) % places
