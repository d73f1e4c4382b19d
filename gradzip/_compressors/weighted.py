"""Independent sampling of entries, with larger probabilities for larger entries."""

from __future__ import annotations

import bisect
import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _checks as checks, _noise as noise, _positions as positions
from gradzip._base import Array, Key, Like, least_squares_scale, like_of
from gradzip._compressors import counted, sparse
from gradzip._compressors.bernoulli import OVERFLOW, first_set
from gradzip._compressors.counted import Counted
from gradzip._compressors.sparse import Indexed
from gradzip._compressors.topk import kept
from gradzip._kernels.codes import pack_codes
from gradzip._kernels.fused import Flat, fused, one_at_a_time
from gradzip._kernels.platform import choose
from gradzip._kernels.reductions import largest
from gradzip._kernels.sum_below import sum_below


@dataclasses.dataclass(frozen=True)
class WeightedBernoulli(Indexed):
    """Keeps entry i with probability p_i = min(1, |v_i| / t), independently, times 1 / p_i.

    Among all probabilities with the same expected number of kept entries, T = fraction * n, these
    have the least variance. The threshold t solves sum p_i = T; if fewer than T entries are not
    zero, all of those are kept. A kept entry is sent as v_i where |v_i| > t, and as sign(v_i) t
    elsewhere.

    Args:
      fraction: the expected share of entries that is kept, in (0, 1].

    Payload: `values`, their packed `indices` in the flat array, which depend on the data, and their
      `count`. There is room for T + O(sqrt(T)) entries, which a draw exceeds with probability below
      1e-9. The entries without room are lost, or stay in the memory if there is one.

    Guarantee: unbiased with omega = n / T - 1 (up to that 1e-9). This is reached where all
      magnitudes are equal; where none exceeds t, the relative error is
      (|v|_1^2 / T - |v|_2^2) / |v|_2^2. It is not linear, because the choice depends on v. An entry
      that is not finite, or above finfo.max / 4, is always kept.

    Raises:
      ValueError: fraction is outside (0, 1]; at trace time, the array has 2**31 entries or more.
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

        if fused(flat.size, flat.dtype):
            mask = choose(flat, threshold, key, default=_mask, tpu=_mask_on_tpu)
        else:
            mask = _mask(flat, threshold, key)
        room = room_for(x.size, kept(self.fraction, x.size))
        indices, valid = first_set(mask, room)
        values = flat.at[indices].get(mode='clip')
        values = jnp.where(jnp.abs(values) < threshold, jnp.sign(values) * threshold, values)
        return Counted(
            jnp.where(valid, values, 0).astype(x.dtype),
            positions.encode(jnp.where(valid, indices, x.size), x.size),
            jnp.sum(valid, dtype=jnp.int32),
        )

    def least_squares_rescaled(self, x: Array, payload: Counted, key: Key) -> Counted:
        """The default without a decoded array: where nothing was sent, nothing is to be fitted."""
        del key
        here = x.ravel().at[self.indices_of(payload, like_of(x))].get(mode='fill', fill_value=0)
        return self.scaled(payload, least_squares_scale(here, payload.values))

    def indices_of(self, payload: Counted, like: Like) -> Array:
        return counted.indices_of(payload, like.size)

    def omega(self, like: Like) -> float:
        return like.size / kept(self.fraction, like.size) - 1 if like.size else 0.0


def _mask(flat: Array, threshold: Array, key: Key) -> Array:
    """Bits that are set where an entry is kept: u32[words]."""

    def kept_at_random(piece: Array, start: int) -> Array:
        draws = noise.uniform(key, piece.shape, piece.dtype, start)
        return ~(jnp.abs(piece) <= draws * threshold)  # NaN is kept

    return pack_codes(kept_at_random, flat, 1)


def _mask_on_tpu(flat: Array, threshold: Array, key: Key) -> Array:
    from gradzip._kernels.mosaic import encoders  # only programs for TPU need Pallas

    def mask(flat: Array, threshold: Array, key: Key) -> Array:
        return encoders.kept_at_random(Flat(flat), jnp.stack(noise.seeds(key)), threshold)

    return one_at_a_time(mask, flat, threshold, key)


def room_for(size: int, expected: int) -> int:
    """Places that a sum of independent coins of this mean exceeds with probability below 1e-9.

    By Chernoff's bound, P(X >= a) <= exp(-(a log(a / T) - a + T)) for a > T, decreasing in a.
    """

    def exceeds_rarely(places: int) -> bool:
        a = places + 1
        return places >= size or (
            a > expected
            and a * math.log(a / max(expected, 1)) - a + expected >= -math.log(OVERFLOW)
        )

    return bisect.bisect_left(range(size), True, key=exceeds_rarely)


def _threshold(flat: Array, expected: int) -> Array:
    """The t with sum min(1, |v_i| / t) = T, approached from above.

    Given t, the m entries above it are kept surely, and the others would need
    t' = sum_{|v_i| <= t} |v_i| / (T - m) <= t. As t falls, the number of entries above it can only
    grow, so the iteration ends when it does not; in most arrays after a few rounds.
    """
    # In units of the largest magnitude, sums of magnitudes do not overflow.
    unit = jnp.sum(largest(flat, max(flat.size, 1)), initial=0)
    unit = jnp.where(jnp.isfinite(unit) & (unit > 0), unit, jnp.finfo(flat.dtype).max / 4)
    per_unit = 1 / unit

    def lower(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        t, count, _ = carry
        total, fewer = sum_below(flat, per_unit, t)
        places = expected - (flat.size - fewer)
        needed = total / jnp.maximum(places, 1).astype(t.dtype)
        t = jnp.where(places > 0, jnp.minimum(t, needed), t)
        return t, fewer, fewer < count

    start = jnp.full([], jnp.inf, flat.dtype) + 0 * per_unit  # it varies over an axis as x does
    count = jnp.full([], flat.size + 1, jnp.int32) + (0 * per_unit).astype(jnp.int32)
    t, _, _ = lax.while_loop(lambda carry: carry[2], lower, (start, count, count > 0))
    return jnp.where(jnp.isfinite(t), t * unit, 0)
