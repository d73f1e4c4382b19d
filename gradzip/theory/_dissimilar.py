"""Theorem C3: distributed compressed gradient descent without convexity, in average form.

    x_{k+1} = x_k - gamma (1/n) sum_i Q_i(grad f_i(x_k)),   workers independent

Assume (1/n) sum_i |grad f_i(x)|^2 <= B |grad F(x)|^2 + Z for all x. The variance of the step is
at most (omega/n) (1/n) sum_i |grad f_i|^2, so with v = L gamma / 2,

    E F(x+) <= F - gamma (1 - v (1 + omega B/n)) |grad F|^2 + gamma v (omega/n) Z.

If the losses are only bounded from below, (1/n) sum_i |grad f_i|^2 <= 2 L_max (F - mean_i inf f_i),
since |grad f_i|^2 <= 2 L_i (f_i - inf f_i). With d = F - inf F, D = inf F - mean_i inf f_i and
a = gamma^2 L L_max omega/n,

    E d+ <= (1 + a) d - gamma (1 - v) |grad F|^2 + a D.

Multiplied by (1 + a)^-(k+1) and summed, the d telescope. With W the sum of these weights, the least
E |grad F|^2 is at most (d_0/W + a D) / (gamma (1 - v)), and 1/W = a / (1 - (1+a)^-k) <= 1/k + a,
since (1 + a)^k >= 1 + a k.
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


def bounded_below(
    problem: Problem,
    omega: float | None,
    gap: float,
    *,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Theorem C3 for losses of which nothing is known but that they are smooth and bounded below.

    Args:
      problem: with L_max. Values of the bound need F0.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises.
      gap: D = inf F - mean_i inf f_i, at least 0. For losses that are never negative, the value
        that F is known to reach is an upper bound.
      step_size: where to evaluate the bound, below twice the default 1 / L. `for_target` finds the
        one for a target, which is shorter where there is noise.
      shared: must be False, as the theorem is about independent noise.

    Returns:
      A `Bound` on 'gradient_least', with a floor in omega (F0 + D).

    Raises:
      ValueError: omega is None (biased), gap is negative, the noise is shared, or the step is too
        long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=4, L=1.0, mu=0.0, L_max=2.0, F0=1.0)
      >>> bound = theory.bounded_below(problem, omega=4.0, gap=0.5, step_size=0.1)
      >>> round(bound.floor, 4), round(bound.at(1000), 4)
      (0.3158, 0.3263)

    Reference: the weights are those of Khaled, Richtarik, arXiv 2002.03329; the setting is that of
      Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """
    omega = assume.unbiased('Theorem C3', omega)
    instead = 'Use gradzip.Gather(scheme), or theory.gd(shared=True, convex=False).'
    assume.independent('Theorem C3', shared, instead)
    D = assume.real('bounded_below', 'gap', gap, 0)
    L, F0 = problem.L, problem.known('F0')
    gamma = assume.step_size('Theorem C3', step_size, 1 / L, 2 / L, below=True)
    a = gamma**2 * L * problem.need('L_max', 'Theorem C3') * omega / problem.n
    progress = gamma * (1 - gamma * L / 2)
    return Bound(
        'C3: every worker compresses its own gradient, the losses are bounded below',
        'every f_i smooth and bounded below, Q unbiased, workers independent',
        'gradient_least',
        gamma,
        1.0,
        None if F0 is None else F0 / progress,
        0.0 if a == 0 else None if F0 is None else a * (F0 + D) / progress,
        problem.n,
    )
