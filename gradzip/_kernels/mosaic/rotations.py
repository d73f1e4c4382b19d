"""Random rotations of blocks of 2^14 entries, alone and with the codes of `EDEN`.

A block is a square of 128 rows of 128 lanes. Its Hadamard transform is H X H with the Hadamard
matrix H of order 128, two products in on-chip memory.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip import _noise as noise
from gradzip._axes import vary_like
from gradzip._base import Array
from gradzip._blocks import reciprocal
from gradzip._compat import like_varying
from gradzip._kernels.fused import Flat
from gradzip._kernels.mosaic.decoders import UNIT, codes_of_rows, in_rows, rows_spec
from gradzip._kernels.mosaic.lanes import LANES, SQUARE, SUBLANES, iota
from gradzip._kernels.mosaic.sweep import Swept, Tile, sweep
from gradzip._kernels.rounding import bounded

SQUARES = 8  # that are in on-chip memory at a time
WORD_BITS = 32


def rotate(x: Array, seeds: Array, start: int, *, back: bool) -> Array:
    """R x, or R' x: f32[n].

    Args:
      x: f32[n], n a multiple of 2^14.
      seeds: of the random signs, u32[2].
      start: the place of the first word of signs in their stream.
      back: whether the signs come after the transform.
    """

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        del floats
        if back:
            return Tile(rest=_with_signs(_transform(x), place, words, start))
        return Tile(rest=_transform(_with_signs(x, place, words, start)))

    rest = sweep(kernel, Flat(x), seeds, rest=True).rest
    assert rest is not None
    return rest


def eden(
    x: Flat,
    seeds: Array,
    start: int,
    *,
    values: tuple[float, ...],
    bits: int,
    nearest: bool,
    rest: bool,
) -> Swept:
    """The nearest of some values for every rotated entry, in units of the root mean square.

    Args:
      x: f32[n], n a multiple of 2^14.
      seeds: of the random signs, u32[2].
      start: the place of the first word of signs in their stream.
      values: 2**bits numbers, ascending.
      bits: 1 to 16.
      nearest: whether the scale is the least-squares scale, or else that of an unbiased estimate.
      rest: whether what is lost is wanted.
    """

    def kernel(x: Array, place: Array, words: list[Array], floats: list[Array]) -> Tile:
        del floats
        rotated = _transform(_with_signs(x, place, words, start))
        unit = _over_squares(bounded(rotated), jnp.max)
        part = rotated * reciprocal(unit)
        norm = unit * jnp.sqrt(_over_squares(part * part, jnp.sum))
        ratio = rotated * (reciprocal(norm) * math.sqrt(SQUARE))
        codes = jnp.zeros(x.shape, jnp.int32)
        value = jnp.full(x.shape, values[0], x.dtype)
        for i in range(1, len(values)):
            above = ratio > (values[i - 1] + values[i]) / 2
            codes += above.astype(jnp.int32)
            value = jnp.where(above, values[i], value)
        inner = _over_squares(ratio * value, jnp.sum)
        if nearest:
            energy = _over_squares(value * value, jnp.sum)
            scale = norm / math.sqrt(SQUARE) * inner / jnp.where(energy == 0, 1, energy)
        else:
            scale = norm * math.sqrt(SQUARE) / jnp.where(inner == 0, 1, inner)
        left = None
        if rest:
            left = x - _with_signs(_transform(value * scale), place, words, start)
        return Tile((codes,), (scale,), rest=left)

    return sweep(kernel, x, seeds, bits=(bits,), blocks=(SQUARE,), rest=rest)


def eden_mean(
    words: Array,
    scales: Array,
    seeds: Array,
    start: int,
    size: int,
    *,
    values: tuple[float, ...],
    bits: int,
) -> Array:
    """The mean of what many workers sent: f32[size].

    Args:
      words: u32[workers, words].
      scales: f32[workers, blocks].
      seeds: of every worker, u32[workers, 2].
      start: the place of the first word of signs in their streams.
      size: how many entries, a multiple of 2^14.
      values: 2**bits numbers, ascending.
      bits: 1 to 16.
    """
    workers, blocks = scales.shape
    seeds, scales = (vary_like(a, words) for a in (seeds.reshape(-1), scales))
    out = pl.pallas_call(
        functools.partial(_mean_body, workers=workers, start=start, values=values, bits=bits),
        grid=(-(-blocks // SQUARES),),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            rows_spec(workers, SQUARES * LANES * bits // WORD_BITS),
            pl.BlockSpec((SQUARES, workers), lambda i: (i, 0)),
        ],
        out_specs=pl.BlockSpec((SQUARES * LANES, LANES), lambda i: (i, 0)),
        out_shape=like_varying((size // LANES, LANES), jnp.float32, words),
    )(seeds, in_rows(words), scales.T)
    return out.reshape(-1)


def _mean_body(
    seeds: Any,
    words: Any,
    scales: Any,
    out: Any,
    *,
    workers: int,
    start: int,
    values: tuple[float, ...],
    bits: int,
) -> None:
    step = pl.program_id(0)

    def square(index: Array, _: Array) -> Array:
        first = (step * SQUARES + index) * SQUARE
        place = first + iota((LANES, LANES), 0) * LANES + iota((LANES, LANES), 1)
        of_all = scales[pl.ds(index, 1), :]

        def add(worker: Any, total: Array, count: int) -> Array:
            units = [
                codes_of_rows(words, pl.ds(worker, count), index * (LANES // UNIT) + u, bits)
                for u in range(LANES // UNIT)
            ]
            for w in range(count):
                codes = jnp.concatenate([rows for unit in units for rows in unit[w]], axis=0)
                value = jnp.full(codes.shape, values[0], jnp.float32)
                for i in range(1, len(values)):
                    value = jnp.where(codes >= i, values[i], value)
                mine = iota(of_all.shape, 1) == worker + w
                scale = jnp.sum(jnp.where(mine, of_all, 0), axis=1, keepdims=True)
                own = [seeds[2 * (worker + w)], seeds[2 * (worker + w) + 1]]
                total += _with_signs(_transform(value * scale), place, own, start)
            return total

        total, whole = jnp.zeros((LANES, LANES), jnp.float32), workers // SUBLANES
        if whole:
            total = lax.fori_loop(
                0,
                whole,
                lambda g, t: add(pl.multiple_of(g * SUBLANES, SUBLANES), t, SUBLANES),
                total,
            )
        if workers % SUBLANES:
            total = add(whole * SUBLANES, total, workers % SUBLANES)
        out[pl.ds(pl.multiple_of(index * LANES, LANES), LANES), :] = total / workers
        return _

    lax.fori_loop(0, SQUARES, square, 0)


def _with_signs(x: Array, place: Array, seeds: list[Array], start: int) -> Array:
    """x with its sign changed where the bit of its place is set in the stream."""
    index = lax.bitcast_convert_type(lax.shift_right_logical(place, 5), jnp.uint32)
    word = noise.bits_at(index + jnp.uint32(start), *seeds)
    bit = lax.bitcast_convert_type(word, jnp.int32) >> (place & 31)
    return jnp.where(bit & 1 == 1, -x, x)


def _transform(x: Array) -> Array:
    """Every square of 128 rows times the orthonormal Hadamard matrix of order 2^14."""
    both = iota((LANES, LANES), 0) & iota((LANES, LANES), 1)
    for half in (4, 2, 1):
        both ^= both >> half
    matrix = jnp.where(both & 1 == 1, -1.0, 1.0).astype(jnp.bfloat16)
    rows = functools.reduce(jnp.add, [_times(part, matrix) for part in _parts(x / LANES)])
    squares = [
        functools.reduce(jnp.add, [_times(matrix, part) for part in _parts(rows[i : i + LANES])])
        for i in range(0, x.shape[0], LANES)
    ]
    return jnp.concatenate(squares, axis=0)


def _times(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _parts(x: Array) -> list[Array]:
    """Three arrays in bfloat16 whose sum is x: the products are as exact as in float32."""
    parts = []
    for _ in range(3):
        word = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000)
        part = lax.bitcast_convert_type(word, jnp.float32)
        parts.append(part.astype(jnp.bfloat16))
        x = x - part
    return parts


def _over_squares(x: Array, reduce: Any) -> Array:
    """The maximum or the sum over every square of 128 rows, at each of its entries."""
    squares = [x[i : i + LANES] for i in range(0, x.shape[0], LANES)]
    return jnp.concatenate(
        [jnp.broadcast_to(reduce(s, keepdims=True), s.shape) for s in squares], axis=0
    )
