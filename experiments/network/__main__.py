"""Exchanges between processes on links of a set speed: `python -m experiments.network --help`."""

from __future__ import annotations

import dataclasses
import enum
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from experiments import figures, tables
from experiments.exchanges import EXACT, LOCAL, PERIODS, SCHEMES, chosen
from experiments.models import Size
from experiments.network import measure, predictions, report, utilisation
from experiments.network.links import Link, Network, NetworkError
from experiments.network.measure import UNLIMITED, Row
from experiments.network.workers import WorkerDied, Workers, terminable_network, workers_on
from experiments.network.workloads import workload
from experiments.options import refuse
from gradzip._quantities import bits_per_second, speed

SPEEDS = 'unlimited,10G,1G,100M,10M'
DELAYS = '0,1,20'  # ms each way: one room, one city, one continent
ROWS = 4096  # of a square matrix: 16.8 million entries, 67 MB of float32
ROUNDS = 2  # each link sees every scheme so often, in turn
STEPS = 150  # of the exact mean; the loss after them is the target
PATIENCE = 4  # times the exact mean's steps, after which a scheme is given up
FULL = '100M'  # the link on which the training is also run in full
QUICK_ROWS, QUICK_SPEEDS, QUICK_SCHEMES = 1024, '1G,100M', [EXACT, 'TopK 1 %']
QUICK_SIZE, QUICK_STEPS = Size(layers=1, width=64, heads=4, context=32), 20

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class Part(enum.StrEnum):
    """What is exchanged."""

    gradient = 'gradient'
    training = 'training'


class Choice(NamedTuple):
    """What is measured, and how long."""

    links: list[Link]
    schemes: list[str]  # the exact mean first; local steps count in training alone
    rounds: int
    rows: int  # of the matrix
    size: Size  # of the transformer
    steps: int  # of the exact mean, whose loss then is the target
    full: Link  # where the training is run in full


@app.command()
def main(
    workers: Annotated[int, typer.Option(min=2, max=4, help='Processes, a namespace each.')] = 2,
    speeds: Annotated[
        str, typer.Option(metavar='SPEED,...', help='Such as 250M, 10Gbit or unlimited.')
    ] = SPEEDS,
    delays: Annotated[
        str, typer.Option(metavar='MS,...', help='Each way, where the kernel can (netem).')
    ] = DELAYS,
    only: Annotated[
        list[str] | None,
        typer.Option('--scheme', metavar='NAME', help=f'Repeat for several: {[*SCHEMES, LOCAL]}.'),
    ] = None,
    part: Annotated[
        list[Part] | None, typer.Option(help='Repeat for both, which is the default.')
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            '--quick',
            help=f'A matrix of {QUICK_ROWS} rows, a small transformer, links {QUICK_SPEEDS}, two '
            'schemes: a minute.',
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for tables, CSV and figures.')] = Path(
        'experiments/output/network'
    ),
) -> None:
    """Exchanges gradients between processes on limited links, scheme by scheme. Needs root.

    First one bare gradient, then those of a transformer in training: time to the same loss. Every
    process runs in a network namespace of its own, joined by a bridge; the namespaces are removed
    at the end, also after Ctrl-C.
    """
    console = tables.console()
    try:
        choice = Choice(
            links=links_of(QUICK_SPEEDS if quick else speeds, '0' if quick else delays),
            schemes=chosen(QUICK_SCHEMES if quick and only is None else only, LOCAL),
            rounds=1 if quick else ROUNDS,
            rows=QUICK_ROWS if quick else ROWS,
            size=QUICK_SIZE if quick else Size(),
            steps=QUICK_STEPS if quick else STEPS,
            full=links_of(FULL, '0')[0],
        )
        out.mkdir(parents=True, exist_ok=True)
        begin, parts = time.time(), part or list(Part)
        with terminable_network(workers) as made:
            if any(link.delay for link in choice.links) and (reason := made.can_delay()):
                console.print(f'No delays here, this kernel cannot: {reason}')
                choice = choice._replace(links=[link for link in choice.links if not link.delay])
            if Part.gradient in parts:
                gradient_part(made, choice, out, console)
            if Part.training in parts:
                training_part(made, choice, out, console)
        console.print(f'In {time.time() - begin:.0f} s; files in {out}.')
    except (ValueError, NetworkError, WorkerDied) as error:
        raise refuse(error) from None


def gradient_part(made: Network, choice: Choice, out: Path, console: Console) -> None:
    """Step times of every scheme on every link, and what the cost model said."""
    words, name = {'rows': choice.rows}, f'{len(made.names)}'
    choice = choice._replace(schemes=[s for s in choice.schemes if s not in PERIODS])
    with workers_on(made, words) as workers:
        rows, model = _step_times(workers, choice, words, console)
    predicted = predictions.predict(model, rows)
    tables.write_csv(out / f'steps_{name}.csv', map(report.csv_row, rows))
    figures.save(report.step_figure(rows, choice.rows**2), out / f'steps_{name}.png')
    tables.write_csv(out / f'predicted_{name}.csv', map(predictions.csv_row, predicted))
    figures.save(predictions.figure(predicted), out / f'predicted_{name}.png')
    said = [*report.step_findings(rows), *predictions.findings(model, predicted)]
    tables.show(console, out / f'table_{name}.txt', report.step_table(rows), *said)


