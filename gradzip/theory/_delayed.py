"""Section D: gradients that arrive late and are compressed when they are used.

    x_{k+1} = x_k - gamma sum_i Q_{i,k}(grad f_i(y_i^k)),   y_i^k = x_{k - tau_i^k},  tau_i^k <= tau

This is a delay in front of an exchange, `optax.chain(gz.delay(...), gz.compress(...))`. Delays may
vary with time and between workers. The proofs are about f = sum_i f_i. They unroll (lemma S2)

    V_{k+1} <= rho V_k - c W_k + d sum_{l=k-tau}^{k-1} W_l + e,  W >= 0,  c >= d sum_{j<=tau} rho^-j
    =>  V_k <= rho^k V_0 + e / (1 - rho);      sum_{j<=tau} rho^-j <= 2 tau if (1 - rho) tau <= 1/2.
"""

from __future__ import annotations

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem
from gradzip.theory._sum_form import sum_form

_REGULARISE = 'Add an l2 term lam/2 |x|^2 to the loss: then mu >= lam.'


def stale(
    problem: Problem,
    omega: float | None,
    tau: int,
    *,
    oblivious: bool = True,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Theorem T1: stale gradients of many workers, compressed afresh at every use.

    If the data are so sparse that sigma and L_cov are small, the step size hardly depends on the
    number of workers. For tau = 0, theorem C1 (`dcgd`) is sharper.

    Args:
      problem: the theorem needs L_max, and sigma and L_cov make it sharper. The floor needs G,
        and values of the bound need V0.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises.
      tau: the longest delay, in steps.
      oblivious: whether the delays are independent of the randomness of the compression, as in
        every delay model of gradzip. False allows delays that depend on the iterates.
      step_size: where to evaluate the bound, at most the default.
      shared: must be False, as the theorem is about independent noise.

    Returns:
      A `Bound` on 'V', with a floor unless omega G = 0.

    Raises:
      ValueError: omega is None (biased), mu = 0, the noise is shared, or the step is too long.
      TypeError: an argument is not a number, or a flag is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.0, G=0.1, V0=1.0)
      >>> print([round(theory.stale(problem, 1.0, tau).step_size, 3) for tau in (0, 4, 8)])
      [0.8, 0.112, 0.059]

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem T1', omega)
    tau = assume.integer('stale', 'tau', tau, 0)
    oblivious = assume.flag('stale', 'oblivious', oblivious)
    instead = 'Use gradzip.Gather(scheme), or, without delay, theory.dcgd(shared=True).'
    assume.independent('Theorem T1', shared, instead)
    assume.strongly_convex('Theorem T1', problem.mu, _REGULARISE)
    s = sum_form(problem, 'Theorem T1')
    # g = gbar + xi, gbar = sum_i grad f_i(y_i), E|xi|^2 <= w1 N + w0,
    # N = sum_i |grad f_i(y_i)-h_i|^2, h_i = grad f_i(x*)
    # <grad f_i(y), x-x*> >= f_i(x)-f_i(x*) + |grad f_i(y)-h_i|^2/(2 L_i) - (L_i/2)|(x-y)_{S_i}|^2:
    # V_{k+1} <= (1-gamma mu) V_k - (gamma/L_max) N_k + gamma sum_i L_i E|(x_k-y_i)_{S_i}|^2
    #           + gamma^2 (sigma N_k + w1 N_k + w0)
    # Here x_k - y_i = -gamma sum_l (gbar_l + xi_l), where the xi_l are martingale differences, so
    # gamma sum_i L_i E|.|^2 <= cs gamma^3 L_cov sum_l [(tau sigma + w1) N_l + w0]
    w1 = omega if s.G == 0 else 2 * omega
    cs = 2 if w1 > 0 else 1
    m = 1 if oblivious else min(tau, 9)  # 9 by Doob's inequality, if tau may follow the noise
    a = 2 * cs * tau * s.L_cov * s.L_max * (tau * s.sigma + m * w1)
    b = s.L_max * (s.sigma + w1)
    largest = assume.positive_root(a, b)  # a gamma^2 + b gamma <= 1
    if cs == 1 and tau > 0:  # S2 needs it; for cs = 2 it follows, as mu <= min(L_cov, sigma L_max)
        largest = min(largest, 1 / (2 * s.mu * tau))
    eta = assume.step_size('Theorem T1', step_size, s.n * largest, s.n * largest)
    gamma = eta / s.n
    noise = 2 * omega * gamma * (1 + 2 * gamma * s.L_cov * tau * m) / s.mu
    return Bound(
        f'T1: gradients up to {tau} steps late, compressed at every use',
        'every f_i convex and smooth, F strongly convex, Q unbiased, workers independent, '
        + ('delays independent of the noise' if oblivious else 'any delays'),
        'V',
        eta,
        1 - gamma * s.mu,
        problem.known('V0'),
        0.0 if omega == 0 else None if s.G is None else s.G * noise,
        s.n,
    )


