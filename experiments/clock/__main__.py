"""Protocols on a clock: `python -m experiments.clock`.

Every protocol of `gradzip.clock` runs with constant, exponential, log-normal and Pareto computing
times, and with workers of two speeds. The seconds of a step in the simulation are compared with
those that `clock.predict` computes without one. Then workers of many speeds run as many steps as
the theorems of `gradzip.theory` need for a target, beside the seconds that these promise. A last
run takes ten million events.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from experiments import figures, tables
from experiments.clock import report, runs
from experiments.clock.draw import draw
from experiments.options import refuse, whole_numbers

WORKERS, QUICK_WORKERS = '10,100,1000', '10,30'
GRADIENTS, QUICK_GRADIENTS = 400, 200  # that a worker computes in a run, about

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    workers: Annotated[
        str | None,
        typer.Option(metavar='COUNT,COUNT,...', help=f'How many; {WORKERS} by default.'),
    ] = None,
    quick: Annotated[
        bool, typer.Option('--quick', help=f'{QUICK_WORKERS} workers, short runs: seconds.')
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help='Of all random times.')] = 0,
    out: Annotated[Path, typer.Option(help='Folder for text, CSV and figure.')] = Path(
        'experiments/output/clock'
    ),
) -> None:
    """Simulated seconds of a step beside predicted ones, for protocols, times and workers.

    Ends with exit code 1 if they are more than 1.5 times apart.
    """
    try:
        counts = whole_numbers('--workers', workers or (QUICK_WORKERS if quick else WORKERS), 4)
    except ValueError as error:
        raise refuse(error) from None
    out.mkdir(parents=True, exist_ok=True)
    console = tables.console()
    jobs = [(n, times) for n in counts for times in runs.TIMES]
    gradients = QUICK_GRADIENTS if quick else GRADIENTS
    results = []
    for n, times in track(jobs, 'clocks', console=console, transient=True):
        results += runs.run(times, n, gradients, seed)
    bounds = {n: list(runs.until_target(n, seed)) for n in counts}
    reached = [r for rows in bounds.values() for row in rows for r in row.results]
    says = [
        report.compared('Seconds of a step', results),
        report.compared('Seconds until the target', reached),
        *([] if quick else [report.timed(*runs.timed(seed))]),
    ]
    figures.save(draw(results), out / 'clock.png')
    tables.write_csv(out / 'runs.csv', map(report.csv_row, results))
    shown = [report.table(n, [r for r in results if r.workers == n]) for n in counts]
    tables.show(console, out / 'clock.txt', *shown, report.targets(bounds), *says)
    console.print(f'Files in {out}.')
    if not all(1 / runs.BAR <= r.ratio <= runs.BAR for r in [*results, *reached]):
        raise typer.Exit(1)


if __name__ == '__main__':
    app(prog_name='python -m experiments.clock')
