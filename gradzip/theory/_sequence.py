"""Theorems T3 and T4: delays by a lemma on sequences. No loss f_i need be convex, only F.

Lemma S1. If V_{k+1} <= p V_k + q max_{k-w <= l <= k} V_l + e with p + q < 1, then
V_k <= rho^k V_0 + e / (1-p-q) for every rho with p + q rho^-w <= rho, by induction.

In sum form, for gamma <= 2/(mu + L_f), |x - gamma grad f(x) - x*|^2 <= (1-gamma mu)^2 V, so with
e_k = gbar_k - grad f(x_k) (notation of `_stale`) and fresh noise (T3)
    E V_{k+1} <= (1-gamma mu) E V_k + (gamma/mu) E|e_k|^2 + gamma^2 Var_k,
    E|e_k|^2 <= c gamma^2 L_e^2 sum_{l=k-tau}^{k-1} (tau E|gbar_l|^2 + Var_l),  c = 2 (1 if exact),
    |gbar_l|^2 <= L_g^2 M,  Var_l <= 2 omega S2 M + 2 omega G,  M = max_{k-2tau <= l <= k} E V_l,
where S2 = sum_i L_i^2 and L_g^2 = min((sum_i L_i)^2, sigma S2). Stored messages (T4) have the
cross term of T2 with beta = 1 in addition. Both are S1 with p = 1 - gamma mu and w = 2 tau:

    T3   q = (c gamma^3/mu) L_e^2 tau (tau L_g^2 + 2 omega S2) + 2 gamma^2 omega S2
         e = 2 gamma^2 omega G (1 + 2 gamma L_e^2 tau/mu)
    T4   q = (2 gamma^3/mu) L_e^2 tau^2 (L_g^2 + 2 omega S2) + gamma^2 (2+tau) L_g^2
             + 2 gamma^2 (2+3tau) omega S2
         e = 2 gamma^2 omega G (2 + 3tau + 2 gamma L_e^2 tau^2/mu)

If G = 0, omega S2 M bounds Var_l, without the 2. The step is the one of the least p + q.
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def sequence_lemma(
    problem: Problem,
    omega: float | None,
    tau: int,
    *,
    stored: bool = False,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Theorems T3 and T4, in the style of the paper: O(tau^2 L^2 / mu^2) iterations.

    For convex losses `stale` (T1) and `q_iag` (T2) are far sharper.

    Args:
      problem: mu > 0. The theorem needs L_e and L_rms, or L_max. The floor needs G, and values of
        the bound need V0.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises.
      tau: the longest delay, in steps.
      stored: whether messages are compressed once and used again (T4), as in `gradzip.iag`, or
        compressed at every use (T3).
      step_size: where to evaluate the bound; by default the step of the least p + q.
      shared: must be False, as the theorems are about independent noise.

    Returns:
      A `Bound` on 'V', with a floor unless omega G = 0.

    Raises:
      ValueError: omega is None (biased), mu = 0, the noise is shared, or the step is too long.
      TypeError: an argument is not a number, or a flag is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.5, L_max=1.0, G=0.0, V0=1.0)
      >>> lemma, sharper = theory.sequence_lemma(problem, 0.0, 4), theory.stale(problem, 0.0, 4)
      >>> lemma.iterations(0.01), sharper.iterations(0.01)
      (210, 45)

    Reference: the form is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; lemma S1 is
      that of Feyzmahdavian, Aytekin, Johansson, 2014; the constants are derived here.
    """
    name = f'Theorem {"T4" if assume.flag("sequence_lemma", "stored", stored) else "T3"}'
    omega = assume.unbiased(name, omega)
    tau = assume.integer('sequence_lemma', 'tau', tau, 0)
    assume.independent(name, shared, 'Use gradzip.Gather(scheme), whose workers draw alone.')
    instead = 'Use theory.stale or theory.q_iag, which cover mu = 0 for convex losses.'
    assume.strongly_convex(name, problem.mu, instead)
    n, mu, G = problem.n, problem.n * problem.mu, problem.known('G')
    L_e2 = (n * problem.need('L_e', name)) ** 2
    S2 = n * problem.need('L_rms', name) ** 2
    L_g2 = min((n * problem.need('L_mean', name)) ** 2, problem.need('sigma', name) * S2)
    noise = (1 if G == 0 else 2) * omega * S2
    if stored:
        a = 2 * L_e2 * tau**2 * (L_g2 + noise)
        b = (2 + tau) * L_g2 + (2 + 3 * tau) * noise
    else:
        a = (2 if omega > 0 else 1) * L_e2 * tau * (tau * L_g2 + noise)
        b = noise
    # q = a gamma^3/mu + b gamma^2 < gamma mu, and gamma mu - q is largest at `best`
    most = 2 / (mu + n * problem.L)
    root = math.inf if a == b == 0 else 2 * mu / (b + math.sqrt(b * b + 4 * a))
    best = math.inf if a == b == 0 else mu / (b + math.sqrt(b * b + 3 * a))
    largest, best = min(root, most), min(best, most)
    eta = assume.step_size(name, step_size, n * best, n * largest, below=root <= most)
    gamma = eta / n
    p, q = 1 - gamma * mu, gamma**2 * (a * gamma / mu + b)
    rho = 1 - _rate(gamma * mu, q, 2 * tau)
    again = 2 + 3 * tau + 2 * gamma * L_e2 * tau**2 / mu
    fresh = 1 + 2 * gamma * L_e2 * tau / mu
    e = 2 * gamma**2 * omega * (again if stored else fresh)
    floor = 0.0 if omega == 0 else None if G is None else e * G / (1 - p - q)
    how = 'stored and used again' if stored else 'compressed at every use'
    about = (
        'every f_i smooth, F strongly convex, Q unbiased, workers independent, delays independent '
        'of the noise'
    )
    title = f'{name.split()[1]}: gradients up to {tau} steps late, {how}'
    return Bound(title, about, 'V', eta, rho, problem.known('V0'), floor, n)


def _rate(x: float, q: float, w: int) -> float:
    """Returns the largest r with (1-x) + q (1-r)^-w <= 1-r, by bisection from below."""
    low, high = 0.0, x - q
    for _ in range(200):
        middle = (low + high) / 2
        power = math.exp(min(700.0, -w * math.log1p(-middle))) if middle < 1 else math.inf
        low, high = (middle, high) if q * power <= x - middle else (low, middle)
    return low
