"""EF21 with momentum (EF21-SGDM), for noisy gradients and losses that need not be convex.

    v_i+ = (1-eta) v_i + eta g_i(x+),  h_i+ = h_i + C(v_i+ - h_i),  x+ = x - gamma (1/n) sum_i h_i

in average form, with E g_i = grad f_i and E|g_i - grad f_i|^2 <= s2, independent between workers.
Let R = |x+ - x|^2, H = (1/n) sum |h_i - v_i|^2, N = (1/n) sum |v_i - grad f_i|^2,
P = |(1/n) sum v_i - grad F|^2; theta and beta as in `_estimates`, and r = (1-eta)^2 / eta. Then

    P+ <= (1-eta) P + r L^2 R + eta^2 s2/n,     N+ <= (1-eta) N + r L_rms^2 R + eta^2 s2,
    H+ <= (1-theta) H + beta (2 eta^2 N + 2 eta^2 L_rms^2 R) + (1-delta) eta^2 s2

in expectation: Young's inequality, and the noise of a step is orthogonal to the past. By (F) of
`_estimates` with D <= 2 H + 2 P, the function

    F + (gamma/theta) H + (2 gamma beta eta/theta) N + (gamma/eta) P

falls by (gamma/2)|grad F|^2 - gamma s2 (eta/n + (1-delta) eta^2/theta + 2 beta eta^3/theta) if R
has no weight left:  L gamma + gamma^2 (4 beta L_rms^2 (eta^2 + r eta)/theta + 2 r L^2/eta) <= 1.
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def ef21_momentum(
    problem: Problem,
    delta: float | None,
    eta: float,
    noise: float,
    *,
    error0: float = 0.0,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """EF21-SGDM: `gradzip.ef21(scheme, axis_name, momentum=eta)`, then `optax.sgd`.

    Args:
      problem: the theorem needs L_rms. Values of the bound need F0.
      delta: constant of the contractive compressor, `scheme.contractive().delta(like)`.
      eta: the weight of the new gradient in a worker's average, in (0, 1].
      noise: s2, the largest variance E|g_i - grad f_i|^2 of a worker's gradient.
      error0: (1/n) sum_i |h_i - v_i|^2 after the first message, 0 if it is sent in full.
      step_size: where to evaluate the bound, at most the default.
      shared: whether the workers share the randomness of the compressor; the bound is the same.

    Returns:
      A `Bound` on 'gradient_mean' with a floor in noise, for a run whose averages start at the
      first gradients.

    Raises:
      ValueError: delta or eta is out of range, noise or error0 is negative, or the step is too
        long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=10, L=1.0, mu=0.0, L_max=1.0, F0=1.0)
      >>> bound = theory.ef21_momentum(problem, 0.5, eta=0.1, noise=0.01)
      >>> round(bound.step_size, 4), round(bound.floor, 6)
      (0.0716, 0.000775)

    Reference: Fatkhullin, Tyurin, Richtarik, arXiv 2305.15155, for the method; the constants are
      derived here.
    """
    assume.flag('ef21_momentum', 'shared', shared)
    delta = assume.contractive('Theorem EF21-SGDM', delta)
    eta = assume.real('ef21_momentum', 'eta', eta, 0, 1, above=True)
    s2 = assume.real('ef21_momentum', 'noise', noise, 0)
    error0 = assume.real('ef21_momentum', 'error0', error0, 0)
    n, L, L_rms = problem.n, problem.L, problem.need('L_rms', 'Theorem EF21-SGDM')
    theta = delta / (1 + math.sqrt(1 - delta))
    beta = (1 - delta) / theta
    r = (1 - eta) ** 2 / eta
    curvature = 4 * beta * L_rms**2 * (eta**2 + r * eta) / theta + 2 * r * L**2 / eta
    largest = assume.positive_root(curvature, L)
    gamma = assume.step_size('Theorem EF21-SGDM', step_size, largest, largest)
    F0 = problem.known('F0')
    start = error0 / theta + 2 * beta * eta / theta * s2 + s2 / (eta * n)
    return Bound(
        'EF21-SGDM: changes of averaged gradients',
        'every f_i smooth, noise of the workers independent, C contractive',
        'gradient_mean',
        gamma,
        1.0,
        None if F0 is None else 2 * F0 / gamma + 2 * start,
        2 * s2 * (eta / n + (1 - delta) * eta**2 / theta + 2 * beta * eta**3 / theta),
        n,
    )
