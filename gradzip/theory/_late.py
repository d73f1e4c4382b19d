"""Stale gradients and descent of F: theorems T5 (no compression) and T6 (one node), average form.

    x_{k+1} = x_k - gamma g_k,   E g_k = gbar_k = (1/n) sum_i grad f_i(y_i),  y_i <= tau steps old

With e_k = gbar_k - grad F(x_k) and Var_k the variance of g_k,

    E F(x_{k+1}) <= F(x_k) - (gamma/2)|grad F(x_k)|^2 - (gamma/2)(1 - L gamma)|gbar_k|^2
                    + (gamma/2)|e_k|^2 + (L gamma^2/2) Var_k.

T5: Var = 0 and |e_k|^2 <= gamma^2 L_e^2 tau sum_{l=k-tau}^{k-1} |gbar_l|^2. T6: n = 1, Var_k <=
omega |gbar_k|^2, and since the noise of different steps is orthogonal, Young's inequality (with the
best weight) gives E|e_k|^2 <= gamma^2 L^2 (sqrt(tau) + sqrt(omega))^2 sum_l |gbar_l|^2. Lemma S2
(`_stale`) with W = |gbar|^2 and |grad F|^2 >= 2 mu (F - F*) gives the factor 1 - gamma mu if

    alpha L gamma + gamma^2 a S <= 1,   S = sum_{j=1}^{tau} (1 - gamma mu)^-j,

where a is L_e^2 tau (T5) or L^2 (sqrt(tau) + sqrt(omega))^2 (T6). For mu = 0, S = tau, and the sum
over k bounds the mean of |grad F|^2 (T5n, T6n).
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def iag(
    problem: Problem, tau: int, *, step_size: float | None = None, shared: bool = False
) -> Bound:
    """Theorem T5: incremental aggregated (or stale) gradients, without compression.

    The losses need not be convex, and the delays may depend on the iterates. The step is never
    shorter than that of T1 (`stale` with omega=0), which for convex losses bounds |x_k - x*|^2.

    Args:
      problem: the theorem needs L_e, L_mean or L_max, and values of the bound need F0. mu is the
        constant of the Polyak-Lojasiewicz inequality.
      tau: the longest delay, in steps.
      step_size: where to evaluate the bound, at most the default.
      shared: must be False, as nothing is random here.

    Returns:
      A `Bound` on 'F', without a floor; for mu = 0 on 'gradient_mean' (T5n).

    Raises:
      ValueError: the step is too long, or a constant is missing.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=2.0, F0=1.0)
      >>> bound = theory.iag(problem, tau=4)
      >>> round(bound.step_size, 4), bound.iterations(1e-3)
      (0.1158, 593)

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    tau = assume.integer('iag', 'tau', tau, 0)
    assume.independent(
        'Theorem T5', shared, 'Without compression nothing is random: leave shared out.'
    )
    largest = longest_exact(problem, tau)
    gamma = assume.step_size('Theorem T5', step_size, largest, largest)
    title = f'gradients up to {tau} steps late, not compressed'
    return _exact('T5', title, problem, gamma, 'every f_i smooth, any delays')


def longest_exact(problem: Problem, tau: int) -> float:
    """Returns the longest step of T5."""
    a = problem.need('L_e', 'Theorem T5') ** 2 * tau
    return _longest(problem, a, problem.L, tau)


def stale_gd(
    problem: Problem,
    omega: float | None,
    tau: int,
    *,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Theorem T6: one node, whose gradient is both stale and compressed. The bound has no floor.

    Args:
      problem: n = 1 (or `problem.as_one()`). Values of the bound need F0. F need not be convex;
        mu is the constant of the Polyak-Lojasiewicz inequality.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises.
      tau: the longest delay, in steps.
      step_size: where to evaluate the bound, at most the default.
      shared: must be False, as workers with different delays do not have the effect of one node.

    Returns:
      A `Bound` on 'F'; for mu = 0 on 'gradient_mean' (T6n).

    Raises:
      ValueError: there is more than one worker, omega is None (biased), or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=1, L=1.0, mu=0.1, F0=1.0)
      >>> round(theory.stale_gd(problem, omega=3.0, tau=4).step_size, 4)
      0.1018

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem T6', omega)
    tau = assume.integer('stale_gd', 'tau', tau, 0)
    instead = 'Pass problem.as_one() if the workers also share their delays.'
    assume.independent('Theorem T6', shared, instead)
    assume.one_node('Theorem T6', problem.n, shared)
    spread = 0.0 if tau == 0 else problem.L**2 * (math.sqrt(tau) + math.sqrt(omega)) ** 2
    largest = _longest(problem, spread, (1 + omega) * problem.L, tau)
    gamma = assume.step_size('Theorem T6', step_size, largest, largest)
    title = f'one node, its gradient up to {tau} steps late and compressed'
    about = 'F smooth, Q unbiased, delays independent of the noise'
    return _exact('T6', title, problem, gamma, about)


def _longest(problem: Problem, a: float, b: float, tau: int) -> float:
    """Returns the largest gamma with b gamma + a gamma^2 S <= 1."""
    high = assume.positive_root(a * tau, b)  # as S >= tau
    return assume.largest(lambda g: b * g + a * g * g * assume.power_sum(g * problem.mu, tau), high)


def _exact(name: str, title: str, problem: Problem, gamma: float, assumptions: str) -> Bound:
    """Returns the conclusion: the factor 1 - gamma mu, or a mean of 2 F0 / (gamma k)."""
    F0, n = problem.known('F0'), problem.n
    if problem.mu > 0:
        title, assumptions = f'{name}: {title}', assumptions + ', F Polyak-Lojasiewicz'
        return Bound(title, assumptions, 'F', gamma, 1 - gamma * problem.mu, F0, 0.0, n)
    initial = None if F0 is None else 2 * F0 / gamma
    return Bound(f'{name}n: {title}', assumptions, 'gradient_mean', gamma, 1.0, initial, 0.0, n)
