"""Integers of a few bits, and a scale for every block."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp

from gradzip import _blocks as blocks, _checks as checks, _noise as noise
from gradzip._base import Array, Compressor, Key, Like
from gradzip._compressors.qsgd import Quantized, dequantize, fit, omega_of_max, quantize
from gradzip._kernels.reductions import largest


@dataclasses.dataclass(frozen=True)
class Int(Compressor):
    """Rounds x / s to integers in [-q, q], q = 2^(bits - 1) - 1, with s = max|x| / q in each block.

    Args:
      bits: the size of one integer: 2, 4 or 8.
      block: entries that share a scale; the last block may be shorter.
      rounding: 'stochastic' rounds at random without bias, which is what `QSGD` does. 'nearest'
        rounds to the nearest integer and draws no random numbers.

    Payload: one code for each entry and one scale for each block; bits n / 8 + 4 n / block bytes
      for n float32 entries.

    Guarantee: for blocks of b entries, 'stochastic' is unbiased with omega =
      min((b - 1) / (4 q^2), sqrt(b - 1) / 2 q), and 'nearest' is contractive with delta =
      1 / (1 + (b - 1) / (4 q^2)), reached when all entries but the largest lie half-way between two
      levels. No entry of a block is finite after decoding if the block holds NaN, infinity or a
      magnitude above finfo.max / 4.

    Raises:
      ValueError: bits, block or rounding is not one of the values above.
      TypeError: bits or block is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.Int(4, rounding='nearest').encode(jnp.array([2.0, -1.0, 0.0]), jax.random.key(0))
      Quantized(codes=Array([2004318030], dtype=uint32), scale=Array([0.2857143], dtype=float32))

    Reference: Dettmers et al., arXiv 2110.02861, for blockwise scales; Alistarh et al., arXiv
      1610.02132, for random rounding.
    """

    bits: int
    _: dataclasses.KW_ONLY
    block: int = 64
    rounding: Literal['stochastic', 'nearest'] = 'stochastic'

    def __post_init__(self) -> None:
        checks.integer('Int', 'bits', self.bits, 2, 8)
        if self.bits not in (2, 4, 8):
            raise ValueError(f'Int(bits=...) must be 2, 4 or 8; got {self.bits!r}.')
        checks.integer('Int', 'block', self.block, 1)
        checks.one_of('Int', 'rounding', self.rounding, ('stochastic', 'nearest'))

    @property
    def random(self) -> bool:
        return self.rounding == 'stochastic'

    @property
    def _levels(self) -> int:
        return (1 << self.bits - 1) - 1

    def encode(self, x: Array, key: Key) -> Quantized:
        flat, block = blocks.wide(x), blocks.block_of(x.size, self.block)
        scale = largest(flat, block) / self._levels

        def threshold(piece: Array, start: int) -> Array:
            if self.random:
                return noise.uniform(key, piece.shape, piece.dtype, start)
            return jnp.full_like(piece, 0.5)

        return Quantized(quantize(flat, scale, block, self._levels, threshold), scale)

    def decode(self, payload: Quantized, like: Like, key: Key) -> Array:
        del key
        return dequantize(payload, like, blocks.block_of(like.size, self.block), self._levels)

    def least_squares_rescaled(self, x: Array, payload: Quantized, key: Key) -> Quantized:
        del key
        return fit(x, payload, blocks.block_of(x.size, self.block), self._levels)

    def omega(self, like: Like) -> float | None:
        block = blocks.block_of(like.size, self.block)
        return omega_of_max(block, self._levels) if self.random else None

    def delta(self, like: Like) -> float | None:
        spread = (blocks.block_of(like.size, self.block) - 1) / (4 * self._levels**2)
        return None if self.random else 1 / (1 + spread)

    def scaled(self, payload: Quantized, factor: Array | float) -> Quantized:
        return blocks.rescaled(payload, factor)
