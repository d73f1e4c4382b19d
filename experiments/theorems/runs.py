"""A row of the table as a run of many seeds, beside what its theorem says."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problems import Problem
from experiments.simulate import Advance, message_bits, simulate
from experiments.theorems.algorithms import TARGET, Row
from gradzip import theory

ERRORS = 3  # standard errors by which an average of seeds may exceed a bound that is attained
ROUNDING = 1e-5  # relative; of float32 runs


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A row on a problem: |x_k - x*|^2 of every seed at every iteration, and the bound."""

    problem: Problem
    row: Row
    distance: np.ndarray  # f64[iterations + 1, seeds]

    @functools.cached_property
    def mean(self) -> np.ndarray:
        return self.distance.mean(axis=1)

    @functools.cached_property
    def bound(self) -> np.ndarray | None:
        """At every iteration: f64[iterations + 1]; None where no theorem covers the row."""
        if self.row.bound is None:
            return None
        return np.array([self.row.bound_at(k) for k in range(len(self.mean))])

    @functools.cached_property
    def bits(self) -> int:
        """Of one worker's message."""
        return message_bits(self.row.scheme.compressor, like_of(self.problem))

    @property
    def measured(self) -> int | None:
        """The first iteration at which the average is at the target."""
        reached = np.flatnonzero(self.mean <= target_of(self.problem))
        return int(reached[0]) if len(reached) else None

    @property
    def predicted(self) -> float | None:
        """The same of the bound; None without a bound."""
        return None if self.row.bound is None else self.row.predicted(target_of(self.problem))

    def bits_until(self, iterations: float | None) -> float | None:
        """Sent by all workers together."""
        return None if iterations is None else iterations * self.row.messages * self.bits

    @property
    def ratio(self) -> float | None:
        """The largest average over bound, over all iterations: at most 1 on paper."""
        return None if self.bound is None else float(np.max(self.mean / self.bound))

    @property
    def ratio_later(self) -> float:
        """The same after the start, where both are equal; 0 where there is no later."""
        first = self.row.shift + 1
        if self.bound is None or len(self.mean) <= first:
            return 0.0
        return float(np.max(self.mean[first:] / self.bound[first:]))

    @property
    def exceeded(self) -> bool:
        """Whether the average exceeds the bound by more than chance and rounding explain."""
        if self.bound is None:
            return False
        if not np.all(np.isfinite(self.mean)):
            return True
        seeds = self.distance.shape[1]
        error = self.distance.std(axis=1, ddof=1) / math.sqrt(seeds) if seeds > 1 else 0.0
        return bool(np.any(self.mean - ERRORS * error > self.bound * (1 + ROUNDING)))

    @property
    def looseness(self) -> float | None:
        """Predicted over measured iterations."""
        if self.predicted is None or self.measured is None:
            return None
        return self.predicted / max(1, self.measured)


def like_of(problem: Problem) -> jax.ShapeDtypeStruct:
    """The weights, as compressors see them."""
    return jax.ShapeDtypeStruct((problem.features,), jnp.float32)


def target_of(problem: Problem) -> float:
    """An accuracy, in |x - x*|^2."""
    return TARGET * problem.constants.need('V0', 'The table')


def length_of(problem: Problem, row: Row, most: int) -> int:
    """Iterations until the bound is at the target."""
    target = target_of(problem)
    if row.bound is None:  # as long as exact gradients of the same delay take at the same step
        exact = theory.stale(problem.constants, 0.0, row.delay.bound, step_size=row.step_size)
        return min(most, int(exact.iterations(target)) + row.shift)
    return int(min(most, row.predicted(target)))


def run(
    problem: Problem, row: Row, iterations: int, seeds: int, advance: Advance = lambda steps: None
) -> Run:
    """At the step-size of the row. Where nothing is random there is one seed."""
    keys = jax.random.split(jax.random.key(0), seeds if row.random else 1)
    optimum = jnp.asarray(problem.optimum, jnp.float32)

    def distance(w: jax.Array) -> jax.Array:
        return jnp.sum((w - optimum) ** 2)

    found = simulate(
        problem, row.make, keys, iterations, distance, start=problem.start, advance=advance
    )
    return Run(problem, row, found.astype(np.float64))


def by_problem(runs: list[Run]) -> Iterator[tuple[Problem, list[Run]]]:
    """The runs of each problem, in order."""
    for problem in dict.fromkeys(run.problem for run in runs):
        yield problem, [run for run in runs if run.problem is problem]
