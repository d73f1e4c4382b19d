"""The constants of any loss, by Hessian-vector products along a path of points."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gradzip.theory import _assume as assume, _curvature as curvature
from gradzip.theory._path import descent, workers_of
from gradzip.theory._problem import Problem
from gradzip.theory._supports import graph_constants

CONSTANT = 1e-4  # relative change of a Hessian-vector product along the path: rounding of float32
FLAT = 1e-5  # of L; curvature below it is rounding
NEARBY = 1e-3  # relative size of the displacement of a point


@dataclasses.dataclass(frozen=True)
class Measured:
    """The constants of a loss and how each was found. `measure` returns it; it prints as a table.

    Args:
      problem: the constants, for the functions of `gradzip.theory`.
      how: constant to where its value comes from. Values that are no theorems' constants for sure
        begin with 'estimate'.
      points: how many points the path has.
      lowest: the smallest curvature found, below 0 for a loss that is not convex.
      gradient: |grad F| at the last point, which stands for the minimiser.
    """

    problem: Problem
    how: Mapping[str, str]
    points: int
    lowest: float
    gradient: float

    @property
    def exact(self) -> frozenset[str]:
        """The names of the constants that are not estimates."""
        return frozenset(n for n, text in self.how.items() if not text.startswith('estimate'))

    def __str__(self) -> str:
        rows = [f'{name:8}{getattr(self.problem, name):<12.6g}{t}' for name, t in self.how.items()]
        return '\n'.join(rows)


def measure(
    loss: Callable[[Any, Any], Any],
    params: Any,
    batches: Any,
    *,
    path: Sequence[Any] | None = None,
    points: int = 6,
    mu: float | None = None,
    iterations: int = 40,
    progress: Callable[[str], Any] | None = None,
) -> Measured:
    """Measures the constants of a loss that several workers share, whatever the loss.

    Without a path, L-BFGS minimises F, the mean of the workers' losses, from params, and the
    constants are taken at some of its iterates. They are the constants of the loss only if its
    curvature is the same everywhere, as in least squares. Otherwise L and the L_i may be larger,
    and mu smaller, elsewhere: they are estimates, for runs that stay near the path. For a neural
    network, pass its own trajectory as the path. For logistic regression and least squares,
    `gradzip.advice.measure` returns exact constants.

    Args:
      loss: a function of (params, batch of one worker) that returns a scalar.
      params: tree of arrays, x_0.
      batches: tree of arrays [workers, ...], the data of each worker.
      path: params along a run, of which the last stands for the minimiser; params is put in front.
      points: at how many of the iterates the curvature is taken, if there is no path.
      mu: the strong convexity of F if it is known, such as that of an l2 term.
      iterations: Hessian-vector products for each eigenvalue. Up to 256 parameters the Hessian is
        formed instead.
      progress: is called with a line of text after each point, such as print.

    Returns:
      A `Measured`. Its `problem` has every constant, and mu = 0 where F has no positive curvature.

    Raises:
      ValueError: batches are empty or of different lengths, or a loss is not finite.
      TypeError: an argument is not of its kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradzip import theory
      >>> x = jnp.array([[[1.0, 0.0]], [[0.0, 2.0]]])  # two workers with one example each
      >>> def loss(w, x):
      ...     return jnp.mean((x @ w - 1) ** 2) / 2
      >>> found = theory.measure(loss, jnp.zeros(2), x)
      >>> round(found.problem.L, 4), round(found.problem.mu, 4), found.problem.sigma
      (2.0, 0.5, 1.0)
      >>> found.how['L']
      'exact: the curvature is the same at all points'

    Reference: Lanczos, 1950, "An iteration method for the solution of the eigenvalue problem"; the
      constants are those of `Problem`.
    """
    points = assume.integer('measure', 'points', points, 1)
    iterations = assume.integer('measure', 'iterations', iterations, 2)
    if mu is not None:
        mu = assume.real('measure', 'mu', mu, 0)
    n = workers_of('measure', batches)
    start, unravel = ravel_pytree(params)

    def flat(x: jax.Array, batch: Any) -> jax.Array:
        return loss(unravel(x), batch)

    value = jax.jit(jax.value_and_grad(lambda x, batches: curvature.mean_loss(flat, x, batches)))
    if path is None:
        xs = descent(lambda x: value(x, batches), start, points)
    else:
        xs = [start, *(ravel_pytree(each)[0] for each in path)]
    ends = curvature.ends_of_mean(flat, iterations)
    each_of = curvature.largest_of_each(flat, iterations)
    gradients = jax.jit(lambda x, batches: jax.lax.map(lambda b: jax.grad(flat)(x, b), batches))
    v = curvature.random_direction(start.size, start.dtype, 0)
    low, high, each, on, products = np.inf, 0.0, np.zeros(n), np.zeros((n, start.size), bool), []
    turn = jax.jit(lambda x, b: curvature.product(lambda x: curvature.mean_loss(flat, x, b), x, v))
    for i, x in enumerate(xs):
        # Nearby, no entry of a gradient is zero by chance, and there are no ties: at 0, automatic
        # differentiation returns 1/2 for the second derivative of softplus, which is 1/4.
        near = x + NEARBY * (1 + jnp.linalg.norm(x)) * v / jnp.linalg.norm(v)
        least, most = map(float, ends(near, v, batches))
        low, high = min(low, least), max(high, most, -least)
        each = np.maximum(each, np.asarray(each_of(near, v, batches), np.float64))
        on |= np.asarray(gradients(near, batches)) != 0
        products.append(np.asarray(turn(near, batches), np.float64))
        if progress is not None:
            progress(f'point {i + 1} of {len(xs)}: curvature from {least:.4g} to {most:.4g}')
    if not (np.isfinite(high) and np.all(np.isfinite(each))):
        raise ValueError('measure needs a loss whose curvature is finite at all points.')
    change = np.max([np.linalg.norm(p - products[0]) for p in products])
    constant = bool(change <= CONSTANT * np.linalg.norm(products[0])) and len(xs) > 1
    V0 = float(jnp.sum((xs[0] - xs[-1]) ** 2))
    F0 = max(0.0, float(value(xs[0], batches)[0]) - float(value(xs[-1], batches)[0]))
    mean_curvature = 2 * F0 / V0 if V0 > 0 else high  # between mu and L
    high = max(high, mean_curvature)
    found = min(low, mean_curvature) if low > FLAT * high else 0.0
    sigma, cov, wide, exact = graph_constants(on, each)
    # The L_i bound L in several ways on paper. Where they do not, all of them are too small.
    at_most = each.mean(), cov, wide, sigma * each.max() / n
    scale = max(1.0, *(high / bound for bound in at_most))
    each, cov, wide = each * scale, cov * scale, wide * scale
    last = np.asarray(gradients(xs[-1], batches), np.float64)
    strong = min(found if mu is None else mu, high, mean_curvature)
    problem = Problem(
        n, high, strong, L_max=float(each.max()), L_mean=float(each.mean()),
        L_rms=float(np.sqrt(np.mean(each**2))), sigma=sigma, L_cov=cov, L_e=wide,
        G=float(np.sum(last**2)) if n > 1 else 0.0, V0=V0, F0=F0,
    )  # fmt: skip
    gradient = float(np.linalg.norm(last.mean(axis=0)))
    dense = start.size <= curvature.DENSE
    how = _how(constant and dense, exact, mu is not None, len(xs), path is None)
    return Measured(problem, how, len(xs), low, gradient)


def _how(constant: bool, eigenvalue: bool, given: bool, points: int, found: bool) -> dict[str, str]:
    """Returns where the value of each constant comes from."""
    if constant:
        steep = low = 'exact: the curvature is the same at all points'
    else:
        steep = f'estimate: the largest at {points} points'
        low = f'estimate: the smallest at {points} points'
    graph = 'supports of gradients at the points'
    sigma = f'{graph}, {"an eigenvalue" if eigenvalue else "a bound by degrees"}'
    end = 'estimate: at the point that L-BFGS found' if found else 'estimate: at the last point'
    steeps = ('L_max', 'L_mean', 'L_rms')
    return {
        'n': 'exact',
        'L': steep,
        'mu': 'given' if given else low,
        **dict.fromkeys(steeps, steep),
        'sigma': f'exact: {sigma}' if constant else f'estimate: {sigma}',
        **dict.fromkeys(('L_cov', 'L_e'), f'{steep}; {graph}'),
        **dict.fromkeys(('G', 'V0', 'F0'), end),
    }
