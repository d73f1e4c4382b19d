"""Where programs for TPU get kernels that read a large array once.

A kernel is written with Pallas and lies in `_kernels.mosaic`, which is imported when the first
large array is seen. The plain forms serve everywhere else: for small arrays, for other dtypes than
float32, where the compiler distributes an array over devices, and if Pallas cannot be imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradzip._kernels.pieces import PAD_WHOLE_UP_TO


def fused(size: int, dtype: Any) -> bool:
    """Whether programs for TPU get a kernel for an array, in the place where this is traced.

    A compiler cannot split a kernel over devices, so all axes of the mesh must be mapped. Outside
    of `jax.shard_map` nothing tells how many devices a program is for, unless there is only one.
    """
    if size <= PAD_WHOLE_UP_TO or jnp.dtype(dtype) != jnp.float32:
        return False
    mesh = jax.sharding.get_abstract_mesh()
    whole = jax.device_count() == 1 if mesh.empty else set(mesh.manual_axes) == {*mesh.axis_names}
    return whole and _pallas()


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
