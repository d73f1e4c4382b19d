"""The driver of every exchange: from a scheme and a tree of arrays to means, and back to a tree.

A scheme is a compressor, a reducer, or a function from a leaf's shape and dtype to one of them. All
leaves whose reducers compare equal are reduced in one call, and so in one collective. Where leaves
are sharded over other axes of the mesh, only leaves that vary over the same axes are joined: a
buffer that holds a sharded leaf varies over its axes, and so would all that is decoded from it.

Keys are a base key and a count, and they are never split: fold_in(key, count) is the key of a step,
fold_in(., leaf) the key of a leaf in it, and a reducer folds in the worker where workers must draw
independently. Therefore any draw of any step can be made again, and a restored state continues
exactly as the original would have.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _narrow as narrow, _validation as validation
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
    widest,
)
from gradzip._compat import varying
from gradzip._kernels.in_place import materialize_in_place
from gradzip._reducers.default import reducer_of
from gradzip._reducers.gather import Gather
from gradzip._reducers.sum import Sum

BESIDE = 0x7FFFFFFF  # no leaf has this number, so the keys folded from it are no leaf's


class ExchangeState(NamedTuple):
    """What an exchange carries from step to step. It is the same on every worker."""

    count: Array  # i32[], the number of steps taken
    key: PyTree  # the base key; None if the scheme does not draw
    reducers: PyTree  # the state of each leaf's reducer


class Exchanged(NamedTuple):
    """What an exchange returns: three trees with the structure of its input, and its next state."""

    mean: PyTree
    sent: PyTree
    lost: PyTree  # the input less what was sent; XLA removes it where it is not used
    state: ExchangeState


class Addends(NamedTuple):
    """What a reducer adds by itself: an update and a memory for every leaf, or None."""

    pairs: list[tuple[Array, Array] | None]
    misplaced: Array | None  # bool[], whether the memories are those of another worker


def init(scheme: Scheme, params: PyTree, key: KeyLike | None, *, memory: bool) -> ExchangeState:
    """Returns the first state. With `memory`, every reducer is used in its contractive form."""
    validation.check_real(params)
    leaves, treedef = jax.tree.flatten(params)
    likes = [memory_like(leaf) for leaf in leaves]
    reducers = [reducer_for(scheme, like, memory=memory) for like in likes]
    for reducer in reducers:
        validation.check_drawable(reducer, key)
    states = [reducer.init(like) for reducer, like in zip(reducers, likes, strict=True)]
    return ExchangeState(jnp.zeros([], jnp.int32), base_key(key), treedef.unflatten(states))


def exchange(
    scheme: Scheme,
    tree: PyTree,
    state: ExchangeState,
    axis_name: AxisName | None,
    *,
    memory: bool,
    addends: Addends | None = None,
) -> Exchanged:
    """Reduces every leaf of a tree over the workers of an axis.

    Args:
      scheme: chooses the reducer of every leaf.
      tree: what is reduced.
      state: made by `init`, or returned by the last exchange.
      axis_name: the axis of workers, or None.
      memory: whether reducers are used in their contractive form.
      addends: the updates and memories of the leaves whose reducer `adds`.
    """
    xs, treedef = jax.tree.flatten(tree)
    states = treedef.flatten_up_to(state.reducers)
    keys = list(fold_each(step_key(state), len(xs)))
    out: list = [None] * len(xs)
    for reducer, members in _groups(scheme, xs, memory):
        validation.check_drawable(reducer, state.key)
        xs_, states_, keys_ = ([column[i] for i in members] for column in (xs, states, keys))
        more = {}
        if addends is not None and any(parts := [addends.pairs[i] for i in members]):
            xs_ = [part[0] if part else x for part, x in zip(parts, xs_, strict=True)]
            memories = [part[1] if part else None for part in parts]
            more = {'memories': memories, 'misplaced': addends.misplaced}
        found = reducer.reduce(xs_, states_, keys_, axis_name, **more)
        for i, reduced in zip(members, found, strict=True):
            out[i] = reduced
    mean, sent, lost, states = (treedef.unflatten([part[j] for part in out]) for j in range(4))
    return Exchanged(mean, sent, lost, ExchangeState(next_count(state.count), state.key, states))


def add_memory(
    scheme: Scheme, updates: PyTree, memory: PyTree, scale: Any, axis_name: AxisName | None
) -> PyTree:
    """Returns updates + scale * memory, leaf by leaf, in the buffers of the memory if XLA allows.

    Args:
      scheme: the scheme that will reduce the result.
      updates: tree of arrays.
      memory: tree of memories for them; a `PerWorker` with one row where there is an axis.
      scale: a number or a scalar array.
      axis_name: the axis of workers, or None.
    """

    def add(update: Array, memory: Array | narrow.Int8Blocks) -> Array:
        remembered = narrow.wide(memory)
        dtype = widest(jnp.float32, update.dtype, remembered.dtype)
        # The sum has the shape of the memory, with its leading axis of one row: a donated buffer is
        # only reused for an array of the same shape.
        total = update.astype(dtype).reshape(remembered.shape)
        total += jnp.asarray(scale, dtype) * remembered.astype(dtype)
        # XLA would add again at every use, and the sum of many workers does not fit a cache.
        simulated = axes.worker_count(axes.simulated_axes(axis_name) or None)
        overwrites = reducer_for(scheme, memory_like(update), memory=True).overwrites
        if overwrites or simulated > 1:
            total = materialize_in_place(total, simulated)
        return total.reshape(update.shape)

    return jax.tree.map(add, updates, memory if axis_name is None else memory.rows)


def addends(
    scheme: Scheme, updates: PyTree, memory: PyTree, scale: Any, axis_name: AxisName | None
) -> Addends:
    """Returns the two arrays whose sum `add_memory` returns, for leaves whose reducer adds them.

    The updates are those that arrived, whether or not the memory is this worker's.
    """

    def pair(update: Array, remembered: Array | narrow.Int8Blocks) -> tuple[Array, Array] | None:
        if isinstance(remembered, narrow.Int8Blocks):
            return None
        like, same = memory_like(update), update.dtype == remembered.dtype == jnp.float32
        as_it_is = isinstance(scale, int | float) and scale == 1
        if not (same and as_it_is and reducer_for(scheme, like, memory=True).adds(like)):
            return None
        return update, remembered.reshape(update.shape)

    gradients, treedef = jax.tree.flatten(updates)
    memories = treedef.flatten_up_to(memory if axis_name is None else memory.rows)
    pairs = [pair(*both) for both in zip(gradients, memories, strict=True)]
    return Addends(pairs, axes.misplaced(memory, axis_name))


def _groups(scheme: Scheme, xs: list[Array], memory: bool) -> list[tuple[Reducer, list[int]]]:
    """Returns each reducer with the indices of the leaves that it reduces in one call."""
    groups: dict[tuple[Reducer, frozenset[str]], list[int]] = {}
    for i, x in enumerate(xs):
        reducer = reducer_for(scheme, memory_like(x), memory=memory)
        groups.setdefault((reducer, varying(x)), []).append(i)
    return [(reducer, members) for (reducer, _), members in groups.items()]


def reducer_for(scheme: Scheme, like: Like, *, memory: bool = False) -> Reducer:
    """Returns the reducer of one leaf; with `memory`, in its contractive form."""
    chosen = scheme if isinstance(scheme, Compressor | Reducer) else scheme(like)
    if not isinstance(chosen, Compressor | Reducer):
        raise TypeError(
            'A scheme must give a Compressor or a Reducer for every leaf; for a leaf of shape '
            f'{like.shape} and dtype {like.dtype} it gave {chosen!r}.'
        )
    reducer = reducer_of(chosen)
    return reducer.contractive(like) if memory else reducer


def omega_of(owner: str, scheme: Scheme, like: Like) -> float:
    """Returns omega of the compressor of one leaf, and raises TypeError for a biased one."""
    reducer = reducer_for(scheme, like)
    over_senders = isinstance(reducer, Gather) and reducer.mean_over == 'senders'
    omega = None
    if isinstance(reducer, Gather | Sum) and not over_senders:
        omega = reducer.compressor.omega(like)
    if omega is None:
        raise TypeError(
            f'{owner} needs an unbiased compressor, one that states omega, alone or under Gather '
            f'or Sum; for a leaf of shape {like.shape} it got {reducer!r}. Induced(first, second) '
            'makes a biased compressor unbiased; error_feedback and ef21 take it as it is.'
        )
    return omega


def base_key(key: KeyLike | None) -> PyTree:
    """Returns a copy of the user's key, so that donating a state does not delete the original."""
    if key is None:
        return None
    return jnp.array(key, copy=True) if validation.is_typed_key(key) else jax.random.key(key)


def next_count(count: Array) -> Array:
    """Returns the count after one more step. It stays at the largest int32 rather than overflow."""
    return jnp.asarray(optax.safe_increment(count))


def step_key(state: Any) -> Key:
    """Returns the key of this step, or an unused placeholder where the scheme does not draw."""
    key = jax.random.key(0) if state.key is None else state.key
    return jax.random.fold_in(key, state.count)


def worker_key(state: ExchangeState, axis_name: AxisName | None) -> Key:
    """Returns a key of this step and worker, for draws beside those of the exchange."""
    key = jax.random.fold_in(step_key(state), BESIDE)
    return jax.random.fold_in(key, axes.worker_index(axis_name))


def fold_each(key: Key, count: int) -> Key:
    """Returns fold_in(key, i) for every i below count. One call compiles faster than many."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def zeros_in_memory(params: PyTree) -> PyTree:
    """Returns a memory of zeros for every leaf, in at least float32."""
    return narrow.zeros(params, None)


def in_memory_dtype(tree: PyTree) -> PyTree:
    """Returns every leaf in at least float32."""
    return jax.tree.map(lambda x: x.astype(memory_like(x).dtype), tree)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Returns every leaf in the dtype of its counterpart."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)
