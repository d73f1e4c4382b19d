"""Section E: Q-IAG, in which stale messages are stored and used again.

    x_{k+1} = x_k - gamma sum_i m_i,   m_i = Q(grad f_i(x_{s_i})), compressed once,  s_i >= k - tau

This is the transformation `gradzip.iag`. The noise of a message is in every iterate since the
message arrived, so it is not unbiased given x_k. Theorem T1 therefore does not hold here (with
Bernoulli(0.05) and tau = 12 its step size diverges), and the floor is about tau + 1 times that of
fresh noise.

Proof, in the notation of `_stale`. g_k = gbar_k + eta_k, Var_k = E|eta_k|^2 <= w1 N_k + w0. A
message in use at step k has been in use for at most tau steps, and the noise of different messages
is orthogonal. The cross term, which is zero in T1, is therefore, for any beta > 0,
    -2 gamma E<eta_k, x_k-x*> <= gamma^2 (2+beta) tau Var_k + (gamma^2/beta) sum_l E|gbar_l|^2.
For any c > 0, with the abbreviations P = (1+c) sigma + (1+1/c) w1 and Q = (1+1/c) w0 (Young),
    gamma^2 E|g_k|^2 <= gamma^2 (P N_k + Q),   E|gbar_l|^2 <= sigma N_l,
    gamma sum_i L_i E|(x_k-y_i)_{S_i}|^2 <= gamma^3 L_cov tau sum_l (P N_l + Q),
since a sum of the eta_l contains a message at most tau times. So lemma S2 asks that

    gamma L_max [P + S sigma/beta + (2+beta) M w1] + gamma^2 L_cov L_max tau P S <= 1          (T2)

with M = tau. The tau of the cross term stands for u, the number of steps since the message was
first in use: before that, no iterate contains its noise. If a message is only replaced by later
ones, it is in use at u = 0, 1, ..., at most tau, and each of these steps contributes -gamma/L_max
times the same N_i of this message. So an average of u is enough. Lemma S2 weighs the step u by
rho^-u, and in the pair of u' < u with u + u' = j <= tau, the average weighted so is at most
j / (1 + rho^j), hence M = tau / (1 + rho^tau), about tau / 2, for messages in this order.

The longest step has c = sqrt(w1/sigma) and beta = sqrt(S sigma/(M w1)). At a shorter one, half of
what is left of the 1 makes c larger, and the rest beta smaller, which lowers the floor.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem
from gradzip.theory._stale import largest_weight
from gradzip.theory._sum_form import SumForm, sum_form


def q_iag(
    problem: Problem,
    omega: float | None,
    tau: int,
    *,
    messages: float | None = None,
    ordered: bool = False,
    step_size: float | None = None,
    split: float = 1.0,
    shared: bool = False,
) -> Bound:
    """Theorem T2: quantized incremental aggregated gradients.

    Args:
      problem: the theorem needs L_max, and sigma and L_cov make it sharper. The floor needs G,
        and values of the bound need V0.
      omega: constant of an unbiased compressor, above 0.
      tau: the longest time, in steps, that a message is in use after its gradient was taken.
      messages: average number that arrive in one step, above 0 and at most n: n / (tau + 1) if
        the workers take turns. The default is n. Only `Bound.bits` uses it.
      ordered: whether the message of a worker is only ever replaced by a later one, so that its
        uses follow one another, as under `Cyclic`, `Burst`, `Fixed` and `Constant`. The step is
        then up to twice as long.
      step_size: where to evaluate the bound, at most the default, which is the longest.
      split: more than 1 lowers the floor and shortens the step, less than 1 does the opposite.
        `for_target` finds the best. Without effect if G = 0.
      shared: must be False, as the theorem is about independent noise.

    Returns:
      A `Bound` on 'V', or for mu = 0 on 'F_mean' (T2c), with a floor unless G = 0.

    Raises:
      ValueError: omega is None (biased) or 0, the noise is shared, messages is above n, or the
        step is too long.
      TypeError: an argument is not a number, or a flag is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.0, G=0.001, V0=1.0)
      >>> reused, fresh = theory.q_iag(problem, 1.0, tau=7), theory.stale(problem, 1.0, tau=7)
      >>> turns = theory.q_iag(problem, 1.0, tau=7, ordered=True)
      >>> round(reused.step_size, 4), round(turns.step_size, 4), round(fresh.step_size, 4)
      (0.0532, 0.062, 0.1092)

    Reference: the algorithm is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem T2', omega)
    tau = assume.integer('q_iag', 'tau', tau, 0)
    if omega == 0:
        raise ValueError(
            'Theorem T2 is about compressed messages, omega > 0. Without compression use '
            'theory.iag (any smooth losses) or theory.stale with omega=0 (convex losses).'
        )
    assume.independent(
        'Theorem T2', shared, 'In gradzip.iag each worker draws its own: leave shared out.'
    )
    ordered = assume.flag('q_iag', 'ordered', ordered)
    split = assume.real('q_iag', 'split', split, 0, above=True)
    n = problem.n
    messages = assume.real(
        'q_iag', 'messages', n if messages is None else messages, 0, n, above=True
    )
    s = sum_form(problem, 'Theorem T2')
    law = _Law(s, tau, omega if s.G == 0 else (1 + split) * omega, ordered)
    longest = law.longest()
    eta = assume.step_size('Theorem T2', step_size, n * longest, n * longest)
    gamma = eta / n
    floor = None  # of V; that of f is mu/2 times as high
    if s.G is not None:
        floor = 0.0 if s.G == 0 else gamma * (1 + 1 / split) * omega * s.G * law.noise(gamma)
    title = f'messages in use for up to {tau} steps, compressed once'
    about = 'every f_i convex and smooth, Q unbiased, workers and arrivals independent'
    V0 = problem.known('V0')
    if s.mu == 0:
        initial = None if V0 is None else V0 / (2 * eta)
        floor = None if floor is None else floor / (2 * n)
        return Bound(f'T2c: {title}', about, 'F_mean', eta, 1.0, initial, floor, messages)
    floor, about = None if floor is None else floor / s.mu, f'{about}, F strongly convex'
    return Bound(f'T2: {title}', about, 'V', eta, 1 - gamma * s.mu, V0, floor, messages)


