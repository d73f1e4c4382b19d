"""One bit an entry."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from gradzip.base import Array, Compressor, Key, Like
from gradzip.packing import pack, unpack


class Signs(NamedTuple):
    """A bit is set where the entry's sign bit is; an entry is +scale or -scale."""

    bits: Array  # u32[words]
    scale: Array  # f[]


@dataclasses.dataclass(frozen=True)
class ScaledSign(Compressor):
    """C(v) = (|v|_1 / n) sign(v), zeros by their sign bit: sign(0) = 1, sign(-0) = -1.

    Payload: one bit an entry and one scale; n / 8 + 4 bytes for n float32 entries.

    Guarantee: contractive with delta = |v|_1^2 / (n |v|_2^2), which is 1 / n at worst (one non-zero
      entry) and 2 / pi for a Gaussian leaf. Biased: use it under `error_feedback` or `ef21`. A leaf
      that holds NaN or infinity decodes to NaN.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.ScaledSign().encode(jnp.array([3.0, -1.0, 2.0]), jax.random.key(0))
      Signs(bits=Array([2], dtype=uint32), scale=Array(2., dtype=float32))

    Reference: Karimireddy et al., arXiv 1901.09847, algorithm 1 and lemma 8.
    """

    def encode(self, x: Array, key: Key) -> Signs:
        del key
        # The mean of |x| / max is at most 1, where a plain sum of huge entries would overflow.
        largest = jnp.max(jnp.abs(x), initial=0)
        unit = jnp.where(largest == 0, 1, largest)
        scale = largest * (jnp.sum(jnp.abs(x) / unit) / max(x.size, 1))
        return Signs(pack(jnp.signbit(x).ravel(), 1), scale)

    def decode(self, payload: Signs, like: Like, key: Key) -> Array:
        del key
        negative = unpack(payload.bits, 1, like.size) == 1
        return jnp.where(negative, -payload.scale, payload.scale).reshape(like.shape)

    def delta(self, like: Like) -> float:
        return 1 / max(like.size, 1)

    def scaled(self, payload: Signs, factor: Array | float) -> Signs:
        return payload._replace(scale=payload.scale * factor)
