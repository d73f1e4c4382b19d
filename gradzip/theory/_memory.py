"""Error feedback, in average form.

    p_i = e_i + gamma grad f_i(x),  send c_i = C(p_i),  e_i+ = p_i - c_i,  x+ = x - (1/n) sum_i c_i

For a constant step size, this method is `gradzip.error_feedback` followed by `optax.sgd(gamma)`,
whose memory holds e_i / gamma. Let e = (1/n) sum_i e_i and E2 = (1/n) sum_i |e_i|^2 >= |e|^2. The
point xt = x - e moves by xt+ = xt - gamma grad F(x). With theta = 1 - sqrt(1-delta) and
beta = (1-delta) / theta, Young's inequality gives
(Y)  E E2+ <= (1-theta) E2 + beta gamma^2 (1/n) sum_i |grad f_i|^2.

Strongly convex. Let D = <grad F(x), x - x*>, N = (1/n) sum_i |grad f_i(x) - grad f_i(x*)|^2. Then
    |xt+ - x*|^2 = |xt - x*|^2 - 2 gamma D + 2 gamma <grad F, e> + gamma^2 |grad F|^2,
    D >= mu |x - x*|^2,   D >= |grad F|^2 / L,   D >= N / L_max,
    |x - x*|^2 >= (1-t) |xt - x*|^2 - (1/t - 1) |e|^2,   2 <grad F, e> <= h |grad F|^2 + |e|^2 / h
for t in (0, 1), h > 0. Of the 2 gamma D, use the share 1 + v in the first of the bounds on D,
gamma L + h L in the second, by which all of |grad F|^2 cancels, and what is left of the 2 in the
third. With z = 1 - v - gamma L and h = c z / L, c in (0, 1), this is
    |xt+ - x*|^2 <= (1 - r) |xt - x*|^2 + gamma H E2 - gamma (1-c) z N / L_max,
with r = gamma mu (1+v) (1-t) and H = L/(c z) + mu (1+v) (1/t - 1). As (1/n) sum_i |grad f_i|^2 <=
(1+s) N + (1+1/s) G/n for any s > 0, the sum Psi = |xt - x*|^2 + a E2 falls to 1 - r of itself, plus
a beta gamma^2 (1+1/s) G/n, if
    gamma H / (theta - r)  <=  a  <=  (1-c) z / ((1+s) L_max beta gamma).                       (EF)
If G = 0, as on one node, N alone takes the place of (1+s) N, and (EF) has 1 in place of 1+s. The
right side is the a that is used, and
    1/t - 1 = (a (theta - gamma mu (1+v)) - gamma L/(c z)) / (gamma mu (1+v))
then fulfils (EF) where it is positive. The z in (0, 2 - gamma L) with the largest r is found
numerically. Last, |x - x*|^2 <= (1 + 1/a) Psi, since |u + v|^2 <= (1 + 1/a) (|u|^2 + a |v|^2). The
longest step has c = 1/2 and v = 0, but a smaller c has a larger a: with c = 0.4 the bound takes
about the fewest iterations. Without compression beta = 0, and r = gamma mu (2 - gamma L).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple, Protocol

from gradzip.theory import _assume as assume, _search as search
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem

SHARE = 0.4  # c of the proof
_GOLDEN = (math.sqrt(5) - 1) / 2


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
      step_size: where to evaluate the bound. The default is the step of the best rate.
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
      [1.0, 0.1474, 0.0021]

    Reference: Stich, Cordonnier, Jaggi, arXiv 1809.07599, for the method; the constants are
      derived here.
    """
    assume.flag('ef14', 'shared', shared)
    delta = assume.contractive('Theorem EF14', delta)
    if problem.mu == 0:
        return _nonconvex(problem, delta, step_size)
    split = assume.real('ef14', 'split', split, 0, above=True)
    n, L, mu, G = problem.n, problem.L, problem.mu, problem.known('G')
    law = _Law(L, mu, (1 if G == 0 else 1 + split) * problem.need('L_max', 'Theorem EF14'), delta)
    best, largest = steps(law)
    gamma = assume.step_size('Theorem EF14', step_size, best, largest, below=True)
    r, a = law.rate(gamma)
    noise = 0.0 if delta == 1 or G == 0 else (1 + a) * law.beta * gamma**2 * (1 + 1 / split) / n
    floor = 0.0 if noise == 0 else None if G is None else noise * G / max(r, 1e-300)
    V0 = problem.known('V0')
    about = f'{"F" if n == 1 else "every f_i"} convex and smooth, F strongly convex, C contractive'
    initial = None if V0 is None else (1 + 1 / a) * V0
    return Bound('EF14: error feedback', about, 'V', gamma, 1 - r, initial, floor, n)


class Law(Protocol):
    """What a proof in the form of (EF) states of a step gamma."""

    @property
    def L(self) -> float: ...

    @property
    def lossless(self) -> bool: ...

    def rate(self, gamma: float) -> tuple[float, float]: ...

    def left(self, gamma: float) -> float: ...


class _Law(NamedTuple):
    """Inequality (EF) at c = _SHARE."""

    L: float
    mu: float
    steep: float  # (1+s) L_max
    delta: float

    @property
    def lossless(self) -> bool:
        return self.delta == 1

    @property
    def theta(self) -> float:
        return self.delta / (1 + math.sqrt(1 - self.delta))  # without cancellation

    @property
    def beta(self) -> float:
        return (1 - self.delta) / self.theta

    def rate(self, gamma: float) -> tuple[float, float]:
        """Returns the largest r, and its a. The r is not above 0 where no z is found."""
        if self.lossless:
            return gamma * self.mu * (2 - gamma * self.L), math.inf
        a = (1 - SHARE) / (self.steep * self.beta * gamma)
        return best_rate(self.L, self.mu, gamma, self.theta, a)

    def left(self, gamma: float) -> float:
        """Returns gamma L/(c z) over a (theta - gamma mu), which is 1 at the longest step."""
        z, rest = 1 - gamma * self.L, self.theta - gamma * self.mu
        if z <= 0 or rest <= 0:
            return math.inf
        c = SHARE * (1 - SHARE)
        return self.steep * self.L * self.beta * gamma**2 / (c * z * z * rest)


def best_rate(L: float, mu: float, gamma: float, theta: float, a: float) -> tuple[float, float]:
    """Returns the largest r, and the weight a z at its z. The r is not above 0 where none is."""

    def at(z: float) -> float:
        """Where 1/t - 1 is at most 0, it is in the place of r."""
        most = gamma * mu * (2 - gamma * L - z)  # gamma mu (1+v)
        rest = a * z * (theta - most) - gamma * L / (SHARE * z)
        return most * rest / (most + rest) if rest > 0 else rest

    low, high = 0.0, 2 - gamma * L
    for _ in range(40):  # r has one maximum
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if at(left) < at(right):
            low = left
        else:
            high = right
    z = (low + high) / 2
    return at(z), a * z


@functools.lru_cache(maxsize=64)
def steps(law: Law) -> tuple[float, float]:
    """Returns the step of the best rate, and the longest, where 1/t - 1 vanishes for v = 0."""
    if law.lossless:
        return 1 / law.L, 2 / law.L
    largest = assume.largest(law.left, 1 / law.L)
    best = search.least(lambda g: -law.rate(g)[0], largest / 30, 0.999 * largest, 10, 14)
    return best, largest


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
