"""The params at which a worker that takes steps of its own computes its gradient."""

from __future__ import annotations

from typing import Any

import jax

from gradzip import _axes as axes
from gradzip._base import AxisName, PyTree, State
from gradzip._local_steps import LocalStepsState
from gradzip._zero_one_adam import ZeroOneAdamState


def local_params(params: PyTree, state: State, axis_name: AxisName | None = None) -> PyTree:
    """Returns the params at which this worker takes its gradient.

    These are the params themselves, as `localize` returns them, plus the worker's offset if the
    state is that of a chain with `local_steps` or `zero_one_adam`.

    Args:
      params: tree of arrays, the same on every worker.
      state: the state of a chain.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.

    Returns:
      A tree like params. `jax.grad` with respect to it is this worker's own gradient.

    Raises:
      ValueError: the state holds more than one `local_steps`, or was made for another axis.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.local_steps(optax.sgd(0.5), optax.identity(), optax.sgd(1.0), sync_every=2)
      >>> params = jnp.float32(1.0)
      >>> _, state = tx.update(jnp.float32(1.0), tx.init(params), params)
      >>> gz.local_params(params, state)
      Array(0.5, dtype=float32)
    """
    if axis_name is not None:
        params = axes.localize(params, axis_name)
    found = [part for part in jax.tree.leaves(state, is_leaf=_has_offset) if _has_offset(part)]
    if not found:
        return params
    if len(found) > 1:
        raise ValueError(f'The state holds {len(found)} local_steps; a chain may hold one.')
    return axes.moved(params, axes.unwrap_local(found[0].offset, axis_name))


def _has_offset(part: Any) -> bool:
    return isinstance(part, LocalStepsState | ZeroOneAdamState)
