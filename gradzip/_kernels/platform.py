"""The one place where the platform decides in which form a computation is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from gradzip._axes import vary_like, varying


def choose(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Returns cpu(*args) in programs for the CPU, and default(*args) in programs for others.

    JAX decides when it lowers the program, so a program that is compiled for a TPU on a machine
    without one takes the default form. Both forms are traced, but only the chosen one is compiled.

    Args:
      *args: trees of arrays.
      cpu: the form that is fast on a CPU.
      default: the plain form. Both forms return arrays of equal shapes and dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> choose(jnp.arange(3), cpu=jnp.sum, default=jnp.sum)
      Array(3, dtype=int32)
    """
    return lax.platform_dependent(*args, cpu=_varying(cpu), default=_varying(default))


def _varying(form: Callable[..., Any]) -> Callable[..., Any]:
    """The form, with results that vary over the axes of `jax.shard_map` as its arguments do.

    JAX refuses branches whose results differ in this. A constant in a branch does not vary, and
    neither does what `jnp.where` returns for some empty arrays.
    """

    def varied(*args: Any) -> Any:
        like = max(jax.tree.leaves(args), key=lambda leaf: len(varying(leaf)))
        out = form(*args)
        return vary_like(out, jax.tree.map(lambda _: like, out))

    return varied
