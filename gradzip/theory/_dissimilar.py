"""Theorem C3: distributed compressed gradient descent without convexity, in average form.

    x_{k+1} = x_k - gamma (1/n) sum_i Q_i(grad f_i(x_k)),   workers independent

Assume (1/n) sum_i |grad f_i(x)|^2 <= B |grad F(x)|^2 + Z for all x. The variance of the step is
at most (omega/n) (1/n) sum_i |grad f_i|^2, so with v = L gamma / 2,

    E F(x+) <= F - gamma (1 - v (1 + omega B/n)) |grad F|^2 + gamma v (omega/n) Z.
"""

from __future__ import annotations

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def dissimilar(
    problem: Problem,
    omega: float | None,
    dissimilarity: tuple[float, float],
    *,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Theorem C3: every worker compresses its own gradient, and no loss need be convex.

    Args:
      problem: values of the bound need F0.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises.
      dissimilarity: (B, Z) with (1/n) sum_i |grad f_i(x)|^2 <= B |grad F(x)|^2 + Z along the run,
        B at least 1.
      step_size: where to evaluate the bound, below twice the default 1 / (L (1 + omega B / n)).
      shared: must be False, as the theorem is about independent noise.

    Returns:
      A `Bound` on 'gradient_mean', with a floor in omega Z.

    Raises:
      ValueError: omega is None (biased), B is below 1, Z is negative, the noise is shared, or the
        step is too long.
      TypeError: an argument is not a number, dissimilarity is no pair, or shared is not True or
        False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=4, L=1.0, mu=0.0, F0=1.0)
      >>> bound = theory.dissimilar(problem, omega=4.0, dissimilarity=(1.0, 0.5))
      >>> bound.step_size, bound.floor
      (0.5, 0.25)

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem C3', omega)
    instead = 'Use gradzip.Gather(scheme), or theory.gd(shared=True, convex=False).'
    assume.independent('Theorem C3', shared, instead)
    if not isinstance(dissimilarity, tuple | list) or len(dissimilarity) != 2:
        raise TypeError(f'dissimilar(dissimilarity=...) must be a pair; got {dissimilarity!r}.')
    B = assume.real('dissimilar', 'dissimilarity[0]', dissimilarity[0], 1)
    Z = assume.real('dissimilar', 'dissimilarity[1]', dissimilarity[1], 0)
    noise = omega / problem.n
    best = 1 / (problem.L * (1 + noise * B))
    gamma = assume.step_size('Theorem C3', step_size, best, 2 * best, below=True)
    share = 1 - gamma / (2 * best)
    F0 = problem.known('F0')
    return Bound(
        'C3: every worker compresses its own gradient, no loss need be convex',
        'F smooth, gradients of bounded dissimilarity, Q unbiased, workers independent',
        'gradient_mean',
        gamma,
        1.0,
        None if F0 is None else F0 / (gamma * share),
        problem.L * gamma * noise * Z / (2 * share),
        problem.n,
    )
