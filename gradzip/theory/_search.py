"""One-dimensional search on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Callable

_GOLDEN = (math.sqrt(5) - 1) / 2


def least(
    cost: Callable[[float], float], low: float, high: float, points: int, golden: int
) -> float:
    """Returns where `cost` is about least in [low, high], 0 < low < high.

    A grid of `points` finds the valley, also if `cost` jumps, and `golden` sections its bottom.
    """
    ratio = (high / low) ** (1 / (points - 1))
    grid = [high / ratio**i for i in range(points - 1, -1, -1)]
    costs = [cost(x) for x in grid]
    best = min(range(points), key=costs.__getitem__)
    a, b = math.log(grid[max(0, best - 1)]), math.log(grid[min(points - 1, best + 1)])
    at, value = grid[best], costs[best]
    left, right = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
    f_left, f_right = cost(math.exp(left)), cost(math.exp(right))
    for _ in range(golden):
        if f_left < value:
            at, value = math.exp(left), f_left
        if f_right < value:
            at, value = math.exp(right), f_right
        if f_left <= f_right:
            b, right, f_right = right, left, f_left
            left = b - _GOLDEN * (b - a)
            f_left = cost(math.exp(left))
        else:
            a, left, f_left = left, right, f_right
            right = a + _GOLDEN * (b - a)
            f_right = cost(math.exp(right))
    return at
