"""What the quantizers do in one pass: codes, scales and the rest that is left in a memory.

The plain forms are the methods `encode` and `remainder` of the compressors.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from gradzip import _noise as noise
from gradzip._base import Array
from gradzip._blocks import reciprocal
from gradzip._kernels.fused import Flat
from gradzip._kernels.mosaic.lanes import over_blocks
from gradzip._kernels.mosaic.sweep import Swept, Tile, sweep
from gradzip._kernels.rounding import PowersOfTwo, bounded, codes_of, integers

SHARE = 256  # entries of a tile that are added at one place: magnitudes are divided by it


def quantized(
    x: Flat,
    seeds: Array,
    *,
    block: int,
    levels: int,
    bits: int,
    norm: str = 'max',
    nearest: bool = False,
    fit: bool = False,
    rest: bool = False,
) -> Swept:
    """Integers in [-levels, levels] of blocks with a scale each.

    Args:
      x: f32[n].
      seeds: of the random bits, u32[2].
      block: one of `fused.BLOCKS`.
      levels: the largest integer.
      bits: of a code: 2 to 16.
      norm: 'max' or 'l2', which divided by levels is the scale.
      nearest: whether to round to the nearest integer and not at random.
      fit: whether to give every block its least-squares scale afterwards.
      rest: whether what is lost is wanted.
    """

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        del floats
        scale = over_blocks(bounded(x), block, 'max')
        if norm == 'l2':
            part = x * reciprocal(scale)
            scale = scale * jnp.sqrt(over_blocks(part * part, block, 'sum'))
        scale = scale / levels
        ratio = x * reciprocal(scale)
        threshold = 0.5 if nearest else _uniform(place, words)
        integer = integers(ratio, threshold, levels)
        if fit:
            energy = over_blocks(integer * integer, block, 'sum')
            inner = over_blocks(ratio * integer, block, 'sum')
            scale = scale * (inner / jnp.where(energy == 0, 1, energy))
        codes = _signed(codes_of(integer, levels, bits))
        sent = (codes - levels).astype(x.dtype) * scale
        return Tile((codes,), (scale,), rest=x - sent if rest else None)

    return sweep(kernel, x, seeds, bits=(bits,), blocks=(block,), rest=rest)


def with_one_scale(
    x: Flat,
    seeds: Array,
    scales: Array,
    *,
    levels: int,
    bits: int,
    nearest: bool = False,
    rest: bool = False,
) -> Swept:
    """Integers in [-levels, levels] of an array with one scale.

    Args:
      x: f32[n].
      seeds: of the random bits, u32[2].
      scales: f32[2], the scale before rounding, and the one with which integers are decoded.
      levels: the largest integer.
      bits: of a code: 2 to 16.
      nearest: whether to round to the nearest integer and not at random.
      rest: whether what is lost is wanted.
    """

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        per_step, scale = floats
        threshold = 0.5 if nearest else _uniform(place, words)
        integer = integers(x * per_step, threshold, levels)
        codes = _signed(codes_of(integer, levels, bits))
        sent = (codes - levels).astype(x.dtype) * scale
        return Tile((codes,), rest=x - sent if rest else None)

    floats = jnp.stack([reciprocal(scales[0]), scales[1]])
    return sweep(kernel, x, seeds, floats, bits=(bits,), rest=rest)


def signs(x: Flat) -> tuple[Array, Array]:
    """The sign bits u32[words], and the mean magnitude f32[]."""

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        del place, words, floats
        bits = lax.bitcast_convert_type(x, jnp.int32) < 0
        return Tile((bits.astype(jnp.int32),), sums=(jnp.abs(x) / SHARE,))

    out = sweep(kernel, x, bits=(1,), sums=1)
    parts = out.sums[0]
    unit = jnp.max(parts)
    unit = jnp.where(unit > 0, unit, 1)
    return out.words[0], unit * (jnp.sum(parts / unit) * (SHARE / max(x.size, 1)))


def signs_and_two_sums(x: Flat) -> tuple[Array, Array, Array, Array]:
    """Bits that are set where x < 0, how many, and the sums / 32 of the others and of those.

    u32[words], f32[1], f32[1], f32[1].
    """

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        del place, words, floats
        below = x < 0
        high, low = (jnp.where(b, x, 0) / SHARE for b in (~below, below))
        return Tile((below.astype(jnp.int32),), sums=(high, low))

    out = sweep(kernel, x, bits=(1,), sums=2)
    high, low = (jnp.sum(part * (SHARE / 32), keepdims=True) for part in out.sums)
    ones = lax.population_count(out.words[0]).astype(jnp.int32)
    return out.words[0], jnp.sum(ones)[None].astype(jnp.float32), high, low


def kept_at_random(x: Flat, seeds: Array, threshold: Array) -> Array:
    """Bits that are set where |x| exceeds a random part of a threshold, or is NaN: u32[words]."""

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        kept = ~(jnp.abs(x) <= _uniform(place, words) * floats[0])
        return Tile((kept.astype(jnp.int32),))

    return sweep(kernel, x, seeds, threshold[None], bits=(1,)).words[0]


def powers(x: Flat, seeds: Array, *, factor: float = 1.0, rest: bool = False) -> Swept:
    """Codes of powers of two: their eight lower bits and the sign.

    Args:
      x: f32[n].
      seeds: of the random bits, u32[2].
      factor: of the powers that are sent.
      rest: whether what is lost is wanted.
    """
    layout = PowersOfTwo(jnp.float32)

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        del floats
        codes = layout.code(x, noise.bits_at(_unsigned(place), *words))
        left = x - layout.value(codes) * factor if rest else None
        codes = _signed(codes)
        return Tile((codes & 255, codes >> 8), rest=left)

    return sweep(kernel, x, seeds, bits=(8, 1), rest=rest)


def _uniform(place: Array, seeds: list[Array]) -> Array:
    return noise.uniform_from(noise.bits_at(_unsigned(place), *seeds), jnp.float32)


def _signed(words: Array) -> Array:
    return lax.bitcast_convert_type(words, jnp.int32)


def _unsigned(words: Array) -> Array:
    return lax.bitcast_convert_type(words, jnp.uint32)
