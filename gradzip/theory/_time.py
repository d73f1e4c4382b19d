"""Seconds until a noisy gradient is small, for workers of different speeds.

Every worker i can compute a gradient of the same F with independent noise of a given variance, in
at most h_i seconds. A protocol decides how many gradients a step averages, how many steps late they
are, and how many seconds a step takes. `late_sgd` gives the steps. All bounds are for the worst
case; `gradzip.clock.predict` has the mean seconds of a step for random times.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gradzip.theory import _assume as assume
from gradzip.theory._late_sgd import ROUNDING, Target, late_sgd
from gradzip.theory._seconds import TimeBound, collected, sorted_seconds


def time_synchronous(target: Target, seconds: Sequence[float]) -> TimeBound:
    """Synchronous SGD: a step waits for the gradients of all workers.

    Args:
      target: the loss, the noise and the accuracy.
      seconds: of one gradient of each worker, at most: h_i.

    Returns:
      A `TimeBound`.

    Raises:
      ValueError: no workers, or times that are not above 0.
      TypeError: an argument is of another kind.

    Example:
      >>> from gradzip import theory
      >>> target = theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
      >>> print(theory.time_synchronous(target, [1.0] * 9 + [5.0]).seconds)
      400.0

    Reference: m = n in `time_m_synchronous`.
    """
    n = len(sorted_seconds('time_synchronous', seconds))
    bound = time_m_synchronous(target, seconds, n)
    return dataclasses.replace(bound, protocol='synchronous')


def time_m_synchronous(target: Target, seconds: Sequence[float], m: int | None = None) -> TimeBound:
    """A step waits for the m fastest workers, and m is the best by default.

    Args:
      target: the loss, the noise and the accuracy.
      seconds: of one gradient of each worker, at most: h_i.
      m: from 1 to the number of workers, or None for the one with the fewest seconds.

    Returns:
      A `TimeBound`: the m-th smallest h_i times the steps for batches of m.

    Raises:
      ValueError: no workers, times that are not above 0, or m out of range.
      TypeError: an argument is of another kind.

    Example:
      >>> from gradzip import theory
      >>> target = theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
      >>> bound = theory.time_m_synchronous(target, [1.0] * 9 + [5.0])
      >>> bound.protocol, round(bound.step_size, 3), bound.steps, bound.seconds
      ('m-synchronous, m = 9', 0.45, 89, 89.0)

    Reference: arXiv 2602.03802, which finds it nearly optimal in many regimes. The seconds, derived
      here, are min_m h_m (L F0/eps + variance L F0/(m eps^2)) up to a factor.
    """
    h = sorted_seconds('time_m_synchronous', seconds)
    if m is not None:
        chosen = [assume.integer('time_m_synchronous', 'm', m, 1, len(h))]
    else:
        chosen = range(1, len(h) + 1)
    found = []
    for size in chosen:
        gamma, steps = late_sgd(target, 0, batch=size)
        found.append(
            TimeBound(_named('m-synchronous, m', size), gamma, steps, steps * float(h[size - 1]))
        )
    return min(found, key=lambda bound: bound.seconds)


def time_asynchronous(target: Target, seconds: Sequence[float]) -> TimeBound:
    """Asynchronous SGD: every gradient makes a step when it arrives.

    While the slowest worker computes one gradient, every other arrives at most ceil(h_n / h_i)
    times, if each needs exactly its h_i: that bounds the delay.

    Args:
      target: the loss, the noise and the accuracy.
      seconds: of one gradient of each worker, exactly: h_i.

    Returns:
      A `TimeBound`.

    Raises:
      ValueError: no workers, or times that are not above 0.
      TypeError: an argument is of another kind.

    Example:
      >>> from gradzip import theory
      >>> target = theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
      >>> print(theory.time_asynchronous(target, [1.0] * 9 + [5.0]).protocol)
      asynchronous, delays up to 45

    Reference: the setting of Koloskova, Stich, Jaggi, arXiv 2206.08307; derived here.
    """
    h = sorted_seconds('time_asynchronous', seconds)
    tau = int(np.sum(np.ceil(h[-1] / h[:-1] * (1 - ROUNDING))))
    gamma, steps = late_sgd(target, tau)
    return TimeBound(f'asynchronous, delays up to {tau}', gamma, steps, collected(h, steps))


def time_rennala(target: Target, seconds: Sequence[float], batch: int | None = None) -> TimeBound:
    """Rennala SGD: a step collects `batch` gradients of the newest version.

    The first gradient of each worker in a step may be of an older version, so that a step takes at
    most t seconds where sum_i (floor(t / h_i) - 1)_+ >= batch.

    Args:
      target: the loss, the noise and the accuracy.
      seconds: of one gradient of each worker, at most: h_i.
      batch: gradients in a step, or None for max(1, ceil(variance / eps)).

    Returns:
      A `TimeBound`.

    Raises:
      ValueError: no workers, times that are not above 0, or batch below 1.
      TypeError: an argument is of another kind.

    Example:
      >>> from gradzip import theory
      >>> target = theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
      >>> print(theory.time_rennala(target, [1.0] * 9 + [5.0]))
      TimeBound(protocol='Rennala, batch = 10', step_size=0.5, steps=80, seconds=240.0)

    Reference: Tyurin, Richtarik, arXiv 2305.12387, where the batch S is from. By the rule above, a
      step takes at most 2 min_m (S + m) / sum_{i<=m} 1/h_i seconds; the constants are derived here.
    """
    h = sorted_seconds('time_rennala', seconds)
    size = target.batch if batch is None else assume.integer('time_rennala', 'batch', batch, 1)
    gamma, steps = late_sgd(target, 0, batch=size)
    each = collected(h, size, lost=1)
    return TimeBound(_named('Rennala, batch', size), gamma, steps, steps * each)


def time_ringmaster(
    target: Target, seconds: Sequence[float], limit: int | None = None
) -> TimeBound:
    """Ringmaster ASGD: asynchronous, but gradients `limit` or more steps late are dropped.

    Any t seconds with sum_i (floor(t / h_i) - 1)_+ >= limit have at least `limit` steps: were there
    fewer, no gradient that was started in them would be dropped.

    Args:
      target: the loss, the noise and the accuracy.
      seconds: of one gradient of each worker, at most: h_i.
      limit: R, at least 1, or None for max(1, ceil(variance / eps)).

    Returns:
      A `TimeBound`.

    Raises:
      ValueError: no workers, times that are not above 0, or limit below 1.
      TypeError: an argument is of another kind.

    Example:
      >>> from gradzip import theory
      >>> target = theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
      >>> print(theory.time_ringmaster(target, [1.0] * 9 + [5.0]).protocol)
      Ringmaster, limit = 10

    Reference: Maranjyan, Tyurin, Richtarik, arXiv 2501.16168, where R and the step size
      min(1/(2 R L), eps/(4 L variance)) are from; the theorem above, and so the constants, are
      derived here.
    """
    h = sorted_seconds('time_ringmaster', seconds)
    most = target.batch if limit is None else assume.integer('time_ringmaster', 'limit', limit, 1)
    gamma, steps = late_sgd(target, most - 1)
    total = math.ceil(steps / most) * collected(h, most, lost=1)
    return TimeBound(_named('Ringmaster, limit', most), gamma, steps, total)


def _named(name: str, constant: int) -> str:
    return f'{name} = {constant}'
