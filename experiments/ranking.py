"""Whether `gradzip.advice.rank` picks well: every row of its table is run.

On three data sets, without delay and with delays that workers take turns in, all algorithms and
schemes of the table run from zero at their own step until a hundredth of the start. The question is
how many more bits the first row needs than the row that turns out to need the fewest, and how much
more time on links of the speeds of `python -m experiments.network`. Iterations are measured; the
time of one is what the cost model says of its collectives, which that experiment compares with
processes on such links.

`python -m experiments.ranking` takes some minutes; `--quick` has one data set and fewer seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from matplotlib.figure import Figure

import gradzip as gz
from experiments import data, figures, tables
from experiments.problems import Problem, split
from experiments.simulate import AXIS, run_jobs, simulate
from gradzip import advice

DATA = ('diabetes', 'breast_cancer', 'digits')
WORKERS, REGULARISATION = 8, 0.05  # as in the main job
TARGET = 1e-2  # of |x_0 - x*|^2
DELAYS = {'no delay': 0, 'in turns, up to 4 late': gz.Cyclic(5)}
SCHEMES = {
    'Bernoulli': gz.Bernoulli(0.25),
    'ternary': gz.Ternary('l2'),
    'QSGD': gz.QSGD(7, block=None, norm='l2'),
    'TopK': gz.TopK(0.25),
}
COLORS = {
    'exact mean': figures.GREY, 'Bernoulli': figures.BLUE, 'ternary': figures.GREEN,
    'QSGD': figures.ORANGE, 'TopK': figures.VERMILION,
}  # fmt: skip
MARKERS = {
    'distributed': 'o', 'shared draws': 's', 'diana': 'D', 'error_feedback': '^', 'ef21': 'v',
    'stale': 'P', 'iag': 'X',
}  # fmt: skip
SEEDS = 8
LINKS = ('10Gbit', '1Gbit', '100Mbit', '10Mbit')
LATENCY = '0.1ms'  # one way, as between machines of one room
MOST = 4000  # iterations of a run; a row that needs more is not the cheapest

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class Found(NamedTuple):
    """A row of a ranking, and what it took."""

    problem: str
    delay: str
    choice: advice.Choice
    measured: int | None
    steps: dict[str, float]  # seconds of an iteration, by link

    def seconds(self, link: str) -> float | None:
        """Until the run was at the target."""
        return None if self.measured is None else self.measured * self.steps[link]

    @property
    def bits(self) -> float | None:
        """Of the messages of all workers until the run was at the target."""
        if self.measured is None:
            return None
        return self.measured * self.choice.bits / max(1, self.choice.iterations)


@app.command()
def main(
    quick: Annotated[bool, typer.Option('--quick', help='One data set, two seeds.')] = False,
    out: Annotated[Path, typer.Option(help='Folder for text, CSV and figure.')] = Path(
        'experiments/output/ranking'
    ),
) -> None:
    """Ranks algorithms and schemes, runs all of them, and compares the first with the best."""
    console = tables.console()
    out.mkdir(parents=True, exist_ok=True)
    names, seeds = (DATA[:1], 2) if quick else (DATA, SEEDS)
    jobs, firsts = [], {}
    for problem in (split(data.load(name), WORKERS, 0, REGULARISATION) for name in names):
        for name in DELAYS:
            by_link = {link: ranked(problem, name, link) for link in LINKS}
            firsts[problem.name, name] = {link: of(by_link[link][0]) for link in LINKS}
            for choice in ranked(problem, name, None):
                title = f'{problem.name}, {name}: {choice.method}, {choice.scheme}'
                length = min(MOST, choice.iterations)
                steps = {link: step_of(choice, rows) for link, rows in by_link.items()}
                work = functools.partial(run, problem, name, choice, steps, length, seeds)
                jobs.append((title, length, work))
    found = run_jobs(jobs, console)
    rows = [csv_row(each) for each in found]
    tables.write_csv(out / 'ranking.csv', rows)
    figures.save(draw(rows), out / 'ranking.png')
    tables.show(console, out / 'ranking.txt', *report(found, firsts))


def ranked(problem: Problem, delay: str, link: str | None) -> advice.Ranking:
    """By seconds on a link, or by bits."""
    like = jax.ShapeDtypeStruct((problem.features,), jnp.float32)
    target = TARGET * problem.constants.need('V0', 'The table')
    network = {} if link is None else {'link': link, 'latency': LATENCY, 'collectives': 'gloo'}
    return advice.rank(
        problem.constants, SCHEMES, like, target=target, delay=DELAYS[delay], **network
    )


def of(choice: advice.Choice) -> tuple[str, str]:
    """The algorithm and the scheme, by which rows of different rankings are told apart."""
    return choice.method, choice.scheme


def step_of(choice: advice.Choice, rows: advice.Ranking) -> float:
    """Seconds of an iteration of this row, as a ranking on a link has them."""
    same = next(row for row in rows if of(row) == of(choice))
    return (same.seconds or 0.0) / max(1, same.iterations)


def run(
    problem: Problem,
    delay: str,
    choice: advice.Choice,
    steps: dict[str, float],
    length: int,
    seeds: int,
    advance: Callable[[int], Any],
) -> Found:
    """From zero; the first iteration at which the average of the seeds is at the target."""
    optimum = jnp.asarray(problem.optimum, jnp.float32)
    keys = jax.random.split(jax.random.key(0), seeds)

    def distance(w: jax.Array) -> jax.Array:
        return jnp.sum((w - optimum) ** 2)

    def make(key: jax.Array) -> Any:
        return choice.chain(AXIS, key=key)

    mean = simulate(problem, make, keys, length, distance, advance=advance).mean(axis=1)
    reached = np.flatnonzero(mean <= TARGET * problem.constants.need('V0', 'The table'))
    end = int(reached[0]) if len(reached) else None
    return Found(problem.name, delay, choice, end, steps)


def groups(found: list[Found]) -> Iterator[tuple[tuple[str, str], list[Found]]]:
    """The rows of each ranking, in its order."""
    for key in dict.fromkeys((each.problem, each.delay) for each in found):
        yield key, [each for each in found if (each.problem, each.delay) == key]


def report(found: list[Found], firsts: dict[tuple[str, str], Any]) -> Iterator[Any]:
    """A table of each ranking, and how far its first row is from the best."""
    heads = ('algorithm', 'scheme', 'predicted', 'measured', 'kbit pred.', 'kbit meas.')
    for key, rows in groups(found):
        title = ', '.join(key)
        cells = (
            (
                each.choice.method, each.choice.scheme, str(each.choice.iterations),
                '-' if each.measured is None else str(each.measured),
                f'{each.choice.bits / 1e3:.4g}',
                '-' if each.bits is None else f'{each.bits / 1e3:.4g}',
            )
            for each in rows
        )  # fmt: skip
        yield tables.table(f'{title}: until {TARGET:g} of the start', heads, cells, names=2)
    for key, rows in groups(found):
        title = ', '.join(key)
        best = min((row for row in rows if row.bits is not None), key=lambda row: row.bits or 0)
        first = rows[0]
        if first.bits is None:
            yield f'{title}: the first row did not reach the target.'
            continue
        yield (
            f'{title}: the first row, {first.choice.method} with {first.choice.scheme}, needed '
            f'{first.bits / (best.bits or 1):.3g} times the bits of the best, '
            f'{best.choice.method} with {best.choice.scheme}.'
        )
    for key, rows in groups(found):
        parts = '; '.join(in_seconds(rows, link, first) for link, first in firsts[key].items())
        yield f'{", ".join(key)}, seconds of the first row over those of the best: {parts}.'


def in_seconds(rows: list[Found], link: str, first: tuple[str, str]) -> str:
    """How much longer the first row of the ranking by seconds took than the fastest one."""
    taken = next(row for row in rows if of(row.choice) == first).seconds(link)
    least = min(row.seconds(link) or 0.0 for row in rows if row.measured is not None)
    if taken is None:
        return f'{link} never'
    return f'{link} {taken / least:.3g} ({" with ".join(first)}, {taken * 1e3:.3g} ms)'


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Bits predicted against measured, a panel for each data set and delay."""
    keys = list(dict.fromkeys((row['delay'], row['data']) for row in rows))
    columns = len(dict.fromkeys(data for _, data in keys))
    figure, panels = figures.panels(-(-len(keys) // columns), columns, (3.6, 3.2))
    for panel, key in zip(
        panels.flat, sorted(keys, key=lambda key: key[0] != 'no delay'), strict=False
    ):
        title = f'{key[1]}, {key[0]}'
        figures.log_log(panel, title=title, xlabel='kbit, measured', ylabel='kbit, predicted')
        panel.minorticks_off()
        for row in rows:
            if (row['delay'], row['data']) == key and row['measured_bits']:
                x, y = (float(row[name]) / 1e3 for name in ('measured_bits', 'predicted_bits'))
                color, marker = COLORS[row['scheme']], MARKERS[row['algorithm']]
                panel.plot(x, y, marker, color=color, alpha=0.8)
                panel.plot([x, x], [x, y], color=color, linewidth=0.5)  # down to the diagonal
    schemes = [(name, {'color': color}) for name, color in COLORS.items()]
    methods = [(m, {'color': 'k', 'marker': shape, 'ls': ''}) for m, shape in MARKERS.items()]
    figures.legend(figure, [*schemes, *methods], columns=6)
    return figure


def csv_row(each: Found) -> dict[str, Any]:
    """What was predicted and measured."""
    return {
        'data': each.problem,
        'delay': each.delay,
        'algorithm': each.choice.method,
        'scheme': each.choice.scheme,
        'theorem': each.choice.first.theorem,
        'step_size': each.choice.first.step_size,
        'predicted_iterations': each.choice.iterations,
        'measured_iterations': each.measured,
        'predicted_bits': each.choice.bits,
        'measured_bits': each.bits,
        **{f'measured_seconds_{link}': each.seconds(link) for link in LINKS},
    }


if __name__ == '__main__':
    app(prog_name='python -m experiments.ranking')
