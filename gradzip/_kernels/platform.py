"""The one place where the platform decides in which form a computation is written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax import lax

from gradzip._axes import vary_like, varying


def choose(
    *args: Any, cpu: Callable[..., Any], default: Callable[..., Any], **static: Hashable
) -> Any:
    """Returns cpu(*args, **static) in programs for the CPU, and default(*args, **static) in others.

    JAX decides when it lowers the program, so a program that is compiled for a TPU on a machine
    without one takes the default form. Both forms are traced, but only the chosen one is compiled.
    A form that is not a closure is traced once for all calls with arrays of the same shapes, which
    saves time in trees of many leaves.

    Args:
      *args: trees of arrays.
      cpu: the form that is fast on a CPU.
      default: the plain form. Both forms return arrays of equal shapes and dtypes.
      **static: arguments of both forms that are not arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> choose(jnp.arange(3), cpu=jnp.sum, default=jnp.sum)
      Array(3, dtype=int32)
    """
    return lax.platform_dependent(*args, cpu=_form(cpu, static), default=_form(default, static))


def _form(form: Callable[..., Any], static: dict[str, Hashable]) -> Callable[..., Any]:
    if getattr(form, '__closure__', None) is not None:
        return _varying(form, **static)  # a cache of closures would keep their arrays alive
    return _varying_once(form, **static)


def _varying(form: Callable[..., Any], **static: Hashable) -> Callable[..., Any]:
    """The form, with results that vary over the axes of `jax.shard_map` as its arguments do.

    JAX refuses branches whose results differ in this. A constant in a branch does not vary, and
    neither does what `jnp.where` returns for some empty arrays.
    """

    def varied(*args: Any) -> Any:
        like = max(jax.tree.leaves(args), key=lambda leaf: len(varying(leaf)))
        out = form(*args, **static)
        return vary_like(out, jax.tree.map(lambda _: like, out))

    return varied


_varying_once = functools.cache(_varying)  # JAX recognises a function that it has traced
