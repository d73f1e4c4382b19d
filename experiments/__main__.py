"""The command line of the main job: `python -m experiments --help`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from experiments import data, tables
from experiments.options import refuse, some_of, whole_numbers
from experiments.problems import split
from experiments.simulate import run_jobs
from experiments.theorems import figures, report
from experiments.theorems.algorithms import SCHEMES, rows
from experiments.theorems.runs import Run, by_problem, length_of, like_of, run

DATA = ('diabetes', 'breast_cancer', 'digits')
DELAYS = '4,16'  # half of the eight workers late; every worker two rounds late
SEEDS = 24
REGULARISATION = 0.05  # lam as a share of the data's curvature: L / mu is 21 for every data set
MOST = 20_000  # iterations of a run; the longest prediction is 18 000
QUICK_DATA, QUICK_DELAYS, QUICK_SEEDS, QUICK_MOST = ('diabetes', 'breast_cancer'), '4', 8, 1500

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
    out: Annotated[Path, typer.Option(help='Folder for tables, CSV file and figures.')] = Path(
        'experiments/output'
    ),
    workers: Annotated[int, typer.Option(help='Among whom the examples are split.')] = 8,
    schemes: Annotated[
        str,
        typer.Option(metavar='NAME,NAME,...', help='Some of these, the default.'),
    ] = ','.join(s.name for s in SCHEMES),
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
    slowest: Annotated[
        bool,
        typer.Option(
            '--slowest',
            help='Start as far from the optimum, but along its slowest direction: what is loose '
            'then is due to the theorems.',
        ),
    ] = False,
) -> None:
    """Compressed and late gradients, at the step-sizes of their theorems, under their bounds.

    Writes tables.txt, runs.csv and figures. Ends with exit code 1 if a bound was exceeded.
    """
    console = tables.console()
    names = dict.fromkeys(data_sets or (QUICK_DATA if quick else DATA))
    try:
        problems = [
            split(data.load(name), workers, split_seed, REGULARISATION, slowest) for name in names
        ]
        late = whole_numbers('--delays', delays or (QUICK_DELAYS if quick else DELAYS), 1)
        chosen = some_of('--schemes', schemes, [scheme.name for scheme in SCHEMES])
        if workers < 2:
            raise ValueError(
                f'--workers must be at least 2, of whom a mini-batch takes two; got {workers}.'
            )
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        raise refuse(error) from None
    count = seeds or (QUICK_SEEDS if quick else SEEDS)
    limit = most or (QUICK_MOST if quick else MOST)
    jobs = []
    for problem in problems:
        for row in rows(problem.constants, like_of(problem), late, chosen):
            title = f'{problem.name}, {row.title}, {row.scheme.label}'
            length = length_of(problem, row, limit)
            jobs.append((title, length, functools.partial(run, problem, row, length, count)))
    runs: list[Run] = run_jobs(jobs, console)
    settings = {'seeds': count, 'split_seed': split_seed}
    tables.write_csv(out / 'runs.csv', (report.csv_row(r) | settings for r in runs))
    figures.draw(runs, out)
    shown = [report.table(*own) for own in by_problem(runs)]
    said = [*report.findings(runs), report.restricted(runs, late, chosen)]
    tables.show(console, out / 'tables.txt', *shown, *said)
    console.print(f'Tables, runs.csv and figures are in {out}.')
    if any(r.exceeded for r in runs):
        raise typer.Exit(1)


if __name__ == '__main__':
    app(prog_name='python -m experiments')
