"""What was predicted and measured: a table for each problem, sentences, and a row a run."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from rich.table import Table

from experiments import tables
from experiments.problems import Problem
from experiments.theorems.algorithms import HYPERPARAMETERS, rows
from experiments.theorems.runs import ERRORS, TARGET, Run, by_problem, like_of, target_of

HEADS = (
    'algorithm', 'scheme', 'step L', 'predicted', 'measured', 'loose', 'kbit pred.', 'kbit meas.',
)  # fmt: skip


def table(problem: Problem, runs: list[Run]) -> Table:
    """One row for each algorithm, delay and scheme."""
    constants, seeds = problem.constants, max(run.distance.shape[1] for run in runs)
    title = (
        f'{problem.name} ({problem.risk.kind.replace("_", " ")}): {problem.examples} examples, '
        f'{problem.features} features, {problem.workers} workers, L / mu = '
        f'{constants.L / constants.mu:.3g}'
    )
    caption = (
        f'iterations and kbit (of all workers together) until E|x - x*|^2 is at {TARGET:g} '
        'of its start: by the theorem, and by the run '
        f'(average of {seeds} seeds). loose: predicted over measured. *: a step shorter than the '
        'longest of the theorem, whose bound reaches the target later, or whose floor is above it. '
        f'-: no theorem, or not reached. {HYPERPARAMETERS}'
    )
    return tables.table(title, HEADS, map(_cells, runs), names=2, caption=caption)


def _cells(run: Run) -> tuple[str, ...]:
    row, predicted = run.row, run.predicted
    measured = '-' if run.measured is None else str(run.measured)
    if run.exceeded:
        measured = f'[bold red]{measured} EXCEEDED[/]'
    return (
        row.title,
        row.scheme.label,
        f'{row.step_size * run.problem.constants.L:.3g}{"*" if row.shortened else ""}',
        '-' if predicted is None else str(int(predicted)),
        measured,
        '-' if run.looseness is None else f'{run.looseness:.2g}',
        _kbit(run, predicted),
        _kbit(run, run.measured),
    )


def _kbit(run: Run, iterations: float | None) -> str:
    bits = run.bits_until(iterations)
    return '-' if bits is None else f'{bits / 1000:.4g}'


def findings(runs: list[Run]) -> list[str]:
    """The result in sentences."""
    return [_bounds(runs), _looseness(runs), *(_cheapest(*each) for each in by_problem(runs))]


def _bounds(runs: list[Run]) -> str:
    """Whether every average stayed below its bound."""
    covered = [run for run in runs if run.bound is not None]
    wrong = [
        f'{run.row.title}, {run.row.scheme.label} on {run.problem.name}'
        for run in covered
        if run.exceeded
    ]
    if wrong:
        return f'[bold red]BOUND EXCEEDED[/]: {"; ".join(wrong)}.'
    said = (
        f'No bound was exceeded: {len(covered)} runs, {sum(len(run.mean) for run in covered):,} '
        'iterations compared.'
    )
    nearest = max(covered, key=lambda run: run.ratio_later, default=None)
    if nearest is None or not nearest.ratio_later:
        return said
    chance = f', within {ERRORS} standard errors.' if nearest.ratio_later > 1 else '.'
    return (
        f'{said} The nearest was {nearest.row.title} with {nearest.row.scheme.label} on '
        f'{nearest.problem.name}: at most {nearest.ratio_later:.3f} of its bound after the '
        f'start{chance}'
    )


def _looseness(runs: list[Run]) -> str:
    """How far theorems and runs are apart."""
    found = [run.looseness for run in runs if run.looseness is not None]
    if not found:
        return 'No run with a theorem reaches the target.'
    return (
        f'Iterations predicted over measured: {statistics.median(found):.2g} in the median of '
        f'{len(found)} runs, from {min(found):.2g} to {max(found):.2g}.'
    )


def restricted(runs: list[Run], late: list[int], names: list[str]) -> str:
    """The predictions with the least curvature in the ball around the optimum as mu."""
    larger, ratios = [], []
    for problem, own in by_problem(runs):
        here = problem.restricted
        larger.append(f'{here.mu / problem.constants.mu:.6f} on {problem.name}')
        again = rows(here, like_of(problem), late, names) if here != problem.constants else ()
        other = {(row.title, row.scheme.name): row for row in again}
        for run in own:
            row = other.get((run.row.title, run.row.scheme.name), run.row)
            if row.bound is not None and run.measured:
                ratios.append(row.predicted(target_of(problem)) / run.measured)
    inside = [bool(np.all(run.distance <= run.distance[0] * (1 + 1e-6))) for run in runs]
    if not ratios:
        return ''
    return (
        'The curvature within the distance of the start to the optimum is as many times mu: '
        f'{", ".join(larger)}. With it, iterations predicted over measured are '
        f'{statistics.median(ratios):.2g} in the median. In {sum(inside)} of {len(inside)} runs no '
        'seed was ever farther away.'
    )


def _cheapest(problem: Problem, runs: list[Run]) -> str:
    """The scheme with the fewest measured bits for each algorithm, and whether theory knew."""
    parts, known, asked = [], 0, 0
    for title in dict.fromkeys(run.row.title for run in runs):
        here = [run for run in runs if run.row.title == title and run.measured is not None]
        none = next((run for run in here if run.row.scheme.name == 'none'), None)
        if none is None or len(here) < 2:
            continue
        best = min(here, key=_bits)
        parts.append(
            f'{best.row.scheme.label} for {title} ({_bits(none) / max(1, _bits(best)):.2g})'
        )
        bounded = [run for run in here if run.predicted is not None]
        if bounded:
            asked += 1
            cheapest = min(bounded, key=lambda run: run.bits_until(run.predicted) or 0)
            known += cheapest is min(bounded, key=_bits)
    return (
        f'{problem.name}: fewest bits, in brackets how many times fewer than without '
        f'compression: {"; ".join(parts)}. Of the schemes with a theorem, the one predicted to be '
        f'cheapest was so in {known} of {asked} cases.'
    )


def _bits(run: Run) -> float:
    return run.bits_until(run.measured) or 0


def csv_row(run: Run) -> dict[str, Any]:
    """Everything that a run was made of, and what came out."""
    row, problem, constants, bound = run.row, run.problem, run.problem.constants, run.row.bound
    return {
        'data': problem.name,
        'kind': problem.risk.kind,
        'algorithm': row.algorithm,
        'delay': repr(row.delay),
        'scheme': row.scheme.name,
        'compressor': repr(row.scheme.compressor),
        'theorem': '' if bound is None else bound.theorem,
        'workers': problem.workers,
        'features': problem.features,
        **{name: getattr(constants, name) for name in ('L', 'mu', 'L_max', 'G', 'V0')},
        'step_size': row.step_size,
        'shortened': row.shortened,
        'factor': '' if bound is None else bound.factor,
        'bound_floor': '' if bound is None else bound.floor,
        'bits_per_message': run.bits,
        'messages_per_iteration': row.messages,
        'target': target_of(problem),
        'predicted_iterations': run.predicted,
        'measured_iterations': run.measured,
        'predicted_bits': run.bits_until(run.predicted),
        'measured_bits': run.bits_until(run.measured),
        'looseness': run.looseness,
        'largest_ratio': run.ratio,
        'exceeded': run.exceeded,
        'iterations': len(run.mean) - 1,
        'run_seeds': run.distance.shape[1],
        'final': run.mean[-1],
    }
