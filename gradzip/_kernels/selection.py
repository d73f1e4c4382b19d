"""Exact selection of the largest entries in a few passes over memory.

The plain form, `lax.top_k`, sorts. It is used for small arrays. For large ones nothing is sorted:
magnitudes are compared as integers, |x| -> u. A strided sample brackets the threshold t,
lo <= t <= hi; one pass writes two bits an entry, u > lo and u >= hi, into words; only the few
entries strictly inside the bracket are gathered and cut exactly. The result is a bit mask, and
`select` turns it into indices. Order statistics of a sample bracket t whatever the ties, so either
t lies strictly inside, or it is lo or hi itself and its ties are cut in the mask (all zero, all
equal, mostly zero). In the rare other case, all entries are counted, chunk by chunk.

Of 10 million entries `lax.top_k` takes 15 to 83 times as long on a CPU. On GPU it sorts the whole
array too: some twenty passes over keys and indices, and temporaries of several times the array's
size, where the sampled form reads the array three times. On TPU a gather and a scatter are slow, so
large arrays of float32 are selected from by kernels (`_kernels.mosaic.top_k`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.bits import MASK_MULTIPLE, count_ones, first_bits, position, select, take
from gradzip._kernels.bracket import bracket, plan
from gradzip._kernels.fused import Flat, fused, one_at_a_time
from gradzip._kernels.magnitude import magnitude, sortable
from gradzip._kernels.platform import choose
from gradzip._kernels.radix import kth_magnitude, kth_of
from gradzip._kernels.words import pack_masks

Test = Callable[[Array], Array]

SORT_UP_TO = 1 << 12  # entries that `lax.top_k` sorts as fast as they are sampled,
SORT_FEW_UP_TO = 1 << 17  # or in at most milliseconds, and compiles faster,
FEW = 1 << 10  # if it has at most so many to find


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The k entries of largest magnitude: values f[k] and indices i32[k], ascending by index.

    Ties go to the lower index; all NaN are equal, and larger than infinity.
    """
    values, indices = _chosen(Flat(x), k, _top_k, lambda x: _kernel(x, k)[:2])
    return values, indices


def take_top_k(x: Flat, k: int) -> tuple[Array, Array, Array]:
    """What `top_k` returns, and the array with zeros there, in the place of x if it dies."""

    def plain(flat: Array, k: int) -> tuple[Array, Array, Array]:
        values, indices, rest = _take_top_k(flat, k)
        return values, indices, rest.reshape(x.first.shape)

    values, indices, rest = _chosen(x, k, plain, lambda x: _kernel(x, k))
    return values, indices, rest


def _chosen(x: Flat, k: int, plain: Callable, kernel: Callable) -> tuple[Array, ...]:
    if k in (0, x.size) or not fused(x.size, x.first.dtype):
        return plain(x.total.ravel(), k)
    # A kernel cannot be batched, because it keeps what it knows from one tile to the next.
    return choose(
        x, default=lambda x: plain(x.total.ravel(), k), tpu=lambda x: one_at_a_time(kernel, x)
    )


def _kernel(x: Flat, k: int) -> tuple[Array, ...]:
    from gradzip._kernels import mosaic  # there is a TPU, or Pallas to compile for one

    return mosaic.top_k.top_k(x, k)


def _take_top_k(x: Array, k: int) -> tuple[Array, Array, Array]:
    values, indices = _top_k(x, k)
    return values, indices, remove(x, indices)


def _top_k(x: Array, k: int) -> tuple[Array, Array]:
    n = x.size
    if k in (0, n):
        return x[:k], lax.iota(jnp.int32, k)
    if n <= SORT_UP_TO or (n <= SORT_FEW_UP_TO and k <= FEW):
        return _sorted_top_k(x, k)
    return _sampled_top_k(x, k)


def remove(x: Array, indices: Array) -> Array:
    """Zeros at distinct, ascending indices; in place where x is donated or dies here.

    A scatter works in place. `where` over a mask would not, and would cost a second array.
    """
    zeros = jnp.zeros(indices.shape, x.dtype)
    return x.at[indices].set(
        zeros, mode='promise_in_bounds', unique_indices=True, wrap_negative_indices=False
    )


def _sorted_top_k(x: Array, k: int) -> tuple[Array, Array]:
    """The plain form."""
    _, indices = lax.top_k(sortable(magnitude(x)), k)
    return read(x, lax.sort(indices))


def _sampled_top_k(x: Array, k: int) -> tuple[Array, Array]:
    sizes = plan(x.size, k)
    lo, hi = bracket(x, sizes)
    above, top = _mask_words(x, lambda u: u > lo, lambda u: u >= hi)
    inside = above & ~top
    need = k - count_ones(top)
    held = count_ones(inside)
    found = (need > 0) & (need <= held) & (held <= sizes.capacity)
    words = lax.cond(
        found,
        lambda: top | _cut_inside(x, inside, held, need, sizes.capacity),
        lambda: _cut_ties(x, k, jnp.where(need > 0, lo, hi)),
    )
    return read(x, select(words, k))


def read(x: Array, indices: Array) -> tuple[Array, Array]:
    """x at indices that are in bounds, and the indices."""
    values = take(x, indices)
    # This adds zero, but makes the indices depend on the values. A later write at the indices then
    # comes after all reading, and XLA writes in place instead of into a copy of x.
    return values, indices + jnp.minimum(magnitude(values), 0).astype(jnp.int32)


def _cut_inside(x: Array, inside: Array, held: Array, need: Array, capacity: int) -> Array:
    """The mask of the `need` largest among the `held` of a mask, at most `capacity`."""
    indices = select(inside, capacity)
    valid = lax.iota(jnp.int32, capacity) < held
    u = jnp.where(valid, magnitude(take(x, indices)), -1)
    t = kth_of(u, need)
    above, ties = pack_masks(u > t, u == t)
    last = position(ties, need - count_ones(above))
    chosen = (u > t) | ((u == t) & (lax.iota(jnp.int32, capacity) <= last))
    bits = chosen.astype(jnp.uint32) << (indices & 31).astype(jnp.uint32)
    return _add(jnp.zeros_like(inside), indices >> 5, bits)


def _cut_ties(x: Array, k: int, t: Array) -> Array:
    """The mask of the k largest if t is the k-th largest magnitude, and also if it is not."""

    def split(t: Array) -> list[Array]:
        return _mask_words(x, lambda u: u > t, lambda u: u == t)

    above, ties = split(t)
    larger = count_ones(above)
    equal = count_ones(ties)
    above, ties = lax.cond(
        (larger < k) & (k <= larger + equal),
        lambda: [above, ties],
        lambda: split(kth_magnitude(x, k)),
    )
    return above | first_bits(ties, k - count_ones(above))


def _mask_words(x: Array, *tests: Test) -> list[Array]:
    """Tests of the magnitudes, one bit an entry, the lowest first, in a multiple of 32 words."""
    whole = x.size // MASK_MULTIPLE * MASK_MULTIPLE
    # x is cut, not u. Then XLA makes one loop of cutting, testing and packing, and stores nothing
    # of the size of x.
    head, tail = magnitude(x[:whole]), magnitude(x[whole:])
    words = pack_masks(*(test(head) for test in tests))
    if not tail.size:
        return words
    last = pack_masks(*(jnp.pad(test(tail), (0, MASK_MULTIPLE - tail.size)) for test in tests))
    return [jnp.concatenate(pair) for pair in zip(words, last, strict=True)]


def _add(x: Array, indices: Array, what: Array | int) -> Array:
    return x.at[indices].add(what, mode='promise_in_bounds', wrap_negative_indices=False)
