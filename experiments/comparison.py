"""What a memory does for biased schemes: `python -m experiments.comparison --help`.

The theorem runs (`python -m experiments`) show unbiased schemes, and one biased scheme with a
memory. Here four biased schemes run with a memory and without one, on classification problems, all
at the step of the exact gradient, 1 / (L (1 + delay)): gradients that are tau steps late allow
steps below 2 sin(pi / (4 tau + 2)) / L on a quadratic, which is at least pi/2 times longer.
"""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from matplotlib.figure import Figure
from rich.table import Table

import gradzip as gz
from experiments import data, figures, tables
from experiments.options import refuse, some_of, whole_numbers
from experiments.problems import Problem, split
from experiments.simulate import AXIS, Advance, message_bits, run_jobs, simulate

KEPT = 0.1  # share of entries that TopK keeps: 3 of 30, 7 of 64, 103 of 1024
LEVELS = 7  # of QSGD: codes of four bits
RANK = 1  # of PowerSGD: two vectors instead of a matrix
ITERATIONS = 10_000
QUICK_ITERATIONS, QUICK_DATA = 3_000, ('breast_cancer',)
DELAYS = '0,4,16'  # none; half the workers late; every worker two rounds late
REGULARISATION = 0.01  # lam as a share of the data's curvature: L / mu is 101 for every data set
# A thousandth of the initial gap: low enough that biased schemes without a memory stall above it.
TARGET = 1e-3
RECORDS = 400  # iterations at which the gap is taken, spaced by 2 %

TOPK = gz.TopK(KEPT, indices='plain')  # as the papers count: 32 bits for an index
SCHEMES: dict[str, gz.Compressor | gz.Reducer] = {
    'exact': gz.Identity(),
    'TopK': TOPK,
    'TopK >> QSGD': TOPK >> gz.QSGD(LEVELS),
    'ScaledSign': gz.ScaledSign(),
    'PowerSGD': gz.PowerSGD(RANK),
}
MEMORY = ' + memory'
METHODS = [*SCHEMES, *(name + MEMORY for name in SCHEMES if name != 'exact')]
COLORS = dict(
    zip(
        SCHEMES,
        (figures.GREY, figures.VERMILION, figures.ORANGE, figures.PINK, figures.WINE),
        strict=True,
    )
)

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class Run(NamedTuple):
    """One method at one delay on one data set: a row of runs.csv."""

    data: str
    scheme: str
    delay: int
    workers: int
    examples: int
    features: int
    step_size: float
    bits_per_step: int  # that a worker sends
    iterations: int
    seed: int
    iterations_to_target: int | None  # None if it was never reached
    saving: float | None  # times fewer bits than the exact gradient of the same delay needs
    final_relative_gap: float

    @property
    def bits_to_target(self) -> int | None:
        """That a worker sends until then."""
        to = self.iterations_to_target
        return None if to is None else to * self.bits_per_step


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
            '--quick', help=f'Only {QUICK_DATA[0]}, {QUICK_ITERATIONS} iterations: a minute.'
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for table, CSV file and figure.')] = Path(
        'experiments/output/comparison'
    ),
    workers: Annotated[int, typer.Option(help='Among whom the examples are split.')] = 8,
    schemes: Annotated[
        str, typer.Option(metavar='NAME,NAME,...', help='Some of these, the default.')
    ] = ','.join(METHODS),
    delays: Annotated[
        str, typer.Option(metavar='STEPS,STEPS,...', help='How late the gradients are.')
    ] = DELAYS,
    iterations: Annotated[
        int | None, typer.Option(help=f'Of every run; {ITERATIONS} by default.', min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help='Of the split and of the schemes.')] = 0,
) -> None:
    """Biased schemes with a memory and without one, on logistic regression."""
    console = tables.console()
    try:
        names = dict.fromkeys(data_sets or (QUICK_DATA if quick else data.BUILT_IN))
        problems = [split(data.load(name), workers, seed, REGULARISATION) for name in names]
        methods, late = some_of('--schemes', schemes, METHODS), whole_numbers('--delays', delays, 0)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        raise refuse(error) from None
    count = iterations or (QUICK_ITERATIONS if quick else ITERATIONS)
    jobs = []
    for problem, delay, method in itertools.product(problems, late, methods):
        title = f'{problem.name}, delay {delay}, {method}'
        jobs.append((title, count, functools.partial(run, problem, method, delay, count, seed)))
    runs = with_savings(run_jobs(jobs, console))
    tables.write_csv(out / 'runs.csv', (r._asdict() for r in runs))
    figures.save(draw(runs), out / 'saving.png')
    tables.show(console, out / 'tables.txt', table(runs), *findings(runs))


