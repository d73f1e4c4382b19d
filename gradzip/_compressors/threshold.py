"""The entries that are large in comparison with the largest one."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from gradzip import _checks as checks
from gradzip._base import Array, Like, widest
from gradzip._compressors.counted import Largest
from gradzip._compressors.topk import kept
from gradzip._kernels.magnitude import magnitude


@dataclasses.dataclass(frozen=True)
class Threshold(Largest):
    """Keeps the entries with |v_i| >= relative * max|v|, if there is room for them.

    Their number depends on the data. The size of a payload is static, so it has room for
    K = ceil(capacity * n) entries. Where more qualify, the K largest are kept, ties by the lower
    index, and the others are lost, so that a memory keeps them. The bytes on the wire are always
    those of the K entries; `count` says how many of them are used.

    Args:
      relative: lambda, the share of the largest magnitude, in (0, 1].
      capacity: share of entries there is room for, in (0, 1]; one at least. Of 10 million Gaussian
        entries 1 % exceed half the largest.

    Payload: `values` of the entries and zeros after them, packed `indices` and the `count`; K (4 +
      0.66) bytes for float32 at the default capacity of a tenth.

    Guarantee: contractive with delta = min(1 / (1 + (n - 1) lambda^2), K / n). If the entries fit,
      at most n - 1 are dropped, each below lambda max|v|, so their energy is less than
      (n - 1) lambda^2 max|v|^2, and that of the kept entries is at least max|v|^2. If they do not
      fit, the K largest are kept, as by TopK. Zeros are not kept. If an entry is infinite, only
      infinite entries are kept; if one is NaN, the K largest are kept, NaN first. It is biased: use
      it under `error_feedback` or `ef21`.

    Raises:
      ValueError: relative or capacity is outside (0, 1]; at trace time, the array has 2**31 entries
        or more.
      TypeError: relative or capacity is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> x, key = jnp.array([1.0, -4.0, 2.0, 0.0]), jax.random.key(0)
      >>> payload = gz.Threshold(0.5, capacity=0.75).encode(x, key)
      >>> payload.values, payload.count
      (Array([-4.,  2.,  0.], dtype=float32), Array(2, dtype=int32))

    Reference: Strom, Interspeech 2015, and Sahu et al., arXiv 2108.00951, for absolute thresholds;
      the constant of the relative one is proved above.
    """

    relative: float
    _: dataclasses.KW_ONLY
    capacity: float = 0.1

    def __post_init__(self) -> None:
        checks.unit_interval('Threshold', 'relative', self.relative)
        checks.unit_interval('Threshold', 'capacity', self.capacity)

    def _places(self, size: int) -> int:
        return kept(self.capacity, size)

    def _chosen(self, values: Array, *leaf: Array) -> Array:
        del leaf
        size = jnp.abs(values.astype(widest(jnp.float32, values.dtype)))
        # The largest entry is among the K largest. NaN is not below anything.
        below = size < self.relative * jnp.max(size, initial=0)
        return ~below & (magnitude(values) > 0)

    def delta(self, like: Like) -> float:
        if not like.size:
            return 1.0
        fits = 1 / (1 + (like.size - 1) * self.relative**2)
        return min(fits, kept(self.capacity, like.size) / like.size)
