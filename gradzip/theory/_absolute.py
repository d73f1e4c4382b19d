"""Compressors with an absolute error, and error feedback corrected by the Hessian (HAEC).

    |C(v) - v| <= eps   for every v, such as rounding to multiples of a number

Let g = (1/n) sum_i grad f_i(x) = grad F(x), and let e be the mean of the memories e_i, each at most
eps. HAEC sends C(p_i) with p_i = grad f_i(x) + e_i - gamma H_i e_i, keeps e_i+ = p_i - C(p_i), and
steps x+ = x - gamma (1/n) sum_i C(p_i). The point y = x - gamma e, where y_0 = x_0, moves by

    y+ = y - gamma (g - gamma (1/n) sum_i H_i e_i) = y - gamma grad F(y) - gamma r,
    r  = [grad F(x) - grad F(y) - gamma Hess F(x) e] + gamma (1/n) sum_i (Hess F(x) - H_i) e_i.

As x - y = gamma e, the bracket is at most M |gamma e|^2 / 2, with M the Lipschitz constant of the
Hessian, and the rest at most gamma h eps (Cauchy-Schwarz), with h the root mean square over the
workers of |Hess F(x) - H_i|. For error feedback, H_i = 0, r = grad F(x) - grad F(y). Therefore

    |r| <= gamma h eps + M gamma^2 eps^2 / 2   for HAEC,   |r| <= gamma L eps   for error feedback.

A step of gradient descent brings y nearer to x* by max(|1 - gamma mu|, |1 - gamma L|), which is
1 - gamma mu up to the default step 2/(mu + L). Unrolled, |y_k - x*| is at most
(1 - gamma mu)^k |x_0 - x*| + |r|/mu, and |x - x*| <= |y - x*| + gamma eps. Without a memory,
x+ = x - gamma (g + error) with an error of at most eps, so that |x_k - x*| is at most
(1 - gamma mu)^k |x_0 - x*| + eps/mu.

Error feedback on a quadratic with the Hessian H has r = gamma H e. Up to the step 1/L,

    |y_k - x*| <= (1 - gamma mu)^k |x_0 - x*| + gamma eps sum_j max_t t (1 - t)^j

over t from gamma mu to gamma L. Let m = floor(1/(gamma L)) and J = ceil(1/(gamma mu)). For j < m
the maximum is at t = gamma L, for j >= J it is at t = gamma mu, and in between it is at most
1/(2(j+1)), its value at t = 1/(j+1). The sum is at most 1 - (1 - gamma L)^m + ln(J/m)/2 +
(1 - gamma mu)^J, about 2 + ln(L/mu)/2.
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def haec(
    problem: Problem,
    error: float,
    *,
    hessian_error: float | None = 0.0,
    hessian_lipschitz: float = 0.0,
    memory: bool = True,
    step_size: float | None = None,
) -> Bound:
    """Error feedback corrected by the Hessian, with a compressor of an absolute error.

    Its floor is gamma eps for a quadratic, whatever its condition. That of other methods with the
    same compressor is larger:

    - HAEC where the Hessian is not exact or changes: gamma eps (1 + (h + M gamma eps / 2) / mu).
    - error feedback, `hessian_error=None`: about gamma eps (2 + ln(L / mu) / 2) for a
      quadratic up to the step 1 / L, and gamma eps (1 + L / mu) otherwise.
    - no memory, `memory=False`: eps / mu.

    Args:
      problem: mu > 0. Values of the bound need V0.
      error: eps, the largest |C(v) - v|. For rounding d entries to multiples of s it is
        sqrt(d) s / 2.
      hessian_error: h, the root mean square over the workers of |H_i - Hess F|, in the spectral
        norm, along the run. For diagonal Hessians it is the norm of what is off the diagonal. None
        for error feedback without a correction.
      hessian_lipschitz: M, with |Hess F(x) - Hess F(y)| <= M |x - y|; 0 for quadratics.
      memory: whether the error of a message is remembered, or lost.
      step_size: where to evaluate the bound, at most the default, 2 / (mu + L).

    Returns:
      A `Bound` on 'distance'.

    Raises:
      ValueError: mu = 0, a constant is negative, or the step is too long.
      TypeError: an argument is not a number, or memory is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=1, L=1.0, mu=0.01, V0=100.0)
      >>> for options in ({}, {'hessian_error': None}, {'memory': False}):
      ...   print(round(theory.haec(problem, 0.1, step_size=0.5, **options).floor, 4))
      0.05
      0.221
      10.0

    Reference: Khirirat, Magnusson, Johansson, arXiv 1909.10327, for the method; the constants are
      derived here.
    """
    eps = assume.real('haec', 'error', error, 0)
    M = assume.real('haec', 'hessian_lipschitz', hessian_lipschitz, 0)
    h = None if hessian_error is None else assume.real('haec', 'hessian_error', hessian_error, 0)
    memory = assume.flag('haec', 'memory', memory)
    instead = 'Add an l2 term lam/2 |x|^2 to the loss (then mu >= lam).'
    assume.strongly_convex('Theorem HAEC', problem.mu, instead)
    mu, L = problem.mu, problem.L
    longest = 2 / (mu + L)
    gamma = assume.step_size('Theorem HAEC', step_size, longest, longest)
    about = f'F smooth and strongly convex{", Hessian Lipschitz" if M else ""}, |C(v) - v| <= eps'
    if not memory:
        title, floor = 'without a memory', eps / mu
    elif h is None:
        title, drift = 'error feedback', L / mu
        if M == 0 and gamma * L <= 1:
            drift = min(drift, _sum_of_maxima(gamma * mu, gamma * L))
        floor = gamma * eps * (1 + drift)
    else:
        title = 'error feedback corrected by the Hessian'
        floor = gamma * eps * (1 + (h + M * gamma * eps / 2) / mu)
    V0 = problem.known('V0')
    initial = None if V0 is None else math.sqrt(V0)
    factor = 1 - gamma * mu
    return Bound(f'HAEC: {title}', about, 'distance', gamma, factor, initial, floor, problem.n)


def _sum_of_maxima(low: float, high: float) -> float:
    """Returns the bound above on the sum over j of max_t t (1 - t)^j, low <= t <= high <= 1."""
    m = math.floor(1 / high)
    J = max(m, math.ceil(1 / low))
    return 1 - (1 - high) ** m + math.log(J / m) / 2 + (1 - low) ** J
