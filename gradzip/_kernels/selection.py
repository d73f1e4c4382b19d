"""Exact selection of the largest entries in a few passes over memory, in plain XLA.

`lax.top_k` costs far more than memory bandwidth on a CPU. Here nothing is sorted. Magnitudes are
compared as integers, |x| -> u. A strided sample brackets the threshold, lo <= t <= hi; one pass
writes two bits an entry, u > lo and u >= hi, into words; only the few entries strictly inside the
bracket are gathered and cut exactly. What is chosen is a bit mask, and `select` turns it into
indices. Order statistics of a sample bracket t whatever the ties, so either t lies strictly inside,
or it is lo or hi itself and its ties are cut in the mask (all zero, all equal, mostly zero). The
rare rest is counted exactly, chunk by chunk.

Tuned on CPU (`experiments/bench_compressors.py`); `lax.top_k` is the plain form beside it, and runs
where it is faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradzip._base import Array
from gradzip._blocks import WORD_BITS, add_each

Test = Callable[[Array], Array]
Count = Callable[[Array, Array], Array]

BLOCK = WORD_BITS * WORD_BITS  # entries under one bit in a mask of words that are not empty
DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS  # counters of a radix histogram, which stay in the first cache
CHUNK = 1 << 18  # entries counted at a time where all are: no temporary as large as the array
SMALL = 1 << 12  # up to here lax.top_k is as fast,
MEDIUM, FEW = 1 << 17, 384  # and up to here where it has few to find
SAMPLE_RANGE = 1 << 13, 1 << 15
DEVIATIONS = 4.5  # a sampled bound misses once in about 300 000 times


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k entries of largest magnitude: values f[k] and indices i32[k], ascending by index.

    Ties go to the lower index; all NaN are equal, and larger than infinity.
    """
    n = x.size
    if k in (0, n):
        return x[:k], lax.iota(jnp.int32, k)
    if n <= SMALL or (n <= MEDIUM and k <= FEW):
        return sorted_top_k(x, k)
    return _sampled_top_k(x, k)


def remove(x: Array, indices: Array) -> Array:
    """Zeros at distinct, ascending indices; in place where x is donated or dies here.

    A scatter aliases its operand; `where` over a mask would not, and cost a second array.
    """
    zeros = jnp.zeros(indices.shape, x.dtype)
    return x.at[indices].set(
        zeros, mode='promise_in_bounds', unique_indices=True, wrap_negative_indices=False
    )


def select(words: Array, count: int) -> Array:
    """Positions of the first `count` set bits, ascending: i32[count].

    Args:
      words: u32[m], the lowest bit first.
      count: how many positions; those beyond the last set bit are arbitrary, but within the words.
    """
    if 2 * count < words.size and words.size % WORD_BITS == 0:
        # Most words are empty: first select the words, then the bits within those.
        home = select(pack_mask(words != 0), count)
        bit = select(_take(words, home), count)
        return (_take(home, bit >> 5) << 5) + (bit & 31)
    ones = _ones(words)
    running = lax.cumsum(ones)
    # The j-th set bit lies in the word that as many words precede as have running <= j.
    ends = (
        jnp.zeros(count, jnp.int32)
        .at[running]
        .add(1, mode='drop', indices_are_sorted=True, wrap_negative_indices=False)
    )
    home = jnp.minimum(lax.cumsum(ends), words.size - 1)
    rank = lax.iota(jnp.int32, count) - _take(running - ones, home)
    return (home << 5) + _select_in_word(_take(words, home), rank)


def _select_in_word(word: Array, rank: Array) -> Array:
    """Position of the set bit that `rank` set bits precede, by halving."""
    position = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        low = (word >> position.astype(jnp.uint32)) & jnp.uint32((1 << half) - 1)
        ones = _ones(low)
        higher = rank >= ones
        rank = jnp.where(higher, rank - ones, rank)
        position = jnp.where(higher, position + half, position)
    return position


def sorted_top_k(x: Array, k: int) -> tuple[Array, Array]:
    """What `top_k` returns, by `lax.top_k`: the faster way for few entries."""
    _, indices = lax.top_k(sortable(magnitude(x)), k)
    return _read(x, lax.sort(indices))


class _Plan(NamedTuple):
    """Sizes, all static: of the sample, its bracket, and what the bracket may hold."""

    stride: int
    size: int
    lower: int  # lo is the lower-th largest of the sample
    upper: int  # hi the upper-th; 0 where the sample is too small to bound t from above
    capacity: int


