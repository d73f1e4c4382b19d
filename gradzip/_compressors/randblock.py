"""One random block of consecutive entries."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, Compressor, Key, Like
from gradzip._compressors.drawn import Entries
from gradzip._compressors.topk import kept


@dataclasses.dataclass(frozen=True)
class RandBlock(Compressor):
    """Keeps one of B blocks of ceil(fraction * n) consecutive entries, multiplied by B.

    Used as a reducer, it means `Sum(RandBlock(fraction))`, where all workers draw the same block. A
    draw is one random number and keeping a block is one slice, whereas RandK computes a
    permutation.

    Args:
      fraction: the share of entries that is kept, in (0, 1]; at least one entry is.

    Payload: `values` of the block, with zeros after the end of the array, and no index, because the
      key determines it; 4 ceil(fraction n) bytes for n float32 entries.

    Guarantee: unbiased with omega = B - 1. It is linear for one key.

    Raises:
      ValueError: fraction is outside (0, 1].
      TypeError: fraction is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.RandBlock(0.5).encode(jnp.array([1.0, 2.0, 3.0, 4.0]), jax.random.key(0))
      Entries(values=Array([6., 8.], dtype=float32))

    Reference: the random block of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; Richtarik,
      Takac, arXiv 1107.2848, for block-coordinate descent.
    """

    fraction: float
    linear: ClassVar[bool] = True
    random: ClassVar[bool] = True
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.unit_interval('RandBlock', 'fraction', self.fraction)

    def _blocks(self, size: int) -> tuple[int, int]:
        """The number of blocks and their length."""
        length = kept(self.fraction, size)
        return (-(-size // length), length) if size else (1, 0)

    def _start(self, size: int, key: Key) -> Array:
        count, length = self._blocks(size)
        return jax.random.randint(key, (), 0, count, jnp.int32) * length

    def encode(self, x: Array, key: Key) -> Entries:
        count, length = self._blocks(x.size)
        start = self._start(x.size, key)
        return Entries(_read(x.ravel(), start, length) * count)

    def decode(self, payload: Entries, like: Like, key: Key) -> Array:
        flat = jnp.zeros(like.size, like.dtype)
        start = self._start(like.size, key)
        return _write(flat, payload.values, start).reshape(like.shape)

    def remainder(self, x: Array, payload: Entries, key: Key) -> Array:
        """Touches only the block, in place if x dies here."""
        # Without the barrier, XLA on GPU computes what x is computed from once more in each fusion,
        # which reads it twice, and copies the result into its place.
        flat, start = lax.optimization_barrier(x.ravel()), self._start(x.size, key)
        left = _read(flat, start, payload.values.size) - payload.values
        return _write(flat, left, start).reshape(x.shape)

    def omega(self, like: Like) -> float:
        return float(self._blocks(like.size)[0] - 1)


def _read(flat: Array, start: Array, length: int) -> Array:
    """Entries from a place on, and zeros after the end of the array: f[length]."""
    first = jnp.minimum(start, flat.size - length)
    block = lax.dynamic_slice(flat, (first,), (length,))
    return lax.dynamic_slice(jnp.pad(block, (0, length)), (start - first,), (length,))


def _write(flat: Array, block: Array, start: Array) -> Array:
    """The array with entries from a place on replaced, as far as it goes."""
    length = block.size
    first = jnp.minimum(start, flat.size - length)
    before = lax.dynamic_slice(flat, (first,), (length,))
    both = lax.dynamic_update_slice(jnp.pad(before, (0, length)), block, (start - first,))
    return lax.dynamic_update_slice(flat, both[:length], (first,))
