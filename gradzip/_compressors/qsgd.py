"""Stochastic rounding to a few levels: scale, round, pack."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from gradzip import _blocks as blocks, _checks as checks
from gradzip._base import Like
from gradzip._compressors.integers import Grid, Integral, omega_of_max


@dataclasses.dataclass(frozen=True)
class QSGD(Integral):
    """Rounds entries at random to 2 levels + 1 evenly spaced values, without bias.

    Within a block, Q(v)_i = (N / s) xi_i, where N is the norm of the block, s = levels, and xi_i is
    one of the two integers next to s v_i / N, chosen so that its expectation is s v_i / N.

    Args:
      levels: s, the number of positive levels, 1 to 2**15 - 1.
      block: entries that share a scale; None for one scale per leaf. The last block may be shorter.
      norm: N. 'max' gives the smaller error; 'l2' is the form of the paper.

    Payload: one code of ceil(log2(2 levels + 1)) bits for each entry (2, 3, 4 and 8 bits for 1, 3,
      7 and 127 levels), and one scale for each block. With levels 7 and block 256 these are n / 2 +
      n / 64 bytes for n float32 entries.

    Guarantee: unbiased. For blocks of b entries, omega is min((b - 1) / (4 s^2), sqrt(b - 1) / 2 s)
      for 'max' and min(b / (4 s^2), sqrt(b) / s) for 'l2'. No entry of a block is finite after
      decoding if the block holds NaN, infinity or a magnitude above finfo.max / 4.

    Raises:
      ValueError: levels or block is out of range, or norm is neither of the two.
      TypeError: levels or block is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.QSGD(levels=7).encode(jnp.array([2.0, -1.0, 0.0]), jax.random.key(0))
      Quantized(codes=Array([2004318030], dtype=uint32), scale=Array([0.2857143], dtype=float32))

    Reference: Alistarh et al., arXiv 1610.02132, section 3.1. It is the low-precision quantizer of
      Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """

    levels: int
    _: dataclasses.KW_ONLY
    block: int | None = 256
    norm: Literal['max', 'l2'] = 'max'
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('QSGD', 'levels', self.levels, 1, (1 << 15) - 1)
        if self.block is not None:
            checks.integer('QSGD', 'block', self.block, 1)
        checks.one_of('QSGD', 'norm', self.norm, ('max', 'l2'))

    @property
    def _grid(self) -> Grid:
        return Grid(self.levels, self.block, self.norm)

    def omega(self, like: Like) -> float:
        b, s = blocks.block_of(like.size, self.block), self.levels
        return omega_of_max(b, s) if self.norm == 'max' else min(b / (4 * s**2), math.sqrt(b) / s)
