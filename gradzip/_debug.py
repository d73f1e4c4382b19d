"""A check of gradients at run time, for mappers whose types do not show the mistake."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np

from gradzip import _axes as axes, _collectives as collectives, _validation as validation
from gradzip._base import AxisName, PyTree


def check_local(updates: PyTree, axis_name: AxisName) -> PyTree:
    """Returns gradients, or NaN and a message if they are the same on every worker.

    An average that was left in before the exchange, such as `jax.lax.pmean` of the gradients, makes
    them equal. Then nothing is gained by the exchange, and the memories of all workers are the
    same. `shard_map` shows it by types, and gradzip raises without being asked. Under `pmap` and
    `vmap` nothing shows it: pass the gradients through this function while you debug a step, and
    remove it afterwards, because it costs two all-reduces of the gradients.

    Gradients that are equal for another reason, because all workers have the same data or all
    gradients are zero, are reported as well. With one worker nothing is compared.

    Args:
      updates: the gradients of this worker, a tree of arrays.
      axis_name: the mapped axis of workers, or a tuple of axes.

    Returns:
      The same tree, in which every entry is NaN if the gradients are the same on every worker. The
      message goes to the standard error stream.

    Raises:
      TypeError: a leaf that is not a real floating-point array.
      ValueError: at trace time, an axis that is not mapped, or gradients whose types show that they
        are the same on every worker.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> jax.vmap(lambda g: gz.check_local(g, 'data'), axis_name='data')(jnp.arange(2.0))
      Array([0., 1.], dtype=float32)
    """
    validation.check_real(updates)
    axes.check_local(updates, axis_name)
    if axes.worker_count(axis_name) == 1 or not jax.tree.leaves(updates):
        return updates

    def report(differ: np.ndarray) -> None:
        if not np.all(differ):
            print(
                f'gradzip: the gradients are the same on every worker of {axis_name!r}. Remove the '
                'average that comes before the exchange, such as jax.lax.pmean of the gradients.',
                file=sys.stderr,
            )

    differ = collectives.differ(updates, axis_name)
    jax.debug.callback(report, differ)
    return jax.tree.map(lambda x: jnp.where(differ, x, jnp.full_like(x, jnp.nan)), updates)
