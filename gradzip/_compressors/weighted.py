"""Every entry by the toss of a coin, the large ones more surely."""

from __future__ import annotations

import bisect
import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _checks as checks, _noise as noise, _positions as positions
from gradzip._base import Array, Key, Like
from gradzip._compressors import counted, sparse
from gradzip._compressors.bernoulli import OVERFLOW, first_set
from gradzip._compressors.counted import Counted
from gradzip._compressors.sparse import Indexed
from gradzip._compressors.topk import kept
from gradzip._packing import pack


@dataclasses.dataclass(frozen=True)
class WeightedBernoulli(Indexed):
    """Keeps entry i with probability p_i = min(1, |v_i| / t), independently, times 1 / p_i.

    Among all probabilities with the same expected number of kept entries, T = fraction * n, these
    have the least variance. t solves sum p_i = T (all non-zero entries are kept if they are fewer).
    A kept entry is v_i where |v_i| > t, and sign(v_i) t elsewhere.

    Args:
      fraction: the expected share of entries that is kept, in (0, 1].

    Payload: `values`, their packed `indices` in the flat array, which depend on the data, and their
      `count`. There is room for T + O(sqrt(T)) entries, exceeded with probability below 1e-9. What
      exceeds the room is lost, and stays in the memory if there is one.

    Guarantee: unbiased with omega = n / T - 1 (up to that 1e-9), reached where all magnitudes are
      equal, and (|v|_1^2 / T - |v|_2^2) / |v|_2^2 where none exceeds t. Not linear: the choice
      depends on v. What is not finite, or above finfo.max / 4, is always kept.

    Raises:
      ValueError: fraction outside (0, 1]; at trace time, an array of 2**31 entries or more.
      TypeError: fraction is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> x = jnp.array([8.0, 0.0, 0.0, -5.0])  # two are not zero: both are kept
      >>> payload = gz.WeightedBernoulli(0.5).encode(x, jax.random.key(0))
      >>> payload.values, payload.count
      (Array([ 8., -5.,  0.,  0.], dtype=float32), Array(2, dtype=int32))

    Reference: Wangni et al., arXiv 1710.09854, algorithm 3; Khirirat, Feyzmahdavian, Johansson,
    arXiv 1806.06573, for the sparsifier.
    """

    fraction: float
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.unit_interval('WeightedBernoulli', 'fraction', self.fraction)

    def encode(self, x: Array, key: Key) -> Counted:
        sparse.check_size(self, x)
        flat = blocks.wide(x)
        threshold = _threshold(flat, kept(self.fraction, x.size))

        def words(piece: Array, start: int) -> Array:
            draws = noise.uniform(key, piece.shape, piece.dtype, start)
            return pack(~(jnp.abs(piece) <= draws * threshold), 1)  # NaN is kept

        mask = blocks.in_pieces(words, flat, max(x.size, 1))
        room = room_for(x.size, kept(self.fraction, x.size))
        indices, valid = first_set(mask, room)
        values = flat.at[indices].get(mode='clip')
        values = jnp.where(jnp.abs(values) < threshold, jnp.sign(values) * threshold, values)
        return Counted(
            jnp.where(valid, values, 0).astype(x.dtype),
            positions.encode(jnp.where(valid, indices, x.size), x.size),
            jnp.sum(valid, dtype=jnp.int32),
        )

    def indices_of(self, payload: Counted, like: Like) -> Array:
        return counted.indices_of(payload, like.size)

    def omega(self, like: Like) -> float:
        return like.size / kept(self.fraction, like.size) - 1 if like.size else 0.0


def room_for(size: int, expected: int) -> int:
    """Places that a sum of independent coins of this mean exceeds with probability below 1e-9.

    By Chernoff: P(X >= a) <= exp(-(a log(a / T) - a + T)) for a > T, decreasing in a.
    """

    def exceeds_rarely(places: int) -> bool:
        a = places + 1
        return places >= size or (
            a > expected
            and a * math.log(a / max(expected, 1)) - a + expected >= -math.log(OVERFLOW)
        )

    return bisect.bisect_left(range(size), True, key=exceeds_rarely)


def _threshold(flat: Array, expected: int) -> Array:
    """t with sum min(1, |v_i| / t) = T, from above.

    Given t, the m entries above it are kept surely, and the others would need
    t' = sum_{|v_i| <= t} |v_i| / (T - m) <= t. That only ever adds entries above, so it ends, where
    none is added; in most arrays after a few rounds.
    """
    unit = jnp.sum(blocks.largest(flat, max(flat.size, 1)), initial=0)
    unit = jnp.where(jnp.isfinite(unit) & (unit > 0), unit, jnp.finfo(flat.dtype).max / 4)
    per_unit = 1 / unit

    def below(t: Array) -> tuple[Array, Array]:
        """Sum and number of the magnitudes up to t, in units of the largest."""

        def sums(piece: Array, start: int) -> tuple[Array, Array]:
            index = start + lax.iota(jnp.int32, piece.size)
            magnitude = jnp.abs(piece) * per_unit
            under = (magnitude <= t) & (index < flat.size)
            columns = jnp.where(under, magnitude, 0), under.astype(jnp.int32)
            rows = tuple(column.reshape(-1, blocks.WORD_BITS) for column in columns)
            zeros = jnp.zeros([], piece.dtype), jnp.int32(0)
            total, count = lax.reduce(rows, zeros, blocks.add_each, (1,))  # in one pass
            return total, count

        total, count = blocks.in_pieces(sums, flat, max(flat.size, 1))
        return jnp.sum(total), jnp.sum(count, dtype=jnp.int32)

    def lower(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        t, count, _ = carry
        total, fewer = below(t)
        places = expected - (flat.size - fewer)
        needed = total / jnp.maximum(places, 1).astype(t.dtype)
        t = jnp.where(places > 0, jnp.minimum(t, needed), t)
        return t, fewer, fewer < count

    start = jnp.full([], jnp.inf, flat.dtype) + 0 * per_unit  # varies over an axis as x does
    count = jnp.full([], flat.size + 1, jnp.int32) + (0 * per_unit).astype(jnp.int32)
    t, _, _ = lax.while_loop(lambda carry: carry[2], lower, (start, count, count > 0))
    return jnp.where(jnp.isfinite(t), t * unit, 0)
