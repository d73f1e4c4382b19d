"""Where programs for TPU get kernels that read a large array once.

A kernel is written with Pallas and lies in `_kernels.mosaic`, which is imported when the first
program for a TPU is traced. The plain forms serve everywhere else: for small arrays, for other
dtypes than float32, where the compiler distributes an array over devices, and if Pallas cannot be
imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradzip._base import Array
from gradzip._compat import one_chip_of_tpu

BLOCKS = tuple(1 << i for i in range(5, 16))  # lengths of blocks that the kernels handle
LANES, SUBLANES = 128, 8  # of a tile of a TPU
WHOLE = 1 << 10  # an array of a multiple of these entries is rows of 128 lanes as it lies
FUSED_FROM = (1 << 14) + 1  # entries; smaller arrays of a shape are computed at once


class Flat(NamedTuple):
    """An array, or the sum of two that a kernel adds. Entries are numbered row by row."""

    first: Array  # f32, of the shape of the leaf or flat
    second: Array | None = None  # f32, of the same shape

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.first.size

    @property
    def total(self) -> Array:
        """The array."""
        return self.first if self.second is None else self.first + self.second


def fused(size: int, dtype: Any) -> bool:
    """Whether an array gets a kernel in the place where this is traced: only one of float32.

    A compiler cannot split a kernel over devices, so this must be a program of one chip.
    """
    same = jnp.dtype(dtype) == jnp.float32
    return size >= FUSED_FROM and same and one_chip_of_tpu() and _pallas()


def added(size: int, dtype: Any) -> bool:
    """Whether a kernel adds two arrays like this. Others are padded by a copy, which adds them."""
    return size % WHOLE == 0 and fused(size, dtype)


def tiled(shape: tuple[int, ...]) -> bool:
    """Whether the program is for a TPU that keeps an array of this shape in whole tiles.

    It keeps matrices in tiles of 8 rows and 128 lanes, so that they are copied to become flat.
    """
    whole = len(shape) > 1 and shape[-1] % LANES == 0 and shape[-2] % SUBLANES == 0
    return whole and one_chip_of_tpu()


def one_at_a_time(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), which `jax.vmap` turns into a loop over the rows."""
    return jax.custom_batching.sequential_vmap(function)(*args)


@functools.cache
def _pallas() -> bool:
    try:
        from gradzip._kernels import mosaic
    except ImportError:
        return False
    return bool(mosaic)
