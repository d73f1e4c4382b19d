"""Magnitudes as integers of the same order."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradzip._base import Array


def magnitude(x: Array) -> Array:
    """Integers in the order of |x|, with NaN above all: i32 of 31 bits, i64 of 63 for float64."""
    width = 8 * x.dtype.itemsize
    infinity = int(np.array(np.inf, x.dtype).view(f'int{width}'))
    u = lax.bitcast_convert_type(x, f'int{width}') & np.array((1 << width - 1) - 1, f'int{width}')
    u = jnp.minimum(u, np.array(infinity + 1, f'int{width}'))
    return u if width >= 32 else u.astype(jnp.int32) << (32 - width)


def sortable(u: Array) -> Array:
    """Magnitudes as floats of the same bits and order: XLA has a fast top-k for floats only."""
    return lax.bitcast_convert_type(u, jnp.float64 if u.dtype == jnp.int64 else jnp.float32)
