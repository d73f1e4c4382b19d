"""Parameters as they were some steps ago, for gradients that a simulator computes late.

`delay` keeps the last gradients of every worker. Where the workers differ only in their data, the
same run needs no more than the last parameters, which all workers share: worker w computes its
gradient when it is used, at the parameters of the step at which it would have been computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradzip import (
    _ages as ages,
    _axes as axes,
    _leaves as leaves,
    _validation as validation,
)
from gradzip._base import Array, AxisName, KeyLike, Like, PyTree
from gradzip._delay_models import Delay
from gradzip._kernels.ring import replaced


class StaleState(NamedTuple):
    """The state of `stale_params`, the same on every worker."""

    count: Array  # i32[], the number of steps taken
    key: PyTree  # the base key; None if the model does not draw
    arrays: PyTree  # that the model reads; () if there are none
    past: PyTree  # the params of the last `bound` steps, a ring f[bound, *shape]
    made_for: PyTree  # a `MadeFor`: what this state belongs to


class StaleParams(NamedTuple):
    """The functions that `stale_params` returns."""

    init: Callable[[PyTree], StaleState]
    read: Callable[..., tuple[PyTree, Array]]
    update: Callable[[PyTree, StaleState], StaleState]


def stale_params(
    model: int | Delay, axis_name: AxisName | None = None, *, key: KeyLike | None = None
) -> StaleParams:
    """Remembers the last parameters, and gives every worker those at which its gradient is late.

    A run with `chain(delay(model, axis_name, key=key), tx)` keeps `bound` gradients of every
    worker. This is the same run with `bound` versions of the parameters in all, where every
    gradient is computed in the step in which it is used:

        late, step = stale.read(state, params)       # params of `step`, as this worker saw them
        grads = jax.grad(loss)(late, batch_of(step))
        state = stale.update(params, state)          # before params change
        updates, opt = tx.update(grads, opt, params)

    A loss without a batch, or with the same one at all steps, does not need `step`. In a model that
    starts from zero (`Constant`), `step` is negative until a first gradient arrives, and the
    gradient then counts as zero: `jnp.where(step >= 0, g, 0)`.

    Where a server applies one gradient at a time, as in a simulation of events, pass its age:
    `stale.read(state, params, delay=age)`. Without a mapper, one worker's gradient is then computed
    at every step.

    Args:
      model: a `Delay`, or an int for `Constant`. Its bound is the longest delay.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Nothing is
        communicated, and the params must be the same on all workers.
      key: for random models: an int or a typed key, the same on all workers and in other
        transformations that ask the same model.

    Returns:
      Three functions. `init(params)` returns the first state. `read(state, params, delay=None)`
      returns params in the same shapes and dtypes, localized for `jax.grad` (`localize`), and the
      step that they are from, i32[]; params are NaN if `delay` is above the bound of the model.
      `update(params, state)` returns the state with this step's params in it. The memory is `bound`
      times that of params, in their dtypes.

    Raises:
      TypeError: model is neither an integer nor a Delay; a leaf that is not a real float.
      ValueError: a negative delay; a random model without a key; at trace time, an axis that is not
        mapped, or params of another tree or shape than at init.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> stale = gz.stale_params(gz.Cyclic(3))  # this worker starts anew in every third step
      >>> state = stale.init(jnp.zeros([]))
      >>> for k in range(5):
      ...   params = jnp.float32(10 * k)
      ...   print(*stale.read(state, params))
      ...   state = stale.update(params, state)
      0.0 0
      0.0 0
      0.0 0
      30.0 3
      30.0 3

    Reference: the iterates of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """
    model = ages.check_model('stale_params', model, axis_name, key)
    made_for = validation.made_for('stale_params', model, axis_name)

    def init(params: PyTree) -> StaleState:
        validation.check_real(params)
        past, arrays = ring(params, model.bound), ages.first_arrays(model)
        count = jnp.zeros([], jnp.int32)
        return StaleState(count, leaves.base_key(key), arrays, past, made_for)

    def read(
        state: StaleState, params: PyTree, *, delay: Array | int | None = None
    ) -> tuple[PyTree, Array]:
        validation.check_state(state, StaleState, made_for)
        axes.check_bound(axis_name)
        validation.check_updates(
            params, jax.tree.map(lambda ring: Like(ring.shape[1:], ring.dtype), state.past)
        )
        age = ages.age(model, state, axis_name) if delay is None else jnp.asarray(delay, jnp.int32)
        late = version(state.past, params, state.count, age)
        return late if axis_name is None else axes.localize(late, axis_name), state.count - age

    def update(params: PyTree, state: StaleState) -> StaleState:
        validation.check_state(state, StaleState, made_for)
        past = remembered(state.past, params, state.count)
        return state._replace(count=leaves.next_count(state.count), past=past)

    return StaleParams(init, read, update)


def ring(params: PyTree, bound: int) -> PyTree:
    """Returns an empty ring for params, f[max(bound, 1), *shape] each, in their dtypes.

    It holds zeros, which are never read: no version is older than the run.
    """
    return jax.tree.map(lambda x: jnp.zeros((max(bound, 1), *x.shape), x.dtype), params)


def version(past: PyTree, params: PyTree, count: Array, age: Array) -> PyTree:
    """Returns params as they were `age` steps ago, and those of the first step if there are none.

    They are NaN if the ring does not hold them any more.

    Args:
      past: made by `ring` and `remembered`.
      params: this step's.
      count: i32[], the number of steps taken.
      age: i32[], in steps.
    """
    back = jnp.minimum(age, count)

    def one(ring: Array, now: Array) -> Array:
        late = jnp.where(back == 0, now, ring[(count - back) % ring.shape[0]])
        return jnp.where(age > ring.shape[0], jnp.nan, late)

    return jax.tree.map(one, past, params)


def remembered(past: PyTree, params: PyTree, count: Array) -> PyTree:
    """Returns the ring with this step's params in it."""
    return jax.tree.map(lambda ring, x: replaced(ring, count % ring.shape[0], x), past, params)
