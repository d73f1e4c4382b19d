"""One pass over an array: reads every entry once and writes codes, numbers of blocks and the rest.

A kernel is a function of a tile of 256 rows of 128 entries. `sweep` runs it on all tiles, in order,
with the transfers from and to memory behind the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip._axes import vary_like
from gradzip._base import Array
from gradzip._compat import like_varying
from gradzip._kernels.fused import Flat
from gradzip._kernels.mosaic import matrices
from gradzip._kernels.mosaic.lanes import LANES, SUBLANES, block_rows, iota, pack_rows
from gradzip._kernels.mosaic.tiles import SCALARS, VMEM_LIMIT, addends_of, total_of
from gradzip._kernels.words import WORD_BITS, words_for

ROWS = 256  # of a tile
TILES = 8  # that are in on-chip memory at a time: a megabyte of float32
MOST_TILES = 56  # of a matrix whose rows do not fill fewer tiles


class Tile(NamedTuple):
    """What a kernel makes of a tile. The shapes of all arrays are [256, 128]."""

    codes: tuple[Array, ...] = ()  # i32, of the widths that `sweep` was told
    blocks: tuple[Array, ...] = ()  # f32, the number of its block at each entry
    sums: tuple[Array, ...] = ()  # f32, to be summed over all entries
    rest: Array | None = None  # f32, written in the place of x


class Swept(NamedTuple):
    """What `sweep` returns."""

    words: tuple[Array, ...]  # u32[words], flat
    blocks: tuple[Array, ...]  # f32[blocks]
    sums: tuple[Array, ...]  # f32[parts], whose sum is that over all entries
    rest: Array | None  # f32, of the shape of x


Kernel = Callable[[Array, Array, list[Array], list[Array]], Tile]


def sweep(
    kernel: Kernel,
    x: Flat,
    words: Array | None = None,
    floats: Array | None = None,
    *,
    bits: tuple[int, ...] = (),
    blocks: tuple[int, ...] = (),
    sums: int = 0,
    rest: bool = False,
) -> Swept:
    """Runs a kernel on all tiles of a flat array.

    Args:
      kernel: from a tile f32[256, 128], the place of each of its entries in the array as i32, and
        the scalars to a `Tile`. Entries after the end of the array are zeros.
      x: f32 of n entries, or a sum. The rest takes the place of the array or of the first addend.
      words: scalars for the kernel, u32[k].
      floats: scalars for the kernel, f32[k].
      bits: the widths of the codes: 1 to 16.
      blocks: the lengths of the blocks that the kernel gives numbers for, from `fused.BLOCKS`.
      sums: how many sums the kernel gives.
      rest: whether the kernel gives a rest.
    """
    size = x.size
    words = jnp.zeros(1, jnp.uint32) if words is None else words
    floats = jnp.zeros(1, jnp.float32) if floats is None else floats
    unit = ROWS * TILES
    wide = matrices.width(x.first.shape, unit, ROWS * MOST_TILES)
    step = matrices.least(wide, unit)
    addends = addends_of(x, wide)
    one, rows = addends[0], addends[0].size // LANES
    shapes = _shapes(rows, step, bits, blocks, sums)
    out = pl.pallas_call(
        _body(kernel, len(addends), rows, step, wide, bits, blocks, sums, rest),
        grid=(-(-rows // step),),
        in_specs=[SCALARS, SCALARS, *[matrices.rows_spec(step, wide)] * len(addends)],
        out_specs=[
            *(matrices.rows_spec(count, 1) for _, _, count in shapes),
            *[matrices.rows_spec(step, wide)] * rest,
        ],
        out_shape=[
            *(like_varying((total, LANES), dtype, one) for total, dtype, _ in shapes),
            *[like_varying(one.shape, jnp.float32, one)] * rest,
        ],
        scratch_shapes=[pltpu.VMEM((step, LANES), jnp.float32)] * (wide > 1),
        input_output_aliases={2: len(shapes)} if rest else {},
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
    )(vary_like(words, one), vary_like(floats, one), *addends)
    first, second = len(bits), len(bits) + len(blocks)
    return Swept(
        tuple(part.reshape(-1)[: words_for(size, b)] for part, b in zip(out, bits, strict=False)),
        tuple(
            part[:, : ROWS * LANES // block].reshape(-1)[: -(-size // block)]
            for part, block in zip(out[first:], blocks, strict=False)
        ),
        tuple(part.reshape(-1) for part in out[second : second + sums]),
        out[-1].reshape(-1)[:size].reshape(x.first.shape) if rest else None,
    )


def _shapes(
    rows: int, step: int, bits: tuple[int, ...], blocks: tuple[int, ...], sums: int
) -> list[tuple[int, type, int]]:
    """Rows in all, dtype and rows of a step, of every result but the rest."""
    packed = [(-(-rows * b // WORD_BITS), jnp.uint32, step * b // WORD_BITS) for b in bits]
    numbers = [
        (-(-rows // b), jnp.float32, step // b) for b in (min(block, ROWS) for block in blocks)
    ]
    summed = [(-(-rows // step) * SUBLANES, jnp.float32, SUBLANES)] * sums
    return [*packed, *numbers, *summed]


def _body(
    kernel: Kernel,
    addends: int,
    rows: int,
    step: int,
    wide: int,
    bits: tuple[int, ...],
    blocks: tuple[int, ...],
    sums: int,
    rest: bool,
) -> Callable[..., None]:
    """The kernel of one step."""

    def body(words_ref: Any, floats_ref: Any, *refs: Any) -> None:
        xs, refs, left = refs[:addends], refs[addends:], refs[-1]
        if wide > 1:  # rows of a matrix, which are put in order and in the end back
            matrices.gather(xs, left, wide)
            xs, refs = (left,), refs[:-1]
        first_row = pl.program_id(0) * step
        words = [words_ref[i] for i in range(words_ref.shape[0])]
        floats = [floats_ref[i] for i in range(floats_ref.shape[0])]
        packed, numbers = refs[: len(bits)], refs[len(bits) : len(bits) + len(blocks)]

        def one(tile: Any, totals: tuple[Array, ...]) -> tuple[Array, ...]:
            here = pl.ds(pl.multiple_of(tile * ROWS, ROWS), ROWS)
            row = first_row + tile * ROWS + iota((ROWS, LANES), 0)
            # After the end of the array there is what was in on-chip memory before.
            x = jnp.where(row < rows, total_of(xs, (here, slice(None))), 0)
            made = kernel(x, row * LANES + iota((ROWS, LANES), 1), words, floats)
            for ref, codes, b in zip(packed, made.codes, bits, strict=True):
                _store(ref, tile, pack_rows(codes, b))
            for ref, number, block in zip(numbers, made.blocks, blocks, strict=True):
                _store(ref, tile, [block_rows(number, block)])
            if rest:
                left[here, :] = made.rest
            parts = [s.reshape(-1, SUBLANES, LANES).sum(0) for s in made.sums]
            return tuple(total + part for total, part in zip(totals, parts, strict=True))

        zeros = tuple(jnp.zeros((SUBLANES, LANES), jnp.float32) for _ in range(sums))
        totals = lax.fori_loop(0, step // ROWS, one, zeros)
        start = len(bits) + len(blocks)
        for ref, total in zip(refs[start : start + sums], totals, strict=True):
            ref[...] = total
        if rest and wide > 1:
            matrices.spread(left, refs[-1], wide)

    return body


def _store(ref: Any, tile: Any, parts: list[Array]) -> None:
    """Writes what a tile makes: every row of words, or those of a few that take turns."""
    rows, count = sum(part.shape[0] for part in parts), len(parts)
    start = pl.multiple_of(tile * rows, rows)
    for i, part in enumerate(parts):
        where = pl.ds(start + i, rows // count, count) if count > 1 else pl.ds(start, rows)
        ref[where, :] = part if part.dtype == ref.dtype else _bits(part)


def _bits(words: Array) -> Array:
    return lax.bitcast_convert_type(words, jnp.uint32)
