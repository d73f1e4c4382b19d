"""Whether the parameters and the state stay the same on every worker after an update.

`shard_map` tracks which values vary between workers. These functions read its types after the
update of a chain, and turn what JAX would refuse into an explanation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes
from gradzip._base import Array, PerWorker, PyTree
from gradzip._compat import varying


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Explains the error of a conditional around an exchange, which JAX reports as types."""
    try:
        yield
    except TypeError as error:
        if 'branches must have equal output types' not in str(error):
            raise
        raise TypeError(
            'A wrapper around the exchange runs it conditionally, so that one worker could skip a '
            'collective for which the others wait. In place of optax.apply_if_finite use '
            'gradzip.skip_nonfinite(inner, axis_name); put other conditional wrappers, such as '
            'optax.conditionally_transform, around what follows the exchange.'
        ) from error


def settled(
    tx: optax.GradientTransformationExtraArgs,
    grads: PyTree,
    training: Any,
    updates: PyTree,
    state: PyTree,
    names: tuple[str, ...],
) -> PyTree:
    """Returns updates that are the same on every worker by their types, or raises.

    JAX types the zeros of `optax.set_to_zero` as its input, as different between workers. Such
    constants are made anew.

    Args:
      tx: the chain that has made the updates.
      grads: the gradients that it was given.
      training: the params and the state that it was given.
      updates: its updates.
      state: its next state.
      names: the axes of the workers.

    Raises:
      ValueError: an update or an unmarked part of the state differs between workers.
    """
    _check_state(state, names)
    values = jax.tree.leaves(updates)
    left = [i for i, value in enumerate(values) if varying(value) & set(names)]
    if not left:
        return updates

    def outputs(grads: PyTree) -> list[Array]:
        asked = {'value': 0.0, 'value_fn': lambda params: jnp.zeros([])}
        found = tx.update(grads, training.state, training.params, **asked)[0]
        return [jax.tree.leaves(found)[i] for i in left]

    constants = dict(zip(left, _constants(outputs, grads), strict=True))
    for i, constant in constants.items():
        if constant is None:
            path, _ = jax.tree_util.tree_leaves_with_path(updates)[i]
            raise ValueError(
                f'The chain leaves an update at {axes.path_of(path)!r} that differs between '
                f'the workers of {names}: nothing exchanges it. Put an exchange into the chain, '
                f'such as gradzip.error_feedback(gradzip.TopK(0.01), axis_name={names!r}). Where '
                'optax.masked is around an exchange, use optax.partition, with '
                'gradzip.compress(gradzip.Identity(), axis) for the other leaves.'
            )
    same = [constants.get(i, value) for i, value in enumerate(values)]
    return jax.tree.unflatten(jax.tree.structure(updates), same)


def _check_state(state: PyTree, names: tuple[str, ...]) -> None:
    marked = lambda part: isinstance(part, PerWorker)  # noqa: E731
    for path, part in jax.tree_util.tree_leaves_with_path(state, is_leaf=marked):
        if not marked(part) and varying(part) & set(names):
            raise ValueError(
                f'The state at {axes.path_of(path)!r} differs between the workers of {names}, but '
                'is not marked as such: a transformation with a state comes before the exchange. '
                'Put it after the exchange, or wrap it as gradzip.per_worker(inner, axis_name) if '
                'each worker is to have its own.'
            )


def _constants(function: Any, tree: PyTree) -> list[Array | None]:
    """Returns the outputs of a function that depend neither on inputs nor on workers; else None.

    They are computed anew, without the steps that type a value as different between workers. The
    answer is conservative: an equation with a dependent input makes all its outputs dependent, and
    so does one that holds a program of its own.
    """
    jaxpr = jax.make_jaxpr(function)(tree).jaxpr
    known: dict[Any, Array] = {}

    def value(v: Any) -> Any:
        return v.val if hasattr(v, 'val') else known.get(v)  # a literal has a value

    for equation in _needed(jaxpr):
        inputs = [value(v) for v in equation.invars]
        name = equation.primitive.name
        if name == 'axis_index' or any(x is None for x in inputs) or _holds_program(equation):
            continue
        if name in ('pvary', 'pcast'):
            outputs = inputs
        else:
            outputs = equation.primitive.bind(*inputs, **equation.params)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        known |= zip(equation.outvars, outputs, strict=True)
    return [value(v) for v in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
    """Returns the equations on which outputs depend, in order."""
    wanted, found = {v for v in jaxpr.outvars if not hasattr(v, 'val')}, []
    for equation in reversed(jaxpr.eqns):
        if wanted & set(equation.outvars):
            wanted |= {v for v in equation.invars if not hasattr(v, 'val')}
            found.append(equation)
    return found[::-1]


def _holds_program(equation: Any) -> bool:
    return any('jaxpr' in name for name in equation.params)
