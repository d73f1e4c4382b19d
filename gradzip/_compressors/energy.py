"""The fewest entries that hold a given fraction of the energy (dynamic sparsification)."""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, Like, widest
from gradzip._compressors.counted import Largest
from gradzip._compressors.topk import kept
from gradzip._kernels.magnitude import magnitude

MARGIN = 1 + 1e-6  # of rounded sums; that of 10 million float32 squares was off by 2e-8


@dataclasses.dataclass(frozen=True)
class Energy(Largest):
    """Keeps the fewest entries, the largest first, that hold a given fraction of |v|^2.

    These are few where the gradient is concentrated and many where it is flat. The size of a
    payload is static, so it has room for K = ceil(capacity * n) entries. Where more are needed, the
    K largest are kept and the others are lost, so that a memory keeps them. The bytes on the wire
    are always those of the K entries; `count` says how many of them are used.

    Args:
      fraction: the share of the energy that is kept, in (0, 1].
      capacity: share of entries there is room for, in (0, 1]; one at least. The largest tenth of
        Gaussian entries holds 44 % of their energy.

    Payload: `values` of the entries and zeros behind them, packed `indices` and the `count`; K (4 +
      0.66) bytes for float32 at the default capacity of a tenth.

    Guarantee: contractive with delta = min(fraction, K / n), by definition if the entries fit, and
      as for TopK if they do not. A millionth more than the fraction is kept, so that the rounding
      of sums cannot undercut it; a fraction of 1 keeps all entries that are not zero. Ties are
      broken by the lower index, and zeros are not kept. If an entry is not finite, the K largest
      are kept, NaN first. It is biased: use it under `error_feedback` or `ef21`.

    Raises:
      ValueError: fraction or capacity outside (0, 1]; at trace time, an array of 2**31 entries or
        more.
      TypeError: fraction or capacity is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> x, key = jnp.array([1.0, -4.0, 2.0, 0.0]), jax.random.key(0)
      >>> payload = gz.Energy(0.9, capacity=0.75).encode(x, key)  # 16 + 4 of 21
      >>> payload.values, payload.count
      (Array([-4.,  2.,  0.], dtype=float32), Array(2, dtype=int32))

    Reference: the dynamic sparsification of Khirirat, Magnusson, Aytekin, Johansson, AAAI 2021,
      arXiv 2003.06377; the constant is its definition.
    """

    fraction: float
    _: dataclasses.KW_ONLY
    capacity: float = 0.1

    def __post_init__(self) -> None:
        checks.unit_interval('Energy', 'fraction', self.fraction)
        checks.unit_interval('Energy', 'capacity', self.capacity)

    def _places(self, size: int) -> int:
        return kept(self.capacity, size)

    def _chosen(self, values: Array, *leaf: Array) -> Array:
        # In units of the largest entry, which is among the K largest, squares cannot overflow.
        largest = jnp.max(jnp.abs(values), initial=0)
        unit = jnp.where(largest == 0, 1, largest)
        total = functools.reduce(jnp.add, [jnp.sum(_squares(part, unit)) for part in leaf])
        return _fewest(magnitude(values), _squares(values, unit), (self.fraction * MARGIN) * total)

    def delta(self, like: Like) -> float:
        if not like.size:
            return 1.0
        return min(self.fraction, kept(self.capacity, like.size) / like.size)


def _squares(x: Array, unit: Array) -> Array:
    wide = widest(jnp.float32, x.dtype)
    return jnp.square(x.astype(wide) / unit.astype(wide))


def _fewest(u: Array, squares: Array, needed: Array) -> Array:
    """The mask of the fewest entries, the largest u first, whose squares sum to what is needed.

    All that are not zero, where even their sum is less, or is not a number.
    """
    if not u.size:
        return u > 0
    t = _threshold(u, squares, needed)
    above, tie = u > t, (u == t) & (t > 0)
    missing = needed - jnp.sum(jnp.where(above, squares, 0))
    each = jnp.max(jnp.where(tie, squares, 0))
    ties = jnp.ceil(missing / jnp.where(each > 0, each, 1))
    before = lax.cumsum(tie.astype(jnp.int32)) - 1
    return above | (tie & (before.astype(ties.dtype) < ties))


def _threshold(u: Array, squares: Array, needed: Array) -> Array:
    """The largest t for which the entries with u >= t hold what is needed; 0 if none do.

    Bit by bit from the top. Rounded sums of ever more non-negative terms, in one order, ascend, so
    the search is exact for the sums as they are computed.
    """
    bits = jnp.iinfo(u.dtype).bits - 1

    def descend(step: Array, t: Array) -> Array:
        trial = t | (jnp.ones_like(t) << (bits - 1 - step).astype(u.dtype))
        held = jnp.sum(jnp.where(u >= trial, squares, 0))
        return jnp.where(held >= needed, trial, t)

    return lax.fori_loop(0, bits, descend, u[0] * 0)
