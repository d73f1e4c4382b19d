"""Whether the parameters and the state stay the same on every worker after an update.

`shard_map` tracks which values vary between workers. These checks read its types after the update
of a chain and turn what JAX would refuse into an explanation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import optax

from gradzip import _axes as axes
from gradzip._base import PerWorker, PyTree
from gradzip._compat import varying


class ConstantUpdates(Exception):
    """Updates are typed as varying, but depend on nothing, such as those of `set_to_zero`.

    They are the same on every worker. `shard_map` with check_vma=False accepts them.
    """


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


def check(
    tx: optax.GradientTransformationExtraArgs,
    grads: PyTree,
    training: Any,
    updates: PyTree,
    state: PyTree,
    names: tuple[str, ...],
) -> None:
    """Raises if updates or unmarked parts of the state differ between workers.

    Args:
      tx: the chain that has made them.
      grads: the gradients that it was given.
      training: the params and the state that it was given.
      updates: its updates.
      state: its next state.
      names: the axes of the workers.

    Raises:
      ValueError: an update or an unmarked part of the state differs between workers.
      ConstantUpdates: all updates that are typed as varying are constants.
    """
    _check_state(state, names)
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    left = {i: path for i, (path, update) in enumerate(leaves) if varying(update) & set(names)}
    if not left:
        return
    constant = _constant_outputs(
        lambda g: tx.update(g, training.state, training.params, value=0.0)[0], grads
    )
    depends = [path for i, path in left.items() if not constant[i]]
    if not depends:
        raise ConstantUpdates
    raise ValueError(
        f'The chain leaves an update at {axes.path_of(depends[0])!r} that differs between the '
        f'workers of {names}: nothing exchanges it. Put an exchange into the chain, such as '
        f'gradzip.error_feedback(gradzip.TopK(0.01), axis_name={names!r}). Where optax.masked is '
        'around an exchange, use optax.partition, with gradzip.compress(gradzip.Identity(), axis) '
        'for the other leaves.'
    )


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


def _constant_outputs(function: Any, tree: PyTree) -> list[bool]:
    """Returns for every output of a function whether it depends neither on inputs nor on workers.

    The answer is conservative: an equation with a dependent input makes all its outputs dependent.
    """
    jaxpr = jax.make_jaxpr(function)(tree).jaxpr
    dependent = {*jaxpr.invars, *jaxpr.constvars}
    for equation in jaxpr.eqns:
        reads = {v for v in equation.invars if not hasattr(v, 'val')}  # a literal has a value
        if reads & dependent or equation.primitive.name == 'axis_index':
            dependent |= set(equation.outvars)
    return [hasattr(v, 'val') or v not in dependent for v in jaxpr.outvars]
