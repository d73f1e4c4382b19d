"""The distributions of cycles, and the mean of the m-th of n of them, by quadrature."""

from __future__ import annotations

import collections
import math

import numpy as np

from gradzip.clock._cycles import Cycles

Array = np.ndarray
GRID = np.concatenate(  # of seconds over the mean; heavy tails reach far
    [np.geomspace(1e-6, 1e-2, 200), np.geomspace(1e-2, 1e3, 1800), np.geomspace(1e3, 1e15, 400)]
)
SUMS = 1 << 17  # draws that stand for the time of several gradients


class Group:
    """Workers whose cycles have the same distribution."""

    def __init__(self, cycles: Cycles, members: list[int]) -> None:
        self.size, first = len(members), members[0]
        self.mean, self.overhead = float(cycles.mean[first]), float(cycles.overhead[first])
        self.times, self.sample = cycles.times[first], None
        if cycles.local_steps > 1:
            shape = max(SUMS // cycles.local_steps, 1000), cycles.local_steps
            drawn = self.times.draw(np.random.default_rng(0), math.prod(shape))
            self.sample = np.sort(drawn.reshape(shape).sum(1))

    def survival(self, seconds: Array) -> Array:
        """P(a cycle is longer)."""
        computing = np.asarray(seconds) - self.overhead
        if self.sample is None:
            return np.where(computing < 0, 1.0, self.times.survival(computing))
        return 1 - np.searchsorted(self.sample, computing, side='right') / len(self.sample)


def groups_of(cycles: Cycles) -> list[Group]:
    """The workers in groups, the largest first."""
    members = collections.defaultdict(list)
    for w, times in enumerate(cycles.times):
        members[times, cycles.overhead[w]].append(w)
    return [Group(cycles, own) for own in sorted(members.values(), key=len, reverse=True)]


def _grid(groups: list[Group]) -> Array:
    """Seconds, also on both sides of a constant cycle, where its distribution jumps."""
    means = np.array([g.mean for g in groups])
    ends = GRID * means.min(), GRID * means.max()
    return np.unique(np.concatenate([[0.0], *ends, means, np.nextafter(means, 0)]))


def mean_of_ordered(cycles: Cycles, m: int) -> float:
    """E of the m-th smallest of n independent cycles: the integral of P(fewer than m are over)."""
    groups = groups_of(cycles)
    grid = _grid(groups)
    if m == cycles.workers:  # the largest; in this form also its tail is accurate
        with np.errstate(divide='ignore'):
            logs = sum(g.size * np.log1p(-g.survival(grid)) for g in groups)
        return float(np.trapezoid(-np.expm1(logs), grid))
    over = np.zeros((len(grid), m))  # P(k are over), k < m
    over[:, 0] = 1
    for group in groups:
        over = _with_group(over, group, group.survival(grid))
    return float(np.trapezoid(over.sum(1), grid))


def _with_group(over: Array, group: Group, survival: Array) -> Array:
    """P(k are over) with another group, of which a binomial number is."""
    m, c = over.shape[1], group.size
    k = np.arange(min(c, m - 1) + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, c + 1)))])
    with np.errstate(divide='ignore', invalid='ignore'):
        logs = k * np.log1p(-survival)[:, None] + (c - k) * np.log(survival)[:, None]
    logs = np.where(np.isnan(logs), 0.0, logs)  # 0 log 0
    binomial = np.zeros_like(over)
    binomial[:, : len(k)] = np.exp(factorials[c] - factorials[k] - factorials[c - k] + logs)
    few, many = sorted((over, binomial), key=lambda p: np.count_nonzero(p.any(0)))
    out = np.zeros_like(over)
    for i in np.flatnonzero(few.any(0)):
        out[:, i:] += few[:, i : i + 1] * many[:, : m - i]
    return out


def integral(group: Group) -> tuple[Array, Array]:
    """A grid, and the integral of P(a cycle is longer) from 0 to each of its points."""
    grid = _grid([group])
    survival = group.survival(grid)
    parts = np.diff(grid) * (survival[1:] + survival[:-1]) / 2
    return grid, np.concatenate([[0.0], np.cumsum(parts)])
