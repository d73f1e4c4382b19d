"""Updates that are computed in some steps only, and are zero in the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import _axes as axes
from gradzip._base import Array, PyTree

Run = Callable[[PyTree], tuple[PyTree, PyTree]]


def run_one_of(turn: Array, runs: Sequence[Run], state: PyTree) -> tuple[PyTree, PyTree]:
    """Returns what the run whose turn it is makes of a state, or zero updates and the same state.

    Args:
      turn: i32[], the number of a run, from 1; 0 for none. It is the same on every worker, so that
        all workers take part in the collectives of a run.
      runs: functions from the state to updates and the next state. All return the same shapes.
      state: tree of arrays.
    """
    shapes = jax.eval_shape(runs[0], state)

    def rest(state: PyTree) -> tuple[PyTree, PyTree]:
        return axes.vary_like((zeros(shapes[0]), state), shapes)

    return lax.switch(turn, [rest, *runs], state)


def zeros(tree: PyTree) -> PyTree:
    """Returns zeros of the shapes and dtypes of a tree."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
