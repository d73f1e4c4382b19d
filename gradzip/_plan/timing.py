"""Times of compiled programs, measured in rounds in which every program runs once.

Other work on the machine changes all times, so ratios are formed within a round, and the median
over the rounds is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

WARM_UP = 2  # rounds that are not counted
SLOW_ROUNDS = 5  # rounds in which a slow case takes part


class Case(NamedTuple):
    """A program with a state that it returns: (state, *rest) -> (out, state)."""

    run: Callable[..., tuple[Any, Any]]
    state: Any
    rest: tuple = ()
    slow: bool = False  # a slow case takes part in a few rounds only


def jitted(function: Callable, state: Any, *rest: Any, slow: bool = False) -> Case:
    """Compiled, its state donated."""
    compiled = jax.jit(function, donate_argnums=0, keep_unused=True).lower(state, *rest).compile()
    return Case(compiled, state, rest, slow)


def measure(
    cases: dict[Any, Case], rounds: int, advance: Callable[[], Any] = lambda: None
) -> dict[Any, np.ndarray]:
    """Seconds of every case in every round: f64[rounds], fewer for a slow one."""
    states = {name: case.state for name, case in cases.items()}
    times: dict[Any, list[float]] = {name: [] for name in cases}
    for turn in range(WARM_UP + rounds):
        for name, case in cases.items():
            if case.slow and turn >= WARM_UP + SLOW_ROUNDS:
                continue
            start = time.perf_counter()
            out, states[name] = case.run(states[name], *case.rest)
            jax.block_until_ready((out, states[name]))
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - start)
        advance()
    return {name: np.array(found) for name, found in times.items()}


def ratio(times: dict[str, np.ndarray], name: str, unit: str) -> float:
    """The median over rounds of one case's time over another's."""
    size = min(times[name].size, times[unit].size)
    return float(np.median(times[name][:size] / times[unit][:size]))
