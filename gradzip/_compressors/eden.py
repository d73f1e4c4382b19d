"""A random rotation, then the best rounding of Gaussian entries: EDEN, and DRIVE at one bit."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradzip import _blocks as blocks, _checks as checks, _noise as noise
from gradzip._base import Array, Key, Like
from gradzip._compressors.integers import Quantized
from gradzip._compressors.quantizer import Quantizer
from gradzip._compressors.rotated import (
    LONGEST_BLOCK,
    SIGNS_START,
    block_for,
    rotate,
    rotate_back,
    rotated_like,
    swept,
)
from gradzip._kernels.fused import Flat
from gradzip._kernels.reductions import inner_products, norm as norm_of
from gradzip._kernels.words import pack, unpack


@dataclasses.dataclass(frozen=True)
class EDEN(Quantizer):
    """C(v) = S R^T c, where c_i is the centroid nearest to (R v)_i.

    R is a random rotation (`Rotated`), after which a block of d entries is nearly Gaussian. The
    2^bits centroids are those of Lloyd and Max for a Gaussian, in units of the root mean square of
    the block.

    Args:
      bits: the size of one code, 1 to 5.
      scale: 'unbiased' for S = |v|^2 / <R v, c>, or 'nearest' for S = <R v, c> / |c|^2, which has
        the smaller error and is what a memory uses.

    Payload: one code for each entry and one scale for each block of 2^14 entries; bits n / 8 +
      n / 4096 bytes for n float32 entries, padded as in `Rotated`.

    Guarantee: for large leaves and 'unbiased', e = |C(v) - v|^2 / |v|^2 tends to 0.571, 0.133,
      0.036, 0.0096 and 0.0025 at 1 to 5 bits; for 'nearest' it tends to e / (1 + e). 'unbiased' is
      unbiased for a uniformly random rotation. For the fast rotation used here it is nearly so, and
      no omega is stated. 'nearest' is contractive with delta = 4 a b / (a + b)^2 / d at worst,
      where a and b are the smallest and the largest positive centroid. A block that is not finite
      stays so.

    Raises:
      ValueError: bits or scale is out of range.
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
    tile: ClassVar[int] = LONGEST_BLOCK
    _decoded_at_once: ClassVar[int] = 1

    def __post_init__(self) -> None:
        checks.integer('EDEN', 'bits', self.bits, 1, 5)
        checks.one_of('EDEN', 'scale', self.scale, ('unbiased', 'nearest'))

    @property
    def code_bits(self) -> int:
        return self.bits

    def _encode(self, x: Array, key: Key) -> Quantized:
        rotated, block = rotate(x, key), block_for(x.size)
        norm = norm_of(rotated, block)
        to_unit = blocks.reciprocal(norm) * math.sqrt(block)
        unit = rotated * blocks.per_entry(to_unit, block, rotated.size)
        codes = sum((unit > t).astype(jnp.uint32) for t in _thresholds(self.bits))
        codes = jnp.asarray(codes, jnp.uint32)
        inner, energy = inner_products(unit, _values(codes, self.bits, unit), block)
        if self.scale == 'unbiased':
            scale = norm * math.sqrt(block) / jnp.where(inner == 0, 1, inner)
        else:
            scale = norm / math.sqrt(block) * inner / jnp.where(energy == 0, 1, energy)
        return Quantized(pack(codes, self.bits), scale)

    def _decode(self, payload: Quantized, like: Like, key: Key) -> Array:
        rotated, block = rotated_like(like), block_for(like.size)
        codes = unpack(payload.codes, self.bits, rotated.size)
        scale = blocks.per_entry(payload.scale, block, rotated.size)
        return rotate_back(_values(codes, self.bits, scale) * scale, like, key)

    def _swept(self, like: Like) -> bool:
        return swept(like)

    def _sweep(self, flat: Flat, key: Key, *, fit: bool, lost: bool) -> tuple[Quantized, Any]:
        from gradzip._kernels.mosaic import rotations  # only programs for TPU need Pallas

        del fit  # the scale says which it is
        how = {'values': centroids(self.bits), 'bits': self.bits, 'rest': lost}
        if padding := -flat.size % LONGEST_BLOCK:
            padded = Flat(*(jnp.pad(p.ravel(), (0, padding)) for p in flat if p is not None))
        else:
            padded = flat
        seeds, nearest = jnp.stack(noise.seeds(key)), self.scale == 'nearest'
        out = rotations.eden(padded, seeds, SIGNS_START, nearest=nearest, **how)
        rest = () if out.rest is None else out.rest.ravel()[: flat.size] if padding else out.rest
        return Quantized(out.words[0], out.blocks[0]), rest

    def _mean(self, payloads: Quantized, shape: tuple[int, ...], keys: Key) -> Array:
        from gradzip._kernels.mosaic import rotations  # only programs for TPU need Pallas

        seeds = jax.vmap(lambda key: jnp.stack(noise.seeds(key)))(keys)
        size = math.prod(shape)
        padded = -(-size // LONGEST_BLOCK) * LONGEST_BLOCK
        how = {'values': centroids(self.bits), 'bits': self.bits}
        mean = rotations.eden_mean(
            payloads.codes, payloads.scale, seeds, SIGNS_START, padded, **how
        )
        return mean[:size].reshape(shape)

    def delta(self, like: Like) -> float | None:
        """The constant of 'nearest', or None.

        It follows from Chebyshev's sum inequality, because c is larger where R v is, and from
        Kantorovich's inequality for c.
        """
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

    This is Lloyd's iteration: every value becomes the mean of the Gaussian between the midpoints
    around it.
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
    """The centroids of codes, in the dtype of `like`."""
    return jnp.asarray(centroids(bits), like.dtype)[codes]
