"""The mean of what many workers sent, in one pass: payloads are read once, and the mean is written.

The plain form decodes one payload after the other and adds it to the sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip._axes import vary_like
from gradzip._base import Array
from gradzip._compat import like_varying
from gradzip._kernels.mosaic import matrices
from gradzip._kernels.mosaic.lanes import (
    LANES,
    SUBLANES,
    WORD_BITS,
    iota,
    split_planes,
    unpack_rows,
)
from gradzip._kernels.rounding import PowersOfTwo

UNIT = 32  # rows that are decoded together: a row of words for every bit of a code
MOST_ROWS = 2048  # that are in on-chip memory at a time
LARGEST_STEP = 1 << 21  # bytes of words
GROUPS = UNIT // SUBLANES

Rows = tuple[Array, ...]  # of eight rows each
Value = Callable[[list[Array], list[Array]], Array]


def mean(
    words: list[Array],
    numbers: list[Array],
    shape: tuple[int, ...],
    *,
    bits: tuple[int, ...],
    block: int | None,
    value: Value,
) -> Array:
    """The mean over workers of decoded payloads: f32[*shape].

    Args:
      words: of the codes, u32[workers, words] each.
      numbers: f32[workers, blocks] each, or f32[workers] if block is None.
      shape: of the leaf.
      bits: the width of the codes in each array of words: 1 to 16.
      block: entries that share a number, one of `fused.BLOCKS`, or None if all do.
      value: from codes, i32[8, 128] for each array of words, and numbers, f32[8, 128] or f32[] for
        each array of numbers, to entries, f32[8, 128].
    """
    workers, size, one = words[0].shape[0], math.prod(shape), words[0]
    rows = MOST_ROWS
    while _bytes(rows, workers, bits) > LARGEST_STEP:
        rows //= 2
    # Of a matrix, a step has at least eight rows of words, and 128 blocks.
    unit = math.lcm(SUBLANES * UNIT, block or 1)
    wide = matrices.width(shape, unit, rows)
    if wide > 1:
        rows = rows // matrices.least(wide, unit) * matrices.least(wide, unit)
    total = -(-size // (SUBLANES * LANES)) * SUBLANES
    words, numbers = ([vary_like(a, one) for a in part] for part in (words, numbers))
    scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
    words = [in_rows(part) for part in words]
    specs = [rows_spec(workers, rows * b // WORD_BITS) for b in bits]
    specs += [scalars if block is None else _numbers_spec(workers, rows, block)] * len(numbers)
    out = pl.pallas_call(
        functools.partial(
            _body, workers=workers, rows=rows, wide=wide, bits=bits, block=block, value=value
        ),
        grid=(-(-total // rows),),
        in_specs=specs,
        out_specs=matrices.rows_spec(rows, wide),
        out_shape=like_varying((total // wide, wide * LANES), jnp.float32, one),
        scratch_shapes=[pltpu.VMEM((rows, LANES), jnp.float32)] * (wide > 1),
    )(*words, *numbers)
    return out.reshape(-1)[:size].reshape(shape)


def _bytes(rows: int, workers: int, bits: Sequence[int]) -> int:
    """Of the words in a step."""
    return workers * rows * LANES * sum(bits) // 8


def in_rows(words: Array) -> Array:
    """The words of all workers in rows of lanes: u32[workers, rows, 128].

    That is how a collective returns them. An array of [workers, words] would be a copy.
    """
    padded = jnp.pad(words, ((0, 0), (0, -words.shape[1] % LANES)))
    return padded.reshape(words.shape[0], -1, LANES)


def rows_spec(workers: int, rows: int) -> pl.BlockSpec:
    """So many of these rows in a step."""
    return pl.BlockSpec((workers, rows, LANES), lambda i: (0, i, 0))


def _numbers_spec(workers: int, rows: int, block: int) -> pl.BlockSpec:
    """The numbers of the blocks in a step. At least 128 of them are in on-chip memory."""
    count = rows * LANES // block
    steps = max(1, LANES // count)
    return pl.BlockSpec((workers, max(count, LANES)), lambda i: (0, i // steps))


def _body(
    *refs: Any,
    workers: int,
    rows: int,
    wide: int,
    bits: tuple[int, ...],
    block: int | None,
    value: Value,
) -> None:
    refs, matrix, out = (refs, None, refs[-1]) if wide == 1 else (refs[:-1], refs[-2], refs[-1])
    words, numbers = refs[: len(bits)], refs[len(bits) : -1]
    # Of a matrix, the blocks of a step are all that is in on-chip memory.
    first_row = pl.program_id(0) * rows if wide == 1 else 0

    def unit(index: Array, _: Array) -> Array:
        def add(first: Any, totals: Rows, count: int) -> Rows:
            """Adds what `count` workers sent, at most eight, from the worker `first` on."""
            here = pl.ds(first, count)
            codes = [codes_of_rows(ref, here, index, b) for ref, b in zip(words, bits, strict=True)]
            shared = [_numbers(ref, here, first_row + index * UNIT, block) for ref in numbers]
            for w in range(count):
                totals = tuple(
                    total + value([part[w][i] for part in codes], [part[w][i] for part in shared])
                    for i, total in enumerate(totals)
                )
            return totals

        totals = (jnp.zeros((SUBLANES, LANES), jnp.float32),) * GROUPS
        whole = workers // SUBLANES
        if whole:
            totals = lax.fori_loop(
                0, whole, lambda g, t: add(_multiple(g * SUBLANES, SUBLANES), t, SUBLANES), totals
            )
        if workers % SUBLANES:
            totals = add(whole * SUBLANES, totals, workers % SUBLANES)
        for i, total in enumerate(totals):
            here = pl.ds(_multiple(index * UNIT + i * SUBLANES, SUBLANES), SUBLANES)
            out[here, :] = total / workers
        return _

    lax.fori_loop(0, rows // UNIT, unit, 0)
    if wide > 1:
        matrices.spread(out, matrix, wide)


def codes_of_rows(ref: Any, workers: Any, index: Array, bits: int) -> list[Rows]:
    """The codes of 32 rows, eight at a time, for each worker."""
    held = ref.shape[1]
    lines = ref.reshape(-1, LANES)  # the rows of one worker after those of another
    firsts = [workers.start * held + index * bits + number for number in range(bits)]
    each = [lines[pl.ds(first, workers.size, held), :] for first in firsts]
    rows = [lax.bitcast_convert_type(row, jnp.int32) for row in each]
    planes = WORD_BITS % bits != 0
    rows = split_planes(rows) if planes else rows
    unpacked = _of_planes if planes else functools.partial(_of_words, bits=bits)
    return [unpacked([row[w : w + 1] for row in rows]) for w in range(rows[0].shape[0])]


def _of_words(rows: list[Array], *, bits: int) -> Rows:
    """From rows of words with whole codes."""
    group = WORD_BITS // bits  # rows in a row of words
    if group >= SUBLANES:
        return tuple(
            unpack_rows(rows[i // group], bits, i % group) for i in range(0, UNIT, SUBLANES)
        )
    count = SUBLANES // group  # rows of words in eight rows
    part = iota((SUBLANES, LANES), 0) >> (group.bit_length() - 1)
    out = []
    for i in range(0, len(rows), count):
        codes = unpack_rows(rows[i], bits, 0)
        for j in range(1, count):
            codes = jnp.where(part == j, unpack_rows(rows[i + j], bits, 0), codes)
        out.append(codes)
    return tuple(out)


def _of_planes(rows: list[Array]) -> Rows:
    """From a row of words for every bit."""

    def eight(first: int) -> Array:
        ones = [unpack_rows(row, 1, first) << b for b, row in enumerate(rows)]
        return functools.reduce(jnp.bitwise_or, ones)

    return tuple(eight(first) for first in range(0, UNIT, SUBLANES))


def _numbers(ref: Any, workers: Any, row: Array, block: int | None) -> list[Rows]:
    """The number of its block at every entry of 32 rows, eight at a time, for each worker."""
    if block is None:
        return [(ref[workers.start + w],) * GROUPS for w in range(workers.size)]
    shift, held = block.bit_length() - 1, ref.shape[1]
    place = iota((SUBLANES, LANES), 0) * LANES + iota((SUBLANES, LANES), 1)
    out = []
    for i in range(GROUPS):
        first = ((row + i * SUBLANES) * LANES) >> shift
        first = first & (held - 1) if held & (held - 1) == 0 else first
        line = ref[workers, pl.ds(_multiple((first >> 7) * LANES, LANES), LANES)]
        mine = (first & (LANES - 1)) + (place >> shift)
        spread = [jnp.broadcast_to(line[w : w + 1], place.shape) for w in range(line.shape[0])]
        out.append([jnp.take_along_axis(row, mine, axis=1) for row in spread])
    return [tuple(column) for column in zip(*out, strict=True)]


def _multiple(x: Array, factor: int) -> Array:
    return pl.multiple_of(x, factor)


def integers(levels: int) -> Value:
    """Codes are integers plus levels, and the number is their scale."""
    return lambda codes, numbers: (codes[0] - levels).astype(jnp.float32) * numbers[0]


def signed(codes: list[Array], numbers: list[Array]) -> Array:
    """Codes are sign bits, and the number is the magnitude."""
    return jnp.where(codes[0] == 1, -numbers[0], numbers[0])


def one_of_two(codes: list[Array], numbers: list[Array]) -> Array:
    """Codes choose one of two numbers."""
    return jnp.where(codes[0] == 1, numbers[1], numbers[0])


def powers(codes: list[Array], numbers: list[Array]) -> Array:
    """Codes in two parts are those of powers of two, and the number is a factor."""
    word = lax.bitcast_convert_type(codes[0] | (codes[1] << 8), jnp.uint32)
    return PowersOfTwo(jnp.float32).value(word) * numbers[0]