class _Law(NamedTuple):
    """Inequality (T2) in sum form."""

    s: SumForm
    tau: int
    w1: float
    ordered: bool

    def longest(self) -> float:
        """Returns the longest step for which some c and beta fulfil (T2)."""
        least = (math.sqrt(self.s.sigma) + math.sqrt(self.w1)) ** 2  # of P
        high = assume.positive_root(
            self.s.L_cov * self.s.L_max * self.tau**2 * least,
            self.s.L_max * (least + self._reuse(0.0)),
        )
        return assume.largest(lambda gamma: self._left(gamma, least), high)

    def noise(self, gamma: float) -> float:
        """Returns (1+1/c) (1 + gamma L_cov tau^2) + (2+beta) M: noise in units of w0."""
        s, tau, w1, M = self.s, self.tau, self.w1, self._uses(gamma)
        S = assume.power_sum(gamma * s.mu, tau)
        late = 1 + gamma * s.L_cov * tau * S  # P counts this often
        least = (math.sqrt(s.sigma) + math.sqrt(w1)) ** 2
        slack = max(0.0, 1 - self._left(gamma, least)) / (gamma * s.L_max)
        c = largest_weight(s.sigma, w1, least + slack / (2 * late))
        own = (1 + 1 / c) * (1 + gamma * s.L_cov * tau**2)
        if tau == 0:
            return own
        used = late * ((1 + c) * s.sigma + (1 + 1 / c) * w1)
        room = 1 / (gamma * s.L_max) - used - 2 * M * w1  # for S sigma/beta + beta M w1
        a, b = S * s.sigma, M * w1
        beta = 2 * a / (max(room, 2 * math.sqrt(a * b)) + math.sqrt(max(0.0, room**2 - 4 * a * b)))
        return own + (2 + beta) * M

    def _uses(self, gamma: float) -> float:
        """Returns M."""
        late = -self.tau * math.log1p(-min(gamma * self.s.mu, 1 - 1e-16))
        return self.tau / (1 + math.exp(-late)) if self.ordered else float(self.tau)

    def _reuse(self, gamma: float) -> float:
        """Returns the least S sigma/beta + (2+beta) M w1."""
        S, M = assume.power_sum(gamma * self.s.mu, self.tau), self._uses(gamma)
        return 2 * math.sqrt(S * self.s.sigma * M * self.w1) + 2 * M * self.w1

    def _left(self, gamma: float, P: float) -> float:
        """Returns the left side of (T2) at the best beta."""
        s, S = self.s, assume.power_sum(gamma * self.s.mu, self.tau)
        late = gamma**2 * s.L_cov * s.L_max * self.tau * P * S if self.tau else 0.0
        return gamma * s.L_max * (P + self._reuse(gamma)) + late
