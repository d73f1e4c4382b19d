"""Many parts of one array, read by the same code.

XLA:CPU compiles equal kernels once, which keeps the time to compile a tree of many leaves short. A
part at a constant place is fused into the kernel that uses it, and makes it another kernel for
every leaf. The CPU forms read each part at a place that is an argument of the kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array, Key
from gradzip._kernels.platform import choose


def parts(x: Array, sizes: tuple[int, ...]) -> list[Array]:
    """Consecutive parts along the last axis."""
    if len(sizes) < 2 or not x.size:
        return _parts_plain(x, sizes)
    return choose(x, cpu=_parts_on_cpu, default=_parts_plain, sizes=sizes)


def entries(x: Array) -> list[Array]:
    """The entries along the first axis."""
    return list(x) if x.shape[0] < 2 else choose(x, cpu=_entries_on_cpu, default=list)


def each_key(keys: Key) -> list[Key]:
    """The same of typed keys."""
    impl = jax.random.key_impl(keys)
    words = entries(jax.random.key_data(keys))
    return [jax.random.wrap_key_data(each, impl=impl) for each in words]


def _parts_plain(x: Array, sizes: tuple[int, ...]) -> list[Array]:
    starts = itertools.accumulate(sizes, initial=0)
    return [x[..., i : i + size] for i, size in zip(starts, sizes, strict=False)]


def _parts_on_cpu(x: Array, sizes: tuple[int, ...]) -> list[Array]:
    starts = _places(itertools.accumulate(sizes[:-1], initial=0))
    cut = lax.dynamic_slice_in_dim
    return [cut(x, i, size, axis=-1) for i, size in zip(starts, sizes, strict=True)]


def _entries_on_cpu(x: Array) -> list[Array]:
    places = _places(range(x.shape[0]))
    return [lax.dynamic_index_in_dim(x, i, axis=0, keepdims=False) for i in places]


def _places(numbers: Iterable[int]) -> list[Array]:
    """The numbers as arrays that XLA does not take for constants: i32[] each.

    It passes a constant array to a kernel, where it would fuse a scalar or a progression into it,
    and the barrier hides that an entry of the array is constant too.
    """
    arrays = [jnp.array([number, -1, 5], jnp.int32) for number in numbers]
    return [array[0] for array in lax.optimization_barrier(arrays)]
