"""Section A: one node, one compressor, no delay.

    x_{k+1} = x_k - gamma Q(grad F(x_k))

With omega: E Q(v) = v and E|Q(v)|^2 <= alpha |v|^2, alpha = 1 + omega. V = |x - x*|^2.

A1 and A5 use the gradients at both ends of a step, g = grad F(x_k) and g+ = grad F(x_{k+1}). As
F + (L/2)|x|^2 is convex and 2 L-smooth, with r = g - gamma L Q(g) the step satisfies

    F(x_{k+1}) <= F(x_k) - (2 |g|^2 - |r|^2 - 2 <g+, r> + |g+|^2) / (4 L).

2 <g+, r> <= z |g+|^2 + |r|^2 / z for any z in (0, 1]. Let E|r|^2 <= P |g|^2, where P = 1 - 2 a u +
b u^2 in A1 and, for u <= 1, P = 1 - delta u in A5 (r lies between g and g - Q(g)), u = gamma L.
With |g|^2 >= 2 mu (F(x_k) - F*), the same for g+, and k = mu / L,

    (1 + k (1 - z)/2) E[F(x_{k+1}) - F*] <= (1 - k (2 - P - P/z)/2) (F(x_k) - F*).

z = 1 gives the factor 1 - k (1 - P) that the gradient at x_k alone gives. The best z is the root of
(1 - k + k P/2) z^2 + k P z = (1 + k/2) P. Without compression at gamma = 1/L, P = z = 0, and the
factor (1 - k) / (1 + k/2) is that of Abbaszadehpeivasti, de Klerk, Zamani, arXiv 2204.00647.
"""

from __future__ import annotations

import math
from typing import Any

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._cocoercive import rate
from gradzip.theory._problem import Problem


