"""All rows on all problems: each run of 24 seeds, beside what its theorem says."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

import gradzip as gz
from experiments.message import message_bits
from experiments.problems import Problem
from experiments.progress import runs_bar
from experiments.shards import Shards, loss, shards, stack
from experiments.theorems.algorithms import AXIS, Row
from gradzip import advice, theory

TARGET = 1e-2  # of |x_0 - x*|^2: a tenth of the distance
NEAR_FLOOR = 1.02  # a bound that never reaches the target is followed until this near its floor
CHUNK = 1000  # iterations of one compiled call, at most: the progress bar moves
ERRORS = 3  # standard errors by which an average of seeds may exceed a bound that is attained
ROUNDING = 1e-5  # relative; of float32 runs


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A problem with the constants that theorems ask for."""

    problem: Problem
    constants: theory.Problem

    @property
    def like(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.problem.features,), jnp.float32)

    @property
    def target(self) -> float:
        """An accuracy, in |x - x*|^2."""
        return TARGET * self.constants.need('V0', 'The table')


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A row on a problem: |x_k - x*|^2 of every seed at every iteration, and the bound."""

    case: Case
    row: Row
    distance: np.ndarray  # f64[iterations + 1, seeds]
    bits: int  # of one worker's message
    seconds: float

    @functools.cached_property
    def mean(self) -> np.ndarray:
        return self.distance.mean(axis=1)

    @functools.cached_property
    def bound(self) -> np.ndarray | None:
        """At every iteration: f64[iterations + 1]; None where no theorem covers the row."""
        if self.row.bound is None:
            return None
        return np.array([self.row.bound_at(k) for k in range(len(self.mean))])

    @property
    def measured(self) -> int | None:
        """The first iteration at which the average is at the target."""
        reached = np.flatnonzero(self.mean <= self.case.target)
        return int(reached[0]) if len(reached) else None

    @property
    def predicted(self) -> float | None:
        """The same of the bound; infinity where the floor lies above, None without a bound."""
        return None if self.row.bound is None else self.row.predicted(self.case.target)

    def bits_until(self, iterations: float | None) -> float | None:
        """Sent by all workers together."""
        if iterations is None:
            return None
        return iterations * self.row.messages * self.bits

    @property
    def floor(self) -> float:
        """Where the run ends: its average over the last tenth."""
        return float(self.mean[-max(1, len(self.mean) // 10) :].mean())

    @property
    def ratio(self) -> float | None:
        """The largest average over bound, over all iterations: at most 1 on paper."""
        return None if self.bound is None else float(np.max(self.mean / self.bound))

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
        """Predicted over measured iterations; where the bound has a floor above, over floors."""
        if self.predicted is None or self.row.bound is None:
            return None
        if math.isinf(self.predicted):
            return self.row.bound.floor / self.floor
        return None if self.measured is None else self.predicted / max(1, self.measured)


def case_of(problem: Problem) -> Case:
    """Measures the constants on the examples as the workers hold them."""
    dense = problem.a if isinstance(problem.a, np.ndarray) else problem.a.toarray()
    x, y = (stack(problem.by_worker(rows), np.float64) for rows in (dense, problem.y))
    weight = stack([np.full(size, 1 / size) for size in problem.sizes], np.float64)
    return Case(problem, advice.measure(problem.kind, x, y, problem.lam, weight=weight))


def run_all(plan: list[tuple[Case, Row]], *, seeds: int, most: int, console: Console) -> list[Run]:
    """Every row of the plan, behind a progress bar."""
    lengths = [_length(case, row, most) for case, row in plan]
    runs = []
    with runs_bar(console) as progress:
        bar = progress.add_task('', total=sum(lengths), runs='')
        for i, ((case, row), length) in enumerate(zip(plan, lengths, strict=True)):
            title = f'{case.problem.name}, {row.title}, {row.scheme.label}'
            progress.update(bar, description=title, completed=sum(lengths[:i]))
            progress.update(bar, runs=f'{i + 1}/{len(plan)}')
            start = time.perf_counter()
            distance = simulate(
                case, row, length, seeds, lambda steps: progress.advance(bar, steps)
            )
            bits = message_bits(row.scheme.compressor, case.like)
            runs.append(Run(case, row, distance, bits, time.perf_counter() - start))
        progress.update(bar, completed=sum(lengths), description='done')
    return runs


def _length(case: Case, row: Row, most: int) -> int:
    """Until the bound is at the target, or as near its floor as makes no difference."""
    if row.bound is None:  # as long as exact gradients of the same delay take at the same step
        exact = theory.stale(case.constants, 0.0, row.delay.bound, step_size=row.step_size)
        return min(most, int(exact.iterations(case.target)) + row.shift)
    wanted = row.predicted(case.target)
    if math.isinf(wanted):
        wanted = row.predicted(NEAR_FLOOR * row.bound.floor)
    return int(min(most, wanted))


def simulate(
    case: Case,
    row: Row,
    iterations: int,
    seeds: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> np.ndarray:
    """|x_k - x*|^2 for k = 0 .. iterations, one seed a column: f64[iterations + 1, seeds].

    Descends from zero, in float32, with every worker and every seed mapped by `vmap`. Where nothing
    is random there is one column.
    """
    keys = jax.random.split(jax.random.key(0), seeds if row.random else 1)
    length = min(CHUNK, max(1, iterations))
    start, descend = _prepare(case.problem, row, length)
    state, mine, found = start(keys), shards(case.problem), []
    for done in range(0, iterations, length):
        state, distance = descend(state, mine)
        found.append(np.asarray(distance, np.float64).T)  # waits: nothing queues up
        advance(min(length, iterations - done))
    first = np.full((1, len(keys)), float(np.sum(case.problem.optimum**2)))
    return np.concatenate([first, *found])[: iterations + 1]


def _prepare(problem: Problem, row: Row, length: int) -> tuple[Callable, Callable]:
    """The first weights and states of all seeds, and `length` steps of them, both jitted."""
    optimum = jnp.asarray(problem.optimum, jnp.float32)
    own = functools.partial(loss, lam=problem.lam, kind=problem.kind)
    w = jnp.zeros_like(optimum)

    def init(key: jax.Array) -> Any:
        return row.make(key).init(w)

    specs = gz.state_specs(jax.eval_shape(init, jax.random.key(0)), 0, None)
    workers: dict[str, Any] = {'axis_name': AXIS, 'axis_size': problem.workers}
    tx = row.make(jax.random.key(0))  # the key that counts is in the state

    def update(w: jax.Array, state: Any, mine: Shards) -> tuple[Any, Any]:
        gradient = jax.grad(own)(gz.localize(w, AXIS), mine)
        updates, state = tx.update(gradient, state, w)
        return optax.apply_updates(w, updates), state

    step = jax.vmap(update, in_axes=(None, specs, 0), out_axes=(None, specs), **workers)

    def descend(carry: tuple, mine: Shards) -> tuple[tuple, jax.Array]:
        def iterate(carry: tuple, _: None) -> tuple:
            w, state = step(carry[0], carry[1], mine)
            return (w, state), jnp.sum((w - optimum) ** 2)

        return jax.lax.scan(iterate, carry, length=length)

    def start(keys: jax.Array) -> tuple:
        states = jax.vmap(lambda key: jax.vmap(init, in_axes=None, out_axes=specs, **workers)(key))(
            keys
        )
        return jnp.broadcast_to(w, (len(keys), *w.shape)), states

    return jax.jit(start), jax.jit(jax.vmap(descend, in_axes=(0, None)), donate_argnums=0)


def by_case(runs: list[Run]) -> Iterator[tuple[Case, list[Run]]]:
    """The runs of each problem, in order."""
    for case in dict.fromkeys(run.case for run in runs):
        yield case, [run for run in runs if run.case is case]
