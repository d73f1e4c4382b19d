"""What was found, for people (tables, one sentence a data set) and for programs (two CSV files)."""

from __future__ import annotations

import csv
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.comparison.methods import HYPERPARAMETERS, step_size
from experiments.comparison.runs import TARGET, Run, counterpart, saving
from experiments.problems import Problem


def table(problem: Problem, runs: list[Run]) -> Table:
    """One row for each scheme and delay."""
    out = Table(
        title=f'{problem.name}: {len(problem.weight)} examples, {problem.features} features, '
        f'{problem.workers} workers',
        caption=f'until: first at {TARGET:g} of the initial gap, to 2 %. saving: bits of exact '
        f'until then, at the same delay, over bits of the scheme. {HYPERPARAMETERS}',
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    out.add_column('delay', justify='right')
    out.add_column('scheme', no_wrap=True)
    for name in ('step', 'bits a step', 'steps until', 'kbit until', 'saving', 'final gap'):
        out.add_column(name, justify='right', min_width=5)
    mine = [run for run in runs if run.problem is problem]
    for run, following in zip(mine, [*mine[1:], None], strict=True):
        last = following is None or following.delay != run.delay
        out.add_row(str(run.delay), run.method.label, *_figures(run, mine), end_section=last)
    return out


def _figures(run: Run, runs: list[Run]) -> tuple[str, ...]:
    factor = saving(run, runs)
    final = f'[bold red]diverged[/] ({run.final:.1e})' if run.diverged else f'{run.final:.1e}'
    return (
        f'{step_size(run.method, run.problem, run.delay):.3g}',
        str(run.bits),
        '-' if run.iterations is None else str(run.iterations),
        _kbit(run),
        '-' if factor is None else f'{factor:.3g}x',
        final,
    )


def _kbit(run: Run) -> str:
    return '-' if run.bits_to_target is None else f'{run.bits_to_target / 1000:.4g}'


def findings(runs: list[Run]) -> list[str]:
    """The result in sentences."""
    out = [_best(problem, runs) for problem in dict.fromkeys(run.problem for run in runs)]
    out.append(_memory(runs))
    diverged = [
        f'{r.method.name} on {r.problem.name} at delay {r.delay}' for r in runs if r.diverged
    ]
    out.append(
        f'[bold red]DIVERGED[/]: {"; ".join(diverged)}.'
        if diverged
        else f'None of {len(runs)} runs diverged.'
    )
    return [sentence for sentence in out if sentence]


def _best(problem: Problem, runs: list[Run]) -> str:
    """The scheme with the fewest bits to the target, at each delay."""
    parts = []
    for delay in dict.fromkeys(run.delay for run in runs):
        here = [r for r in runs if r.problem is problem and r.delay == delay]
        reached = [(r.bits_to_target, r) for r in here if r.bits_to_target is not None]
        if not reached:
            parts.append(f'nothing at delay {delay}')
            continue
        run = min(reached, key=lambda pair: pair[0])[1]
        factor = saving(run, here)
        times = '' if factor is None else f', {factor:.3g} times fewer than exact'
        parts.append(f'{run.method.label} at delay {delay} ({_kbit(run)} kbit{times})')
    return f'{problem.name}: fewest bits to {TARGET:g} of the initial gap: {"; ".join(parts)}.'


def _memory(runs: list[Run]) -> str:
    """What a memory does for the biased schemes that were run with it and without."""
    pairs = [
        (plain, run)
        for run in runs
        if run.method.memory
        and (plain := counterpart(run, runs, run.method.name.removesuffix('-memory')))
    ]
    if not pairs:
        return ''
    without, with_memory = (
        sum(r.iterations is not None for r in side) for side in zip(*pairs, strict=True)
    )
    return (
        f'Memory: of {len(pairs)} runs with biased schemes, {without} reached the target without a '
        f'memory and {with_memory} with one.'
    )


def write_runs(path: Path, runs: list[Run], settings: dict[str, object]) -> None:
    """One row a run, with everything that it was made of."""
    rows = [_row(run, runs) | settings for run in runs]
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _row(run: Run, runs: list[Run]) -> dict[str, object]:
    problem = run.problem
    return {
        'data': problem.name,
        'scheme': run.method.name,
        'label': run.method.label,
        'kind': run.method.kind,
        'delay': run.delay,
        'workers': problem.workers,
        'examples': len(problem.weight),
        'features': problem.features,
        'lam': problem.lam,
        'smoothness': problem.smoothness,
        'optimal_value': float(problem.value(problem.optimum)),
        'initial_gap': problem.initial_gap,
        'step_size': step_size(run.method, run.problem, run.delay),
        'bits_per_step': run.bits,
        'padded_bits_per_step': run.padded_bits,
        'target': TARGET,
        'iterations_to_target': run.iterations,
        'bits_to_target': run.bits_to_target,
        'saving': saving(run, runs),
        'final_relative_gap': run.final,
        'diverged': run.diverged,
        'seconds': round(run.seconds, 2),
    }


def write_curves(path: Path, runs: list[Run]) -> None:
    """One row for each recorded iteration of each run."""
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(('data', 'scheme', 'delay', 'iteration', 'bits', 'relative_gap'))
        for run in runs:
            for k, gap in zip(run.curve.iteration.tolist(), run.curve.gap.tolist(), strict=True):
                name = run.problem.name, run.method.name
                writer.writerow((*name, run.delay, k, k * run.bits, f'{gap:.6e}'))
