"""Incremental aggregated gradients: each worker's last message is used until the next arrives."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import (
    _ages as ages_lib,
    _axes as axes,
    _collectives as collectives,
    _leaves as leaves,
    _validation as validation,
    metrics as metrics_lib,
)
from gradzip._base import (
    Array,
    AxisName,
    Compressor,
    Key,
    KeyLike,
    PyTree,
    Reducer,
    Scheme,
    State,
    like_of,
    memory_like,
)
from gradzip._buffer import to_buffer
from gradzip._delay_models import Delay
from gradzip._kernels.ring import replaced
from gradzip._reducers.gather import Gather


class IAGState(NamedTuple):
    """`messages` are each worker's own; the rest is the same on every worker."""

    count: Array  # i32[], the number of steps taken
    key: PyTree  # the base key; None if nothing draws
    arrays: PyTree  # that the model of arrivals reads; () if there are none
    messages: list[PyTree]  # the last bound + 1, a ring u32[bound + 1, rows, 128] for each scheme
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def iag(
    scheme: Scheme,
    axis_name: AxisName | None,
    arrivals: Delay,
    *,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Quantized incremental aggregated gradient: u_k = mean_w Q(g_w of step s_w), s_w <= k.

    A worker compresses the gradient of each step once. At step k, the message of step s_w = k - d_w
    is in use, where the model of arrivals gives the age d_w, and the same message is used again
    until a later one replaces it. (With `chain(delay(model), compress(scheme))`, a late gradient is
    compressed anew at each use. That is another algorithm, with another theorem.) Every worker's
    first message arrives at step 0.

    A worker keeps its last `bound + 1` payloads, packed. Because shapes are static, every step
    gathers one payload from each worker, also where it has not changed. A network that sent only
    new messages would carry 1 / (bound + 1) of that under `Cyclic`.

    Args:
      scheme: an unbiased Compressor, or a function from a leaf (shape and dtype) to one, or
        `Gather` of one. Workers draw independently.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.
      arrivals: a `Delay`: how old the message is that the other workers use, at every step.
      key: for random schemes and models: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`; here the target
        is this step's gradient, `sent` what this step's message stands for, and `mean` the mean of
        the messages in use.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: arrivals is no Delay; a scheme that states no omega, or a reducer other than
        Gather; an argument of another kind; a leaf that is not a real float.
      ValueError: a random scheme or model without a key; at trace time, an axis that is not mapped,
        or gradients that are the same on every worker.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> tx = gz.iag(gz.Identity(), None, gz.Constant(2))  # a new message every step, two late
      >>> state = tx.init(jnp.zeros([]))
      >>> for step in range(1, 5):
      ...   update, state = tx.update(jnp.float32(step), state)
      ...   print(update)
      1.0
      1.0
      1.0
      2.0

    Reference: Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573, Q-IAG.
    """
    validation.check_scheme('iag', scheme, axis_name, key)
    metrics_lib.check(metrics)
    if not isinstance(arrivals, Delay):
        raise TypeError(f'iag(arrivals=...) must be a Delay, such as Cyclic(8); got {arrivals!r}.')
    if arrivals.random and key is None:
        raise ValueError(f'{arrivals!r} draws random arrivals: pass key=, an int or a typed key.')
    slots = arrivals.bound + 1
    made_for = validation.made_for(f'iag[{arrivals}]', scheme, axis_name)

    def init(params: PyTree) -> IAGState:
        exchange = leaves.init(scheme, params, key, memory=False)
        likes = [memory_like(p) for p in jax.tree.leaves(params)]
        rings = []
        for gather, members in _groups(scheme, likes).items():
            mine = [likes[i] for i in members]
            keys = [jax.random.key(0)] * len(mine)
            shape = jax.eval_shape(lambda xs, g=gather, k=keys: to_buffer(g.payloads(xs, k)), mine)
            rings.append(axes.new_local(jnp.zeros((slots, *shape.shape), jnp.uint32), axis_name))
        measured = metrics_lib.init(metrics, params)
        arrays = ages_lib.first_arrays(arrivals)
        return IAGState(exchange.count, exchange.key, arrays, rings, measured, made_for)

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, IAGState]:
        validation.check_state(state, IAGState, made_for)
        validation.check_updates(updates, updates if params is None else params)
        axes.check_local(updates, axis_name)
        for ring in state.messages[:1]:  # the rings of all schemes belong to the same worker
            updates = axes.nan_if_misplaced(updates, ring, axis_name)
        target = leaves.in_memory_dtype(updates)
        xs, treedef = jax.tree.flatten(target)
        ages = _ages(arrivals, state, axes.worker_count(axis_name))
        means, sents, rings = list(xs), list(xs), []
        groups = _groups(scheme, xs).items()
        for ring, (gather, members) in zip(state.messages, groups, strict=True):
            group = _Group(gather, members, axis_name)
            ring, sent = group.remember(axes.unwrap_local(ring, axis_name), xs, state)
            mean = group.means(ring, xs, state, ages)
            for i, mean_, sent_ in zip(members, mean, sent, strict=True):
                means[i], sents[i] = mean_, sent_
            rings.append(axes.wrap_local(ring, axis_name))
        mean, sent = treedef.unflatten(means), treedef.unflatten(sents)
        measured = metrics_lib.measure(metrics, state.metrics, target, sent, mean, axis_name)
        count = leaves.next_count(state.count)
        state = state._replace(count=count, messages=rings, metrics=measured)
        return leaves.cast_like(mean, updates), state

    return optax.GradientTransformation(init, update)


class _Group(NamedTuple):
    """The leaves under one scheme, whose payloads travel together."""

    gather: Gather
    members: list[int]
    axis_name: AxisName | None

    def remember(self, ring: Array, xs: list[Array], state: IAGState) -> tuple[Array, list[Array]]:
        """Returns the ring with this step's message in it, and what the message stands for.

        Every worker and every leaf draws with a key of its own.
        """
        me = axes.worker_index(self.axis_name)
        keys = [_key(state, state.count, i, me) for i in self.members]
        payloads, sents, _ = self.gather.messages([xs[i] for i in self.members], keys)
        return replaced(ring, state.count % ring.shape[0], to_buffer(payloads)), sents

    def means(self, ring: Array, xs: list[Array], state: IAGState, ages: Array) -> list[Array]:
        """Returns the mean of the messages in use, each decoded with the key of its own step."""
        me = axes.worker_index(self.axis_name)
        used = ring[(state.count - ages[me]) % ring.shape[0]]
        axis = self.axis_name
        everyones = used[None] if axis is None else collectives.gather(used, axis)
        workers = jnp.arange(ages.shape[0], dtype=jnp.int32)
        draw = jax.vmap(lambda age, leaf, w: _key(state, state.count - age, leaf, w), (0, None, 0))
        keys = [draw(ages, i, workers) for i in self.members]
        return self.gather.means(everyones, [like_of(xs[i]) for i in self.members], keys)


def _ages(arrivals: Delay, state: IAGState, workers: int) -> Array:
    """Returns the age of every worker's message in use, none older than the run: i32[workers]."""
    return jnp.minimum(ages_lib.ages(arrivals, state, workers), state.count)


def _key(state: IAGState, step: Array, leaf: int, worker: Array) -> Key:
    """Returns the key of one message: derived as in an exchange, but for any step."""
    key = leaves.step_key(state._replace(count=step))
    return jax.random.fold_in(jax.random.fold_in(key, leaf), worker)


def _groups(scheme: Scheme, likes: list) -> dict[Gather, list[int]]:
    groups: dict[Gather, list[int]] = {}
    for i, like in enumerate(likes):
        groups.setdefault(_gather_for(scheme, memory_like(like)), []).append(i)
    return groups


def _gather_for(scheme: Scheme, like: jax.ShapeDtypeStruct) -> Gather:
    """Returns the reducer of one leaf. Workers draw independently, so it is always `Gather`."""
    chosen = scheme if isinstance(scheme, Compressor | Reducer) else scheme(like)
    gather = Gather(chosen) if isinstance(chosen, Compressor) else chosen
    by_workers = isinstance(gather, Gather) and gather.mean_over == 'workers'
    if not isinstance(gather, Gather) or not by_workers or gather.compressor.omega(like) is None:
        raise TypeError(
            f'iag needs an unbiased compressor, one that states omega, and sends it by Gather; for '
            f'a leaf of shape {like.shape} it got {chosen!r}. A biased one needs a memory: '
            'error_feedback or ef21.'
        )
    return gather
