"""The worst cases of `experiments.worst_cases`: `python -m experiments.looseness --attained`.

What is loose on data and not here is due to the data, and what is loose here too is due to the
proof.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import tables
from experiments.simulate import descend, run_jobs
from experiments.worst_cases import Case, Key, cases
from gradzip import theory

TARGET = 1e-3  # of the start, in the quantity that the theorem bounds
BARS = {'A': 1.5, 'B': 1.5, 'C': 1.5, 'T': 2.0, 'E': 3.0}  # by the first letter of the theorem
LONGER = 1.1  # than predicted: how long runs are, as some attain their bounds


class Found(NamedTuple):
    """What a theorem said, and what the run took."""

    case: Case
    theorem: str
    predicted: float
    measured: int | None
    exceeded: bool

    @property
    def ratio(self) -> float | None:
        return None if not self.measured else self.predicted / self.measured


def run(
    case: Case, bound: theory.Bound, eps: float, length: int, advance: Callable[[int], Any]
) -> Found:
    """From one in every slow coordinate; the average over the seeds."""

    def record(w: jax.Array) -> jax.Array:
        return jnp.sum(w**2) if bound.quantity == 'V' else case.value(w)

    def make(key: Key) -> optax.GradientTransformation:
        return optax.chain(case.before(key), theory.scale_by_theory(bound))

    keys = jax.random.split(jax.random.key(0), case.seeds)
    values = descend(
        case.gradient, case.shards, case.start, make, keys, length, record, advance=advance
    ).astype(np.float64)
    mean, count = values.mean(axis=1), values.shape[1]
    error = values.std(axis=1, ddof=1) / math.sqrt(count) if count > 1 else np.zeros(len(mean))
    limit = np.array([bound.at(max(0, k - case.shift)) for k in range(len(mean))])
    exceeded = bool(np.any(~(mean - 3 * error <= limit * (1 + 1e-4))))
    reached = np.flatnonzero(mean <= eps)
    measured = int(reached[0]) if len(reached) else None
    predicted = bound.iterations(eps) + case.shift
    return Found(case, bound.theorem.split(':')[0], predicted, measured, exceeded)


def _bound(case: Case) -> tuple[theory.Bound, float]:
    """The bound at the step that reaches the target soonest, and the target."""
    quantity = case.family(case.constants, **case.options).quantity
    eps = TARGET * case.constants.need('V0' if quantity == 'V' else 'F0', 'The table')
    return theory.for_target(case.family, case.constants, eps, **case.options), eps


def show(console: Console, out: Path) -> bool:
    """Runs all cases and writes a table. Returns whether a bound was exceeded."""
    jobs = []
    for case in cases():
        bound, eps = _bound(case)
        length = int(LONGER * (bound.iterations(eps) + case.shift))
        jobs.append(
            (
                f'{case.problem}, {case.run}',
                length,
                functools.partial(run, case, bound, eps, length),
            )
        )
    found = run_jobs(jobs, console)
    tables.write_csv(out / 'attained.csv', map(csv_row, found))
    tables.show(console, out / 'attained.txt', *report(found))
    return any(each.exceeded for each in found)


def report(found: list[Found]) -> Iterator[Any]:
    """A table of all cases, and a sentence."""
    cells = (
        (
            each.theorem, each.case.problem, each.case.run, f'{each.predicted:.0f}',
            '-' if each.measured is None else str(each.measured),
            'EXCEEDED' if each.exceeded else '-' if each.ratio is None else f'{each.ratio:.3g}',
            f'{BARS[each.theorem[0]]:g}',
        )
        for each in found
    )  # fmt: skip
    yield tables.table(
        f'Worst cases: iterations until {TARGET:g} of the start',
        ('theorem', 'problem', 'run', 'predicted', 'measured', 'loose', 'bar'), cells, names=3,
        caption='at the step for this target; averages of seeds where something is random',
    )  # fmt: skip
    near = '; '.join(
        f'{name} within '
        + ' and '.join(f'{e.ratio:.2f}' for e in found if e.theorem == name and e.ratio)
        for name in dict.fromkeys(each.theorem for each in found)
    )
    yield f'Worst cases attain their bounds: {near}.'
    missed = [e.theorem for e in found if e.ratio is None or e.ratio > BARS[e.theorem[0]]]
    yield f'{len(found) - len(missed)} of {len(found)} are within the bars.'


def csv_row(each: Found) -> dict[str, Any]:
    """What was predicted and measured."""
    constants = each.case.constants
    return {
        'theorem': each.theorem,
        'problem': each.case.problem,
        'run': each.case.run,
        'condition': constants.L / constants.mu,
        'predicted': each.predicted,
        'measured': each.measured,
        'exceeded': each.exceeded,
    }
