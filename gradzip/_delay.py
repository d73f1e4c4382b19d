"""Gradients that arrive late.

A delay in front of an exchange makes stale gradients of fresh ones: g_w as it was d steps ago,
compressed when it is used. A model says how long a gradient of a step and a worker takes; `delay`
remembers as many gradients as the longest needs.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _checks as checks, _leaves as leaves
from gradzip._base import Array, AxisName, Key, KeyLike, Like, PyTree, State, memory_like


class Delay(abc.ABC):
    """How many steps a gradient is late: an integer in [0, bound] for every step and worker.

    `random` says that `steps` uses its key. A model with `cold` starts with zeros, for `bound`
    steps, and from then on the gradients are exactly `bound` late; any other uses the oldest
    gradient there is until there are enough, min(draw, step).
    """

    bound: int  # the longest delay, in steps; a field or a property
    random: ClassVar[bool] = False
    cold: ClassVar[bool] = False

    @abc.abstractmethod
    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        """The delay of the gradient that `worker` uses at `step`: i32[] in [0, bound].

        `key` is the base key: a model folds in step and worker itself, so that others can ask
          again.
        """


@dataclasses.dataclass(frozen=True)
class Constant(Delay):
    """Every gradient is `tau` steps late; the first `tau` steps see zeros.

    Args:
      tau: steps, at least 0.

    Raises:
      ValueError: tau is negative.
      TypeError: tau is not an integer.

    Example:
      >>> import gradzip as gz
      >>> gz.Constant(4).bound
      4

    Reference: the run of theorem T1 for constant delays, after Khirirat, Feyzmahdavian, Johansson,
    arXiv 1806.06573, tau steps later.
    """

    tau: int
    cold: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('Constant', 'tau', self.tau, 0)

    @property
    def bound(self) -> int:
        return self.tau

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        del key, step, worker
        return jnp.asarray(self.tau, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Uniform(Delay):
    """Every step and every worker draws a delay from 0, 1, ..., bound.

    Args:
      bound: steps, at least 0.

    Raises:
      ValueError: bound is negative.
      TypeError: bound is not an integer.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.delay(gz.Uniform(3), key=0)
      >>> tx.init(jnp.zeros(2)).past.shape
      (3, 2)

    Reference: the bounded, time-varying delays of Khirirat, Feyzmahdavian, Johansson, arXiv
      1806.06573.
    """

    bound: int
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('Uniform', 'bound', self.bound, 0)

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, step), worker)
        return jax.random.randint(key, (), 0, self.bound + 1, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Cyclic(Delay):
    """Workers take turns: the gradient of worker w is new at steps w, w + n, w + 2 n, ...

    Args:
      workers: n, at least 1. Under `iag`, one of n workers sends at each step.

    Raises:
      ValueError: workers below 1.
      TypeError: workers is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> model, key = gz.Cyclic(3), jax.random.key(0)
      >>> [int(model.steps(key, jnp.int32(step), jnp.int32(1))) for step in range(5)]
      [2, 0, 1, 2, 0]

    Reference: the cyclic order of incremental aggregated gradients; Khirirat, Feyzmahdavian,
    Johansson, arXiv 1806.06573, the quantized one.
    """

    workers: int

    def __post_init__(self) -> None:
        checks.integer('Cyclic', 'workers', self.workers, 1)

    @property
    def bound(self) -> int:
        return self.workers - 1

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        del key
        return (step - worker) % self.workers


class DelayState(NamedTuple):
    """`past` is each worker's own; count and key are the same on every worker."""

    count: Array  # i32[], steps taken
    key: PyTree  # the base key; None if the model does not draw
    past: PyTree  # the last `bound` gradients, a ring f[bound, *shape]; PerWorker with an axis


