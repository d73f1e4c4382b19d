"""EF21, DIANA and MARINA, whose workers remember estimates of their gradients, in average form.

With exact gradients the estimates become exact, so that these bounds have no floor. Let g be the
direction of a step x+ = x - gamma g, D = |g - grad F(x)|^2 and R = |x+ - x|^2. Since
-<a,b> = |a-b|^2/2 - |a|^2/2 - |b|^2/2 and F is L-smooth,
(F)  F(x+) <= F(x) - (gamma/2)|grad F(x)|^2 - (1/(2gamma) - L/2) R + (gamma/2) D.
Let D <= H with E H+ <= (1-p) H + c R. Then for c gamma^2/p + L gamma <= 1,
(N)  F + (gamma/(2p)) H falls in expectation by (gamma/2)|grad F|^2,
and where F - F* <= |grad F|^2/(2mu), for 2c gamma^2/p + L gamma <= 1 and gamma <= p/(2mu),
(P)  F - F* + (gamma/p) H falls in expectation to 1 - gamma mu of itself.
"""

from __future__ import annotations

import math

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def ef21(
    problem: Problem,
    delta: float | None,
    *,
    error0: float = 0.0,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """EF21 with a contractive compressor: `gradzip.ef21`, then `optax.sgd`.

    Args:
      problem: the theorem needs L_mean. Values of the bound need F0.
      delta: constant of the contractive compressor that EF21 applies,
        `scheme.contractive().delta(like)`.
      error0: (L_mean/n) sum_i |h_i - grad f_i(x_0)|^2 / L_i, with the estimates h_i after the first
        message, and L_i the smoothness of f_i. It is 0 if the first message is sent in full, as
        under `Schedule((Identity(), scheme), (1,))`.
      step_size: where to evaluate the bound, at most the default.
      shared: whether the workers share their randomness. The bound is the same for both.

    Returns:
      A `Bound` on 'F' without a floor; for mu = 0, on 'gradient_mean'. Neither needs convexity.

    Raises:
      ValueError: delta is None or out of range, error0 is negative, or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=10, L=1.0, mu=0.0, L_max=1.0, F0=1.0)
      >>> print([round(theory.ef21(problem, delta).step_size, 4) for delta in (1.0, 0.5, 0.01)])
      [1.0, 0.3372, 0.005]

    Reference: Richtarik, Sokolov, Fatkhullin, arXiv 2106.05203; with the arithmetic mean of the
      L_i, Richtarik, Gasanov, Burlachenko, arXiv 2402.10774. Their step 1/(L + L_mean
      sqrt(beta/theta)) is at most the one here. The proof is derived here.
    """
    assume.flag('ef21', 'shared', shared)
    delta = assume.contractive('Theorem EF21', delta)
    error0 = assume.real('ef21', 'error0', error0, 0)
    # H = (L_mean/n) sum_i |g_i - grad f_i(x)|^2 / L_i >= D, by Cauchy-Schwarz. Young's inequality
    # for each worker, with |grad f_i(x+) - grad f_i(x)|^2 <= L_i^2 R, gives p = theta and
    # c = beta L_mean^2, where theta = 1 - sqrt(1-delta) and beta = (1-delta)/theta
    theta = delta / (1 + math.sqrt(1 - delta))  # without cancellation
    c = (1 - delta) / theta * problem.need('L_mean', 'Theorem EF21') ** 2
    return _bound('EF21', 'C contractive', problem, theta, c, error0, step_size)


def marina(
    problem: Problem,
    omega: float | None,
    *,
    probability: float | None = None,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """MARINA with an unbiased compressor: `gradzip.marina`, then `optax.sgd`.

    Args:
      problem: the theorem needs L_rms. Values of the bound need F0.
      omega: constant of the unbiased compressor, E|Q(x) - x|^2 <= omega |x|^2.
      probability: of sending the full gradient, in (0, 1]; by default 1 / (1 + omega).
      step_size: where to evaluate the bound, at most the default.
      shared: whether the workers share their randomness. The variance is then not divided by n.

    Returns:
      A `Bound` on 'F' without a floor; for mu = 0, on 'gradient_mean'. Neither needs convexity. For
      its `bits`, the size of a message is the mean of the full gradient's and the payload's, with
      the weights probability and 1 - probability.

    Raises:
      ValueError: omega is None or out of range, probability outside (0, 1], or the step is too
        long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=9, L=1.0, mu=0.0, L_max=1.0, F0=1.0)
      >>> print([round(theory.marina(problem, omega).step_size, 4) for omega in (0.0, 9.0)])
      [1.0, 0.2824]

    Reference: Gorbunov, Burlachenko, Li, Richtarik, arXiv 2102.07845; their step 1/(L + L_rms
      sqrt((1-p) omega/(p n))) is at most the one here. The proof is derived here.
    """
    omega = assume.unbiased('Theorem MARINA', omega)
    p = 1 / (1 + omega) if probability is None else _share('marina', 'probability', probability)
    workers = 1 if assume.flag('marina', 'shared', shared) else problem.n
    # H = D: with probability 1-p, g+ - grad F(x+) = g - grad F(x) + the mean of the workers' noise,
    # whose variance is at most (omega/n) (1/n) sum_i L_i^2 R, and without independence n times that
    c = (1 - p) * omega / workers * problem.need('L_rms', 'Theorem MARINA') ** 2
    return _bound('MARINA', 'Q unbiased', problem, p, c, 0.0, step_size)


def diana(
    problem: Problem,
    omega: float | None,
    *,
    alpha: float | None = None,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """DIANA with an unbiased compressor: `gradzip.diana`, then `optax.sgd`.

    Args:
      problem: the theorem needs mu > 0 and L_max. Values of the bound need V0 and G.
      omega: constant of the unbiased compressor, E|Q(x) - x|^2 <= omega |x|^2.
      alpha: the step of the shifts, in (0, 1 / (1 + omega)], which is the default.
      step_size: where to evaluate the bound, at most the default.
      shared: whether the workers share their randomness. The variance is then not divided by n.

    Returns:
      A `Bound` on 'V' without a floor. Without G its floor and its values are unknown.

    Raises:
      ValueError: omega is None or out of range, alpha above 1 / (1 + omega), mu = 0, or the step is
        too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=10, L=1.0, mu=0.1, L_max=1.0, G=1.0, V0=1.0)
      >>> theory.diana(problem, omega=9.0).step_size  # 1 / (L + 6 omega L_max / n)
      0.15625

    Reference: Mishchenko, Gorbunov, Takac, Richtarik, arXiv 1901.09269; for any unbiased
      compressor, Horvath et al., arXiv 1904.05115. The proof is derived here.
    """
    omega = assume.unbiased('Theorem DIANA', omega)
    workers = 1 if assume.flag('diana', 'shared', shared) else problem.n
    instead = 'Add an l2 term lam/2 |x|^2 to the loss, or use theory.marina or theory.ef21.'
    assume.strongly_convex('Theorem DIANA', problem.mu, instead)
    a = 1 / (1 + omega) if alpha is None else _share('diana', 'alpha', alpha)
    if a > (1 + assume.TOLERANCE) / (1 + omega):
        raise ValueError(f'diana(alpha=...) must be at most 1 / (1 + omega); got {alpha!r}.')
    noise = omega / workers
    # Let N = (1/n) sum_i |grad f_i(x) - grad f_i(x*)|^2 <= L_max <grad F(x), x-x*>, and let
    # H = (1/n) sum_i |h_i - grad f_i(x*)|^2. Then E|g|^2 <= |grad F|^2 + 2 noise (N + H), and
    # E H+ <= (1-a) H + a N if a (1+omega) <= 1. With the weight 4 noise gamma^2/a of H, all of N
    # is within gamma <grad F, x-x*> if gamma (L + 6 noise L_max) <= 1, and H shrinks by 1 - a/2.
    largest = 1 / (problem.L + 6 * noise * problem.need('L_max', 'Theorem DIANA'))
    gamma = assume.step_size('Theorem DIANA', step_size, largest, largest)
    G, V0 = problem.known('G'), problem.known('V0')
    weight = 4 * noise * gamma**2 / a
    initial = None if V0 is None else V0 + weight * (G or 0.0) / problem.n
    return Bound(
        'DIANA: differences to shifts that the workers learn',
        'every f_i convex and smooth, F strongly convex, Q unbiased'
        + (', workers independent' if workers > 1 else ''),
        'V',
        gamma,
        max(1 - gamma * problem.mu, 1 - a / 2),
        initial,
        None if G is None else 0.0,
        problem.n,
    )


def _bound(
    name: str, about: str, problem: Problem, p: float, c: float, H: float, given: float | None
) -> Bound:
    """Returns the bound of (P), or of (N) if mu = 0, for H at the start."""
    pl = problem.mu > 0
    largest = assume.positive_root((2 if pl else 1) * c / p, problem.L)
    if pl:
        largest = min(largest, p / (2 * problem.mu))
    gamma = assume.step_size(f'Theorem {name}', given, largest, largest)
    F0 = problem.known('F0')
    if pl:
        initial = None if F0 is None else F0 + gamma / p * H
        quantity, factor, growth = 'F', 1 - gamma * problem.mu, ', Polyak-Lojasiewicz'
    else:
        initial = None if F0 is None else 2 * F0 / gamma + H / p
        quantity, factor, growth = 'gradient_mean', 1.0, ''
    title = f'{name}: changes of the gradients'
    assumptions = f'every f_i smooth{growth}, {about}'
    return Bound(title, assumptions, quantity, gamma, factor, initial, 0.0, problem.n)


def _share(owner: str, name: str, value: float) -> float:
    number = assume.real(owner, name, value, 0, above=True)
    if number > 1:
        raise ValueError(f'{owner}({name}=...) must be in (0, 1]; got {value!r}.')
    return number
