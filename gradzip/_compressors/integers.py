"""Integers in [-levels, levels] with a scale for every block: what QSGD, Int and Ternary share."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _noise as noise
from gradzip._base import Array, Key, Like
from gradzip._compressors.quantizer import Quantizer
from gradzip._kernels.codes import pack_codes
from gradzip._kernels.fused import BLOCKS, Flat
from gradzip._kernels.reductions import inner_products, largest, norm
from gradzip._kernels.rounding import codes_of, integers
from gradzip._kernels.words import unpack


class Quantized(NamedTuple):
    """Integers in [-levels, levels], each plus levels, packed; an entry is scale * integer."""

    codes: Array  # u32[words]
    scale: Array  # f[blocks]


class Grid(NamedTuple):
    """The integers, and what they are multiplied by."""

    levels: int  # the largest integer
    block: int | None  # entries that share a scale; None for one scale
    norm: Literal['max', 'l2'] = 'max'  # of a block; divided by levels it is the scale
    nearest: bool = False  # rounded to the nearest integer, and not at random


@dataclasses.dataclass(frozen=True)
class Integral(Quantizer):
    """Base of compressors that round to integers. A subclass defines `_grid`."""

    @property
    @abc.abstractmethod
    def _grid(self) -> Grid:
        """The integers and their scales."""

    @property
    def code_bits(self) -> int:
        return math.ceil(math.log2(2 * self._grid.levels + 1))

    def _block(self, size: int) -> int:
        return blocks.block_of(size, self._grid.block)

    def _encode(self, x: Array, key: Key) -> Quantized:
        flat, block, levels = blocks.wide(x), self._block(x.size), self._grid.levels
        scale = self._scale(flat)
        per_step = blocks.reciprocal(scale)

        def code(piece: Array, start: int) -> Array:
            ratio = piece * blocks.per_entry(per_step, block, piece.size, start)
            return codes_of(self._round(ratio, key, start), levels, self.code_bits)

        return Quantized(pack_codes(code, flat, self.code_bits, block), scale)

    def _decode(self, payload: Quantized, like: Like, key: Key) -> Array:
        del key
        codes = unpack(payload.codes, self.code_bits, like.size).astype(jnp.int32)
        scale = blocks.per_entry(payload.scale, self._block(like.size), like.size)
        entries = (codes - self._grid.levels).astype(scale.dtype) * scale
        return entries.astype(like.dtype).reshape(like.shape)

    def _scale(self, flat: Array) -> Array:
        """The scale of every block before rounding: f[blocks]."""
        of_blocks = largest if self._grid.norm == 'max' else norm
        return of_blocks(flat, self._block(flat.size)) / self._grid.levels

    def _round(self, ratio: Array, key: Key, start: int = 0) -> Array:
        """Integers, for entries in units of the scale of their block, from a place on: f[n]."""
        if self._grid.nearest:
            threshold = jnp.full_like(ratio, 0.5)
        else:
            threshold = noise.uniform(key, ratio.shape, ratio.dtype, start)
        return integers(ratio, threshold, self._grid.levels)

    def least_squares_rescaled(self, x: Array, payload: Quantized, key: Key) -> Quantized:
        """Gives every block its least-squares scale, <x, q> / <q, q> for its integers q."""
        del key
        flat, block = blocks.wide(x), self._block(x.size)
        # The barrier stops XLA from sharing this with `encode`, which would materialise it.
        codes, scale = lax.optimization_barrier(payload)
        per_step = blocks.reciprocal(scale)
        found = unpack(codes, self.code_bits, x.size).astype(jnp.int32) - self._grid.levels
        found = found.astype(flat.dtype)
        ratio = flat * blocks.per_entry(per_step, block, flat.size)
        inner, energy = inner_products(ratio, found, block)
        factor = inner / jnp.where(energy == 0, 1, energy)
        return payload._replace(scale=payload.scale * factor)

    def scaled(self, payload: Quantized, factor: Array | float) -> Quantized:
        return blocks.rescaled(payload, factor)

    def _swept(self, like: Like) -> bool:
        block = self._block(like.size)
        return (block in BLOCKS or block == like.size) and super()._swept(like)

    def _sweep(self, flat: Flat, key: Key, *, fit: bool, lost: bool) -> tuple[Quantized, Any]:
        from gradzip._kernels.mosaic import encoders  # only programs for TPU need Pallas

        grid, seeds = self._grid, jnp.stack(noise.seeds(key))
        options = {'levels': grid.levels, 'bits': self.code_bits, 'nearest': grid.nearest}
        block = self._block(flat.size)
        if block < flat.size:
            more = {'block': block, 'norm': grid.norm, 'fit': fit, 'rest': lost}
            out = encoders.quantized(flat, seeds, **options, **more)
            return Quantized(out.words[0], out.blocks[0]), out.rest if lost else ()
        total = flat.total.ravel()  # which is read several times
        scale = self._scale(total)
        last = self._fitted(total, scale, key) if fit else scale
        scales = jnp.concatenate([scale, last])
        out = encoders.with_one_scale(Flat(total), seeds, scales, rest=lost, **options)
        return Quantized(out.words[0], last), out.rest if lost else ()

    def _fitted(self, flat: Array, scale: Array, key: Key) -> Array:
        """The least-squares scale of entries that share one, without their codes."""
        ratio = flat * blocks.reciprocal(scale)
        integer = self._round(ratio, key)
        energy = jnp.sum(integer * integer)
        return scale * (jnp.sum(ratio * integer) / jnp.where(energy == 0, 1, energy))

    def _mean(self, payloads: Quantized, shape: tuple[int, ...], keys: Key) -> Array:
        from gradzip._kernels.mosaic import decoders  # only programs for TPU need Pallas

        del keys
        size = math.prod(shape)
        block = self._block(size)
        one = block == size
        return decoders.mean(
            [payloads.codes],
            [payloads.scale[:, 0] if one else payloads.scale],
            shape,
            bits=(self.code_bits,),
            block=None if one else block,
            value=decoders.integers(self._grid.levels),
        )


def omega_of_max(b: int, s: int) -> float:
    """Omega of random rounding in blocks of b entries whose largest magnitude is level s.

    The variance of an entry is at most step^2 min(1/4, |v| / step) with step = max / s, and the
    largest entry is exact. The bound follows with |v|_1 - max <= sqrt(b - 1) |v|_2^2 / (2 max).
    """
    return min((b - 1) / (4 * s**2), math.sqrt(b - 1) / (2 * s))
