"""The command line of the main job: `python -m experiments --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments import data
from experiments.problems import split
from experiments.theorems import figures, report
from experiments.theorems.algorithms import SCHEMES, Row, rows
from experiments.theorems.runs import Case, case_of, run_all

DATA = ('diabetes', 'breast_cancer', 'digits')
DELAYS = '4,16'  # half of the eight workers late; every worker two rounds late
SEEDS = 24
REGULARISATION = 0.05  # lam as a share of the data's curvature: L / mu is 21 for every data set
MOST = 20_000  # iterations of a run; the longest prediction is 18 000

QUICK_DATA = ('diabetes', 'breast_cancer')
QUICK_DELAYS = '4'
QUICK_SEEDS = 8
QUICK_MOST = 1500

WIDTH = 112  # of tables where there is no terminal to ask

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    data_sets: Annotated[
        list[str] | None,
        typer.Option(
            '--data',
            metavar='NAME|PATH',
            help=f'A data set ({", ".join((*data.TARGETS, *data.BUILT_IN))}) or the path of a '
            f'LIBSVM file with two classes. Repeat for several; {", ".join(DATA)} by default.',
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            '--quick',
            help=f'Two data sets, delay {QUICK_DELAYS}, {QUICK_SEEDS} seeds, runs of at most '
            f'{QUICK_MOST} iterations: about a minute.',
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for tables, CSV files and figures.')] = Path(
        'experiments/output'
    ),
    workers: Annotated[int, typer.Option(help='Among whom the examples are split.')] = 8,
    schemes: Annotated[
        str | None,
        typer.Option(
            metavar='NAME,NAME,...',
            help=f'Some of {", ".join(s.name for s in SCHEMES)}; all by default.',
        ),
    ] = None,
    delays: Annotated[
        str | None,
        typer.Option(
            metavar='STEPS,STEPS,...', help=f'How late gradients are; {DELAYS} by default.'
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help=f'Over which a run is averaged; {SEEDS} by default.', min=2)
    ] = None,
    most: Annotated[
        int | None,
        typer.Option('--iterations', help=f'Of a run, at most; {MOST} by default.', min=1),
    ] = None,
    split_seed: Annotated[int, typer.Option('--seed', help='Of the split.')] = 0,
) -> None:
    """Compressed and late gradients, at the step-sizes of their theorems, under their bounds.

    Writes tables.txt, runs.csv, curves.csv and figures. Ends with exit code 1 if a bound was
    exceeded.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    names = data_sets or list(QUICK_DATA if quick else DATA)
    try:
        problems = [
            split(data.load(name), workers, split_seed, REGULARISATION)
            for name in dict.fromkeys(names)
        ]
        late = _delays(delays or (QUICK_DELAYS if quick else DELAYS))
        chosen = _schemes(schemes)
        _check_workers(workers)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f'Error: {error}', style='red', markup=False, highlight=False)
        raise typer.Exit(2) from None
    plan: list[tuple[Case, Row]] = []
    for problem in problems:
        case = case_of(problem)
        plan += [(case, row) for row in rows(case.constants, case.like, late, chosen)]
    count, longest = (
        seeds or (QUICK_SEEDS if quick else SEEDS),
        most or (QUICK_MOST if quick else MOST),
    )
    runs = run_all(plan, seeds=count, most=longest, console=console)
    report.write_runs(out / 'runs.csv', runs, {'seeds': count, 'split_seed': split_seed})
    report.write_curves(out / 'curves.csv', runs)
    figures.draw(runs, out)
    shown = [report.table(case, own) for case, own in report.by_case(runs)]
    found = '\n'.join(report.findings(runs))
    with (out / 'tables.txt').open('w') as file:
        Console(file=file, width=WIDTH).print(*shown, found, sep='\n')
    console.print(
        *shown, found, f'Tables, runs.csv, curves.csv and figures are in {out}.', sep='\n'
    )
    if any(run.exceeded for run in runs):
        raise typer.Exit(1)


def _schemes(schemes: str | None) -> list[str]:
    known = [scheme.name for scheme in SCHEMES]
    names = known if schemes is None else [name.strip() for name in schemes.split(',')]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'--schemes: {unknown} unknown. Choose from {", ".join(known)}.')
    return names


def _delays(delays: str) -> list[int]:
    parts = [part.strip() for part in delays.split(',')]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(
            f'--delays must be whole numbers from 1, such as {DELAYS}; got {delays!r}. Without '
            'delay runs are there anyway.'
        )
    return list(dict.fromkeys(int(part) for part in parts))


def _check_workers(workers: int) -> None:
    if workers < 2:
        raise ValueError(
            f'--workers must be at least 2, of whom a mini-batch takes two; got {workers}.'
        )


if __name__ == '__main__':
    app(prog_name='python -m experiments')
