"""What was predicted and measured, for people (tables, sentences) and for programs (CSV files)."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.theorems.algorithms import HYPERPARAMETERS
from experiments.theorems.runs import ERRORS, TARGET, Case, Run, by_case

POINTS = 200  # of a curve in curves.csv


def table(case: Case, runs: list[Run]) -> Table:
    """One row for each algorithm, delay and scheme."""
    problem, constants = case.problem, case.constants
    seeds = max(run.distance.shape[1] for run in runs)
    out = Table(
        title=f'{problem.name} ({problem.kind.replace("_", " ")}): {len(problem.y)} examples, '
        f'{problem.features} features, {problem.workers} workers, L / mu = '
        f'{constants.L / constants.mu:.3g}',
        caption=f'iterations and kbit (of all workers together) until E|x - x*|^2 is at {TARGET:g} '
        'of its start: by the theorem, and by the run '
        f'(average of {seeds} seeds). floor: where the bound ends, as a share of the start, if '
        'above the target. loose: predicted over measured (where the bound stays above: its floor '
        'over where the run ended). *: a shorter step, as the floor of the longest lies above the '
        f'start. -: no theorem, or not reached. {HYPERPARAMETERS}',
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    out.add_column('algorithm', no_wrap=True)
    out.add_column('scheme', no_wrap=True)
    for name in ('step L', 'predicted', 'measured', 'loose', 'kbit pred.', 'kbit meas.'):
        out.add_column(name, justify='right', no_wrap=True, min_width=len(name))
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        last = following is None or following.row.title != run.row.title
        out.add_row(run.row.title, run.row.scheme.label, *_figures(run), end_section=last)
    return out


def _figures(run: Run) -> tuple[str, ...]:
    row, predicted = run.row, run.predicted
    step = f'{row.step_size * run.case.constants.L:.3g}{"*" if row.shortened else ""}'
    measured = '-' if run.measured is None else str(run.measured)
    if run.exceeded:
        measured = f'[bold red]{measured} EXCEEDED[/]'
    loose = '-' if run.looseness is None else f'{run.looseness:.2g}'
    return (
        step,
        _predicted(run),
        measured,
        loose,
        _kbit(run, None if predicted is None or math.isinf(predicted) else predicted),
        _kbit(run, run.measured),
    )


def _predicted(run: Run) -> str:
    if run.predicted is None or run.row.bound is None:
        return '-'
    if math.isinf(run.predicted):
        return f'floor {run.row.bound.floor / run.mean[0]:.2g}'
    return str(int(run.predicted))


def _kbit(run: Run, iterations: float | None) -> str:
    bits = run.bits_until(iterations)
    return '-' if bits is None else f'{bits / 1000:.4g}'


def findings(runs: list[Run]) -> list[str]:
    """The result in sentences."""
    return [_bounds(runs), _looseness(runs), *(_cheapest(*each) for each in by_case(runs))]


def _bounds(runs: list[Run]) -> str:
    """Whether every average stayed below its bound."""
    covered = [run for run in runs if run.bound is not None]
    wrong = [
        f'{run.row.title}, {run.row.scheme.label} on {run.case.problem.name}'
        for run in covered
        if run.exceeded
    ]
    if wrong:
        return f'[bold red]BOUND EXCEEDED[/]: {"; ".join(wrong)}.'
    iterations = sum(len(run.mean) for run in covered)
    later = [run for run in covered if len(run.mean) > run.row.shift + 1]
    largest = max(later, key=_largest_later, default=None)
    attained = (
        ''
        if largest is None
        else f' The nearest was {largest.row.title} with {largest.row.scheme.label} on '
        f'{largest.case.problem.name}: at most {_largest_later(largest):.3f} of its bound after '
        'the start'
        + (f', within {ERRORS} standard errors.' if _largest_later(largest) > 1 else '.')
    )
    return (
        f'No bound was exceeded: {len(covered)} runs, {iterations:,} iterations compared.{attained}'
    )


def _largest_later(run: Run) -> float:
    """The largest average over bound, the start aside, where they are equal."""
    assert run.bound is not None
    first = run.row.shift + 1
    return float(np.max(run.mean[first:] / run.bound[first:]))


def _looseness(runs: list[Run]) -> str:
    """How far theorems and runs are apart."""
    found = [
        run.looseness
        for run in runs
        if run.looseness is not None and run.predicted is not None and math.isfinite(run.predicted)
    ]
    above = sum(run.predicted is not None and math.isinf(run.predicted) for run in runs)
    if not found:
        return f'No bound reaches the target; {above} end above it.'
    return (
        f'Iterations predicted over measured: {statistics.median(found):.2g} in the median of '
        f'{len(found)} runs, from {min(found):.2g} to {max(found):.2g}; the bounds of {above} more '
        'have their floor above the target.'
    )


def _cheapest(case: Case, runs: list[Run]) -> str:
    """The scheme with the fewest measured bits for each algorithm, and whether theory knew."""
    parts, known, asked = [], 0, 0
    for title in dict.fromkeys(run.row.title for run in runs):
        here = [run for run in runs if run.row.title == title and run.measured is not None]
        none = next((run for run in here if run.row.scheme.name == 'none'), None)
        if none is None or len(here) < 2:
            continue
        best = min(here, key=lambda run: run.bits_until(run.measured) or 0)
        saving = (none.bits_until(none.measured) or 0) / max(1, best.bits_until(best.measured) or 0)
        parts.append(f'{best.row.scheme.label} for {title} ({saving:.2g})')
        bounded = [run for run in here if run.predicted is not None and run.predicted < math.inf]
        if bounded:
            asked += 1
            covered = min(bounded, key=lambda run: run.bits_until(run.measured) or 0)
            known += min(bounded, key=lambda run: run.bits_until(run.predicted) or 0) is covered
    return (
        f'{case.problem.name}: fewest bits, in brackets how many times fewer than without '
        f'compression: {"; ".join(parts)}. Of the schemes whose bound reaches the target, the one '
        f'predicted to be cheapest was so in {known} of {asked} cases.'
    )


def write_runs(path: Path, runs: list[Run], settings: dict[str, object]) -> None:
    """One row a run, with everything that it was made of."""
    rows = [_row(run) | settings for run in runs]
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _row(run: Run) -> dict[str, object]:
    row, problem, constants = run.row, run.case.problem, run.case.constants
    bound = row.bound
    return {
        'data': problem.name,
        'kind': problem.kind,
        'algorithm': row.algorithm,
        'delay': repr(row.delay),
        'scheme': row.scheme.name,
        'compressor': repr(row.scheme.compressor),
        'theorem': '' if bound is None else bound.theorem,
        'workers': problem.workers,
        'features': problem.features,
        'L': constants.L,
        'mu': constants.mu,
        'L_max': constants.L_max,
        'G': constants.G,
        'V0': constants.V0,
        'step_size': row.step_size,
        'shortened': row.shortened,
        'factor': '' if bound is None else bound.factor,
        'bound_floor': '' if bound is None else bound.floor,
        'bits_per_message': run.bits,
        'messages_per_iteration': row.messages,
        'target': run.case.target,
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
        'seconds': round(run.seconds, 2),
    }


def write_curves(path: Path, runs: list[Run]) -> None:
    """Average and bound at iterations spaced evenly in the logarithm, as shares of the start."""
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            ('data', 'algorithm', 'delay', 'scheme', 'iteration', 'bits', 'average', 'bound')
        )
        for run in runs:
            name = run.case.problem.name, run.row.algorithm, run.row.delay, run.row.scheme.name
            for k in spaced(len(run.mean) - 1):
                bound = '' if run.bound is None else f'{run.bound[k] / run.mean[0]:.6e}'
                average = f'{run.mean[k] / run.mean[0]:.6e}'
                writer.writerow((*name, k, run.bits_until(k), average, bound))


def spaced(iterations: int) -> list[int]:
    """0, and up to POINTS iterations, the first all and then ever fewer."""
    points = np.geomspace(1, max(1, iterations), POINTS).round().astype(int)
    return np.unique([0, *points[points <= iterations]]).tolist()
