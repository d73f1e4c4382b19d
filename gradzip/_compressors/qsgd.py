"""Stochastic rounding to a few levels: scale, round, pack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _checks as checks, _noise as noise
from gradzip._base import Array, Compressor, Key, Like
from gradzip._kernels.codes import pack_codes
from gradzip._kernels.reductions import inner_products, largest, norm
from gradzip._kernels.words import unpack

Threshold = Callable[[Array, int], Array]


class Quantized(NamedTuple):
    """Integers in [-levels, levels], each plus levels, packed; an entry is scale * integer."""

    codes: Array  # u32[words]
    scale: Array  # f[blocks]


@dataclasses.dataclass(frozen=True)
class QSGD(Compressor):
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

    def encode(self, x: Array, key: Key) -> Quantized:
        flat, block = blocks.wide(x), blocks.block_of(x.size, self.block)
        scale = (largest if self.norm == 'max' else norm)(flat, block) / self.levels

        def at_random(piece: Array, start: int) -> Array:
            return noise.uniform(key, piece.shape, piece.dtype, start)

        return Quantized(quantize(flat, scale, block, self.levels, at_random), scale)

    def decode(self, payload: Quantized, like: Like, key: Key) -> Array:
        del key
        return dequantize(payload, like, blocks.block_of(like.size, self.block), self.levels)

    def least_squares_rescaled(self, x: Array, payload: Quantized, key: Key) -> Quantized:
        del key
        return fit(x, payload, blocks.block_of(x.size, self.block), self.levels)

    def omega(self, like: Like) -> float:
        b, s = blocks.block_of(like.size, self.block), self.levels
        return omega_of_max(b, s) if self.norm == 'max' else min(b / (4 * s**2), math.sqrt(b) / s)

    def scaled(self, payload: Quantized, factor: Array | float) -> Quantized:
        return blocks.rescaled(payload, factor)


def quantize(flat: Array, scale: Array, block: int, levels: int, threshold: Threshold) -> Array:
    """Rounds x / scale to integers in [-levels, levels], adds levels, and packs: u32[words].

    Args:
      flat: x.
      scale: of every block; zero only where the block is zero.
      block: entries that share a scale.
      levels: the largest integer.
      threshold: of some consecutive entries and the place of the first one, to a number in [0, 1)
        for each of them. A magnitude m is rounded up if m - floor(m) exceeds it, so that integers
        stay as they are.
    """
    per_step = blocks.reciprocal(scale)
    bits = bits_of(levels)

    def code(piece: Array, start: int) -> Array:
        ratio = piece * blocks.per_entry(per_step, block, piece.size, start)
        magnitude = jnp.abs(ratio)
        low = jnp.floor(magnitude)
        up = threshold(piece, start) < magnitude - low
        integer = jnp.minimum(low + up.astype(low.dtype), levels)
        signed = jnp.where(ratio < 0, -integer, integer).astype(jnp.int32) + levels
        # A number that is not finite becomes an arbitrary integer, which must not change the bits
        # of its neighbours.
        return signed.astype(jnp.uint32) & jnp.uint32((1 << bits) - 1)

    return pack_codes(code, flat, bits, block)


def dequantize(payload: Quantized, like: Like, block: int, levels: int) -> Array:
    """The entries scale * integer, in the shape and dtype of `like`."""
    codes = unpack(payload.codes, bits_of(levels), like.size).astype(jnp.int32) - levels
    scale = blocks.per_entry(payload.scale, block, like.size)
    return (codes.astype(scale.dtype) * scale).astype(like.dtype).reshape(like.shape)


def fit(x: Array, payload: Quantized, block: int, levels: int) -> Quantized:
    """Gives every block its least-squares scale, <x, q> / <q, q> for its integers q."""
    flat = blocks.wide(x)
    # The barrier stops XLA from sharing this with `encode`, which would materialise it.
    codes, scale = lax.optimization_barrier(payload)
    per_step = blocks.reciprocal(scale)
    integers = unpack(codes, bits_of(levels), x.size).astype(jnp.int32) - levels
    integers = integers.astype(flat.dtype)
    ratio = flat * blocks.per_entry(per_step, block, flat.size)
    inner, energy = inner_products(ratio, integers, block)
    factor = inner / jnp.where(energy == 0, 1, energy)
    return payload._replace(scale=payload.scale * factor)


def omega_of_max(b: int, s: int) -> float:
    """Omega of random rounding in blocks of b entries whose largest magnitude is level s.

    The variance of an entry is at most step^2 min(1/4, |v| / step) with step = max / s, and the
    largest entry is exact. The bound follows with |v|_1 - max <= sqrt(b - 1) |v|_2^2 / (2 max).
    """
    return min((b - 1) / (4 * s**2), math.sqrt(b - 1) / (2 * s))


def bits_of(levels: int) -> int:
    """How many bits the code of an integer in [-levels, levels] has."""
    return math.ceil(math.log2(2 * levels + 1))
