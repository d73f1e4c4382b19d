"""All runs of a comparison, one after the other, and what is read off each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

import numpy as np
from rich.console import Console

import gradzip as gz
from experiments.comparison.methods import Method, matrix_like, scheme_bits
from experiments.comparison.simulate import Curve, Mapper, simulate
from experiments.problems import Problem
from experiments.progress import runs_bar

# A thousandth of the initial gap: low enough that biased schemes without a memory stall above it,
# and high enough that most unbiased ones get there before the noise of a fixed step stops them.
TARGET = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One scheme at one delay on one data set."""

    problem: Problem
    method: Method
    delay: int
    curve: Curve
    seconds: float
    bits: int  # that a worker sends in a step
    padded_bits: int  # the same as a wire carries them, in rows of 128 words

    @property
    def diverged(self) -> bool:
        """No longer a number, or further from the optimum than it was at the start."""
        return not self.final <= 1

    @property
    def final(self) -> float:
        """The last relative gap; NaN or infinity if it came to that."""
        return float(self.curve.gap[-1])

    @property
    def iterations(self) -> int | None:
        """The first recorded iteration at the target; None if it was never reached."""
        reached = np.flatnonzero(self.curve.gap <= TARGET)
        return int(self.curve.iteration[reached[0]]) if len(reached) else None

    @property
    def bits_to_target(self) -> int | None:
        return None if self.iterations is None else self.iterations * self.bits


def compare(
    problems: list[Problem],
    methods: list[Method],
    delays: list[int],
    *,
    iterations: int,
    mapper: Mapper,
    seed: int,
    console: Console,
) -> list[Run]:
    """Every method at every delay on every problem, behind a progress bar."""
    plan = [(p, m, tau) for p in problems for tau in delays for m in methods]
    runs = []
    with runs_bar(console) as progress:
        bar = progress.add_task('', total=len(plan) * iterations, runs=f'0/{len(plan)}')
        for done, (problem, method, delay) in enumerate(plan):
            title = f'{problem.name}, delay {delay}, {method.label}'
            progress.update(bar, description=title, completed=done * iterations)
            progress.update(bar, runs=f'{done + 1}/{len(plan)}')
            like, start = matrix_like(problem.features), time.perf_counter()
            curve = simulate(
                problem,
                method,
                delay,
                iterations=iterations,
                mapper=mapper,
                seed=seed,
                advance=lambda steps: progress.advance(bar, steps),
            )
            seconds = time.perf_counter() - start
            bits = scheme_bits(method.scheme, like)
            padded = 8 * gz.payload_bytes(method.scheme, like, problem.workers)
            runs.append(Run(problem, method, delay, curve, seconds, bits, padded))
        progress.update(bar, completed=len(plan) * iterations, description='done')
    return runs


def counterpart(run: Run, runs: Iterable[Run], name: str) -> Run | None:
    """The run of another method on the same problem at the same delay."""
    same = (r for r in runs if r.problem is run.problem and r.delay == run.delay)
    return next((r for r in same if r.method.name == name), None)


def saving(run: Run, runs: Iterable[Run]) -> float | None:
    """How many times fewer bits than exact gradients of the same delay, up to the target."""
    exact = counterpart(run, runs, 'exact')
    if exact is None or exact.bits_to_target is None or run.bits_to_target is None:
        return None
    return exact.bits_to_target / run.bits_to_target
