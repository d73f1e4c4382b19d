"""Error feedback, in average form.

    p_i = e_i + gamma grad f_i(x),  send c_i = C(p_i),  e_i+ = p_i - c_i,  x+ = x - (1/n) sum_i c_i

For a constant step size, this method is `gradzip.error_feedback` followed by `optax.sgd(gamma)`,
whose memory holds e_i / gamma. Let e = (1/n) sum_i e_i and E2 = (1/n) sum_i |e_i|^2 >= |e|^2. The
point xt = x - e moves by xt+ = xt - gamma grad F(x). With theta = 1 - sqrt(1-delta) and
beta = (1-delta) / theta, Young's inequality gives
(Y)  E E2+ <= (1-theta) E2 + beta gamma^2 (1/n) sum_i |grad f_i|^2.

Strongly convex. Let p = F(x) - F*, N = (1/n) sum_i |grad f_i(x) - grad f_i(x*)|^2. Then
    |xt+ - x*|^2 = |xt - x*|^2 - 2 gamma <grad F, x - x* - e> + gamma^2 |grad F|^2,
    <grad F, x - x*> >= p + (mu/2) |x - x*|^2,   |x - x*|^2 >= (1-t) |xt - x*|^2 - (1/t - 1) |e|^2,
    p >= |grad F|^2 / (2 L),  p >= N / (2 L_max),   2 <grad F, e> <= h |grad F|^2 + |e|^2 / h
for t in (0, 1), h > 0. With the shares (1 + gamma L)/2 and (1 - gamma L)/2 of p in its two bounds
and h = (1 - gamma L)/(2 L), all of |grad F|^2 cancels, and what is left is
    |xt+ - x*|^2 <= (1 - gamma mu (1-t)) |xt - x*|^2 + gamma H E2 - gamma (1 - gamma L)/(2 L_max) N,
with H = 2 L/(1 - gamma L) + mu (1/t - 1). As (1/n) sum_i |grad f_i|^2 <= (1+s) N + (1+1/s) G/n for
any s > 0, the sum Psi = |xt - x*|^2 + a E2 falls to 1 - gamma mu (1-t) of itself, plus
a beta gamma^2 (1+1/s) G/n, if
    gamma H / (theta - gamma mu (1-t))  <=  a  <=  (1 - gamma L) / (2 (1+s) L_max beta gamma).  (EF)
If G = 0, as on one node, N alone takes the place of (1+s) N, and (EF) has 1 in place of 1+s.
For t -> 0 the longest step is about 1 / (L + 2 sqrt((1+s) L L_max beta/theta)); t = sqrt(mu/L)/2 is
near the best. Last, |x - x*|^2 <= (1 + 1/a) Psi, since |u + v|^2 <= (1 + 1/a) (|u|^2 + a |v|^2).
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def ef14(
    problem: Problem,
    delta: float | None,
    *,
    step_size: float | None = None,
    split: float = 1.0,
    shared: bool = False,
) -> Bound:
    """Error feedback (EF14) with a contractive compressor.

    Args:
      problem: for n > 1 the theorem needs L_max and the floor needs G. Values of the bound need
        V0.
      delta: constant of the contractive compressor that error feedback applies,
        `scheme.contractive().delta(like)`.
      step_size: where to evaluate the bound, at most the default, which is the longest.
      split: more than 1 lowers the floor and shortens the step, less than 1 does the opposite.
        `for_target` finds the best. Without effect if G = 0.
      shared: whether the workers share their randomness. The bound is the same for both.

    Returns:
      A `Bound` on 'V', with a floor unless G = 0. For one node with mu = 0, where F need not be
      convex, a `Bound` on 'gradient_mean'.

    Raises:
      ValueError: delta is None or out of range, mu = 0 and n > 1, or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=1, L=1.0, mu=0.1, V0=1.0)
      >>> print([round(theory.ef14(problem, delta).step_size, 4) for delta in (1.0, 0.5, 0.01)])
      [1.0, 0.1546, 0.0022]

    Reference: Stich, Cordonnier, Jaggi, arXiv 1809.07599, for the method; the constants are
      derived here.
    """
    assume.flag('ef14', 'shared', shared)
    delta = assume.contractive('Theorem EF14', delta)
    if problem.mu == 0:
        return _nonconvex(problem, delta, step_size)
    split = assume.real('ef14', 'split', split, 0, above=True)
    n, L, mu, G = problem.n, problem.L, problem.mu, problem.known('G')
    theta = delta / (1 + math.sqrt(1 - delta))  # without cancellation
    beta = (1 - delta) / theta
    steep = (1 if G == 0 else 1 + split) * problem.need('L_max', 'Theorem EF14')
    t = math.sqrt(mu / L) / 2

    def least(gamma: float) -> float:
        """The least a of (EF)."""
        left = theta - gamma * mu * (1 - t)
        if gamma * L >= 1 or left <= 0:
            return math.inf
        return gamma * (2 * L / (1 - gamma * L) + mu * (1 / t - 1)) / left

    def inequality(gamma: float) -> float:
        """At most 1 where (EF) allows some a."""
        if beta == 0:
            return gamma * L
        if gamma * L >= 1:
            return math.inf
        return least(gamma) * 2 * steep * beta * gamma / (1 - gamma * L)

    largest = assume.largest(inequality, 1 / L)
    gamma = assume.step_size('Theorem EF14', step_size, largest, largest)
    most = math.inf if beta == 0 else (1 - gamma * L) / (2 * steep * beta * gamma)
    a = math.inf if beta == 0 else max(least(gamma), min(1.0, most))
    progress = gamma * mu * (1 - t)
    noise = 0.0 if beta == 0 or G == 0 else (1 + a) * beta * gamma**2 * (1 + 1 / split) / n
    floor = 0.0 if noise == 0 else None if G is None else noise * G / progress
    V0 = problem.known('V0')
    about = f'{"F" if n == 1 else "every f_i"} convex and smooth, F strongly convex, C contractive'
    initial = None if V0 is None else (1 + 1 / a) * V0
    return Bound('EF14: error feedback', about, 'V', gamma, 1 - progress, initial, floor, n)


def _nonconvex(problem: Problem, delta: float, given: float | None) -> Bound:
    """Bounds the gradients on one node, by the function F(xt) + (gamma L^2/(2 theta)) |e|^2."""
    if problem.n > 1:
        instead = (
            'Add an l2 term lam/2 |x|^2 to the loss (then mu >= lam), or use theory.ef21. On one '
            'node, problem.as_one(), mu = 0 is covered.'
        )
        assume.strongly_convex('Theorem EF14 for several workers', problem.mu, instead)
    # F(xt+) <= F(xt) - (gamma/2)(1-L gamma)|grad F(x)|^2 + (gamma L^2/2)|e|^2 and (Y) leave a
    # decrease of (gamma/2)(1 - u - u^2 r^2)|grad F|^2 with u = L gamma and r^2 = beta/theta. It is
    # largest at u = 1/(1 + sqrt(1 + 3 r^2)), and there is none from the root of u + u^2 r^2 = 1 on
    r2 = (1 - delta) * ((1 + math.sqrt(1 - delta)) / delta) ** 2
    best = 1 / (problem.L * (1 + math.sqrt(1 + 3 * r2)))
    largest = assume.positive_root(r2, 1.0) / problem.L
    gamma = assume.step_size('Theorem EF14', given, best, largest, below=True)
    u, F0 = problem.L * gamma, problem.known('F0')
    initial = None if F0 is None else 2 * F0 / (gamma * (1 - u - u * u * r2))
    title = 'EF14: error feedback on one node'
    return Bound(title, 'F smooth, C contractive', 'gradient_mean', gamma, 1.0, initial, 0.0, 1)
