"""Codes, words and blocks in tiles of rows of 128 lanes, inside a kernel.

The wire formats are orders of consecutive entries: 32 / bits codes make a word, and consecutive
entries make a block. A row of 128 lanes holds 128 consecutive entries, so that codes of a word and
entries of a block lie side by side in lanes. Words are moved together by a product with a constant
matrix and a sum over rows, and apart by a gather within a row. XLA on TPU has neither: it would pad
an array whose last axis is 32 or 8 to 128 lanes and copy it.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.fused import LANES as LANES, SUBLANES as SUBLANES

WORD_BITS = 32
SQUARE = LANES * LANES  # entries of 128 rows


def pack_rows(codes: Array, bits: int) -> list[Array]:
    """Rows of codes to rows of words, as `words.pack` orders them.

    Args:
      codes: i32[rows, 128] below 2**bits, rows a multiple of 32.
      bits: 1 to 16.

    Returns:
      Arrays i32[rows of words, 128]. With m of them, array j has the rows j, j + m, j + 2 m, ...
    """
    if WORD_BITS % bits:
        planes = [pack_rows((codes >> b) & 1, 1)[0] for b in range(bits)]
        return [_interleaved(planes, row) for row in range(bits)]
    per_row = LANES * bits // WORD_BITS  # words that a row of codes makes
    group = LANES // per_row
    words = functools.reduce(jnp.bitwise_or, [_words(codes, bits, b) for b in range(0, bits, 8)])
    row, lane = iota(words.shape, 0), iota(words.shape, 1)
    mine = _divide(lane, per_row) == _modulo(row, group)
    if group >= SUBLANES:
        return [_sum_rows(jnp.where(mine, words, 0), group)]
    part = _divide(_modulo(row, SUBLANES), group)
    parts = range(SUBLANES // group)
    return [_sum_rows(jnp.where(mine & (part == j), words, 0), SUBLANES) for j in parts]


def unpack_rows(words: Array, bits: int, first: int) -> Array:
    """Eight rows of codes that are in one row of words.

    Args:
      words: i32[1, 128].
      bits: 1, 2, 4, 8 or 16.
      first: which row of those that the words hold is the first. If they hold fewer than eight
        rows, as with 8 bits and 16, the result repeats them.

    Returns:
      i32[8, 128].
    """
    per_word, per_row = WORD_BITS // bits, LANES * bits // WORD_BITS
    row, lane = iota((SUBLANES, LANES), 0) + first, iota((SUBLANES, LANES), 1)
    home = per_row * _modulo(row, LANES // per_row) + _divide(lane, per_word)
    word = jnp.take_along_axis(jnp.broadcast_to(words, (SUBLANES, LANES)), home, axis=1)
    return (word >> (_modulo(lane, per_word) * bits)) & ((1 << bits) - 1)


def split_planes(rows: list[Array]) -> list[Array]:
    """The words of each bit plane, from rows in which they take turns: i32[workers, 128] each.

    Args:
      rows: as many rows of words as planes, i32[workers, 128] each, in order.
    """
    lane = iota(rows[0].shape, 1)
    return [_gathered(rows, lane * len(rows) + plane) for plane in range(len(rows))]


def over_blocks(x: Array, block: int, kind: Literal['max', 'sum']) -> Array:
    """The maximum or the sum over every block, at each of its entries: f32[rows, 128].

    Args:
      x: f32[rows, 128], of which blocks of consecutive entries are whole; not negative, or a sum.
      block: one of `fused.BLOCKS`.
      kind: which of the two.
    """
    reduce, combine = (jnp.max, jnp.maximum) if kind == 'max' else (jnp.sum, jnp.add)

    def over_lanes(x: Array) -> Array:
        return jnp.broadcast_to(reduce(x, axis=1, keepdims=True), x.shape)

    rows = block // LANES
    if rows >= SUBLANES:
        whole = reduce(x.reshape(-1, rows, LANES), axis=1, keepdims=True)
        whole = jnp.broadcast_to(
            reduce(whole, axis=2, keepdims=True), (whole.shape[0], rows, LANES)
        )
        return whole.reshape(x.shape)
    if rows:
        whole = over_lanes(x)
        for distance in (1, 2):
            if distance < rows:
                whole = combine(whole, _of_other_rows(whole, distance))
        return whole
    part = _divide(iota(x.shape, 1), block)
    out = over_lanes(jnp.where(part == 0, x, 0))
    for j in range(1, LANES // block):
        out = jnp.where(part == j, over_lanes(jnp.where(part == j, x, 0)), out)
    return out


def block_rows(x: Array, block: int) -> Array:
    """The number of every block, given at each of its entries, in order: f32[rows / block, 128].

    If there are fewer than 128 of them, the result is one row that begins with their numbers.
    """
    row, lane = iota(x.shape, 0), iota(x.shape, 1)
    if block >= LANES:
        rows = block // LANES
        mine = (_modulo(lane, LANES) == _modulo(_divide(row, rows), LANES)) & (
            _modulo(row, rows) == 0
        )
        return _sum_rows(jnp.where(mine, x, 0), min(LANES * rows, x.shape[0]))
    per_row = LANES // block
    group = LANES // per_row
    spread = jnp.zeros_like(x)  # lane l has the number of block l modulo per_row of its row
    for j in range(per_row):
        number = jnp.broadcast_to(x[:, j * block : j * block + 1], x.shape)
        spread = jnp.where(_modulo(lane, per_row) == j, number, spread)
    mine = _divide(lane, per_row) == _modulo(row, group)
    return _sum_rows(jnp.where(mine, spread, 0), group)


def iota(shape: tuple[int, ...], axis: int) -> Array:
    """The place of every entry along an axis."""
    return lax.broadcasted_iota(jnp.int32, shape, axis)


def _words(codes: Array, bits: int, first: int) -> Array:
    """What eight bits of the codes from `first` on contribute to words: i32[rows, 128].

    Every row has its words in all groups of as many lanes as a row of codes makes words.
    """
    byte = codes if bits <= 8 else (codes >> first) & 255
    entries = byte.astype(jnp.float32).astype(jnp.bfloat16)  # exact below 256
    low, high = (
        jnp.dot(entries, part, preferred_element_type=jnp.float32).astype(jnp.int32)
        for part in _halves(bits)
    )
    return (low | (high << 16)) << first


def _interleaved(planes: list[Array], row: int) -> Array:
    """Of rows of words in which bit planes take turns, those with this number modulo `planes`.

    Each row of a plane has the words of 32 rows of codes, which become a row for every plane.
    """
    place = iota(planes[0].shape, 1) + row * LANES
    # The quotient by the number of planes, at most 15, is exact: places are below 2**11.
    word = (place * -(-(1 << 20) // len(planes))) >> 20
    plane = place - word * len(planes)
    out = jnp.zeros_like(planes[0])
    for number, words in enumerate(planes):
        out = jnp.where(plane == number, jnp.take_along_axis(words, word, axis=1), out)
    return out


def _gathered(rows: list[Array], place: Array) -> Array:
    """The words at some places in a list of rows of 128."""
    out = jnp.zeros_like(rows[0])
    for number, words in enumerate(rows):
        found = jnp.take_along_axis(words, place & (LANES - 1), axis=1)
        out = jnp.where(_divide(place, LANES) == number, found, out)
    return out


def _halves(bits: int) -> tuple[Array, Array]:
    """Two matrices whose products with codes are the lower and the upper 16 bits of words.

    bf16[128, 128]; column c gives word c modulo `per_row` of a row.
    """
    per_word, per_row = WORD_BITS // bits, LANES * bits // WORD_BITS
    lane, column = iota((LANES, LANES), 0), iota((LANES, LANES), 1)
    place = _modulo(lane, per_word)
    mine = _divide(lane, per_word) == _modulo(column, per_row)
    power = (1 << (bits * _modulo(place, per_word // 2))).astype(jnp.float32)
    low, high = (mine & (_divide(place, per_word // 2) == half) for half in (0, 1))
    return (
        jnp.where(low, power, 0).astype(jnp.bfloat16),
        jnp.where(high, power, 0).astype(jnp.bfloat16),
    )


def _of_other_rows(x: Array, distance: int) -> Array:
    """Each `distance` rows exchanged with the next: rows 0 and 1, 2 and 3 and so on for 1."""
    up, down = jnp.roll(x, -distance, axis=0), jnp.roll(x, distance, axis=0)
    return jnp.where(iota(x.shape, 0) & distance == 0, up, down)


def _sum_rows(x: Array, group: int) -> Array:
    """Sums over every `group` rows."""
    return x.reshape(-1, group, LANES).sum(1)


# Python's operators on signed integers cost more: they round to minus infinity.
def _divide(x: Array, divisor: int) -> Array:
    return x >> (divisor.bit_length() - 1)


def _modulo(x: Array, divisor: int) -> Array:
    return x & (divisor - 1)
