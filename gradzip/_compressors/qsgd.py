"""Stochastic rounding to a few levels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _checks as checks, _noise as noise
from gradzip._base import Array, Compressor, Key, Like
from gradzip._packing import pack, unpack, words_for

Threshold = Callable[[Array, int], Array]


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
      for 'max' and min(b / (4 s^2), sqrt(b) / s) for 'l2'. A block that holds NaN,
      infinity or magnitudes above finfo.max / 4 decodes to nothing finite.

    Raises:
      ValueError: levels or block out of range, or another norm.
      TypeError: levels or block is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.QSGD(levels=7).encode(jnp.array([2.0, -1.0, 0.0]), jax.random.key(0))
      Quantized(codes=Array([2004318030], dtype=uint32), scale=Array([0.2857143], dtype=float32))

    Reference: Alistarh et al., arXiv 1610.02132, section 3.1; as the low-precision quantizer in
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
        flat = blocks.wide(x)
        block = blocks.block_of(x.size, self.block)
        norm = blocks.largest if self.norm == 'max' else blocks.norm
        scale = norm(flat, block) / self.levels

        def round_at_random(piece: Array, start: int) -> Array:
            return noise.uniform(key, piece.shape, piece.dtype, start)

        return Quantized(quantize(flat, scale, block, self.levels, round_at_random), scale)

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
    """Codes of x / scale rounded to integers in [-levels, levels], shifted by levels: u32[words].

    A magnitude m goes up where m - floor(m) exceeds the threshold, so integers stay as they are.
    """
    per_step = blocks.reciprocal(scale)
    bits = bits_of(levels)

    def words(piece: Array, start: int) -> Array:
        ratio = piece * blocks.per_entry(per_step, block, piece.size, start)
        magnitude = jnp.abs(ratio)
        low = jnp.floor(magnitude)
        up = threshold(piece, start) < magnitude - low
        integer = jnp.minimum(low + up.astype(low.dtype), levels)
        signed = jnp.where(ratio < 0, -integer, integer).astype(jnp.int32) + levels
        # What is not finite becomes any integer; it must not reach into its neighbours' bits.
        return pack(signed.astype(jnp.uint32) & jnp.uint32((1 << bits) - 1), bits)

    return blocks.in_pieces(words, flat, block)[: words_for(flat.size, bits)]


def dequantize(payload: Quantized, like: Like, block: int, levels: int) -> Array:
    """scale * integer."""
    codes = unpack(payload.codes, bits_of(levels), like.size).astype(jnp.int32) - levels
    scale = blocks.per_entry(payload.scale, block, like.size)
    return (codes.astype(scale.dtype) * scale).astype(like.dtype).reshape(like.shape)


def fit(x: Array, payload: Quantized, block: int, levels: int) -> Quantized:
    """Every block with its own least-squares scale, <x, q> / <q, q> for its integers q."""
    flat = blocks.wide(x)
    # Behind the barrier nothing looks like what encode computed: shared, it would be stored.
    codes, scale = lax.optimization_barrier(payload)
    per_step = blocks.reciprocal(scale)
    integers = unpack(codes, bits_of(levels), x.size).astype(jnp.int32) - levels
    integers = integers.astype(flat.dtype)
    ratio = flat * blocks.per_entry(per_step, block, flat.size)
    inner, energy = blocks.inner_products(ratio, integers, block)
    factor = inner / jnp.where(energy == 0, 1, energy)
    return payload._replace(scale=payload.scale * factor)


def omega_of_max(b: int, s: int) -> float:
    """For rounding at random in blocks of b entries, whose largest is level s.

    An entry's variance is at most step^2 min(1/4, |v| / step) with step = max / s, and the largest
    entry is exact; then |v|_1 - max <= sqrt(b - 1) |v|_2^2 / (2 max).
    """
    return min((b - 1) / (4 * s**2), math.sqrt(b - 1) / (2 * s))


def bits_of(levels: int) -> int:
    """Of the code of an integer in [-levels, levels]."""
    return math.ceil(math.log2(2 * levels + 1))
