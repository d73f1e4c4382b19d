"""Random signs and zeros: the ternary quantizer."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from gradzip import _checks as checks
from gradzip._base import Like
from gradzip._compressors.integers import Grid, Integral


@dataclasses.dataclass(frozen=True)
class Ternary(Integral):
    """Q(v)_i = N sign(v_i) xi_i with xi_i ~ Bernoulli(|v_i| / N), where N is a norm of the leaf.

    It is `QSGD` with one level and one scale.

    Args:
      norm: N. 'l2' is the gradient quantizer of the first paper below, 'max' is TernGrad.

    Payload: one code of two bits for each entry, and one scale; n / 4 + 4 bytes for n float32
      entries.

    Guarantee: unbiased with omega = sqrt(n) - 1 for 'l2' and (sqrt(n) - 1) / 2 for 'max', both of
      which are reached. A leaf that holds NaN or infinity decodes to NaN.

    Raises:
      ValueError: norm is neither 'l2' nor 'max'.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.Ternary('max').encode(jnp.array([3.0, -3.0, 0.0]), jax.random.key(0))
      Quantized(codes=Array([1431655762], dtype=uint32), scale=Array([3.], dtype=float32))

    Reference: Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573, the gradient quantizer; Wen et
      al., arXiv 1705.07878, equation 1.
    """

    norm: Literal['l2', 'max']
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.one_of('Ternary', 'norm', self.norm, ('l2', 'max'))

    @property
    def _grid(self) -> Grid:
        return Grid(1, None, self.norm)

    def omega(self, like: Like) -> float:
        excess = math.sqrt(max(like.size, 1)) - 1
        return excess if self.norm == 'l2' else excess / 2
