"""The seconds of a step without a simulation: order statistics and renewal theory.

Let c_w be the seconds of a cycle of worker w, F_w its distribution function and mu_w its mean, and
let t be the seconds of a step, in the long run. Each case below says whether it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradzip.clock import _simulate as simulate
from gradzip.clock._cycles import Cycles
from gradzip.clock._network import Network
from gradzip.clock._order import groups_of, integral, mean_of_ordered
from gradzip.clock._protocols import (
    Asynchronous,
    BoundedStaleness,
    MSynchronous,
    Protocol,
    Quorum,
    Rennala,
    Ringmaster,
    RoundRobin,
    Synchronous,
)
from gradzip.clock._times import Times

TERMS = 2048  # of a sum that a grid continues
DRAWS, LEAST = 1 << 21, 32  # random numbers, and rounds, where there is no formula


def predict(
    protocol: Protocol,
    compute: Times | Sequence[Times],
    *,
    workers: int | None = None,
    network: Network | None = None,
    local_steps: int = 1,
) -> float:
    """Predicts the mean seconds of a step in a long run, without simulating it.

    - `Synchronous`, `MSynchronous`: the mean of the largest, or the m-th, of n cycles. Exact.
    - `Asynchronous`: batch / (sum of 1 / mean cycle), by the renewal theorem. Exact.
    - `RoundRobin`, `BoundedStaleness`: the geometric mean of a lower and an upper bound, for the
      latter from a fixed sample.
    - `Quorum`, `Rennala`, `Ringmaster`: approximations for many workers, whose times are then
      spread evenly. Their equations stand beside the code.

    Args:
      protocol: as in `simulate`.
      compute: as in `simulate`.
      workers: as in `simulate`.
      network: as in `simulate`, but the server must not receive one message after the other.
      local_steps: as in `simulate`. Times of several gradients are taken from a fixed sample.

    Returns:
      Seconds.

    Raises:
      ValueError: as `simulate`; the network limits the server.
      TypeError: as `simulate`.

    Example:
      >>> from gradzip import clock
      >>> round(clock.predict(clock.Synchronous(), clock.Exponential(1.0), workers=3), 3)
      1.833
      >>> clock.predict(clock.Asynchronous(), [clock.Constant(2), clock.Constant(6)])
      1.5
    """
    cycles = simulate.checked('predict', protocol, compute, workers, network, local_steps)
    if cycles.network.service:
        raise ValueError(
            'predict knows no formula where the server receives one message after the other: '
            'leave out Network(server=...), or use simulate.'
        )
    return _seconds(protocol, cycles)


def _seconds(protocol: Protocol, cycles: Cycles) -> float:
    n = cycles.workers
    match protocol:
        case Synchronous():
            return mean_of_ordered(cycles, n)
        case MSynchronous():
            return mean_of_ordered(cycles, protocol.m)
        case Asynchronous():
            return protocol.batch / float(np.sum(1 / cycles.mean))
        case RoundRobin():
            return _round_robin(cycles) / n
        case BoundedStaleness():
            return _bounded_staleness(cycles, protocol.slack) / n
        case Quorum():
            return _quorum(cycles, protocol.quorum)
        case Rennala():
            return _rennala(cycles, protocol.batch)
        case Ringmaster():
            return _ringmaster(cycles, protocol.limit)
    raise TypeError(f'predict knows the protocols of gradzip.clock; got {protocol!r}.')


def _round_robin(cycles: Cycles) -> float:
    """Seconds a round: the geometric mean of bounds that are at most 1.5 apart.

    The turn of worker w in round r is turn(r, w) = max(turn(r, w-1), turn(r-1, w) + c(r, w)), the
    largest sum along a path that may collect one cycle in each round, always at the same worker or
    at a later one; to come back to an earlier one, it leaves out a round. So a round takes at most
    as long as the longest cycle in it. A path along the longest cycles of all rounds comes back in
    at most every second round, by symmetry, and a path may also stay at the slowest worker.
    """
    most = mean_of_ordered(cycles, cycles.workers)
    return math.sqrt(most * max(most / 1.5, float(cycles.mean.max())))


def _bounded_staleness(cycles: Cycles, slack: int) -> float:
    """Seconds a round, again the largest sum along a path: the geometric mean of two bounds.

    finish(r, w) = max(finish(r-1, w), max_v finish(r-1-slack, v)) + c(r, w): to change the worker,
    a path leaves out `slack` rounds. It may stay L rounds at the worker that is slowest in them,
    for the best L, and so collect E max_w (c(1, w) + ... + c(L, w)) in L + slack rounds. It takes
    more time if all workers meet after every slack + 1 rounds.
    """
    if slack == 0:
        return mean_of_ordered(cycles, cycles.workers)
    rounds = np.arange(1, 2 * (slack + 1) + 1)
    size, rng = cycles.local_steps * len(rounds), np.random.default_rng(0)
    repeats = max(DRAWS // (cycles.workers * size), LEAST)
    slowest = np.zeros((repeats, len(rounds)))
    for w, times in enumerate(cycles.times):
        draws = times.draw(rng, repeats * size).reshape(repeats, len(rounds), -1)
        np.maximum(slowest, np.cumsum(draws.sum(2) + cycles.overhead[w], 1), out=slowest)
    collected = slowest.mean(0)
    least = max(np.max(collected / (rounds + slack)), cycles.mean.max())
    return math.sqrt(least * collected[slack] / (slack + 1))


def _quorum(cycles: Cycles, quorum: int) -> float:
    """A worker delivers in one of ceil(c / t) steps: quorum = sum_w 1 / E ceil(c_w / t).

    E ceil(c / t) = sum_{k >= 0} P(c > k t). A quorum of q of n is taken for q n / (n + 1), as the
    q-th of n uniform numbers is q / (n + 1) in the mean. Where it waits for all, a step is a round.
    """
    groups, n = groups_of(cycles), cycles.workers
    if quorum == n:
        return mean_of_ordered(cycles, n)
    tails = [(g, *integral(g)) for g in groups]
    k = np.arange(TERMS)

    def delivered(t: float) -> float:
        total = 0.0
        for group, grid, area in tails:
            rest = group.mean - np.interp((TERMS - 0.5) * t, grid, area)  # of the sum, times t
            total += group.size / (group.survival(k * t).sum() + max(rest, 0.0) / t)
        return total

    return _root(delivered, quorum * n / (n + 1), float(cycles.mean.max()))


def _rennala(cycles: Cycles, batch: int) -> float:
    """The first gradient of each worker is too old; it ends within s with probability F^e_w(s).

    In the long run F^e_w(s) = 1/mu_w int_0^s (1 - F_w), as for every renewal process. All other
    gradients are new, of s / mu_w in s seconds: batch = sum_w 1/mu_w int_0^t F_w.
    """
    tails = [(g, *integral(g)) for g in groups_of(cycles)]

    def fresh(t: float) -> float:
        return sum(g.size * (t - np.interp(t, grid, s)) / g.mean for g, grid, s in tails)

    return _root(fresh, batch, float(cycles.mean.max()))


def _ringmaster(cycles: Cycles, limit: int) -> float:
    """A gradient is used if fewer than `limit` steps pass in its cycle, c / t of them:

    1 / t = sum_w F_w(limit t) / mu_w.
    """
    groups = groups_of(cycles)

    def used(t: float) -> float:  # in the seconds of a step
        return sum(
            g.size * t * (1 - float(g.survival(np.asarray(limit * t)))) / g.mean for g in groups
        )

    return _root(used, 1.0, float(cycles.mean.max()))


def _root(rising: Callable[[float], float], target: float, start: float) -> float:
    """The t > 0 at which a function that rises with t passes a target."""
    low = high = start
    while rising(low) >= target:
        low /= 2
    while rising(high) < target:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) >= target else (middle, high)
    return high
