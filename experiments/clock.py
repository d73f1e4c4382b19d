"""Protocols on a clock: `python -m experiments.clock`.

Every protocol of `gradzip.clock` runs with constant, exponential, log-normal and Pareto computing
times, and with workers of two speeds. The seconds of a step in the simulation are compared with
those that `clock.predict` computes without one. A last run takes ten million events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from matplotlib.figure import Figure
from rich.progress import track

from experiments import figures, tables
from experiments.options import refuse, whole_numbers
from gradzip import clock

WORKERS, QUICK_WORKERS = '10,100,1000', '10,30'
GRADIENTS, QUICK_GRADIENTS = 400, 200  # that a worker computes in a run, about
START = 4  # of the steps of a run, a 1 / START is left out: workers start together
BAR = 1.5  # how far apart simulated and predicted seconds may be, as a factor
MANY, MANY_WORKERS = 10_000_000, 1000  # events and workers of the last run
MEAN = 1.0  # seconds
SLOWER = 4.0  # times, of a quarter of the workers
TIMES = {
    'constant': (clock.Constant(MEAN),),
    'exponential': (clock.Exponential(MEAN),),
    'log-normal': (clock.LogNormal(MEAN, sigma=1.0),),
    'Pareto': (clock.Pareto(MEAN, alpha=2.0),),  # whose variance is infinite
    'two speeds': (*[clock.Exponential(MEAN)] * 3, clock.Exponential(SLOWER * MEAN)),
}
SHOWN = 'exponential', 100  # times and workers of the delays in the figure
COLORS = {
    'Synchronous': figures.GREY,
    'MSynchronous': figures.WINE,
    'Quorum': figures.VERMILION,
    'RoundRobin': figures.PINK,
    'BoundedStaleness': figures.ORANGE,
    'Rennala': figures.GREEN,
    'Ringmaster': figures.SKY,
    'Asynchronous': figures.BLUE,
}
MARKERS = dict(zip(TIMES, 'osD^v', strict=True))


class Result(NamedTuple):
    """One run, and what was predicted of it."""

    times: str
    workers: int
    run: clock.Run
    seconds: float  # of a step, after the start
    predicted: float

    @property
    def name(self) -> str:
        return type(self.run.protocol).__name__

    @property
    def gradients(self) -> float:
        """Used in a second."""
        return float(self.run.used.sum()) / self.run.steps / self.seconds


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
    jobs = [(n, times) for n in counts for times in TIMES]
    gradients = QUICK_GRADIENTS if quick else GRADIENTS
    results = []
    for n, times in track(jobs, 'clocks', console=console, transient=True):
        results += run(times, n, gradients, seed)
    says = [compared(results), *([] if quick else [timed(seed)])]
    figures.save(draw(results), out / 'clock.png')
    tables.write_csv(out / 'runs.csv', map(csv_row, results))
    shown = [report(n, [r for r in results if r.workers == n]) for n in counts]
    tables.show(console, out / 'clock.txt', *shown, *says)
    console.print(f'Files in {out}.')
    if not all(1 / BAR <= r.seconds / r.predicted <= BAR for r in results):
        raise typer.Exit(1)


def protocols(n: int) -> list[clock.Protocol]:
    """Every protocol, with constants for so many workers."""
    return [
        clock.Synchronous(),
        clock.MSynchronous(n // 2),
        clock.Quorum(n // 2),
        clock.RoundRobin(),
        clock.BoundedStaleness(4),
        clock.Rennala(n),
        clock.Ringmaster(n),
        clock.Asynchronous(),
    ]


def run(times: str, n: int, gradients: int, seed: int) -> Iterator[Result]:
    """All protocols with one kind of times, on the same seed."""
    speeds = TIMES[times]
    compute = [speeds[w % len(speeds)] for w in range(n)]
    for protocol in protocols(n):
        match protocol:
            case clock.Synchronous() | clock.MSynchronous() | clock.Rennala():
                steps = gradients
            case clock.Quorum():
                steps = 2 * gradients
            case _:
                steps = n * gradients
        found = clock.simulate(protocol, compute, steps=steps, seed=seed)
        first = steps // START
        seconds = (found.step_seconds[-1] - found.step_seconds[first]) / (steps - 1 - first)
        yield Result(times, n, found, float(seconds), clock.predict(protocol, compute))


def report(n: int, results: list[Result]) -> Any:
    """A table of all runs with so many workers."""
    heads = [
        'times', 'protocol', 'ms a step', 'predicted', 'ratio', 'gradients used a second',
        'delay: mean', '95 %', 'longest', 'dropped', 'busy', 'useful',
    ]  # fmt: skip
    rows = []
    for r in results:
        delays, dropped = r.run.delays, 1 - r.run.used.mean()
        rows.append(
            [
                r.times, str(r.run.protocol), f'{1e3 * r.seconds:,.4g}',
                f'{1e3 * r.predicted:,.4g}', f'{r.seconds / r.predicted:.2f}',
                f'{r.gradients:,.4g}', f'{delays.mean():,.4g}',
                f'{np.quantile(delays, 0.95):,.0f}', f'{delays.max():,}', f'{dropped:.0%}',
                f'{r.run.utilisation.mean():.0%}', f'{r.run.useful.mean():.0%}',
            ]
        )  # fmt: skip
    return tables.table(f'{n:,} workers', heads, rows, names=2)


def compared(results: list[Result]) -> str:
    """How far the simulation is from the predictions."""
    ratios = np.array([r.seconds / r.predicted for r in results])
    far = results[int(np.argmax(abs(np.log(ratios))))]
    return (
        f'Simulated over predicted seconds of a step: from {ratios.min():.2f} to '
        f'{ratios.max():.2f} in {len(results)} runs, {np.median(ratios):.2f} in the median. The '
        f'farthest is {far.run.protocol} with {far.workers:,} workers, times {far.times}.'
    )


def timed(seed: int) -> str:
    """How long the clock takes for many events."""
    start = time.perf_counter()
    protocol, compute = clock.Asynchronous(), clock.Exponential(MEAN)
    found = clock.simulate(protocol, compute, workers=MANY_WORKERS, steps=MANY, seed=seed)
    seconds = time.perf_counter() - start
    return (
        f'The clock made {len(found.worker):,} events of {found.workers:,} asynchronous workers '
        f'with exponential times in {seconds:.1f} s.'
    )


def csv_row(r: Result) -> dict[str, Any]:
    """One run."""
    return {
        'times': r.times, 'workers': r.workers, 'protocol': str(r.run.protocol),
        'seconds': r.seconds, 'predicted': r.predicted, 'gradients_per_second': r.gradients,
        'mean_delay': r.run.delays.mean(), 'longest_delay': r.run.delays.max(),
        'dropped': 1 - r.run.used.mean(), 'utilisation': r.run.utilisation.mean(),
        'useful': r.run.useful.mean(),
    }  # fmt: skip


def draw(results: list[Result]) -> Figure:
    """Predictions, what workers do with their time, and how late gradients are used."""
    figure, panels = figures.panels(1, 3, (4.6, 4.0))
    for r in results:
        style = {'color': COLORS[r.name], 'marker': MARKERS[r.times], 'linestyle': ''}
        panels[0, 0].plot(r.predicted, r.seconds / r.predicted, fillstyle='none', **style)
    for ratio in (1 / BAR, 1, BAR):
        panels[0, 0].axhline(ratio, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    panels[0, 0].set(
        xscale='log', yscale='log', ylim=(0.5, 2), xlabel='seconds of a step, predicted',
        ylabel='simulated / predicted', title='the prediction',
    )  # fmt: skip
    panels[0, 0].set_yticks(
        [0.5, 1 / BAR, 1, BAR, 2], ['0.5', '1/1.5', '1', '1.5', '2'], minor=False
    )
    panels[0, 0].minorticks_off()
    times, n = SHOWN[0], min((r.workers for r in results), key=lambda x: abs(x - SHOWN[1]))
    chosen = [r for r in results if (r.times, r.workers) == (times, n)]
    for i, r in enumerate(chosen):
        panels[0, 1].barh(i, r.run.utilisation.mean(), color=COLORS[r.name], alpha=0.35)
        panels[0, 1].barh(i, r.run.useful.mean(), color=COLORS[r.name])
        counts = r.run.histogram / r.run.used.sum()
        late = 1 - np.cumsum(counts)[:-1]  # later than 0, 1, ... steps
        if len(late):
            panels[0, 2].plot(np.arange(1, len(counts)), late, color=COLORS[r.name])
    panels[0, 1].set_yticks(range(len(chosen)), [r.name for r in chosen])
    panels[0, 1].invert_yaxis()
    panels[0, 1].set(
        xlim=(0, 1), xlabel='share of the time: computing, of it used',
        title=f'{n} workers, {times} times',
    )  # fmt: skip
    panels[0, 2].set(
        xscale='log', yscale='log', ylim=(1e-4, 1.2), xlabel='steps late, at least',
        ylabel='share of the gradients', title=f'{n} workers, {times} times',
    )  # fmt: skip
    marks = [(t, {'marker': m, 'color': '0.3', 'linestyle': ''}) for t, m in MARKERS.items()]
    lines = [(name, {'color': color}) for name, color in COLORS.items()]
    figures.legend(figure, [*lines, *marks], columns=7)
    return figure


if __name__ == '__main__':
    app(prog_name='python -m experiments.clock')
