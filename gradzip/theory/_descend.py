"""The step of a bound as an optax transformation."""

from __future__ import annotations

import optax

from gradzip.theory._bound import Bound
from gradzip.theory._staged import Staged


def scale_by_theory(bound: Bound | Staged) -> optax.GradientTransformation:
    """Returns the descent at the step size of a bound: updates times its negative.

    Args:
      bound: of any theorem, or what `halving` returned.

    Returns:
      A transformation for the end of a chain, in place of `optax.sgd`.

    Raises:
      TypeError: bound is neither.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradzip import theory
      >>> bound = theory.gd(theory.Problem(n=1, L=4.0, mu=1.0), omega=0.0)
      >>> tx = theory.scale_by_theory(bound)
      >>> tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[0]
      Array([-0.4, -0.4], dtype=float32)
    """
    if isinstance(bound, Staged):
        return optax.scale_by_learning_rate(bound.schedule())
    if not isinstance(bound, Bound):
        raise TypeError(f'scale_by_theory needs a Bound or a Staged; got {bound!r}.')
    return optax.scale_by_learning_rate(bound.step_size)
