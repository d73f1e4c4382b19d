"""Delay-adaptive step sizes: theorems T7 and T8.

    x_{k+1} = x_k - gamma_k sum_i Q_{i,k}(grad f_i(x_{k - tau_i^k})),   tau_k = max_i tau_i^k

A step may use what the steps within its delay have left of a budget gamma':

    0 <= gamma_k <= max(0, gamma' - S_k),   S_k = gamma_{k - tau_k} + .. + gamma_{k-1}

`gradzip.scale_by_delay` with a rule that remembers (`delay_rules.Adaptive1`, `Adaptive2`) keeps to
this whatever the delays, which need not be bounded, nor known in advance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from gradzip.theory import _assume as assume
from gradzip.theory._problem import Problem
from gradzip.theory._sum_form import sum_form

_GOLDEN = (math.sqrt(5) - 1) / 2  # the largest h with h^2 <= 1 - h


@dataclasses.dataclass(frozen=True)
class AdaptiveBound:
    """What T7 or T8 says about a run, whose rate depends on the delays that it met.

        quantity at K  <=  prod_{k<K} (1 - mu gamma_k) initial + floor     quantity 'V' or 'F'
        quantity at K  <=  initial / sum_{k<K} gamma_k                     quantity 'gradient_mean'

    Args:
      theorem: the name of the theorem, and the algorithm that it is about.
      assumptions: what must hold, in words.
      quantity: 'V' = E |x_K - x*|^2, 'F' = F(x_K) - F*, or 'gradient_mean', the mean over k < K of
        |grad F(x_k)|^2, weighted by gamma_k.
      step_size: gamma', of the average form: `optax.sgd(bound.step_size)` behind `scale_by_delay`.
      mu: strong convexity of F; 0 for 'gradient_mean'.
      initial: the factor of the rate; None if the problem has neither V0 nor F0.
      residual: the floor; None if the problem has no G.
    """

    theorem: str
    assumptions: str
    quantity: str
    step_size: float
    mu: float
    initial: float | None
    residual: float | None

    @property
    def floor(self) -> float:
        """The value to which the bound falls, however long the run.

        Raises:
          ValueError: it is unknown, because the problem has no G.
        """
        if self.residual is None:
            raise ValueError(f'{self.theorem}: the floor needs Problem(G=...).')
        return self.residual

    def at(self, factors: Iterable[float]) -> float:
        """Returns the bound after steps with these factors, each gamma_k / gamma'.

        Raises:
          ValueError: a factor is outside [0, 1], or the problem lacks V0, F0 or G.
        """
        if self.initial is None:
            raise ValueError(f'{self.theorem}: values of the bound need Problem(V0=...) or F0.')
        steps = [self.step_size * self._checked(float(factor)) for factor in factors]
        if self.quantity == 'gradient_mean':
            return self.initial / sum(steps) if any(steps) else math.inf
        rate = math.prod(1 - self.mu * step for step in steps)
        return rate * self.initial + self.floor

    def _checked(self, factor: float) -> float:
        if not 0 <= factor <= 1:
            raise ValueError(f'{self.theorem}: a factor must be in [0, 1]; got {factor!r}.')
        return factor


def delay_adaptive(
    problem: Problem,
    omega: float | None = 0.0,
    *,
    step_size: float | None = None,
    shared: bool = False,
) -> AdaptiveBound:
    """Theorems T7 (without compression) and T8: step sizes that adapt to the delays of a run.

    Without compression, the losses need not be convex, and delays may depend on the iterates. With
    it, gradients are compressed at every use, by workers that draw independently, and the delays
    must not depend on the noise.

    Args:
      problem: T7 needs L_e, L_mean or L_max, and values of the bound need F0; mu is the constant of
        the Polyak-Lojasiewicz inequality. T8 needs L_max and mu > 0; sigma and L_cov make it
        sharper, the floor needs G, and values of the bound need V0.
      omega: constant of an unbiased compressor; 0, the default, without compression. None (biased)
        raises.
      step_size: gamma', at most the default.
      shared: must be False, as the theorem is about independent noise.

    Returns:
      An `AdaptiveBound`: on 'F' for T7, or on 'gradient_mean' if mu = 0, and on 'V' for T8.

    Raises:
      ValueError: omega is None (biased), mu = 0 with compression, the noise is shared, the step is
        too long, or a constant is missing.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=2.0, F0=1.0)
      >>> bound = theory.delay_adaptive(problem)
      >>> round(bound.step_size, 4), round(bound.at([1.0] * 50), 4)
      (0.309, 0.2082)

    Reference: the principle and the rules are those of Wu, Magnusson, Feyzmahdavian, Johansson,
      arXiv 2202.08550; the constants are derived here.
    """
    omega = assume.unbiased('Theorem T8', omega)
    assume.independent('Theorem T8', shared, 'Use gradzip.Gather(scheme).')
    if omega == 0:
        return _exact(problem, step_size)
    return _compressed(problem, omega, step_size)


def _exact(problem: Problem, step_size: float | None) -> AdaptiveBound:
    """T7. In average form, with gbar_k the mean of the gradients in use and e_k its error:

    F(x_{k+1}) <= F(x_k) - (gamma_k/2)|grad F(x_k)|^2 - (gamma_k/2)(1 - L gamma_k)|gbar_k|^2
                 + (gamma_k/2)|e_k|^2, and by Cauchy-Schwarz
    |e_k|^2 <= L_e^2 S_k sum_{t=k-tau_k}^{k-1} gamma_t |gbar_t|^2.
    In the sum over k, gamma_t |gbar_t|^2 / 2 has the coefficient
      -(1 - L gamma_t) + L_e^2 sum_{k in D_t} gamma_k S_k,   D_t = {k > t: k - tau_k <= t}.
    If gamma_k > 0, then S_k <= gamma'; and the window of the largest k in D_t holds t and the rest
    of D_t, so that gamma_t + sum_{D_t} gamma_k <= gamma'. With gamma' = h / L_e, and L <= L_e, it
    is at most -1 + L_e gamma_t + L_e^2 gamma' (gamma' - gamma_t) <= -1 + max(h, h^2) <= 0 for
    h <= 1: both ends gamma_t = 0 and gamma_t = gamma' satisfy it, and it is linear between.
    Under PL, divide by prod_{j<=k} (1 - mu gamma_j). Over D_t these products differ by at most
    1 / (1 - mu gamma') <= 1 / (1 - h): the coefficient is at most -1 + h max(1, h / (1 - h)), which
    is not positive for h^2 <= 1 - h.
    """
    L_e, mu = problem.need('L_e', 'Theorem T7'), problem.mu
    largest = (_GOLDEN if mu > 0 else 1.0) / L_e
    gamma = assume.step_size('Theorem T7', step_size, largest, largest)
    title = 'T7: late gradients, not compressed, step sizes that adapt to the delays'
    assumptions, F0 = 'every f_i smooth, any delays', problem.known('F0')
    if mu > 0:
        assumptions += ', F Polyak-Lojasiewicz'
        return AdaptiveBound(title, assumptions, 'F', gamma, mu, F0, 0.0)
    initial = None if F0 is None else 2 * F0
    return AdaptiveBound(title, assumptions, 'gradient_mean', gamma, 0.0, initial, 0.0)


def _compressed(problem: Problem, omega: float, step_size: float | None) -> AdaptiveBound:
    """T8. The recursion of T1 (`stale`), in sum form, with gamma_k in place of gamma:

    V_{k+1} <= (1 - gamma_k mu) V_k - gamma_k N_k / L_max + gamma_k sum_i L_i E|(x_k - y_i)_{S_i}|^2
               + gamma_k^2 ((sigma + w1) N_k + w0),   and, with xi_t martingale differences,
    E|(x_k - y_i)_{S_i}|^2 <= 2 S_k sum_t gamma_t |(gbar_t)_{S_i}|^2
                              + 2 sum_t gamma_t^2 E|(xi_t)_{S_i}|^2,   t = k - tau_k .. k - 1.
    Both sums are at most 2 gamma' sum_t gamma_t (.), and D_t is as in T7. Divided by the products
    of 1 - mu gamma_j, which differ by at most a factor 1 / (1 - mu gamma') <= 2 over D_t, gamma_t
    N_t has the coefficient
      -1/L_max + gamma_t (sigma + w1) + 4 L_cov (gamma' - gamma_t) gamma' (sigma + w1),
    linear in gamma_t. At gamma_t = gamma' it is not positive for gamma' <= 1 / (L_max (sigma + w1))
    and at gamma_t = 0 for gamma' <= 1 / (2 sqrt(L_cov L_max (sigma + w1))). (mu gamma' <= 1/2
    follows: mu <= L_cov and mu <= sigma L_max bound mu gamma' by the second.) The noise of step k
    is at most w0 gamma_k^2 + gamma_k 2 L_cov gamma' S_k w0 <= gamma_k mu floor.
    """
    instead = 'Add an l2 term lam/2 |x|^2 to the loss: then mu >= lam.'
    assume.strongly_convex('Theorem T8', problem.mu, instead)
    s = sum_form(problem, 'Theorem T8')
    w1 = omega if s.G == 0 else 2 * omega
    both = s.L_max * (s.sigma + w1)
    largest = min(1 / both, 1 / (2 * math.sqrt(s.L_cov * both)))
    eta = assume.step_size('Theorem T8', step_size, s.n * largest, s.n * largest)
    gamma = eta / s.n
    noise = 2 * omega * gamma * (1 + 2 * gamma * s.L_cov) / s.mu
    return AdaptiveBound(
        'T8: late gradients, compressed at every use, step sizes that adapt to the delays',
        'every f_i convex and smooth, F strongly convex, Q unbiased, workers independent, '
        'delays independent of the noise',
        'V',
        eta,
        problem.mu,
        problem.known('V0'),
        None if s.G is None else s.G * noise,
    )
