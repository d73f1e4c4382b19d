"""Whether `gradzip.advice.rank` picks well: every row of its table is run.

On three data sets, without delay and with delays that workers take turns in, all algorithms and
schemes of the table run from zero at their own step until a hundredth of the start. The question is
how many more bits the first row needs than the row that turns out to need the fewest.

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
SEEDS = 8
MOST = 4000  # iterations of a run; a row that needs more is not the cheapest

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class Found(NamedTuple):
    """A row of a ranking, and what it took."""

    problem: str
    delay: str
    choice: advice.Choice
    measured: int | None

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
    jobs = []
    for problem in (split(data.load(name), WORKERS, 0, REGULARISATION) for name in names):
        start = problem.constants.need('V0', 'The table')
        like = jax.ShapeDtypeStruct((problem.features,), jnp.float32)
        for name, delay in DELAYS.items():
            ranking = advice.rank(
                problem.constants, SCHEMES, like, target=TARGET * start, delay=delay
            )
            for choice in ranking:
                title = f'{problem.name}, {name}: {choice.method}, {choice.scheme}'
                length = min(MOST, choice.iterations)
                work = functools.partial(run, problem, name, choice, length, seeds)
                jobs.append((title, length, work))
    found = run_jobs(jobs, console)
    tables.write_csv(out / 'ranking.csv', map(csv_row, found))
    figures.save(draw(found), out / 'ranking.png')
    tables.show(console, out / 'ranking.txt', *report(found))


def run(
    problem: Problem,
    delay: str,
    choice: advice.Choice,
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
    return Found(problem.name, delay, choice, int(reached[0]) if len(reached) else None)


def groups(found: list[Found]) -> Iterator[tuple[str, list[Found]]]:
    """The rows of each ranking, in its order."""
    for key in dict.fromkeys((each.problem, each.delay) for each in found):
        yield ', '.join(key), [each for each in found if (each.problem, each.delay) == key]


def report(found: list[Found]) -> Iterator[Any]:
    """A table of each ranking, and how far its first row is from the best."""
    heads = ('algorithm', 'scheme', 'predicted', 'measured', 'kbit pred.', 'kbit meas.')
    for title, rows in groups(found):
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
    for title, rows in groups(found):
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


def draw(found: list[Found]) -> Figure:
    """Bits predicted against measured, a panel for each ranking."""
    named = list(groups(found))
    figure, panels = figures.panels(1, len(named), (3.2, 3.2))
    for panel, (title, rows) in zip(panels[0], named, strict=True):
        figures.log_log(panel, title=title, xlabel='kbit, measured', ylabel='predicted')
        for row in rows:
            if row.bits is not None:
                x, y = row.bits / 1e3, row.choice.bits / 1e3
                panel.plot(x, y, 'o', color=figures.BLUE)
                label = f'{row.choice.method}, {row.choice.scheme}'
                panel.annotate(label, (x, y), fontsize=6, xytext=(3, 3), textcoords='offset points')
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
    }


if __name__ == '__main__':
    app(prog_name='python -m experiments.ranking')