def run(
    problem: Problem,
    method: str,
    delay: int,
    iterations: int,
    seed: int,
    advance: Advance = lambda steps: None,
) -> Run:
    """The gap is evaluated in float64 from the recorded weights, which are float32."""
    name, like = method.removesuffix(MEMORY), matrix_like(problem.features)
    exchange = gz.compress if method == name else gz.error_feedback
    step = 1 / (problem.constants.L * (1 + delay))

    def make(key: jax.Array) -> optax.GradientTransformation:
        late = gz.delay(delay, AXIS)
        return optax.chain(late, exchange(SCHEMES[name], AXIS, key=key), optax.sgd(step))

    keys = jax.random.key(seed)[None]
    ws = simulate(problem, make, keys, iterations, jnp.ravel, shape=like.shape, advance=advance)
    spaced = np.geomspace(1, iterations, RECORDS).round().astype(int)
    at = np.unique([0, *spaced])
    gap = problem.relative_gap(ws[at, 0])
    reached = at[gap <= TARGET]
    return Run(
        problem.name, method, delay, problem.workers, problem.examples, problem.features, step,
        message_bits(SCHEMES[name], like), iterations, seed,
        int(reached[0]) if len(reached) else None, None, float(gap[-1]),
    )  # fmt: skip


def matrix_like(features: int) -> jax.ShapeDtypeStruct:
    """The weights as the most nearly square matrix, which PowerSGD needs; a row if d is prime."""
    rows = max(r for r in range(1, math.isqrt(features) + 1) if features % r == 0)
    return jax.ShapeDtypeStruct((rows, features // rows), jnp.float32)


def with_savings(runs: list[Run]) -> list[Run]:
    """Every run beside the exact gradient of the same problem and delay."""
    exact = {(r.data, r.delay): r.bits_to_target for r in runs if r.scheme == 'exact'}

    def saving(r: Run) -> float | None:
        whole, own = exact.get((r.data, r.delay)), r.bits_to_target
        return whole / own if whole and own else None

    return [r._replace(saving=saving(r)) for r in runs]


def table(runs: list[Run]) -> Table:
    """One row for each problem, delay and scheme."""
    heads = (
        'data, delay', 'scheme', 'step', 'bits a step', 'steps until', 'kbit until', 'saving',
        'final gap',
    )  # fmt: skip
    return tables.table(
        f'{runs[0].workers} workers',
        heads,
        map(_cells, runs),
        names=2,
        caption=f'until: first at {TARGET:g} of the initial gap, to 2 %. saving: bits of exact '
        f'until then, at the same delay, over bits of the scheme. TopK keeps {KEPT:.0%} of the '
        f'entries, QSGD has {LEVELS} levels, PowerSGD rank {RANK}.',
    )


def _cells(r: Run) -> tuple[str, ...]:
    final = f'{r.final_relative_gap:.1e}'
    return (
        f'{r.data}, {r.delay}',
        r.scheme,
        f'{r.step_size:.3g}',
        str(r.bits_per_step),
        '-' if r.iterations_to_target is None else str(r.iterations_to_target),
        _kbit(r),
        '-' if r.saving is None else f'{r.saving:.3g}x',
        final if r.final_relative_gap <= 1 else f'[bold red]diverged[/] ({final})',
    )


def _kbit(r: Run) -> str:
    return '-' if r.bits_to_target is None else f'{r.bits_to_target / 1000:.4g}'


def findings(runs: list[Run]) -> list[str]:
    """The result in sentences."""
    names = dict.fromkeys(r.data for r in runs)
    diverged = [
        f'{r.scheme} on {r.data} at delay {r.delay}'
        for r in runs
        if not r.final_relative_gap <= 1  # further away than at the start, or no number
    ]
    said = f'[bold red]DIVERGED[/]: {"; ".join(diverged)}.'
    last = said if diverged else f'None of {len(runs)} runs diverged.'
    return [*(_best([r for r in runs if r.data == name]) for name in names), _memory(runs), last]


def _best(runs: list[Run]) -> str:
    """The scheme with the fewest bits to the target, at each delay."""
    parts = []
    for delay in dict.fromkeys(r.delay for r in runs):
        reached = [(r.bits_to_target, r) for r in runs if r.delay == delay and r.bits_to_target]
        if not reached:
            parts.append(f'nothing at delay {delay}')
            continue
        r = min(reached, key=lambda pair: pair[0])[1]
        times = '' if r.saving is None else f', {r.saving:.3g} times fewer than exact'
        parts.append(f'{r.scheme} at delay {delay} ({_kbit(r)} kbit{times})')
    return f'{runs[0].data}: fewest bits to {TARGET:g} of the initial gap: {"; ".join(parts)}.'


def _memory(runs: list[Run]) -> str:
    """How many of the biased schemes that were run both ways reached the target."""
    found = {(r.data, r.delay, r.scheme): r.iterations_to_target is not None for r in runs}
    pairs = [(found[case], found[(*case[:2], case[2] + MEMORY)]) for case in found
             if (*case[:2], case[2] + MEMORY) in found]  # fmt: skip
    without, with_memory = (sum(side) for side in zip(*pairs, strict=True)) if pairs else (0, 0)
    return (
        f'Memory: of {len(pairs)} runs with biased schemes, {without} reached the target without a '
        f'memory and {with_memory} with one.'
    )


def draw(runs: list[Run]) -> Figure:
    """Bits until the target against delay, a panel a data set; stalled runs at the upper edge."""
    names, delays = list(dict.fromkeys(r.data for r in runs)), sorted({r.delay for r in runs})
    figure, panels = figures.panels(1, len(names), (3.6, 3.8))
    for panel, name in zip(panels[0], names, strict=True):
        mine = [r for r in runs if r.data == name]
        top = 3 * max(figures.finite(r.bits_to_target for r in mine), default=1.0)
        panel.set(yscale='log', xlabel='gradients so many steps late', title=name)
        panel.set_xticks(range(len(delays)), map(str, delays))
        panel.axhline(top, color='0.6', linewidth=1, linestyle=figures.DOTTED)
        for i, method in enumerate(m for m in METHODS if any(r.scheme == m for r in mine)):
            own = [r for r in mine if r.scheme == method]
            x = [delays.index(r.delay) + 0.03 * (i - 4) for r in own]  # side by side
            panel.plot(x, [r.bits_to_target or top for r in own], **_style(method))
    panels[0, 0].set_ylabel(f'bits until {TARGET:g} of the initial gap')
    figure.suptitle('What a memory does for biased schemes; on the dotted line: never reached')
    figures.legend(figure, [(method, _style(method)) for method in METHODS], columns=3)
    return figure


def _style(method: str) -> dict:
    name = method.removesuffix(MEMORY)
    remembers = method != name or name == 'exact'
    marker = {'marker': 'o', 'markerfacecolor': None if remembers else 'white'}
    return {'color': COLORS[name], 'linestyle': '-' if remembers else 'none', **marker}


if __name__ == '__main__':
    app(prog_name='python -m experiments.comparison')
