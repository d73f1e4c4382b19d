"""Section E: Q-IAG, in which stale messages are stored and used again.

    x_{k+1} = x_k - gamma sum_i m_i,   m_i = Q(grad f_i(x_{s_i})), compressed once,  s_i >= k - tau

This is the transformation `gradzip.iag`. The noise of a message is in every iterate since the
message arrived, so it is not unbiased given x_k. Theorem T1 therefore does not hold here (with
Bernoulli(0.05) and tau = 12 its step size diverges), and the floor is about tau + 1 times that of
fresh noise.
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem
from gradzip.theory._sum_form import sum_form


def q_iag(
    problem: Problem,
    omega: float | None,
    tau: int,
    *,
    beta: float | None = None,
    messages: float | None = None,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Theorem T2: quantized incremental aggregated gradients.

    Args:
      problem: the theorem needs L_max, and sigma and L_cov make it sharper. The floor needs G,
        and values of the bound need V0.
      omega: constant of an unbiased compressor, above 0.
      tau: the longest time, in steps, that a message is in use after its gradient was taken.
      beta: trades the step size against the floor. The default sqrt(2 sigma / w1), w1 = 2 omega,
        gives the longest step.
      messages: average number that arrive in one step, above 0 and at most n: n / (tau + 1) if
        the workers take turns. The default is n. Only `Bound.bits` uses it.
      step_size: where to evaluate the bound, at most the default.
      shared: must be False, as the theorem is about independent noise.

    Returns:
      A `Bound` on 'V', with a floor unless G = 0.

    Raises:
      ValueError: omega is None (biased) or 0, mu = 0, the noise is shared, messages is above n, or
        the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.0, G=0.001, V0=1.0)
      >>> reused, fresh = theory.q_iag(problem, 1.0, tau=7), theory.stale(problem, 1.0, tau=7)
      >>> round(reused.step_size, 4), round(fresh.step_size, 4)
      (0.0392, 0.0672)

    Reference: the algorithm is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem T2', omega)
    tau = assume.integer('q_iag', 'tau', tau, 0)
    if omega == 0:
        raise ValueError(
            'Theorem T2 is about compressed messages, omega > 0. Without compression use '
            'theory.iag (any smooth losses) or theory.stale with omega=0 (convex, sparse data).'
        )
    assume.independent(
        'Theorem T2', shared, 'In gradzip.iag each worker draws its own: leave shared out.'
    )
    instead = 'Add an l2 term lam/2 |x|^2 to the loss: then mu >= lam.'
    assume.strongly_convex('Theorem T2', problem.mu, instead)
    s = sum_form(problem, 'Theorem T2')
    w1 = omega if s.G == 0 else 2 * omega
    if beta is None:
        beta = math.sqrt(2 * s.sigma / w1)
    beta = assume.real('q_iag', 'beta', beta, 0, above=True)
    if messages is None:
        messages = s.n
    messages = assume.real('q_iag', 'messages', messages, 0, s.n, above=True)
    # g_k = gbar_k + eta_k, Var_k = E|eta_k|^2 <= w1 N_k + w0. A message in use at step k has been
    # in use for at most tau steps, and the noise of different messages is orthogonal. The cross
    # term, which is zero in T1, is therefore
    # -2 gamma E<eta_k, x_k-x*> <= gamma^2 (2+beta) tau Var_k + (gamma^2/beta) sum_l E|gbar_l|^2
    # gamma^2 E|g_k|^2 <= 2 gamma^2 (E|gbar_k|^2 + Var_k),   E|gbar_l|^2 <= sigma N_l
    # gamma sum_i L_i E|(x_k-y_i)_{S_i}|^2 <= 2 gamma^3 L_cov tau sum_l [(sigma + w1) N_l + w0]
    # Then V_{k+1} <= (1-gamma mu) V_k - c N_k + d sum_l N_l + e as in T1, and c >= 2 tau d
    # means a gamma^2 + b gamma <= 1 with
    noisy = 2 + (2 + beta) * tau
    a = 4 * tau**2 * s.L_cov * s.L_max * (s.sigma + w1)
    b = s.L_max * (2 * s.sigma + 2 * tau * s.sigma / beta + noisy * w1)
    largest = s.n * assume.positive_root(a, b)
    eta = assume.step_size('Theorem T2', step_size, largest, largest)
    gamma = eta / s.n
    floor = None
    if s.G is not None:
        w0 = 2 * omega * s.G
        floor = gamma * w0 * (noisy + 2 * gamma * s.L_cov * tau**2) / s.mu
    return Bound(
        f'T2: messages in use for up to {tau} steps, compressed once',
        'every f_i convex and smooth, F strongly convex, Q unbiased, workers independent, arrivals '
        'independent of the noise',
        'V',
        eta,
        1 - gamma * s.mu,
        problem.known('V0'),
        floor,
        messages,
    )
