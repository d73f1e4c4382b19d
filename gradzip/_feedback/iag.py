"""Every worker's last arrived message, compressed once, is used until the next one arrives."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _leaves as leaves
from gradzip._base import (
    LARGE_LEAF,
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
from gradzip._delay import Delay
from gradzip._packing import to_buffer
from gradzip._reducers.gather import Gather


class IAGState(NamedTuple):
    """`messages` are each worker's own; count and key are the same on every worker."""

    count: Array  # i32[], steps taken
    key: PyTree  # the base key; None if nothing draws
    messages: list[PyTree]  # the last bound + 1, a ring u32[bound + 1, rows, 128] for each scheme


def iag(
    scheme: Scheme, axis_name: AxisName | None, arrivals: Delay, *, key: KeyLike | None = None
) -> optax.GradientTransformation:
    """Quantized incremental aggregated gradient: u_k = mean_w Q(g_w of step s_w), s_w <= k.

    A worker's message is compressed once, at the step s_w = k - d_w that the model of arrivals
    tells, and the very same message is used again until a later one takes its place. (With
    `chain(delay(model), compress(scheme))` a late gradient is compressed anew at each use: another
    algorithm, with another theorem.) Every worker's first message arrives at step 0.

    A worker keeps its last `bound + 1` payloads, packed. Every step gathers one payload a worker,
    also where it has not changed: a program's shapes are static. A network that sends only what is
    new carries a 1 / (bound + 1) of it under `Cyclic`.

    Args:
      scheme: an unbiased Compressor, or a function from a leaf (shape and dtype) to one; or
        `Gather` of one. Workers draw independently.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.
      arrivals: a `Delay`: how old the message is that a worker's neighbours hold, at every step.
      key: for random schemes and models: an int or a typed key, the same on all workers.

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
    leaves.check_scheme('iag', scheme, axis_name, key)
    if not isinstance(arrivals, Delay):
        raise TypeError(f'iag(arrivals=...) must be a Delay, such as Cyclic(8); got {arrivals!r}.')
    if arrivals.random and key is None:
        raise ValueError(f'{arrivals!r} draws random arrivals: pass key=, an int or a typed key.')
    slots = arrivals.bound + 1

    def init(params: PyTree) -> IAGState:
        exchange = leaves.init(scheme, params, key, memory=False)
        likes = [memory_like(p) for p in jax.tree.leaves(params)]
        rings = []
        for gather, members in _groups(scheme, likes).items():
            mine = [likes[i] for i in members]
            keys = [jax.random.key(0)] * len(mine)
            shape = jax.eval_shape(lambda xs, g=gather, k=keys: to_buffer(g.payloads(xs, k)), mine)
            rings.append(axes.to_rows(jnp.zeros((slots, *shape.shape), jnp.uint32), axis_name))
        return IAGState(exchange.count, exchange.key, rings)

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, IAGState]:
        leaves.check_updates(updates, updates if params is None else params)
        axes.check_local(updates, axis_name)
        xs, treedef = jax.tree.flatten(leaves.in_memory_dtype(updates))
        ages = _ages(arrivals, state, axes.worker_count(axis_name))
        means, rings = list(xs), []
        for ring, (gather, members) in zip(
            state.messages, _groups(scheme, xs).items(), strict=True
        ):
            group = _Group(gather, members, axis_name)
            ring = group.remember(axes.my_row(ring, axis_name), xs, state)
            for i, mean in zip(members, group.means(ring, xs, state, ages), strict=True):
                means[i] = mean
            rings.append(axes.to_rows(ring, axis_name))
        state = IAGState(leaves.next_count(state.count), state.key, rings)
        return leaves.cast_like(treedef.unflatten(means), updates), state

    return optax.GradientTransformation(init, update)


class _Group(NamedTuple):
    """The leaves under one scheme, whose payloads travel together."""

    gather: Gather
    members: list[int]
    axis_name: AxisName | None

    def remember(self, ring: Array, xs: list[Array], state: IAGState) -> Array:
        """Today's message in the ring: each worker and leaf with a key of its own."""
        me = axes.worker_index(self.axis_name)
        keys = [_key(state, state.count, i, me) for i in self.members]
        buffer = to_buffer(self.gather.payloads([xs[i] for i in self.members], keys))
        return ring.at[state.count % ring.shape[0]].set(buffer)

    def means(self, ring: Array, xs: list[Array], state: IAGState, ages: Array) -> list[Array]:
        """The mean of the messages in use, each decoded with the key of its own step."""
        me = axes.worker_index(self.axis_name)
        used = ring[(state.count - ages[me]) % ring.shape[0]]
        everyones = used[None] if self.axis_name is None else axes.gather(used, self.axis_name)
        workers = jnp.arange(ages.shape[0], dtype=jnp.int32)
        draw = jax.vmap(lambda age, leaf, w: _key(state, state.count - age, leaf, w), (0, None, 0))
        keys = [draw(ages, i, workers) for i in self.members]
        return self.gather.means(everyones, [like_of(xs[i]) for i in self.members], keys)


def _ages(arrivals: Delay, state: IAGState, workers: int) -> Array:
    """How old every worker's message in use is; none is older than the run: i32[workers]."""
    key = jax.random.key(0) if state.key is None else state.key
    ages = jax.vmap(lambda w: arrivals.steps(key, state.count, w))(
        jnp.arange(workers, dtype=jnp.int32)
    )
    return jnp.minimum(ages, state.count)


def _key(state: IAGState, step: Array, leaf: int, worker: Array) -> Key:
    """The key of one message: as in an exchange, but of any step."""
    key = leaves.step_key(state._replace(count=step))
    return jax.random.fold_in(jax.random.fold_in(key, leaf), worker)


def _groups(scheme: Scheme, likes: list) -> dict[Gather, list[int]]:
    groups: dict[Gather, list[int]] = {}
    for i, like in enumerate(likes):
        groups.setdefault(_gather_for(scheme, memory_like(like)), []).append(i)
    return groups


def _gather_for(scheme: Scheme, like: jax.ShapeDtypeStruct) -> Gather:
    """Independent draws for every worker: a bare compressor means Gather here, linear or not."""
    chosen = scheme if isinstance(scheme, Compressor | Reducer) else scheme(like)
    gather = Gather(chosen) if isinstance(chosen, Compressor) else chosen
    if not isinstance(gather, Gather) or gather.compressor.omega(LARGE_LEAF) is None:
        raise TypeError(
            f'iag needs an unbiased compressor, one that states omega, and sends it by Gather; for '
            f'a leaf of shape {like.shape} it got {chosen!r}. A biased one needs a memory: '
            'error_feedback or ef21.'
        )
    return gather
