"""How old the gradient in use is, for every transformation that asks a model of delay.

`delay` in front of an exchange decides which gradient is used. Others may ask the same model again,
with the same key, and receive the same answer: `compensate` looks for the parameters at which the
gradient was computed, and `scale_by_delay` for the delays of all workers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import _axes as axes, _checks as checks, _validation as validation
from gradzip._base import Array, AxisName, KeyLike, PyTree
from gradzip._delay_models import Constant, Delay


def check_model(owner: str, model: Any, axis_name: AxisName | None, key: KeyLike | None) -> Delay:
    """Returns a model of delay, `Constant` for an integer, and checks what comes with it."""
    if not isinstance(model, Delay):
        checks.integer(owner, 'model', model, 0)
        model = Constant(int(model))
    axes.names_of(axis_name)
    validation.check_key(key)
    if model.random and key is None:
        raise ValueError(f'{model!r} draws random delays: pass key=, an int or a typed key.')
    return model


def age(model: Delay, state: Any, axis_name: AxisName | None) -> Array:
    """Returns how many steps old the gradient is that this worker uses now: i32[].

    It is at most the number of steps taken, but for a model that starts from zero: there it is
    larger while no gradient has arrived.

    Args:
      model: as the transformation was given it.
      state: of the transformation, with its `count` of steps, its `key`, and the `arrays` of the
        model.
      axis_name: the axis of workers, or None.
    """
    model.check_workers(axes.worker_count(axis_name))
    return _clamped(model, state, axes.worker_index(axis_name))


def ages(model: Delay, state: Any, workers: int) -> Array:
    """Returns the same for all workers: i32[workers]."""
    model.check_workers(workers)
    numbers = lax.iota(jnp.int32, workers)
    return jax.vmap(lambda worker: _clamped(model, state, worker))(numbers)


def first_arrays(model: Delay) -> PyTree:
    """Returns the arrays that the model reads, as copies that can be donated with a state."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), model.arrays())


def _clamped(model: Delay, state: Any, worker: Array) -> Array:
    key = jax.random.key(0) if state.key is None else state.key
    steps = model.bind(state.arrays).steps(key, state.count, worker)
    return steps if model.starts_from_zero else jnp.minimum(steps, state.count)
