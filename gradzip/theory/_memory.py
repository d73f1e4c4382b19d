"""Error feedback, in average form.

    p_i = e_i + gamma grad f_i(x),  send c_i = C(p_i),  e_i+ = p_i - c_i,  x+ = x - (1/n) sum_i c_i

For a constant step size, this method is `gradzip.error_feedback` followed by `optax.sgd(gamma)`,
whose memory holds e_i / gamma. With theta = 1 - sqrt(1-delta) and beta = (1-delta) / theta, Young's
inequality gives
(Y)  E|e_i+|^2 <= (1-theta) |e_i|^2 + beta gamma^2 |grad f_i|^2.
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def ef14(
    problem: Problem, delta: float | None, *, step_size: float | None = None, shared: bool = False
) -> Bound:
    """Error feedback (EF14) with a contractive compressor.

    Args:
      problem: for n > 1 the theorem needs L_max and the floor needs G. Values of the bound need
        V0.
      delta: constant of the contractive compressor that error feedback applies,
        `scheme.contractive().delta(like)`.
      step_size: where to evaluate the bound, at most the default.
      shared: whether the workers share their randomness. The bound is the same for both.

    Returns:
      A `Bound` on 'V', with a floor if n > 1. For one node with mu = 0, where F need not be
      convex, a `Bound` on 'gradient_mean'.

    Raises:
      ValueError: delta is None or out of range, mu = 0 and n > 1, or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=1, L=1.0, mu=0.1, V0=1.0)
      >>> print([round(theory.ef14(problem, delta).step_size, 4) for delta in (1.0, 0.5, 0.01)])
      [0.25, 0.0846, 0.001]

    Reference: Stich, Cordonnier, Jaggi, arXiv 1809.07599, for the method; the constants are
      derived here.
    """
    assume.flag('ef14', 'shared', shared)
    delta = assume.contractive('Theorem EF14', delta)
    # r = sqrt(beta/theta), with theta = delta/(1+sqrt(1-delta)) to avoid cancellation
    root = math.sqrt(1 - delta)
    r = root * (1 + root) / delta
    if problem.mu == 0:
        return _nonconvex(problem, r, step_size)
    return _strongly_convex(problem, delta / (1 + root), r, step_size)


def _strongly_convex(problem: Problem, theta: float, r: float, given: float | None) -> Bound:
    """Bounds Psi = |xt-x*|^2 + (6 gamma L/theta) (1/n) sum_i |e_i|^2, xt = x - (1/n) sum_i e_i."""
    n, L, mu = problem.n, problem.L, problem.mu
    # xt+ = xt - gamma grad F(x).  With 2 gamma <grad F(x), e> <= gamma (F-F*) + 2 gamma L |e|^2,
    # |x-x*|^2 >= |xt-x*|^2/2 - |e|^2 and gamma <= 1/(4L):
    # |xt+-x*|^2 <= (1-gamma mu/2)|xt-x*|^2 - (gamma/2)(F-F*) + 3 gamma L |e|^2, and (Y) with
    # beta gamma^2 |grad F|^2 <= 2 L beta gamma^2 (F-F*) for n = 1, else
    # beta gamma^2 (1/n) sum_i |grad f_i|^2 <= 4 L_max beta gamma^2 (F-F*) + 2 beta gamma^2 zeta^2
    curvature = 24 * L * L if n == 1 else 48 * L * problem.need('L_max', 'Theorem EF14')
    # With the weight 6 gamma L/theta, no F-F* is left if gamma^2 curvature r^2 <= 1
    largest = min(1 / (4 * L), math.inf if r == 0 else 1 / (math.sqrt(curvature) * r))
    gamma = assume.step_size('Theorem EF14', given, largest, largest)
    # |x-x*|^2 <= 2|xt-x*|^2 + 2|e|^2 <= 2 max(1, theta/(6 gamma L)) Psi, and Psi_0 = V_0
    both = 2 * max(1.0, theta / (6 * gamma * L))
    G, V0 = problem.known('G'), problem.known('V0')
    noise = 0.0 if n == 1 else 24 * gamma**2 * L * r**2 / (n * mu)  # times G = n zeta^2
    floor = 0.0 if noise == 0 else None if G is None else both * noise * G
    initial = None if V0 is None else both * V0
    convex = 'F convex' if n == 1 else 'every f_i convex'
    assumptions = f'{convex} and smooth, F strongly convex, C contractive'
    title = 'EF14: error feedback'
    return Bound(title, assumptions, 'V', gamma, 1 - gamma * mu / 2, initial, floor, n)


def _nonconvex(problem: Problem, r: float, given: float | None) -> Bound:
    """Bounds the gradients on one node, by the function F(xt) + (gamma L^2/(2 theta)) |e|^2."""
    if problem.n > 1:
        instead = (
            'Add an l2 term lam/2 |x|^2 to the loss (then mu >= lam). On one node, '
            'problem.as_one(), mu = 0 is covered.'
        )
        assume.strongly_convex('Theorem EF14 for several workers', problem.mu, instead)
    # F(xt+) <= F(xt) - (gamma/2)(1-L gamma)|grad F(x)|^2 + (gamma L^2/2)|e|^2 and (Y) leave a
    # decrease of (gamma/4)|grad F|^2 if u = L gamma has u + u^2 r^2 <= 1/2, as 1/(2(1+r)) has
    largest = 1 / (2 * problem.L * (1 + r))
    gamma = assume.step_size('Theorem EF14', given, largest, largest)
    F0 = problem.known('F0')
    initial = None if F0 is None else 4 * F0 / gamma
    title = 'EF14: error feedback on one node'
    return Bound(title, 'F smooth, C contractive', 'gradient_mean', gamma, 1.0, initial, 0.0, 1)
