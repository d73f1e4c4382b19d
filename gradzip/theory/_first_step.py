"""A first step size from the curvature along the first gradient, for steps that need no L."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradzip.theory import _assume as assume
from gradzip.theory._path import workers_of


def first_step(
    loss: Callable[[Any, Any], Any], params: Any, batches: Any, *, share: float = 0.7
) -> float:
    """Returns share / l, with l the curvature of the workers' losses along the first step.

        l = sqrt(mean_w |H_w g|^2) / |g|,   g = mean_w grad f_w(x_0)

    It costs one gradient and one Hessian-vector product on every worker, and needs no constant of
    the problem. DoG ("distance over gradients") takes the steps from there on, behind any exchange:

        chain(error_feedback(TopK(0.1), 'data'),
              optax.contrib.dog(init_step=('learning_rate', first_step(loss, params, batches))))

    Its step is the largest distance from x_0 so far over the root of the sum of |u|^2, with u the
    mean messages. Without a first step of the right size that distance takes many steps to grow.
    `optax.contrib.dowg` takes a first step of the same length as `init_estim_sq_dist=(step *
    norm(g)) ** 2`. The theorem of DoG's authors, for a slight variation of the formula, is about
    convex losses and locally bounded stochastic gradients, such as those that an unbiased
    compressor of independent workers makes. For a memory there is none. Gradients must not be late.
    `gradzip.scale_by_newton_linesearch` needs no first step, and a few forward passes in each step.
    `python -m experiments.paper --claim adaptive` compares both with the best fixed step.

    Args:
      loss: a function of (params, batch of one worker) that returns a scalar.
      params: tree of arrays, x_0.
      batches: tree of arrays [workers, ...], the data of each worker.
      share: above 0. On one node, a step of less than 2 / l lowers a quadratic along g.

    Returns:
      The step size.

    Raises:
      ValueError: batches are empty or of different lengths, share is not above 0, or the gradient
        or the curvature along it is zero or not finite.
      TypeError: share is not a number.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradzip import theory
      >>> x = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two workers with one example each
      >>> def loss(w, x):
      ...     return jnp.mean((x @ w - 1) ** 2) / 2
      >>> round(theory.first_step(loss, jnp.zeros(2), x), 3)  # l = 1 / sqrt(2)
      0.99

    Reference: Ivgi, Hinder, Carmon, arXiv 2302.12022, for DoG.
    """
    share = assume.real('first_step', 'share', share, 0, above=True)
    workers = workers_of('first_step', batches)

    @jax.jit
    def found(params: Any, batches: Any) -> tuple[jax.Array, jax.Array]:
        each = jax.lax.map(lambda batch: jax.grad(loss)(params, batch), batches)
        mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), each)

        def product(batch: Any) -> Any:
            return jax.jvp(lambda w: jax.grad(loss)(w, batch), (params,), (mean,))[1]

        products = jax.lax.map(product, batches)
        return _square(mean), _square(products) / workers

    gradient, product = map(float, found(params, batches))
    step = share * (gradient / product) ** 0.5 if product > 0 else 0.0
    if not 0 < step < float('inf'):
        raise ValueError(
            'first_step needs a gradient and a curvature along it that are finite and not zero; '
            f'got |g|^2 = {gradient:.3g} and |H g|^2 = {product:.3g}. Take another x_0, such as '
            'random params.'
        )
    return step


def _square(tree: Any) -> jax.Array:
    return sum((jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(tree)), jnp.zeros([]))
