"""EControl: estimates of the gradients, and a memory of their errors.

    w = eta e + g - h;   h+ = h + C(w);   e+ = e + g - h+;   x+ = x - gamma mean_i h_i+

for each worker i, with g = grad f_i(x), E|w - C(w)|^2 <= (1-delta) |w|^2, and e = h = 0 at first.
|.| of e, w and r = w - C(w) is the root of the mean of E|.|^2 over the workers. As h+ = g + eta e -
r, the point xt = x - gamma mean_i e_i moves by xt+ = xt - gamma grad F(x), as in EF14, and

    e+ = (1-eta) e + r,   w+ = (1+eta) r - eta^2 e + (g+ - g),   |r| <= q |w|, q = sqrt(1-delta).

Let s = |e| + b |w| with the b > 0 for which both weights below are equal:
    s+ <= (1 - eta + b eta^2) |e| + (q/b + (1+eta) q) b |w| + b |g+ - g| = k s + b |g+ - g|.
If eta < (1-q) / (2q), then k < 1. The step is x+ - x = -gamma mean_i (g + eta e - r), so that
|g+ - g|^2 <= 2 L_rms^2 gamma^2 (|grad F(x)|^2 + m^2 s^2) with m = max(eta, q/b), and

    s+^2 <= k s^2 + b^2 |g+ - g|^2 / (1-k) <= (1 - theta) s^2 + 2 B gamma^2 |grad F(x)|^2

with B = b^2 L_rms^2 / (1-k) and theta = 1 - k - 2 B gamma^2 m^2. From here on the proof is that of
EF14 (`_memory.py`), for gamma^2 s^2 in the place of E2: what is left of D is bounded by D >=
|grad F(x)|^2 / L, so that L 2 B gamma^2 stands in the place of (1+s) L_max beta in its (EF). No f_i
needs to be convex, and there is no floor, because differences of exact gradients vanish. At the
start, |w|^2 = (1/n) sum_i |grad f_i(x_0)|^2 <= (L_rms |x_0 - x*| + sqrt(G/n))^2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gradzip.theory import _assume as assume, _memory as memory
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def econtrol(
    problem: Problem,
    delta: float | None,
    eta: float,
    *,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """EControl with a contractive compressor: `gradzip.econtrol(..., eta=eta)`, then `optax.sgd`.

    Args:
      problem: mu > 0. For n > 1 the theorem needs L_rms. Values of the bound need V0 and G.
      delta: constant of the contractive compressor that EControl applies,
        `scheme.contractive().delta(like)`.
      eta: the weight of the memory, in (0, 1], and below (1-q) / (2q), where q = sqrt(1 - delta).
        Half of that is near the best.
      step_size: where to evaluate the bound. The default is the step of the best rate.
      shared: whether the workers share their randomness. The bound is the same for both.

    Returns:
      A `Bound` on 'V' without a floor, for exact gradients of workers that may differ.

    Raises:
      ValueError: delta or eta is out of range, mu = 0, or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=10, L=1.0, mu=0.1, L_max=1.0, G=1.0, V0=1.0)
      >>> bound = theory.econtrol(problem, 0.5, 0.1)
      >>> round(bound.step_size, 4), bound.floor
      (0.0358, 0.0)

    Reference: Gao, Islamov, Stich, arXiv 2311.05645, for the method; the constants are derived
      here, for exact gradients.
    """
    assume.flag('econtrol', 'shared', shared)
    delta = assume.contractive('Theorem EControl', delta)
    eta = assume.real('econtrol', 'eta', eta, 0, 1, above=True)
    q = math.sqrt(1 - delta)
    if q and not eta < (1 - q) / (2 * q):
        raise ValueError(
            f'econtrol(eta=...) must be below (1-q) / (2q) = {(1 - q) / (2 * q):.6g}, where '
            f'q = sqrt(1 - delta): the memory is unstable in the worst case; got {eta!r}.'
        )
    assume.strongly_convex('Theorem EControl', problem.mu, 'Use theory.ef21.')
    L_rms = problem.need('L_rms', 'Theorem EControl')
    law = _Law(problem.L, problem.mu, L_rms, q, eta)
    best, largest = memory.steps(law)
    gamma = assume.step_size('Theorem EControl', step_size, best, largest, below=True)
    r, a = law.rate(gamma)
    V0, G, initial = problem.known('V0'), problem.known('G'), None
    if V0 is not None and G is not None:
        first = (L_rms * math.sqrt(V0) + math.sqrt(G / problem.n)) ** 2  # of |w|^2
        initial = V0 if law.lossless else (1 + 1 / a) * (V0 + a * (gamma * law.b) ** 2 * first)
    about = 'F convex and smooth, F strongly convex, f_i smooth, C contractive'
    return Bound('EControl', about, 'V', gamma, 1 - r, initial, 0.0, problem.n)


class _Law(NamedTuple):
    """What the proof states of a step."""

    L: float
    mu: float
    L_rms: float
    q: float
    eta: float

    @property
    def lossless(self) -> bool:
        return self.q == 0

    @property
    def b(self) -> float:
        return assume.positive_root(
            self.eta**2 / self.q, (1 - self.eta - (1 + self.eta) * self.q) / self.q
        )

    @property
    def fall(self) -> float:
        """1 - k."""
        return self.eta * (1 - self.b * self.eta)

    @property
    def B(self) -> float:
        return (self.b * self.L_rms) ** 2 / self.fall

    def theta(self, gamma: float) -> float:
        m = max(self.eta, self.q / self.b)
        return self.fall - 2 * self.B * (gamma * m) ** 2

    def rate(self, gamma: float) -> tuple[float, float]:
        """Returns the largest r, and its weight of gamma^2 s^2."""
        if self.lossless:
            return gamma * self.mu * (2 - gamma * self.L), math.inf
        return memory.best_rate(self.L, self.mu, gamma, self.theta(gamma), self._weight(gamma))

    def left(self, gamma: float) -> float:
        """Returns what is 1 at the longest step, as in EF14."""
        z, rest = 1 - gamma * self.L, self.theta(gamma) - gamma * self.mu
        if z <= 0 or rest <= 0:
            return math.inf
        return gamma * self.L / (memory.SHARE * z) / (self._weight(gamma) * z * rest)

    def _weight(self, gamma: float) -> float:
        """Returns the weight of gamma^2 s^2, over z."""
        return (1 - memory.SHARE) / (2 * self.L * self.B * gamma**3)