def delay(
    model: int | Delay, axis_name: AxisName | None = None, *, key: KeyLike | None = None
) -> optax.GradientTransformation:
    """Replaces every gradient by the worker's own of some steps ago.

    `delay(tau)`, a constant delay, uses nothing of the present step: in front of an exchange,
    `delay(1)` lets the exchange of the last gradient run beside the computation of the next. In
    compiled programs (tests/test_overlap.py) the exchange then waits for no product of the model,
    which without delay it does for all. The compiler decides what becomes of that. For TPU (v5e,
    compiled ahead of time) it splits an all-gather by default, `Gather` and the second half of
    `TwoShot`, and schedules all products between its start and its end; its option
    `xla_tpu_enable_async_collective_fusion` turns that off. All-reduces, of `Sum` and `PowerSGD`,
    and all-to-alls stay in one piece there, free but not overlapped. On CPU there is no gain: a
    step takes as long as the exchange and the gradient one after the other.

    Args:
      model: a `Delay`, or an int for `Constant`. 0 changes nothing and remembers nothing.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Nothing is
        communicated, but workers have pasts, and draws, of their own.
      key: for random models: an int or a typed key, the same on all workers.

    Returns:
      A transformation. Updates keep their shapes and dtypes. The memory is `bound` gradients.

    Raises:
      TypeError: model is neither an integer nor a Delay; a leaf that is not a real float.
      ValueError: a negative delay; a random model without a key; at trace time, an axis that is not
        mapped, gradients that differ between workers where there is no axis, or are of another tree
        or shape than params.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.delay(2)
      >>> state = tx.init(jnp.zeros([]))
      >>> for step in range(1, 5):
      ...   late, state = tx.update(jnp.float32(step), state)
      ...   print(late)
      0.0
      0.0
      1.0
      2.0

    Reference: Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """
    if not isinstance(model, Delay):
        checks.integer('delay', 'model', model, 0)
        model = Constant(int(model))
    axes.names_of(axis_name)
    leaves.check_key(key)
    if model.random and key is None:
        raise ValueError(f'{model!r} draws random delays: pass key=, an int or a typed key.')
    if model.bound == 0:
        return optax.identity()

    def init(params: PyTree) -> DelayState:
        leaves.check_updates(params, params)
        likes = jax.tree.map(memory_like, params)
        past = jax.tree.map(lambda x: jnp.zeros((model.bound, *x.shape), x.dtype), likes)
        return DelayState(
            jnp.zeros([], jnp.int32), leaves.base_key(key), axes.to_rows(past, axis_name)
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, DelayState]:
        del params
        past = axes.my_row(state.past, axis_name)
        leaves.check_updates(
            updates, jax.tree.map(lambda ring: Like(ring.shape[1:], ring.dtype), past)
        )
        axes.check_local(updates, axis_name, memory=past)
        late = _late(model, updates, past, state, axis_name)
        past = _remember(updates, past, state.count % model.bound)
        count = leaves.next_count(state.count)
        return late, DelayState(count, state.key, axes.to_rows(past, axis_name))

    return optax.GradientTransformation(init, update)


def _late(
    model: Delay, updates: PyTree, past: PyTree, state: DelayState, axis_name: AxisName | None
) -> PyTree:
    """What is used now. The gradient of step s lies in slot s % bound until step s + bound."""
    if model.cold:  # the oldest slot: zeros in the beginning, and never the present gradient
        slot = state.count % model.bound
        return jax.tree.map(lambda ring, g: ring[slot].astype(g.dtype), past, updates)
    key = jax.random.key(0) if state.key is None else state.key
    steps = model.steps(key, state.count, axes.worker_index(axis_name))
    steps = jnp.minimum(steps, state.count)
    slot = (state.count - steps) % model.bound

    def choose(ring: Array, gradient: Array) -> Array:
        return jnp.where(steps == 0, gradient, ring[slot].astype(gradient.dtype))

    return jax.tree.map(choose, past, updates)


def _remember(updates: PyTree, past: PyTree, slot: Array) -> PyTree:
    return jax.tree.map(lambda ring, g: ring.at[slot].set(g.astype(ring.dtype)), past, updates)
