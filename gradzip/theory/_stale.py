"""Section D: gradients of many workers that arrive late and are compressed when they are used.

    x_{k+1} = x_k - gamma sum_i Q_{i,k}(grad f_i(y_i^k)),   y_i^k = x_{k - tau_i^k},  tau_i^k <= tau

This is a delay in front of an exchange, `optax.chain(gz.delay(...), gz.compress(...))`. Delays may
vary with time and between workers. The proof is about f = sum_i f_i. Let g = gbar + xi, with
gbar = sum_i grad f_i(y_i), and let N = sum_i |grad f_i(y_i) - h_i|^2, h_i = grad f_i(x*). Then
E|xi|^2 <= w1 N + w0, and |gbar|^2 <= sigma N (F1). For convex f_i,

    <grad f_i(y), x-x*> >= f_i(x)-f_i(x*) + |grad f_i(y)-h_i|^2/(2 L_i) - (L_i/2)|(x-y)_{S_i}|^2,

as f_i(x*) >= f_i(y) + <grad f_i(y), x*-y> + |grad f_i(y)-h_i|^2/(2 L_i), and f_i is smooth.
With 2 (f - f*) >= mu V, V = |x - x*|^2, the sum over i is

    E V_{k+1} <= (1-gamma mu) V_k - (gamma/L_max) N_k + gamma sum_i L_i E|(x_k-y_i)_{S_i}|^2
                 + gamma^2 ((sigma + w1) N_k + w0).

Here x_k - y_i = -gamma sum_l (gbar_l + xi_l) over at most tau steps l. The xi_l are martingale
differences, so for any c > 0 (Young) the third term is at most gamma^3 L_cov times

    sum_{l=k-tau}^{k-1} [((1+c) tau sigma + (1+1/c) w1) N_l + (1+1/c) w0].

Lemma S2 unrolls  V_{k+1} <= rho V_k - c_N N_k + d sum_{l=k-tau}^{k-1} N_l + e:  with
c_N >= d S, S = sum_{j=1}^{tau} rho^-j, every N_l has a coefficient below zero, and
V_k <= rho^k V_0 + e / (1 - rho). For rho = 1 - gamma mu, c_N >= d S is

    gamma L_max (sigma+w1) + gamma^2 L_cov L_max ((1+c) tau sigma + (1+1/c) w1) S <= 1.        (T1)

The longest step has c = sqrt(w1 / (tau sigma)). At a shorter one, the largest c with (T1) has the
lowest floor. For mu = 0, S = tau, and summing 2 gamma (f - f*) gives T1c. If the delays may follow
the noise, w1 and w0 of past steps count min(tau, 9) times (Doob's inequality, or Cauchy-Schwarz).

Lemma S2 also holds for steps gamma_k that do not increase, because the condition at the step l
bounds what every later step charges to N_l. c may then grow from step to step: a smaller c than the
condition at gamma_k allows charges less.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._late import longest_exact
from gradzip.theory._problem import Problem
from gradzip.theory._sum_form import SumForm, sum_form
from gradzip.theory._synchronous import batch_noise, dcgd, minibatch


def stale(
    problem: Problem,
    omega: float | None,
    tau: int,
    *,
    batch: int | None = None,
    oblivious: bool = True,
    step_size: float | None = None,
    split: float = 1.0,
    shared: bool = False,
) -> Bound:
    """Theorem T1: stale gradients of many workers, compressed afresh at every use.

    If the data are so sparse that sigma and L_cov are small, the step size hardly depends on the
    number of workers. For tau = 0 this is theorem C1 or B1 (`dcgd`, `minibatch`), which is sharper.
    Without compression, T5 (`iag`) allows steps that are at least as long, as L <= sigma L_max / n
    and L_e^2 <= sigma L_max L_cov / n. Above T1's longest step, the bound is therefore T5's.

    Args:
      problem: the theorem needs L_max, and sigma and L_cov make it sharper. The floor needs G,
        and values of the bound need V0, above T1's longest step F0.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises. A
        sampler of blocks with probabilities p has 1 / min(p) - 1 (theorem G).
      tau: the longest delay, in steps.
      batch: if only some random workers send in a step, how many (theorem F for 1). They are drawn
        independently of the past and of the delays, and their sum is scaled by n / batch.
      oblivious: whether the delays are independent of the randomness of the compression, as in
        every delay model of gradzip. False allows delays that depend on the iterates.
      step_size: where to evaluate the bound, at most the default, which is the longest.
      split: more than 1 lowers the floor and shortens the step, less than 1 does the opposite.
        `for_target` finds the best. Without effect if there is no floor.
      shared: must be False, as the theorem is about independent noise.

    Returns:
      A `Bound` on 'V', or for mu = 0 on 'F_mean' (T1c), with a floor unless there is no noise or
      G = 0.

    Raises:
      ValueError: omega is None (biased), the noise is shared, or the step is too long.
      TypeError: an argument is not a number, or a flag is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.0, G=0.1, V0=1.0)
      >>> print([round(theory.stale(problem, 1.0, tau).step_size, 3) for tau in (0, 4, 8)])
      [1.481, 0.173, 0.097]

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem T1', omega)
    tau = assume.integer('stale', 'tau', tau, 0)
    oblivious = assume.flag('stale', 'oblivious', oblivious)
    instead = 'Use gradzip.Gather(scheme), or, without delay, theory.dcgd(shared=True).'
    assume.independent('Theorem T1', shared, instead)
    if tau == 0:
        if batch is None:
            return dcgd(problem, omega, step_size=step_size, split=split)
        return minibatch(problem, omega, batch, step_size=step_size, split=split)
    n, messages = problem.n, problem.n
    if batch is not None:
        messages = assume.integer('stale', 'batch', batch, 1, n)
        omega = batch_noise(n, messages, omega)
    split = assume.real('stale', 'split', split, 0, above=True)
    s = sum_form(problem, 'Theorem T1')
    w1 = omega if s.G == 0 else (1 + split) * omega
    law = _Law(s, tau, w1, 1 if oblivious else min(tau, 9))
    alone = law.longest()
    longest = max(alone, longest_exact(problem, tau) / n) if omega == 0 and s.mu > 0 else alone
    eta = assume.step_size('Theorem T1', step_size, n * longest, n * longest)
    gamma = eta / n
    noise = (1 + 1 / split) * omega * gamma * law.past(gamma)
    about = 'every f_i convex and smooth, Q unbiased, workers independent, ' + (
        'delays independent of the noise' if oblivious else 'any delays'
    )
    title = f'{"T1" if s.mu > 0 else "T1c"}: gradients up to {tau} steps late, ' + (
        'compressed at every use' if batch is None else f'of {messages} random workers a step'
    )
    V0 = problem.known('V0')
    if s.mu == 0:
        initial = None if V0 is None else V0 / (2 * eta)
        floor = _times(s.G, noise / (2 * n))
        return Bound(title, about, 'F_mean', eta, 1.0, initial, floor, messages)
    if gamma > alone * (1 + assume.TOLERANCE):  # |x - x*|^2 <= (2 / mu) (F - F*)
        F0 = problem.known('F0')
        V0 = None if F0 is None else 2 * F0 / problem.mu
        title = f'T5: gradients up to {tau} steps late, not compressed'
    floor = _times(s.G, noise / s.mu)
    about += ', F strongly convex'
    return Bound(title, about, 'V', eta, 1 - gamma * s.mu, V0, floor, messages)