def _plan(n: int, k: int) -> _Plan:
    stride = _prime_at_most(max(1, n // min(max(n >> 7, SAMPLE_RANGE[0]), SAMPLE_RANGE[1])))
    size = -(-n // stride)
    mean = size * k / n
    slack = DEVIATIONS * math.sqrt(mean * (1 - k / n)) + 2
    lower = min(size, math.ceil(mean + slack))
    upper = max(0, math.floor(mean - slack))
    gaps = lower - upper
    capacity = (gaps + DEVIATIONS * math.sqrt(gaps)) * stride
    return _Plan(stride, size, lower, upper, math.ceil(capacity / BLOCK) * BLOCK)


def _prime_at_most(n: int) -> int:
    """A stride that shares no factor with the rows of a matrix, so that it meets all columns."""
    return next(p for p in range(n, 0, -1) if all(p % d for d in range(2, math.isqrt(p) + 1)))


def _sampled_top_k(x: Array, k: int) -> tuple[Array, Array]:
    plan = _plan(x.size, k)
    lo, hi = _bracket(x, plan)
    above, top = _mask_words(x, lambda u: u > lo, lambda u: u >= hi)
    inside = above & ~top
    need = k - _count(top)
    held = _count(inside)
    found = (need > 0) & (need <= held) & (held <= plan.capacity)
    words = lax.cond(
        found,
        lambda: top | _cut_inside(x, inside, held, need, plan.capacity),
        lambda: _cut_ties(x, k, jnp.where(need > 0, lo, hi)),
    )
    return _read(x, select(words, k))


def _read(x: Array, indices: Array) -> tuple[Array, Array]:
    values = _take(x, indices)
    # Adds zero, but makes the indices wait for the values. A later write at the indices is then
    # known to come after all reading, and XLA does it in place instead of on a copy of x.
    return values, indices + jnp.minimum(magnitude(values), 0).astype(jnp.int32)


def _bracket(x: Array, plan: _Plan) -> tuple[Array, Array]:
    """Order statistics of a sample, between which the k-th largest of x lies almost surely."""
    sample = magnitude(lax.slice(x, (0,), (x.size,), (plan.stride,)))
    ranks = jnp.array([plan.lower, max(plan.upper, 1)], jnp.int32)
    # Loops store the sample; unrolled, each histogram would gather it again from all over x.
    lo, hi = lax.map(lambda rank: _kth_of(sample, rank), ranks)
    return lo, hi if plan.upper else jnp.full_like(hi, jnp.iinfo(hi.dtype).max)


def _cut_inside(x: Array, inside: Array, held: Array, need: Array, capacity: int) -> Array:
    """The mask of the `need` largest among the `held` of a mask, at most `capacity`."""
    indices = select(inside, capacity)
    valid = lax.iota(jnp.int32, capacity) < held
    u = jnp.where(valid, magnitude(_take(x, indices)), -1)
    t = _kth_of(u, need)
    above, ties = _pack_each([u > t, u == t])
    last = _position(ties, need - _count(above))
    chosen = (u > t) | ((u == t) & (lax.iota(jnp.int32, capacity) <= last))
    bits = chosen.astype(jnp.uint32) << (indices & 31).astype(jnp.uint32)
    return _add(jnp.zeros_like(inside), indices >> 5, bits)


def _cut_ties(x: Array, k: int, t: Array) -> Array:
    """The mask of the k largest where t is the k-th largest, and where it is not."""

    def split(t: Array) -> list[Array]:
        return _mask_words(x, lambda u: u > t, lambda u: u == t)

    above, ties = split(t)
    larger = _count(above)
    equal = _count(ties)
    above, ties = lax.cond(
        (larger < k) & (k <= larger + equal),
        lambda: [above, ties],
        lambda: split(_kth_of_all(x, k)),
    )
    return above | _first_bits(ties, k - _count(above))


def _first_bits(words: Array, count: Array) -> Array:
    """The words without all but the first `count` set bits, count >= 1."""
    last = _position(words, count)
    home = lax.iota(jnp.int32, words.size)
    upto = (jnp.uint32(2) << (last & 31).astype(jnp.uint32)) - 1  # of 32 bits, 2 << 31 is 0
    part = jnp.where(home == last >> 5, words & upto, jnp.uint32(0))
    return jnp.where(home < last >> 5, words, part)


def _position(words: Array, count: Array) -> Array:
    """Where the count-th set bit is: i32[]."""
    ones = _ones(words)
    running = lax.cumsum(ones)
    home = jnp.minimum(jnp.sum(running < count, dtype=jnp.int32), words.size - 1)
    rank = count - 1 - _take(running - ones, home)
    return (home << 5) + _select_in_word(_take(words, home), rank)


def magnitude(x: Array) -> Array:
    """Integers in the order of |x|, NaN above all: i32 of 31 bits, i64 of 63 for float64."""
    width = 8 * x.dtype.itemsize
    infinity = int(np.array(np.inf, x.dtype).view(f'int{width}'))
    u = lax.bitcast_convert_type(x, f'int{width}') & np.array((1 << width - 1) - 1, f'int{width}')
    u = jnp.minimum(u, np.array(infinity + 1, f'int{width}'))
    return u if width >= 32 else u.astype(jnp.int32) << (32 - width)


def sortable(u: Array) -> Array:
    """Magnitudes as floats of the same bits and order: XLA has a fast top-k for floats only."""
    return lax.bitcast_convert_type(u, jnp.float64 if u.dtype == jnp.int64 else jnp.float32)


def _mask_words(x: Array, *tests: Test) -> list[Array]:
    """Tests of the magnitudes, one bit an entry, lowest first, in a multiple of 32 words."""
    whole = x.size // BLOCK * BLOCK
    # Slice x, not u: then slice, test and packing are one loop, and nothing of x's size is stored.
    head, tail = magnitude(x[:whole]), magnitude(x[whole:])
    words = _pack_each([test(head) for test in tests])
    if not tail.size:
        return words
    last = _pack_each([jnp.pad(test(tail), (0, BLOCK - tail.size)) for test in tests])
    return [jnp.concatenate(pair) for pair in zip(words, last, strict=True)]


def pack_mask(mask: Array) -> Array:
    """A mask, a multiple of 32 long, as words, the lowest bit first: u32[mask.size // 32]."""
    return _pack_each([mask])[0]


def _pack_each(masks: list[Array]) -> list[Array]:
    """Masks as words. A reduction with several operands is one pass; several are as many."""
    shifts = lax.iota(jnp.uint32, WORD_BITS)
    bits = [mask.reshape(-1, WORD_BITS).astype(jnp.uint32) << shifts for mask in masks]
    return list(lax.reduce(tuple(bits), (jnp.uint32(0),) * len(bits), add_each, (1,)))


def _kth(count: Count, zero: Array, rank: Array | int) -> Array:
    """The rank-th largest of what `count` counts, digit by digit from the top.

    Args:
      count: (prefix, shift) to how many entries continue that prefix with each digit, i32[DIGITS].
      zero: of the entries' dtype, and varying as they do: a loop carries what varies.
      rank: from 1.
    """

    def narrow(carry: tuple[Array, Array], shift: Array) -> tuple[tuple[Array, Array], None]:
        prefix, rank = carry
        at_least = lax.cumsum(count(prefix, shift), reverse=True)
        digit = jnp.sum(at_least >= rank, dtype=jnp.int32) - 1
        higher = jnp.where(lax.iota(jnp.int32, DIGITS) == digit + 1, at_least, 0)
        prefix = (prefix << DIGIT_BITS) + digit.astype(prefix.dtype)
        return (prefix, rank - jnp.sum(higher, dtype=jnp.int32)), None

    bits = jnp.iinfo(zero.dtype).bits - 1
    shifts = np.arange(bits // DIGIT_BITS * DIGIT_BITS, -1, -DIGIT_BITS).astype(zero.dtype)
    (prefix, _), _ = lax.scan(narrow, (zero, rank + zero.astype(jnp.int32)), jnp.asarray(shifts))
    return prefix


def _kth_of(u: Array, rank: Array | int) -> Array:
    return _kth(lambda prefix, shift: _histogram(u, prefix, shift), u[0] * 0, rank)


def _kth_of_all(x: Array, rank: int) -> Array:
    """The same of the magnitudes of x, with no temporary as large as x."""
    size = min(CHUNK, x.size)
    starts = lax.iota(jnp.int32, -(-x.size // size)) * size

    def count(prefix: Array, shift: Array) -> Array:
        def one(start: Array) -> Array:
            first = jnp.minimum(start, x.size - size)  # the last chunk overlaps the one before
            u = magnitude(lax.dynamic_slice(x, (first,), (size,)))
            u = jnp.where(first + lax.iota(jnp.int32, size) >= start, u, -1)
            return _histogram(u, prefix, shift)

        return jnp.sum(lax.map(one, starts), axis=0, dtype=jnp.int32)

    return _kth(count, magnitude(x[:1])[0] * 0, rank)


def _histogram(u: Array, prefix: Array, shift: Array) -> Array:
    """Counts of the next digit among entries whose higher digits are prefix; none negative."""
    digit = (u >> shift) - (prefix << DIGIT_BITS)
    digit = jnp.where((digit >= 0) & (digit < DIGITS), digit, DIGITS).astype(jnp.int32)
    return _add(jnp.zeros(DIGITS + 1, jnp.int32), digit, 1)[:DIGITS]


def _count(words: Array) -> Array:
    """How many bits are set: i32[]. XLA sums integers fast over a minor axis of 32, not flat."""
    rows = jnp.sum(_ones(words).reshape(-1, WORD_BITS), axis=1, dtype=jnp.int32)
    return jnp.sum(rows, dtype=jnp.int32)


def _ones(words: Array) -> Array:
    return lax.population_count(words).astype(jnp.int32)


def _take(x: Array, indices: Array) -> Array:
    return x.at[indices].get(mode='promise_in_bounds', wrap_negative_indices=False)


def _add(x: Array, indices: Array, what: Array | int) -> Array:
    return x.at[indices].add(what, mode='promise_in_bounds', wrap_negative_indices=False)
