"""What does it cost to use a compressed message again?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from matplotlib.figure import Figure

import gradzip as gz
from experiments import figures, tables
from experiments.staleness.problem import AXIS, SIZE, Quadratics, run
from gradzip import theory

NAME = 'floors'
PERIODS = (1, 2, 4, 8, 16, 32)
QUICK = (1, 4)
SEEDS = 8
SCHEME = gz.Gather(gz.Bernoulli(0.25))
HORIZON = 8.0  # steps of each run, in units of 1 / (step size times mu), after as many to settle
FORMS = {
    'stored and used again': (figures.VERMILION, 'o'),
    'compressed at every use': (figures.BLUE, 's'),
}


class Row(NamedTuple):
    """The mean distance to the minimum that runs settle at."""

    form: str
    period: int
    floor: float
    step_size: float


def measure(problem: Quadratics, quick: bool, report: Callable[[str], None]) -> list[Row]:
    """All messages are renewed together, once in every period, at one step size for all runs."""
    periods, constants = QUICK if quick else PERIODS, problem.constants
    omega = SCHEME.compressor.omega(jax.ShapeDtypeStruct((SIZE,), jnp.float64))
    step = theory.q_iag(constants, omega, max(periods) - 1).step_size
    settle = int(HORIZON / 2 / (step * constants.mu))
    keys, rows = jax.random.split(jax.random.key(0), 2 if quick else SEEDS), []
    for form in FORMS:
        for period in periods:
            report(f'{form}, {period}')

            def make(key: Any, form: str = form, period: int = period) -> Any:
                model = gz.Burst(period)
                if form == 'stored and used again':
                    return optax.chain(gz.iag(SCHEME, AXIS, model, key=key), optax.sgd(step))
                late = gz.delay(model, AXIS)
                return optax.chain(late, gz.compress(SCHEME, AXIS, key=key), optax.sgd(step))

            distances = run(
                problem, make, keys, 3 * settle, lambda x: jnp.sum(x * x), problem.optimum
            )
            rows.append(Row(form, period, float(distances[:, settle:].mean()), step))
    return rows


def ratios(rows: list[Row]) -> dict[str, list[tuple[int, float]]]:
    """Of every form: periods, and the floor in units of that without reuse."""
    found = {}
    for form in FORMS:
        own = [row for row in rows if row.form == form]
        found[form] = [(row.period, row.floor / own[0].floor) for row in own]
    return found


def draw(rows: list[Row]) -> Figure:
    """Both floors over the number of uses."""
    figure, panels = figures.panels(1, 1, (5.6, 3.8))
    panel, found = panels[0, 0], ratios(rows)
    for form, (color, marker) in FORMS.items():
        panel.plot(*zip(*found[form], strict=True), marker=marker, color=color, label=form)
    periods = [period for period, _ in next(iter(found.values()))]
    panel.plot(periods, periods, color=figures.GREY, linestyle=figures.DASHED, label='tau + 1')
    figures.log_log(
        panel, xlabel='tau + 1: steps for which a message is in use',
        ylabel='floor of $E|x - x^*|^2$, relative',
        title='A message that is used again brings its noise again',
    )  # fmt: skip
    panel.legend()
    return figure


def report(rows: list[Row]) -> list[Any]:
    """A table and what it says."""
    found = ratios(rows)
    heads = ['message', 'tau + 1', 'floor', 'relative']
    cells = [
        [form, str(period), f'{row.floor:.3e}', f'{ratio:.2f}']
        for form, pairs in found.items()
        for (period, ratio), row in zip(pairs, [r for r in rows if r.form == form], strict=True)
    ]
    reused, fresh = (found[form][-1] for form in FORMS)
    says = (
        f'With messages in use for {reused[0]} steps, the floor of Q-IAG is {reused[1]:.1f} times '
        f'as high, and that of messages compressed at every use {fresh[1]:.2f} times.'
    )
    title = f'Floors at one step size, {rows[0].step_size:.3g}, {SCHEME.compressor!r}'
    return [tables.table(title, heads, cells, names=2), says]
