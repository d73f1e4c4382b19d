"""Everything is sent: the compressor that loses nothing."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

from gradzip._base import Array, Compressor, Key, Like


class Dense(NamedTuple):
    """All entries, in the array's own shape."""

    values: Array  # f[*shape]


@dataclasses.dataclass(frozen=True)
class Identity(Compressor):
    """Keeps everything: `Sum(Identity())`, or a bare `Identity()`, is the exact mean.

    Payload: the array; 4 n bytes for n float32 entries.

    Guarantee: exact; omega = 0 and delta = 1. Linear.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.Identity().encode(jnp.array([3.0, -1.0]), jax.random.key(0))
      Dense(values=Array([ 3., -1.], dtype=float32))
    """

    linear: ClassVar[bool] = True
    sparse: ClassVar[bool] = True

    def encode(self, x: Array, key: Key) -> Dense:
        del key
        return Dense(x)

    def decode(self, payload: Dense, like: Like, key: Key) -> Array:
        del like, key
        return payload.values

    def delta(self, like: Like) -> float:
        del like
        return 1.0

    def omega(self, like: Like) -> float:
        del like
        return 0.0

    def scaled(self, payload: Dense, factor: Array | float) -> Dense:
        return Dense(payload.values * factor)