def iag(
    problem: Problem, tau: int, *, step_size: float | None = None, shared: bool = False
) -> Bound:
    """Theorem T5: incremental aggregated (or stale) gradients, without compression.

    The losses need not be convex, and the delays may depend on the iterates. For convex losses and
    sparse data, T1 (`stale` with omega=0) can be sharper.

    Args:
      problem: the theorem needs L_e, L_mean or L_max, and values of the bound need F0. mu is the
        constant of the Polyak-Lojasiewicz inequality.
      tau: the longest delay, in steps.
      step_size: where to evaluate the bound, at most the default.
      shared: must be False, as nothing is random here.

    Returns:
      A `Bound` on 'F', without a floor; for mu = 0 on 'gradient_mean'.

    Raises:
      ValueError: the step is too long, or a constant is missing.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=2.0, F0=1.0)
      >>> bound = theory.iag(problem, tau=4)
      >>> round(bound.step_size, 4), bound.iterations(1e-3)
      (0.0846, 814)

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    tau = assume.integer('iag', 'tau', tau, 0)
    assume.independent(
        'Theorem T5', shared, 'Without compression nothing is random: leave shared out.'
    )
    L, mu, L_e = problem.L, problem.mu, problem.need('L_e', 'Theorem T5')
    # In average form, with gbar_k = (1/n) sum_i grad f_i(y_i):
    # F(x_{k+1}) <= F(x_k) - (gamma/2)|grad F(x_k)|^2 - (gamma/2)(1 - L gamma)|gbar_k|^2
    #              + (gamma/2)|gbar_k - grad F(x_k)|^2, and
    # |gbar_k - grad F(x_k)|^2 <= gamma^2 L_e^2 tau sum_{l=k-tau}^{k-1} |gbar_l|^2.
    # The rest is S2, or a plain sum over k if mu = 0.
    strength = 2 if mu > 0 else 1
    largest = assume.positive_root(strength * L_e**2 * tau**2, L)
    if mu > 0 and tau > 0:
        largest = min(largest, 1 / (2 * mu * tau))
    gamma = assume.step_size('Theorem T5', step_size, largest, largest)
    title = f'T5: gradients up to {tau} steps late, not compressed'
    return _exact(title, problem, gamma, 'every f_i smooth, any delays')


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
      A `Bound` on 'F'; for mu = 0 on 'gradient_mean'.

    Raises:
      ValueError: there is more than one worker, omega is None (biased), or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=1, L=1.0, mu=0.1, F0=1.0)
      >>> round(theory.stale_gd(problem, omega=3.0, tau=4).step_size, 4)
      0.0783

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem T6', omega)
    tau = assume.integer('stale_gd', 'tau', tau, 0)
    instead = 'Pass problem.as_one() if the workers also share their delays.'
    assume.independent('Theorem T6', shared, instead)
    assume.one_node('Theorem T6', problem.n, shared)
    L, alpha = problem.L, 1 + omega
    # As in T5, with gbar_k = grad F(y_k), g_k = Q(gbar_k) of variance Var_k <= omega |gbar_k|^2:
    # E F(x_{k+1}) <= F(x_k) - (gamma/2)|grad F(x_k)|^2 - (gamma/2)(1 - alpha L gamma)|gbar_k|^2
    #                + gamma^3 L^2 sum_{l=k-tau}^{k-1} (tau + omega) |gbar_l|^2
    strength = 4 if problem.mu > 0 else 2  # gamma mu tau <= 1/2 follows, as mu <= L
    largest = assume.positive_root(strength * L**2 * tau * (tau + omega), alpha * L)
    gamma = assume.step_size('Theorem T6', step_size, largest, largest)
    title = f'T6: one node, its gradient up to {tau} steps late and compressed'
    return _exact(title, problem, gamma, 'F smooth, Q unbiased, delays independent of the noise')


def _exact(title: str, problem: Problem, gamma: float, assumptions: str) -> Bound:
    """Returns the conclusion of T5 and T6: factor 1 - gamma mu, or a mean of 2 F0 / (gamma k)."""
    F0, n = problem.known('F0'), problem.n
    if problem.mu > 0:
        assumptions += ', F Polyak-Lojasiewicz'
        return Bound(title, assumptions, 'F', gamma, 1 - gamma * problem.mu, F0, 0.0, n)
    initial = None if F0 is None else 2 * F0 / gamma
    return Bound(title, assumptions, 'gradient_mean', gamma, 1.0, initial, 0.0, n)
