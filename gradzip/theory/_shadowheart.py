"""Shadowheart SGD: compressed messages of workers with different speeds and links.

In every step a worker computes for t seconds, h_i for each gradient of variance v, averages them,
and then sends for t seconds, q_i for each independent message Q(average), E|Q(x) - x|^2 <= omega
|x|^2. Its b = floor(t / h_i) gradients and m = floor(t / q_i) messages have the mean grad F and

    E |error|^2 <= omega/m |grad F|^2 + (omega/(m b) + 1/b) v  <=  a_i (|grad F|^2 + eps),
    a_i = omega/m + (omega/(m b) + 1/b) v/eps.

The server weights the workers by 1 / a_i: the error of the mean is at most (|grad F|^2 + eps) /
sum_i 1/a_i. For t at least h_i and q_i, b >= t / (2 h_i) and m >= t / (2 q_i), so that sum_i 1/a_i
is at least 1 if t is at least the solution s of

    s sum_i 1 / (2 omega q_i + 4 omega q_i h_i v / (eps s) + 2 h_i v / eps) = 1.

Then E F(x+) <= F - gamma (1 - L gamma) |grad F|^2 + L gamma^2 eps / 2. With gamma = 1 / (2 L), the
last term costs half of eps, and 8 L F0 / eps steps suffice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradzip.theory import _assume as assume
from gradzip.theory._late_sgd import ROUNDING, Target
from gradzip.theory._seconds import TimeBound, per_worker, smallest


def equilibrium_time(
    omega: float, noise: float, compute: Sequence[float], send: Sequence[float]
) -> float:
    """The equilibrium time t* of Shadowheart SGD: about the shortest useful half of a step.

    Workers are sorted by max(h_i, q_i). The first j of them need s_j seconds, the solution of the
    equation above for them, and t* = min_j max(h_j, q_j, s_j). It has no closed form.

    Args:
      omega: constant of the unbiased compressor, at least 0.
      noise: variance / eps, at least 0.
      compute: seconds of one gradient of each worker, above 0: h_i.
      send: seconds of one compressed message of each worker, at least 0: q_i.

    Returns:
      Seconds.

    Raises:
      ValueError: a number out of range, no workers, or not as many times to send as to compute.
      TypeError: an argument is not a number.

    Example:
      >>> from gradzip import theory
      >>> round(theory.equilibrium_time(0.0, 10.0, [1.0] * 10, [0.0] * 10), 3)  # 20 / 10 seconds
      2.0
      >>> round(theory.equilibrium_time(3.0, 10.0, [1.0] * 10, [0.1] * 10), 3)
      2.534

    Reference: Tyurin, Pozzi, Ilin, Richtarik, arXiv 2402.04785; the equation is derived above.
    """
    omega = assume.real('equilibrium_time', 'omega', omega, 0)
    noise = assume.real('equilibrium_time', 'noise', noise, 0)
    h = per_worker('equilibrium_time', 'compute', compute, above=True)
    q = per_worker('equilibrium_time', 'send', send)
    if len(h) != len(q):
        raise ValueError(
            f'equilibrium_time needs the seconds of the same workers; got {len(h)} to compute and '
            f'{len(q)} to send.'
        )
    order = np.argsort(np.maximum(h, q), kind='stable')
    h, q = h[order], q[order]
    slowest = np.maximum(h, q)

    def enough(t: float) -> bool:
        """Whether some of the workers with h_i, q_i <= t need at most t."""
        j = int(np.searchsorted(slowest, t, side='right'))
        a = 2 * omega * q[:j] + 4 * omega * q[:j] * h[:j] * noise / t + 2 * h[:j] * noise
        return j > 0 and (not a.all() or t * np.sum(1 / a) >= 1)

    return max(smallest(enough, float(slowest[0])), float(slowest[0]))


def time_shadowheart(
    target: Target, compute: Sequence[float], send: Sequence[float], omega: float
) -> TimeBound:
    """Shadowheart SGD with an unbiased compressor: 2 t* seconds a step, 8 L F0 / eps steps.

    Args:
      target: the loss, the noise and the accuracy.
      compute: seconds of one gradient of each worker, at most: h_i.
      send: seconds of one compressed message of each worker, at most: q_i.
      omega: constant of the unbiased compressor, E|Q(x) - x|^2 <= omega |x|^2.

    Returns:
      A `TimeBound`.

    Raises:
      ValueError: omega is None (biased) or out of range; as `equilibrium_time`.
      TypeError: an argument is not a number.

    Example:
      >>> from gradzip import theory
      >>> target = theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
      >>> bound = theory.time_shadowheart(target, [1.0] * 10, [0.0] * 10, omega=0.0)
      >>> bound.step_size, bound.steps, round(bound.seconds, 3)
      (0.5, 80, 320.0)

    Reference: Tyurin, Pozzi, Ilin, Richtarik, arXiv 2402.04785; the constants are derived above.
    """
    omega = assume.unbiased('time_shadowheart', omega)
    t = equilibrium_time(omega, target.variance / target.eps, compute, send)
    steps = math.ceil(8 * target.L * target.F0 / target.eps * (1 - ROUNDING))
    return TimeBound('Shadowheart', 1 / (2 * target.L), steps, steps * 2 * t)
