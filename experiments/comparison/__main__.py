"""The command line: `python -m experiments.comparison --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments import data
from experiments.comparison import figures, report
from experiments.comparison.methods import METHODS, Method
from experiments.comparison.runs import compare
from experiments.comparison.simulate import Mapper, check_devices
from experiments.problems import Problem, split

ITERATIONS = 10_000  # at delay 16 the slowest unbiased scheme needs half of them to the target
QUICK_ITERATIONS = 3_000  # enough for it on breast_cancer; compiling takes longer than computing
QUICK_DATA = ('breast_cancer',)
DELAYS = '0,4,16'  # none; half the workers late; every worker two rounds late

WIDTH = 90  # of tables where there is no terminal to ask

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    data_sets: Annotated[
        list[str] | None,
        typer.Option(
            '--data',
            metavar='NAME|PATH',
            help=f'A data set ({", ".join(data.BUILT_IN)}) or the path of a LIBSVM file with two '
            'classes. Repeat for several; all three by default.',
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            '--quick', help=f'Only {QUICK_DATA[0]}, {QUICK_ITERATIONS} iterations: about a minute.'
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
            help=f'Some of {", ".join(m.name for m in METHODS)}; all by default.',
        ),
    ] = None,
    delays: Annotated[
        str, typer.Option(metavar='STEPS,STEPS,...', help='How late the gradients are.')
    ] = DELAYS,
    mapper: Annotated[
        Mapper,
        typer.Option(
            help='vmap: all workers on one device. shard_map: each on a device of its own.'
        ),
    ] = 'vmap',
    iterations: Annotated[
        int | None, typer.Option(help=f'Of every run; {ITERATIONS} by default.', min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help='Of the split and of the schemes.')] = 0,
) -> None:
    """Schemes against exact gradients, at one fixed rule for the step, on logistic regression.

    Writes tables.txt, runs.csv, curves.csv and two figures.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        names = data_sets or list(QUICK_DATA if quick else data.BUILT_IN)
        problems = _problems(names, workers, seed)
        methods, late = _methods(schemes), _delays(delays)
        check_devices(mapper, workers)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f'Error: {error}', style='red', markup=False, highlight=False)
        raise typer.Exit(2) from None
    count = iterations or (QUICK_ITERATIONS if quick else ITERATIONS)
    runs = compare(
        problems, methods, late, iterations=count, mapper=mapper, seed=seed, console=console
    )
    settings: dict[str, object] = {'iterations': count, 'mapper': mapper, 'seed': seed}
    report.write_runs(out / 'runs.csv', runs, settings)
    report.write_curves(out / 'curves.csv', runs)
    figures.draw(runs, out)
    shown = [report.table(problem, runs) for problem in problems]
    found = '\n'.join(report.findings(runs))
    with (out / 'tables.txt').open('w') as file:
        Console(file=file, width=WIDTH).print(*shown, found, sep='\n')
    console.print(
        *shown, found, f'Tables, runs.csv, curves.csv and figures are in {out}.', sep='\n'
    )


def _problems(names: list[str], workers: int, seed: int) -> list[Problem]:
    problems = [split(data.load(name), workers, seed) for name in dict.fromkeys(names)]
    titles = [problem.name for problem in problems]
    if len(set(titles)) < len(titles):
        raise ValueError(f'--data: two files have the same name in {titles}: rename one.')
    return problems


def _methods(schemes: str | None) -> list[Method]:
    known = {method.name: method for method in METHODS}
    names = list(known) if schemes is None else [name.strip() for name in schemes.split(',')]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'--schemes: {unknown} unknown. Choose from {", ".join(known)}.')
    return [known[name] for name in dict.fromkeys(names)]


def _delays(delays: str) -> list[int]:
    parts = [part.strip() for part in delays.split(',')]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(
            f'--delays must be whole numbers from 0, such as {DELAYS}; got {delays!r}.'
        )
    return list(dict.fromkeys(int(part) for part in parts))


if __name__ == '__main__':
    app(prog_name='python -m experiments.comparison')
