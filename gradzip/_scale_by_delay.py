"""Step sizes that depend on the delay of the gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from gradzip import _ages as ages, _axes as axes, _leaves as leaves, _validation as validation
from gradzip._base import Array, AxisName, KeyLike, PyTree, State
from gradzip._delay_models import Delay
from gradzip._kernels.ring import replaced
from gradzip.delay_rules import Rule


class ScaleByDelayState(NamedTuple):
    """The state of `scale_by_delay`, the same on every worker."""

    count: Array  # i32[], the number of steps taken
    key: PyTree  # the base key; None if the model does not draw
    arrays: PyTree  # that the model reads; () if there are none
    factors: Array  # f32[bound], of the last steps, a ring; f32[0] unless the rule remembers
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def scale_by_delay(
    rule: Rule,
    model: int | Delay,
    axis_name: AxisName | None = None,
    *,
    own: bool = False,
    key: KeyLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by a factor that a rule derives from the delay of their gradients.

        gamma_k = factor(delay_k, sum of the factors of the last delay_k steps) * learning rate

    Behind an exchange, the delay of a step is the longest of all workers, which every worker
    computes from the model: nothing is communicated. In front of the exchange, with `own=True`,
    each worker scales its gradient by its own delay. Where a server applies one gradient at a time,
    the age of that gradient is passed: `tx.update(updates, state, params, delay=age)`.

    The learning rate that follows, as in `chain(delay(model, axis, key=0), exchange,
    scale_by_delay(rule, model, axis, key=0), sgd(rate))`, is the step size without delay, such as
    `theory.delay_adaptive(problem).step_size`.

    Args:
      rule: one of `gradzip.delay_rules`.
      model: a `Delay`, or an int for `Constant`: the model by which gradients are late.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker, or for a
        server that receives one gradient at a time.
      own: whether the delay is that of this worker instead of the longest. Not for rules that
        remember, whose factors belong to the steps of all workers.
      key: for random models: the same as that of `delay`.

    Returns:
      A transformation with the extra argument `delay`. Updates keep their shapes and dtypes. A rule
      that remembers gives a delay above the bound of the model the factor 0.

    Raises:
      TypeError: rule is no Rule; model is neither an integer nor a Delay; own is not True or False.
      ValueError: a negative delay; a random model without a key; own=True with a rule that
        remembers; at trace time, an axis that is not mapped.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.scale_by_delay(gz.delay_rules.Adaptive2(), 4)
      >>> state = tx.init(jnp.zeros([]))
      >>> for age in (0, 1, 1, 0):
      ...   update, state = tx.update(jnp.float32(6), state, delay=age)
      ...   print(update)
      6.0
      0.0
      3.0
      6.0

    Reference: Wu, Magnusson, Feyzmahdavian, Johansson, arXiv 2202.08550; Mishchenko, Bach, Even,
      Woodworth, arXiv 2206.07638.
    """
    if not isinstance(rule, Rule):
        raise TypeError(
            'scale_by_delay(rule=...) must be a rule of gradzip.delay_rules, such as Inverse(); '
            f'got {rule!r}.'
        )
    if not isinstance(own, bool):
        raise TypeError(f'scale_by_delay(own=...) must be True or False; got {own!r}.')
    if own and rule.remembers:
        raise ValueError(
            f'{rule!r} uses the factors of earlier steps, which all workers share: leave out '
            'own=True, and put scale_by_delay behind the exchange.'
        )
    model = ages.check_model('scale_by_delay', model, axis_name, key)
    made_for = validation.made_for(f'scale_by_delay[{rule}]', model, axis_name)
    slots = model.bound if rule.remembers else 0

    def init(params: PyTree) -> ScaleByDelayState:
        validation.check_arrays(params)
        factors = jnp.zeros(slots, jnp.float32)
        count = jnp.zeros([], jnp.int32)
        arrays = ages.first_arrays(model)
        return ScaleByDelayState(count, leaves.base_key(key), arrays, factors, made_for)

    def update(
        updates: PyTree,
        state: State,
        params: PyTree | None = None,
        *,
        delay: Array | int | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ScaleByDelayState]:
        del params, extra
        validation.check_state(state, ScaleByDelayState, made_for)
        axes.check_bound(axis_name)
        if delay is not None:
            age = jnp.asarray(delay, jnp.int32)
        elif own:
            age = ages.age(model, state, axis_name)
        else:
            age = jnp.max(ages.ages(model, state, axes.worker_count(axis_name)))
        factor = rule.factor(age.astype(jnp.float32), _spent(state, age))
        factors = state.factors
        if slots:
            factor = jnp.where(age > model.bound, 0.0, factor)
            factors = replaced(factors, state.count % slots, factor)
        updates = jax.tree.map(lambda u: u * factor.astype(u.dtype), updates)
        count = leaves.next_count(state.count)
        return updates, state._replace(count=count, factors=factors)

    return optax.GradientTransformationExtraArgs(init, update)


def _spent(state: ScaleByDelayState, age: Array) -> Array:
    """Returns the sum of the factors of the last `age` steps: f32[]."""
    slots = state.factors.size
    if not slots:
        return jnp.float32(0)
    since = (state.count - 1 - lax.iota(jnp.int32, slots)) % slots  # of the slot, in steps less 1
    return jnp.sum(jnp.where(since < age, state.factors, 0))
