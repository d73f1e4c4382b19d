"""Rotated, then rounded as is best for Gaussians: EDEN, and at one bit DRIVE."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from gradzip import _blocks as blocks, _checks as checks
from gradzip._base import Array, Compressor, Key, Like
from gradzip._compressors.qsgd import Quantized
from gradzip._compressors.rotated import block_for, rotate, rotate_back, rotated_like
from gradzip._packing import pack, unpack, words_for


@dataclasses.dataclass(frozen=True)
class EDEN(Compressor):
    """C(v) = S R^T c, where c_i is the centroid nearest to (R v)_i, in units of their mean square.

    R is a random rotation (`Rotated`), after which a block of d entries is nearly Gaussian, and the
    2^bits centroids are those of Lloyd and Max for a Gaussian.

    Args:
      bits: of one code, 1 to 5.
      scale: 'unbiased', S = |v|^2 / <R v, c>, or 'nearest', S = <R v, c> / |c|^2, which has the
        smaller error and is what a memory asks for.

    Payload: codes and one scale a block of 2^14 entries; bits n / 8 + n / 4096 bytes for n float32
    entries, padded as in `Rotated`.

    Guarantee: for large leaves |C(v) - v|^2 / |v|^2 tends to 0.571, 0.133, 0.036, 0.0096, 0.0025 at
      1 to 5 bits for 'unbiased', and to e / (1 + e) of each e for 'nearest'. 'unbiased' has the
      mean right for a uniformly random rotation, and nearly so for the fast one used here, so no
      omega is stated. 'nearest' is contractive: delta = 4 a b / (a + b)^2 / d at worst, a and b the
      smallest and the largest centroid. A block that is not finite stays so.

    Raises:
      ValueError: bits or scale out of range.
      TypeError: bits is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> eden, key = gz.EDEN(bits=2), jax.random.key(0)
      >>> x = jax.random.normal(key, (1 << 14,))
      >>> out = eden.decode(eden.encode(x, key), x, key)
      >>> print(f'{jnp.sum((out - x) ** 2) / jnp.sum(x**2):.2f}')
      0.13

    Reference: Vargaftik et al., arXiv 2108.08842, and arXiv 2105.08339 for one bit.
    """

    bits: int
    _: dataclasses.KW_ONLY
    scale: Literal['unbiased', 'nearest'] = 'unbiased'
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('EDEN', 'bits', self.bits, 1, 5)
        checks.one_of('EDEN', 'scale', self.scale, ('unbiased', 'nearest'))

    def encode(self, x: Array, key: Key) -> Quantized:
        rotated, block = rotate(x, key), block_for(x.size)
        norm = blocks.norm(rotated, block)
        to_unit = blocks.reciprocal(norm) * math.sqrt(block)
        unit = rotated * blocks.per_entry(to_unit, block, rotated.size)
        codes = sum((unit > t).astype(jnp.uint32) for t in _thresholds(self.bits))
        codes = jnp.asarray(codes, jnp.uint32)
        inner, energy = blocks.inner_products(unit, _values(codes, self.bits, unit), block)
        if self.scale == 'unbiased':
            scale = norm * math.sqrt(block) / jnp.where(inner == 0, 1, inner)
        else:
            scale = norm / math.sqrt(block) * inner / jnp.where(energy == 0, 1, energy)
        return Quantized(pack(codes, self.bits)[: words_for(codes.size, self.bits)], scale)

    def decode(self, payload: Quantized, like: Like, key: Key) -> Array:
        rotated, block = rotated_like(like), block_for(like.size)
        codes = unpack(payload.codes, self.bits, rotated.size)
        scale = blocks.per_entry(payload.scale, block, rotated.size)
        return rotate_back(_values(codes, self.bits, scale) * scale, like, key)

    def delta(self, like: Like) -> float | None:
        """By Chebyshev's sum inequality, c being larger where R v is, and Kantorovich's for c."""
        if self.scale == 'unbiased':
            return None
        values = centroids(self.bits)[1 << self.bits - 1 :]
        low, high = values[0], values[-1]
        return 4 * low * high / (low + high) ** 2 / block_for(like.size)

    def contractive(self, like: Like) -> EDEN:
        del like
        return dataclasses.replace(self, scale='nearest')

    def scaled(self, payload: Quantized, factor: Array | float) -> Quantized:
        return blocks.rescaled(payload, factor)


@functools.cache
def centroids(bits: int) -> tuple[float, ...]:
    """The 2**bits values with the least mean squared distance to a standard Gaussian, ascending.

    Lloyd's iteration: every value is the mean of the Gaussian between the midpoints around it.
    """
    values = np.linspace(-2, 2, 1 << bits) if bits > 1 else np.array([-1.0, 1.0])
    erf = np.vectorize(math.erf)
    for _ in range(3000):
        edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
        density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
        mass = np.diff(erf(edges / math.sqrt(2))) / 2
        values, last = -np.diff(density) / mass, values
        if np.max(np.abs(values - last)) < 1e-9:
            break
    return tuple(values.tolist())


def _thresholds(bits: int) -> list[float]:
    values = centroids(bits)
    return [(low + high) / 2 for low, high in itertools.pairwise(values)]


def _values(codes: Array, bits: int, like: Array) -> Array:
    """The centroids of codes, in like's dtype."""
    return jnp.asarray(centroids(bits), like.dtype)[codes]
