"""One reducer per leaf: from a scheme and a tree to means, and back to a tree.

A scheme is a compressor, a reducer, or a function from a leaf's shape and dtype to one; that is the
whole routing language. Leaves whose reducers compare equal come together, in one collective.

Keys are a base key and a count, never split: fold_in(key, count) is the step's key,
fold_in(., leaf) the leaf's, and a reducer folds in the worker where workers must differ. So any
draw of any step can be recomputed, and a restored state goes on exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _blocks as blocks
from gradzip._base import (
    Array,
    AxisName,
    Compressor,
    Key,
    KeyLike,
    Like,
    PyTree,
    Reducer,
    Scheme,
    memory_like,
)
from gradzip._reducers.default import reducer_of


class ExchangeState(NamedTuple):
    """What an exchange carries from step to step, the same on every worker."""

    count: Array  # i32[], steps taken
    key: PyTree  # the base key; None if no scheme draws
    reducers: PyTree  # one reducer state a leaf


class Exchanged(NamedTuple):
    """What an exchange gives back: trees in the structure of what it was given, and its state."""

    mean: PyTree
    sent: PyTree
    lost: PyTree  # what was given, less what was sent; not computed where nobody asks
    state: ExchangeState


def check_scheme(
    owner: str, scheme: Scheme, axis_name: AxisName | None, key: KeyLike | None
) -> None:
    """What can be refused before any leaf is known."""
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
        _check_drawable(scheme, key)


def check_key(key: KeyLike | None) -> None:
    """An int, a typed key, or None."""
    is_int = isinstance(key, int) and not isinstance(key, bool)
    if not (key is None or is_int or _is_typed_key(key)):
        raise TypeError(
            f'key must be an int or a typed key such as jax.random.key(0); got {key!r}. '
            '(An old uint32 key becomes one by jax.random.wrap_key_data.)'
        )


def base_key(key: KeyLike | None) -> PyTree:
    """A fresh copy of the user's key: a donated state must not take the original with it."""
    if key is None:
        return None
    return jax.random.key(key) if isinstance(key, int) else jnp.array(key, copy=True)


def init(scheme: Scheme, params: PyTree, key: KeyLike | None, *, memory: bool) -> ExchangeState:
    """The first state; `memory` asks for the contractive form of every reducer."""
    leaves, treedef = jax.tree.flatten(params)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for path, leaf in zip(paths, leaves, strict=True):
        _check_real(path, leaf)
    likes = [memory_like(leaf) for leaf in leaves]
    reducers = [reducer_for(scheme, like, memory=memory) for like in likes]
    for reducer in reducers:
        _check_drawable(reducer, key)
    states = [reducer.init(like) for reducer, like in zip(reducers, likes, strict=True)]
    return ExchangeState(jnp.zeros([], jnp.int32), base_key(key), treedef.unflatten(states))


def exchange(
    scheme: Scheme, tree: PyTree, state: ExchangeState, axis_name: AxisName | None, *, memory: bool
) -> Exchanged:
    """Reduces every leaf."""
    xs, treedef = jax.tree.flatten(tree)
    states = treedef.flatten_up_to(state.reducers)
    keys = list(fold_each(step_key(state), len(xs)))
    out: list = [None] * len(xs)
    for reducer, members in _groups(scheme, xs, memory).items():
        xs_, states_, keys_ = ([column[i] for i in members] for column in (xs, states, keys))
        for i, reduced in zip(members, reducer.reduce(xs_, states_, keys_, axis_name), strict=True):
            out[i] = reduced._replace(lost=reduced.lost_of(xs[i]))
    mean, sent, states, lost = (treedef.unflatten([part[j] for part in out]) for j in range(4))
    return Exchanged(mean, sent, lost, ExchangeState(next_count(state.count), state.key, states))


def at_rest(scheme: Scheme, total: PyTree, likes: PyTree) -> PyTree:
    """Sums that a memory's buffers are to hold, where what is lost will be taken out in place."""

    def leaf(x: Array, like: Array) -> Array:
        chosen = reducer_for(scheme, memory_like(like), memory=True)
        return blocks.at_rest(x) if chosen.in_place else x

    return jax.tree.map(leaf, total, likes)


def _groups(scheme: Scheme, xs: list[Array], memory: bool) -> dict[Reducer, list[int]]:
    groups: dict[Reducer, list[int]] = {}
    for i, x in enumerate(xs):
        groups.setdefault(reducer_for(scheme, memory_like(x), memory=memory), []).append(i)
    return groups


def next_count(count: Array) -> Array:
    """The count after one more step; it stays at the largest int32 rather than overflow."""
    return jnp.asarray(optax.safe_increment(count))


def step_key(state: Any) -> Key:
    """The key of this step. Where nothing draws there is none, and a placeholder goes unused."""
    key = jax.random.key(0) if state.key is None else state.key
    return jax.random.fold_in(key, state.count)


def fold_each(key: Key, count: int) -> Key:
    """fold_in(key, i) for every i below count, in one call: each costs time to compile."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def reducer_for(scheme: Scheme, like: Like, *, memory: bool = False) -> Reducer:
    """What a scheme means for one leaf. A bare compressor is summed if linear, else gathered."""
    chosen = scheme if isinstance(scheme, Compressor | Reducer) else scheme(like)
    if not isinstance(chosen, Compressor | Reducer):
        raise TypeError(
            'A scheme must give a Compressor or a Reducer for every leaf; for a leaf of shape '
            f'{like.shape} and dtype {like.dtype} it gave {chosen!r}.'
        )
    reducer = reducer_of(chosen)
    return reducer.contractive() if memory else reducer


def check_updates(updates: PyTree, params: PyTree) -> None:
    """Refuses gradients that are not real floats, or of another tree or shape than params."""
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    for path, gradient in leaves:
        _check_real(path, gradient)
    if jax.tree.structure(updates) != jax.tree.structure(params):
        raise ValueError(
            'The gradients have another tree than the params that this state was made for:\n'
            f'  gradients {jax.tree.structure(updates)}\n  params    {jax.tree.structure(params)}'
        )
    for (path, gradient), expected in zip(leaves, jax.tree.leaves(params), strict=True):
        if gradient.shape != expected.shape:
            raise ValueError(
                f'The gradient at {axes.path_of(path)!r} has shape {gradient.shape}, but its '
                f'parameter has shape {expected.shape}.'
            )


def zeros_in_memory(params: PyTree, dtype: Any = None) -> PyTree:
    """A memory for every leaf, in at least float32 unless told otherwise."""
    likes = jax.tree.map(memory_like, params)
    return jax.tree.map(lambda like: jnp.zeros(like.shape, dtype or like.dtype), likes)


def in_memory_dtype(tree: PyTree) -> PyTree:
    """Every leaf in at least float32."""
    return jax.tree.map(lambda x: x.astype(memory_like(x).dtype), tree)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Every leaf in the dtype of its counterpart."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def _is_typed_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) and x.ndim == 0


def _check_real(path: tuple, leaf: Any) -> None:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(
            f'The leaf at {axes.path_of(path)!r} has dtype {leaf.dtype}; only real floating-point '
            'leaves can be exchanged. Keep others out of params, or route them elsewhere with '
            'optax.partition.'
        )


def _check_drawable(scheme: Compressor | Reducer, key: KeyLike | None) -> None:
    if scheme.random and key is None:
        raise ValueError(f'{scheme!r} draws random numbers: pass key=, an int or a typed key.')
