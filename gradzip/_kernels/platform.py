"""The one place where the platform decides in which form a computation is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import lax


def choose(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Returns cpu(*args) in programs for the CPU, and default(*args) in programs for others.

    JAX decides when it lowers the program, so a program that is compiled for a TPU on a machine
    without one takes the default form. Both forms are traced, but only the chosen one is compiled.

    Args:
      *args: trees of arrays.
      cpu: the form that is fast on a CPU.
      default: the plain form. Both forms return arrays of equal shapes and dtypes, and if one
        varies over an axis of `jax.shard_map`, so does the other.

    Example:
      >>> import jax.numpy as jnp
      >>> choose(jnp.arange(3), cpu=jnp.sum, default=jnp.sum)
      Array(3, dtype=int32)
    """
    return lax.platform_dependent(*args, cpu=cpu, default=default)
