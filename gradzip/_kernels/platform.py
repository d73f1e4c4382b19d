"""The one place where the platform decides in which form a computation is written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax import lax

from gradzip._axes import vary_like, varying


def choose(
    *args: Any,
    default: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
    tpu: Callable[..., Any] | None = None,
    **static: Hashable,
) -> Any:
    """Returns the form for the platform of the program, of the arguments: default(*args, **static).

    JAX decides when it lowers the program, so a program that is compiled for a TPU on a machine
    without one takes the form for TPU. All forms are traced, but only the chosen one is compiled.
    A form that is not a closure is traced once for all calls with arrays of the same shapes, which
    saves time in trees of many leaves.

    Args:
      *args: trees of arrays.
      default: the plain form.
      cpu: the form that is fast on a CPU, if it is not the plain one.
      tpu: the form that is fast on a TPU, if it is not the plain one. All forms return arrays of
        equal shapes and dtypes.
      **static: arguments of all forms that are not arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> choose(jnp.arange(3), cpu=jnp.sum, default=jnp.sum)
      Array(3, dtype=int32)
    """
    forms = {name: form for name, form in (('cpu', cpu), ('tpu', tpu)) if form is not None}
    chosen = {name: _form(form, static) for name, form in forms.items()}
    return lax.platform_dependent(*args, default=_form(default, static), **chosen)


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