def gd(
    problem: Problem,
    omega: float | None = None,
    *,
    delta: float | None = None,
    descent: tuple[float, float] | None = None,
    convex: bool = True,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Compressed gradient descent: theorems A1 to A5, depending on what is known.

    | known | mu > 0 | mu = 0 |
    |---|---|---|
    | omega, convex | A2, on V, the sharpest | A3, on F at the mean iterate |
    | omega, smooth but not convex (convex=False) | A1, on F | A4 |
    | descent=(a, b), smooth | A1, on F | A4, on the mean squared gradient |
    | delta, smooth | A5, on F | A5, on the mean squared gradient |

    None of them has a floor. In A1, A4 and A5, mu may be the constant of the Polyak-Lojasiewicz
    inequality |grad F(x)|^2 >= 2 mu (F(x) - F*) at the points x_k of the run.

    Args:
      problem: n = 1. More workers are allowed if nothing is random (omega=0), or with shared=True.
      omega: constant of an unbiased compressor, 0 without compression. Exactly one of omega, delta
        and descent must be given.
      delta: constant of a contractive compressor that is used without error feedback.
      descent: (a, b) with <v, C(v)> >= a |v|^2 and |C(v)|^2 <= b |v|^2, both in expectation. Then
        b >= a^2.
      convex: whether F is convex. If it is not, omega gives A1 or A4.
      step_size: where to evaluate the bound. The default is the step size of the best rate:
        1 / (alpha L), in A2 2 / (alpha (mu + L)), in A5 1 / L.
      shared: whether a linear compressor draws the same numbers on all workers. The mean of the
        messages is then the message of the mean.

    Returns:
      A `Bound` on 'V' (A2), 'F' (A1, A5), 'F_mean' (A3) or 'gradient_mean' (A4, A5).

    Raises:
      ValueError: none or several of omega, delta and descent are given, the theorem does not hold
        for the step size, or each worker compresses its own gradient.
      TypeError: an argument is not a number, descent is not a pair, or a flag is not True or False.

    Example:
      >>> from gradzip import theory
      >>> bound = theory.gd(theory.Problem(n=1, L=1.0, mu=0.25, V0=1.0), omega=1.0)
      >>> bound.quantity, bound.step_size, round(bound.factor, 6)
      ('V', 0.8, 0.68)

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here, beside each formula.
    """
    _exactly_one(omega, delta, descent)
    shared, convex = assume.flag('gd', 'shared', shared), assume.flag('gd', 'convex', convex)
    if omega != 0:
        assume.one_node('Theorem A (theory.gd)', problem.n, shared)
    if delta is not None:
        return _contractive(problem, assume.contractive('gd', delta), step_size)
    if descent is not None:
        return _smooth(problem, *_pair(descent), step_size)
    alpha = 1 + assume.unbiased('gd', omega)
    if not convex:
        return _smooth(problem, 1.0, alpha, step_size)
    if problem.mu > 0:
        return _strongly_convex(problem, alpha, step_size)
    return _convex(problem, alpha, step_size)


def _smooth(problem: Problem, a: float, b: float, given: float | None) -> Bound:
    """Theorems A1 and A4. An unbiased compressor has a = 1, b = alpha."""
    L, mu = problem.L, problem.mu
    gamma = assume.step_size('gd', given, a / (b * L), 2 * a / (b * L), below=True)
    F0 = problem.known('F0')
    if mu > 0:
        u = gamma * L
        factor = _between(mu / L, (1 - a * u) ** 2 + (b - a * a) * u * u)
        return _bound('A1', 'F smooth and Polyak-Lojasiewicz', 'F', gamma, factor, F0, problem.n)
    # E F(x+) <= F - gamma <grad F, E Q> + (L gamma^2/2) E|Q|^2
    #         <= F - gamma (a - b L gamma/2) |grad F|^2
    progress = gamma * (a - b * L * gamma / 2)
    initial = None if F0 is None else F0 / progress  # by telescoping
    return _bound('A4', 'F smooth', 'gradient_mean', gamma, 1.0, initial, problem.n)


def _strongly_convex(problem: Problem, alpha: float, given: float | None) -> Bound:
    """Theorem A2. The rate is best at 2 / (alpha (mu + L)); it vanishes at 2 / (alpha L)."""
    L, mu = problem.L, problem.mu
    best = 2 / (alpha * (mu + L))
    gamma = assume.step_size('gd', given, best, 2 / (alpha * L), below=True)
    # E|Q|^2 <= alpha |grad F|^2: see `_cocoercive`
    factor = rate(gamma, alpha, 0.0, mu, L)
    assumptions = 'F smooth and strongly convex, Q unbiased'
    return _bound('A2', assumptions, 'V', gamma, factor, problem.known('V0'), problem.n)


def _convex(problem: Problem, alpha: float, given: float | None) -> Bound:
    """Theorem A3. It holds for the last iterate too, because E F(x_k) does not increase."""
    L = problem.L
    best = 1 / (alpha * L)
    gamma = assume.step_size('gd', given, best, 2 * best, below=True)
    # <grad F, x-x*> >= F-F* + |grad F|^2/(2L):
    # E V+ <= V - 2 gamma (F-F*) + (gamma^2 alpha - gamma/L) |grad F|^2. Above `best` this bracket
    # is >= 0, and |grad F|^2 <= 2L (F-F*). The rest is telescoping and Jensen's inequality
    share = 1.0 if gamma <= best else 2 - alpha * L * gamma
    V0 = problem.known('V0')
    initial = None if V0 is None else V0 / (2 * gamma * share)
    assumptions = 'F smooth and convex, Q unbiased'
    return _bound('A3', assumptions, 'F_mean', gamma, 1.0, initial, problem.n)


def _contractive(problem: Problem, delta: float, given: float | None) -> Bound:
    """Theorem A5: top-k, sign and the like, without error feedback, on one node."""
    L, mu, F0 = problem.L, problem.mu, problem.known('F0')
    gamma = assume.step_size('gd', given, 1 / L, 1 / L)
    if mu > 0:
        factor = _between(mu / L, 1 - delta * gamma * L)
        return _bound('A5', 'F smooth and Polyak-Lojasiewicz', 'F', gamma, factor, F0, problem.n)
    # F(x+) <= F - (gamma/2)|grad F|^2 - (1/(2 gamma) - L/2)|x+ - x|^2
    #          + (gamma/2)|C(grad F) - grad F|^2  <=  F - (gamma delta/2)|grad F|^2
    initial = None if F0 is None else 2 * F0 / (gamma * delta)
    return _bound('A5', 'F smooth', 'gradient_mean', gamma, 1.0, initial, problem.n)


def _between(k: float, P: float) -> float:
    """Returns the factor of A1 and A5 for k = mu / L at the best z."""
    P = min(max(P, 0.0), 1.0)
    least = P * (1 + k / 2)  # z is at least P / (2 - P), below which |g|^2 would count against F
    z = 2 * least / (k * P + math.sqrt((k * P) ** 2 + 4 * (1 - k + k * P / 2) * least)) if P else 0
    z = min(1.0, max(z, P / (2 - P)))
    lost = P + (P / z if P else 0.0)
    return (1 - k * (2 - lost) / 2) / (1 + k * (1 - z) / 2)


def _bound(
    name: str,
    assumptions: str,
    quantity: str,
    gamma: float,
    factor: float,
    initial: float | None,
    n: int,
) -> Bound:
    title = f'{name}: the whole gradient, compressed'
    return Bound(title, assumptions, quantity, gamma, factor, initial, 0.0, n)


def _exactly_one(omega: Any, delta: Any, descent: Any) -> None:
    if sum(value is not None for value in (omega, delta, descent)) != 1:
        raise ValueError(
            'gd needs exactly one of omega= (unbiased; 0 without compression), delta= '
            '(contractive) and descent= (a, b); got '
            f'omega={omega!r}, delta={delta!r}, descent={descent!r}. A biased compressor has '
            'omega=None: pass its delta.'
        )


def _pair(descent: Any) -> tuple[float, float]:
    if not isinstance(descent, tuple | list) or len(descent) != 2:
        raise TypeError(f'gd(descent=...) must be a pair of numbers (a, b); got {descent!r}.')
    a = assume.real('gd', 'descent[0]', descent[0], 0, above=True)
    b = assume.real('gd', 'descent[1]', descent[1], 0, above=True)
    if b < a**2 and not math.isclose(b, a**2):
        raise ValueError(
            f'gd(descent=(a, b)) needs b >= a^2, which Cauchy-Schwarz implies; got {descent!r}.'
        )
    return a, b