class _Law(NamedTuple):
    """Inequality (T1) in sum form."""

    s: SumForm
    tau: int
    w1: float
    repeats: int  # how often the noise of past steps counts

    def longest(self) -> float:
        """Returns the longest step for which some c fulfils (T1)."""
        s = self.s
        a = s.L_cov * s.L_max * self._spread()
        b = s.L_max * (s.sigma + self.w1)
        high = assume.positive_root(a * self.tau, b)  # as S >= tau
        return assume.largest(
            lambda g: g * b + g * g * a * assume.power_sum(g * s.mu, self.tau), high
        )

    def past(self, gamma: float) -> float:
        """Returns 1 + (1 + 1/c) gamma L_cov tau for the largest c with (T1): noise in w0."""
        s, own, noise = self.s, self.tau * self.s.sigma, self.repeats * self.w1
        if noise == 0:
            return 1.0
        room = (1 - gamma * s.L_max * (s.sigma + self.w1)) / (
            gamma**2 * s.L_cov * s.L_max * assume.power_sum(gamma * s.mu, self.tau)
        )
        c = largest_weight(own, noise, room)
        return 1 + (1 + 1 / c) * gamma * s.L_cov * self.tau * self.repeats

    def _spread(self) -> float:
        """Returns the least (1+c) tau sigma + (1+1/c) w1."""
        return (math.sqrt(self.tau * self.s.sigma) + math.sqrt(self.repeats * self.w1)) ** 2


def largest_weight(a: float, b: float, room: float) -> float:
    """Returns the largest c with (1+c) a + (1+1/c) b <= room, or, within rounding, sqrt(b/a)."""
    slack = (room - a - b) / 2
    return max(slack + math.sqrt(max(0.0, slack**2 - a * b)), math.sqrt(a * b)) / a


def _times(G: float | None, coefficient: float) -> float | None:
    """Returns the floor, which is 0 without noise and unknown without G."""
    if coefficient == 0:
        return 0.0
    return None if G is None else G * coefficient
