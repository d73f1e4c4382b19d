"""Stochastic rounding to a few levels."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradzip import checks
from gradzip.base import Array, Compressor, Key, Like
from gradzip.packing import pack, unpack


class Quantized(NamedTuple):
    """Integers in [-levels, levels], shifted by levels and packed; an entry is scale * integer."""

    codes: Array  # u32[words]
    scale: Array  # f[blocks]


@dataclasses.dataclass(frozen=True)
class QSGD(Compressor):
    """Rounds at random to one of 2 levels + 1 evenly spaced values, so that the mean is right.

    Within a block, Q(v)_i = (N / s) xi_i with N the block's norm, s = levels, and xi_i one of the
    two integers beside s v_i / N.

    Args:
      levels: s, positive levels of a block; 1 to 2**15 - 1.
      block: entries that share a scale; None for one scale per leaf. The last block may be shorter.
      norm: N. 'max' gives the smaller error; 'l2' is the paper's form.

    Payload: codes of ceil(log2(2 levels + 1)) bits (levels 1: 2, 3: 3, 7: 4, 127: 8) and one scale
    a block; levels 7, block 256: n / 2 + n / 64 bytes for n float32 entries.

    Guarantee: unbiased. For blocks of b entries, omega is min((b - 1) / (4 s^2), sqrt(b - 1) / 2 s)
      for 'max' and min(b / (4 s^2), sqrt(b) / s) for 'l2'. A block that holds NaN or infinity
      decodes to NaN.

    Raises:
      ValueError: levels or block out of range, or another norm.
      TypeError: levels or block is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.QSGD(levels=7).encode(jnp.array([2.0, -1.0, 0.0]), jax.random.key(0))
      Quantized(codes=Array([1870], dtype=uint32), scale=Array([0.2857143], dtype=float32))

    Reference: Alistarh et al., arXiv 1610.02132, section 3.1; as the low-precision quantizer in
    Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """

    levels: int
    block: int | None = 256
    norm: Literal['max', 'l2'] = 'max'
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('QSGD', 'levels', self.levels, 1, (1 << 15) - 1)
        if self.block is not None:
            checks.integer('QSGD', 'block', self.block, 1)
        checks.one_of('QSGD', 'norm', self.norm, ('max', 'l2'))

    @property
    def bits(self) -> int:
        """Of one code."""
        return math.ceil(math.log2(2 * self.levels + 1))

    def _block_of(self, size: int) -> int:
        return max(1, size if self.block is None else min(self.block, size))

    def _rows(self, x: Array) -> Array:
        """The blocks, one a row, the last one padded with zeros: f[blocks, block]."""
        block = self._block_of(x.size)
        return jnp.pad(x.ravel(), (0, -x.size % block)).reshape(-1, block)

    def encode(self, x: Array, key: Key) -> Quantized:
        rows = self._rows(x)
        scale = norm_of(rows, self.norm) / self.levels
        step = jnp.where(scale == 0, 1, scale)[:, None]
        noise = jax.random.uniform(key, rows.shape, x.dtype)
        rounded = jnp.clip(jnp.floor(rows / step + noise), -self.levels, self.levels)
        codes = (rounded.astype(jnp.int32) + self.levels).astype(jnp.uint32)
        return Quantized(pack(codes.ravel()[: x.size], self.bits), scale)

    def decode(self, payload: Quantized, like: Like, key: Key) -> Array:
        del key
        codes = unpack(payload.codes, self.bits, like.size).astype(jnp.int32) - self.levels
        rows = self._rows(codes).astype(like.dtype) * payload.scale[:, None]
        return rows.ravel()[: like.size].reshape(like.shape)

    def omega(self, like: Like) -> float:
        b, s = self._block_of(like.size), self.levels
        if self.norm == 'max':
            return min((b - 1) / (4 * s**2), math.sqrt(b - 1) / (2 * s))
        return min(b / (4 * s**2), math.sqrt(b) / s)

    def scaled(self, payload: Quantized, factor: Array | float) -> Quantized:
        return payload._replace(scale=payload.scale * factor)


def norm_of(rows: Array, norm: str) -> Array:
    """The largest magnitude or the Euclidean norm of each row, safe from overflow: f[rows]."""
    largest = jnp.max(jnp.abs(rows), axis=1, initial=0)
    if norm == 'max':
        return largest
    unit = jnp.where(largest == 0, 1, largest)[:, None]
    return largest * jnp.sqrt(jnp.sum(jnp.square(rows / unit), axis=1))
