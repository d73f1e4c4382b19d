"""Integers of a few bits, and a scale for every block."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gradzip import _blocks as blocks, _checks as checks
from gradzip._base import Like
from gradzip._compressors.integers import Grid, Integral, omega_of_max


@dataclasses.dataclass(frozen=True)
class Int(Integral):
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
    def _grid(self) -> Grid:
        levels = (1 << self.bits - 1) - 1
        return Grid(levels, self.block, nearest=not self.random)

    def omega(self, like: Like) -> float | None:
        block = blocks.block_of(like.size, self.block)
        return omega_of_max(block, self._grid.levels) if self.random else None

    def delta(self, like: Like) -> float | None:
        spread = (blocks.block_of(like.size, self.block) - 1) / (4 * self._grid.levels**2)
        return None if self.random else 1 / (1 + spread)
