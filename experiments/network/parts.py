"""The two parts of the experiment: a bare gradient, and a transformer in training."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, RenderableType

from experiments.exchanges import EXACT
from experiments.models import Size
from experiments.network import measure, predictions, report, training
from experiments.network.links import Link, Network
from experiments.network.measure import UNLIMITED, Row
from experiments.network.workers import Workers, workers_on
from experiments.network.workloads import workload

WIDTH = 150  # of tables in files
PATIENCE = 4  # times the exact mean's steps, after which a scheme is given up


class Part(enum.StrEnum):
    """What is exchanged."""

    gradient = 'gradient'
    training = 'training'


class Choice(NamedTuple):
    """What is measured, and how long."""

    links: list[Link]
    schemes: list[str]  # the exact mean among them
    rounds: int
    rows: int  # of the matrix
    size: Size  # of the transformer
    steps: int  # of the exact mean, whose loss then is the target
    full: Link | None  # where the training is run in full


def gradient_part(made: Network, choice: Choice, out: Path, console: Console) -> None:
    """Step times of every scheme on every link, and what the cost model said."""
    words, name = {'rows': choice.rows}, f'{len(made.names)}'
    with workers_on(made, words) as workers:
        rows, model = _step_times(workers, choice, words, console)
    predicted = predictions.predict(model, rows)
    report.write(out / f'steps_{name}.csv', rows)
    report.draw(out / f'steps_{name}.png', rows, choice.rows**2)
    predictions.write(out / f'predicted_{name}.csv', predicted)
    predictions.draw(out / f'predicted_{name}.png', predicted)
    said = [*report.findings(rows), *predictions.findings(model, predicted)]
    _show(console, out / f'table_{name}.txt', report.table(rows), said)


def training_part(made: Network, choice: Choice, out: Path, console: Console) -> None:
    """Steps of every scheme to the same loss, its step times, and one link in full."""
    words, name = dataclasses.asdict(choice.size), f'{len(made.names)}'
    with workers_on(made, words) as workers:
        rows, model = _step_times(workers, choice, words, console)
        made.limit(UNLIMITED)
        ways = _ways(workers, choice, console)
        target = ways[EXACT].target
        said = training.findings(rows, ways)
        if choice.full in choice.links:
            said += _in_full(workers, choice, rows, ways, target)
    predicted = predictions.predict(model, rows)
    training.write(out / f'training_{name}.csv', rows, ways)
    training.draw(out / f'training_{name}.png', rows, ways, target)
    predictions.write(out / f'training_predicted_{name}.csv', predicted)
    said += predictions.findings(model, predicted)
    _show(console, out / f'training_{name}.txt', training.table(rows, ways, target), said)


def _step_times(
    workers: Workers, choice: Choice, words: dict, console: Console
) -> tuple[list[Row], predictions.Model]:
    sizes = measure.sizes(workers, choice.schemes)
    offline = {scheme: measure.offline(workers, scheme) for scheme in choice.schemes}
    slower = measure.slower(workers)
    [free] = measure.steps(workers, [UNLIMITED], [EXACT], choice.rounds, sizes)
    rows = []
    for row in measure.steps(workers, choice.links, choice.schemes, choice.rounds, sizes):
        rows.append(row)
        where, took = report.label(row.link), row.median * 1e3
        console.print(f'{where:>18}  {row.scheme:28} {took:10,.1f} ms', highlight=False)
    shapes = workload(words).shapes
    return rows, predictions.model(offline, shapes, workers.count, free.median, slower)


def _ways(workers: Workers, choice: Choice, console: Console) -> training.Ways:
    """How every scheme gets where the exact mean is after so many steps."""
    ways, target = {}, None
    for scheme in choice.schemes:  # the exact mean is the first
        most = choice.steps if target is None else PATIENCE * choice.steps
        ways[scheme] = way = measure.train(workers, scheme, target, most)
        target = way.target
        said = f'loss {way.losses[-1][1]:.3f} after {way.steps} steps'
        console.print(f'{"training":>18}  {scheme:28} {said}', highlight=False)
    return ways


def _in_full(
    workers: Workers, choice: Choice, rows: list[Row], ways: training.Ways, target: float
) -> list[str]:
    """The exact mean and the scheme that should be first, from the start to the loss."""
    assert choice.full is not None
    times = training.times(rows, ways)[report.label(choice.full)]
    best = min(times, key=lambda scheme: times[scheme])
    workers.network.limit(choice.full)
    whole = [measure.train(workers, s, target, ways[s].steps) for s in dict.fromkeys([EXACT, best])]
    return training.checked(report.label(choice.full), whole, times)


def _show(console: Console, path: Path, shown: RenderableType, said: list[str]) -> None:
    """On the screen and in a file."""
    with path.open('w') as file:
        Console(file=file, width=WIDTH).print(shown, '\n'.join(said), sep='\n', highlight=False)
    console.print(shown, '\n'.join(said), sep='\n')
