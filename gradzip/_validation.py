"""What is refused before anything is exchanged: wrong schemes and keys, leaves that do not fit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradzip import _axes as axes, _narrow as narrow
from gradzip._base import AxisName, Compressor, KeyLike, MadeFor, PyTree, Reducer, Scheme


def check_scheme(
    owner: str, scheme: Scheme, axis_name: AxisName | None, key: KeyLike | None
) -> None:
    """Checks the arguments of an exchange as far as that is possible before a leaf is known."""
    axes.names_of(axis_name)
    if isinstance(scheme, type) or not (
        isinstance(scheme, Compressor | Reducer) or callable(scheme)
    ):
        raise TypeError(
            f'{owner}(scheme=...) must be a Compressor, a Reducer, or a function from a leaf to '
            f'one; got {scheme!r}.'
        )
    check_key(key)
    if isinstance(scheme, Compressor | Reducer):
        check_drawable(scheme, key)


def made_for(owner: str, about: Any, axis_name: AxisName | None) -> MadeFor:
    """Returns the words in which a state says what it was made for.

    Two functions are the same in these words, because equal functions need not be the same object.
    """
    known = not callable(about) or isinstance(about, Compressor | Reducer)
    return MadeFor(f'{owner}({about if known else "a function of the leaf"}, {axis_name!r})')


def check_state(state: Any, kind: type, expected: MadeFor) -> None:
    """Checks that a state was made by the transformation that receives it."""
    if not isinstance(state, kind):
        raise TypeError(
            f'{expected} received a state of type {type(state).__name__} where it expects '
            f'{kind.__name__}. Pass the state that its own init returned.'
        )
    if state.made_for != expected:
        raise ValueError(
            f'This state was made for {state.made_for}, but {expected} received it. Pass the state '
            'that its own init returned. To change the compression during training, use '
            'gradzip.Schedule.'
        )


def check_transformation(owner: str, name: str, value: Any) -> None:
    """Raises TypeError unless value is an optax transformation."""
    if not isinstance(value, optax.GradientTransformation):
        raise TypeError(f'{owner}({name}=...) must be an optax transformation; got {value!r}.')


def check_key(key: KeyLike | None) -> None:
    """Accepts an integer, a typed key, or None."""
    is_integer = isinstance(key, int | np.integer) and not isinstance(key, bool)
    if not (key is None or is_integer or is_typed_key(key)):
        raise TypeError(
            f'key must be an int or a typed key such as jax.random.key(0); got {key!r}. '
            '(An old uint32 key becomes one by jax.random.wrap_key_data.)'
        )


def is_typed_key(x: Any) -> bool:
    """Whether x is a single key as `jax.random.key` makes it."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) and x.ndim == 0


def check_drawable(scheme: Compressor | Reducer, key: KeyLike | None) -> None:
    """Checks that a scheme which draws has a key."""
    if scheme.random and key is None:
        raise ValueError(f'{scheme!r} draws random numbers: pass key=, an int or a typed key.')


def check_arrays(tree: PyTree) -> None:
    """Checks that every leaf is an array, and not a Python number."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not hasattr(leaf, 'dtype'):
            raise TypeError(
                f'The leaf at {axes.path_of(path)!r} is {leaf!r}; it must be an array, such as '
                'jax.numpy.asarray makes of a number.'
            )


def check_real(tree: PyTree) -> None:
    """Checks that every leaf is a real floating-point array."""
    check_arrays(tree)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f'The leaf at {axes.path_of(path)!r} has dtype {leaf.dtype}; only real '
                'floating-point leaves can be exchanged. Keep others out of params, or route them '
                'elsewhere with optax.partition.'
            )


def received(updates: PyTree, marked: PyTree, axis_name: AxisName | None) -> tuple[PyTree, PyTree]:
    """Checks gradients against the memory that they meet, and returns both for this worker.

    A memory in int8 is returned as an array.

    Args:
      updates: the gradients of this worker.
      marked: the memory as the state has it, a `PerWorker` where there is an axis.
      axis_name: the axis of workers, or None.

    Returns:
      The gradients, which are NaN if the memory is that of another worker, and this worker's
      memory.
    """
    memory = jax.tree.map(narrow.wide, axes.unwrap_local(marked, axis_name), is_leaf=narrow.is_int8)
    check_updates(updates, memory)
    axes.check_local(updates, axis_name, memory=memory)
    return axes.nan_if_misplaced(updates, marked, axis_name), memory


def check_updates(updates: PyTree, params: PyTree) -> None:
    """Checks that gradients are real floats, and have the tree and the shapes of params."""
    check_real(updates)
    if jax.tree.structure(updates) != jax.tree.structure(params):
        raise ValueError(
            'The gradients have another tree than the params that this state was made for:\n'
            f'  gradients {jax.tree.structure(updates)}\n  params    {jax.tree.structure(params)}'
        )
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    for (path, gradient), expected in zip(leaves, jax.tree.leaves(params), strict=True):
        if gradient.shape != expected.shape:
            raise ValueError(
                f'The gradient at {axes.path_of(path)!r} has shape {gradient.shape}, but its '
                f'parameter has shape {expected.shape}.'
            )
