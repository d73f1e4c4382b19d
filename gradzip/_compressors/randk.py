"""A fixed number of random entries."""

from __future__ import annotations

import dataclasses

from gradzip import _checks as checks, _noise as noise
from gradzip._base import Array, Key, Like
from gradzip._compressors.drawn import Drawn, Entries
from gradzip._compressors.topk import kept


@dataclasses.dataclass(frozen=True)
class RandK(Drawn):
    """Keeps k = ceil(fraction * n) entries drawn without replacement, multiplied by n / k.

    Used as a reducer, it means `Sum(RandK(fraction))`, where all workers draw the same positions
    and an all-reduce sums the values. In `Gather(RandK(fraction))` every worker draws its own.

    Args:
      fraction: the share of entries that is kept, in (0, 1]; at least one entry is.

    Payload: `values`, and no indices, because the key determines them; 4 k bytes for k float32
      entries.

    Guarantee: unbiased with omega = n / k - 1. It is linear for one key.

    Raises:
      ValueError: fraction is outside (0, 1].
      TypeError: fraction is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.RandK(0.5).encode(jnp.array([1.0, 1.0, 1.0, 1.0]), jax.random.key(0))
      Entries(values=Array([2., 2.], dtype=float32))

    Reference: Stich, Cordonnier, Jaggi, arXiv 1809.07599, definition 2.1, multiplied by n / k so
      that it is unbiased.
    """

    fraction: float

    def __post_init__(self) -> None:
        checks.unit_interval('RandK', 'fraction', self.fraction)

    def positions(self, size: int, key: Key) -> Array:
        return noise.positions(key, size, kept(self.fraction, size))

    def encode(self, x: Array, key: Key) -> Entries:
        flat = x.ravel()
        values = flat[self.positions(flat.size, key)]
        return Entries(values * (flat.size / max(values.size, 1)))

    def omega(self, like: Like) -> float:
        return like.size / kept(self.fraction, like.size) - 1 if like.size else 0.0
