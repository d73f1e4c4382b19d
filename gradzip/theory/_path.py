"""The points at which `measure` takes the constants of a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

MOST = 2000  # iterations of L-BFGS


def descent(value: Callable, start: jax.Array, points: int) -> list[jax.Array]:
    """Returns the start, some iterates of L-BFGS, and where it ended."""
    iterates = [np.asarray(start, np.float64)]

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        F, gradient = value(jnp.asarray(x, start.dtype))
        return float(F), np.asarray(gradient, np.float64)

    options = {'maxiter': MOST, 'ftol': 0.0, 'gtol': 1e-9}
    keep = iterates.append
    scipy.optimize.minimize(
        both, iterates[0], jac=True, method='L-BFGS-B', options=options,
        callback=lambda x: keep(np.array(x)),
    )  # fmt: skip
    chosen = np.unique(np.linspace(0, len(iterates) - 1, points + 1).round().astype(int))
    return [jnp.asarray(iterates[i], start.dtype) for i in chosen]


def workers_of(owner: str, batches: Any) -> int:
    """Returns the length of the leading axis that all batches share."""
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(sizes) != 1 or not next(iter(sizes)) or not next(iter(sizes))[0]:
        raise ValueError(
            f'{owner}(batches=...) must be a tree of arrays whose first axis is the workers; got '
            f'leading axes {sorted(sizes)}.'
        )
    return next(iter(sizes))[0]