def training_part(made: Network, choice: Choice, out: Path, console: Console) -> None:
    """Steps of every scheme to the same loss, its step times, and one link in full."""
    words, name = dataclasses.asdict(choice.size), f'{len(made.names)}'
    with workers_on(made, words) as workers:
        rows, model = _step_times(workers, choice, words, console)
        made.limit(UNLIMITED)
        ways = _ways(workers, choice, console)
        said = report.training_findings(rows, ways)
        if choice.full in choice.links:
            said += _in_full(workers, choice.full, rows, ways)
    predicted = predictions.predict(model, rows)

    def line(row: Row) -> dict:
        way, own = ways[row.scheme], report.csv_row(row)
        to = f'{way.steps * row.median:.3f}' if way.reached else ''
        own = {key: own[key] for key in ('workers', 'bits_per_second', 'delay', 'scheme', 'bytes')}
        ran = {'steps_to_loss': way.steps, 'reached': way.reached, 'step': f'{row.median:.6f}'}
        return {**own, **ran, 'time_to_loss': to}

    tables.write_csv(out / f'training_{name}.csv', map(line, rows))
    figures.save(report.training_figure(rows, ways), out / f'training_{name}.png')
    compute = model.costs[EXACT].offline
    figures.save(utilisation.figure(rows, compute), out / f'utilisation_{name}.png')
    said += utilisation.findings(rows, compute)
    tables.write_csv(out / f'training_predicted_{name}.csv', map(predictions.csv_row, predicted))
    said += predictions.findings(model, predicted)
    tables.show(console, out / f'training_{name}.txt', report.training_table(rows, ways), *said)


def _step_times(
    workers: Workers, choice: Choice, words: dict, console: Console
) -> tuple[list[Row], predictions.Model]:
    sizes = measure.sizes(workers, choice.schemes)
    every_step = [scheme for scheme in choice.schemes if scheme not in PERIODS]
    offline = {scheme: measure.offline(workers, scheme) for scheme in every_step}
    slower = measure.slower(workers)
    [free] = measure.steps(workers, [UNLIMITED], [EXACT], choice.rounds, sizes)
    rows = []
    for row in measure.steps(workers, choice.links, choice.schemes, choice.rounds, sizes):
        rows.append(row)
        took = f'{row.median * 1e3:10,.1f} ms'
        console.print(f'{report.label(row.link):>18}  {row.scheme:28} {took}')
    shapes = workload(words).shapes
    return rows, predictions.model(offline, shapes, workers.count, free.median, slower)


def _ways(workers: Workers, choice: Choice, console: Console) -> dict[str, measure.Trained]:
    """How every scheme gets where the exact mean is after so many steps."""
    ways, target = {}, None
    for scheme in choice.schemes:  # the exact mean is the first
        most = choice.steps if target is None else PATIENCE * choice.steps
        ways[scheme] = way = measure.train(workers, scheme, target, most)
        target = way.target
        said = f'loss {way.losses[-1][1]:.3f} after {way.steps} steps'
        console.print(f'{"training":>18}  {scheme:28} {said}')
    return ways


def _in_full(workers: Workers, link: Link, rows: list[Row], ways: report.Ways) -> list[str]:
    """The exact mean and the scheme that should be first, from the start to the loss."""
    times = report.training_times(rows, ways)[report.label(link)]
    best = min(times, key=lambda scheme: times[scheme])
    workers.network.limit(link)
    said = []
    for scheme in dict.fromkeys([EXACT, best]):
        run = measure.train(workers, scheme, ways[EXACT].target, ways[scheme].steps)
        said.append(
            f'In full at {report.label(link)}: {scheme} took {report.duration(run.seconds)} for '
            f'{run.steps} steps; steps times step time is {report.duration(times[scheme])}.'
        )
    return said


def links_of(speeds: str, delays: str) -> list[Link]:
    """Every speed with every delay in milliseconds.

    Raises:
      ValueError: a speed or a delay that is none.
    """
    links = []
    for given in speeds.split(','):
        bits = bits_per_second('--speeds', given)
        limit = None if given == 'unlimited' else bits
        name = 'unlimited' if limit is None else speed(bits)
        for delay in delays.split(','):
            if not delay.isdecimal():
                raise ValueError(
                    f'--delays must be whole milliseconds, such as {DELAYS}; got {delay!r}.'
                )
            links.append(Link(name, limit, float(delay) / 1e3))
    return links


if __name__ == '__main__':
    app(prog_name='python -m experiments.network')
