"""How many more iterations do late gradients need?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import gradzip as gz
from experiments import figures, tables
from experiments.staleness.problem import AXIS, Quadratics, run
from gradzip import theory

NAME = 'iterations'
TARGET = 1e-6  # of the first gap F(x_0) - F*
TAUS = (0, 2, 4, 8, 16, 24, 32, 48, 64)
QUICK = (0, 4, 16)
MODELS: dict[str, Callable[[int], gz.Delay]] = {
    'constant': gz.Constant,
    'random, up to tau': gz.Uniform,
}
STYLES = dict(zip(MODELS, ((figures.BLUE, 'o'), (figures.ORANGE, 'x')), strict=True))


class Row(NamedTuple):
    """One run to the target."""

    model: str
    tau: int
    step_size: float
    iterations: int
    bound: int


def measure(problem: Quadratics, quick: bool, report: Callable[[str], None]) -> list[Row]:
    """Runs to the target, at the step size of theorem T5."""
    rows, mean, keys = [], problem.curvature.mean(0), jax.random.split(jax.random.key(0), 1)
    for name, model in MODELS.items():
        for tau in QUICK if quick else TAUS:
            report(f'{name}, {tau}')
            bound = theory.iag(problem.constants, tau)
            most = int(bound.iterations(TARGET * problem.constants.need('F0', bound.theorem)))

            def make(key: Any, late: gz.Delay, step: float = bound.step_size) -> Any:
                exact = gz.compress(gz.Identity(), AXIS)
                return optax.chain(gz.delay(late, AXIS, key=key), exact, optax.sgd(step))

            gaps = run(
                problem, functools.partial(make, late=model(tau)), keys, most + tau,
                lambda x: x @ mean @ x / 2,
            )[0]  # fmt: skip
            first = int(np.flatnonzero(gaps <= TARGET * gaps[0])[0])
            rows.append(Row(name, tau, bound.step_size, first, most))
    return rows


def lines(rows: list[Row]) -> dict[str, tuple[float, float, float]]:
    """Of every model: slope, intercept, and the share of the variance that the line explains."""
    found = {}
    for name in MODELS:
        tau, count = np.array([(r.tau, r.iterations) for r in rows if r.model == name]).T
        slope, start = np.polyfit(tau, count, 1)
        rest = count - (slope * tau + start)
        found[name] = slope, start, 1 - rest.var() / count.var()
    return found


def draw(rows: list[Row]) -> Figure:
    """Measured iterations with their line, and the bound."""
    figure, panels = figures.panels(1, 1, (5.6, 3.8))
    panel, taus = panels[0, 0], sorted({row.tau for row in rows})
    for name, (slope, start, _) in lines(rows).items():
        own = [row for row in rows if row.model == name]
        panel.plot(taus, slope * np.array(taus) + start, color=STYLES[name][0], linewidth=1)
        color, marker = STYLES[name]
        label = f'{name} delay: {slope:.0f} more for each step'
        panel.plot(taus, [row.iterations for row in own], marker, color=color, label=label)
    panel.plot(
        taus, [row.bound for row in rows[: len(taus)]], color=figures.GREY,
        linestyle=figures.DASHED, label='bound T5',
    )  # fmt: skip
    panel.set(xlabel='longest delay, in steps', ylabel=f'iterations to {TARGET:g}', ylim=(0, None))
    panel.set_title('Iterations grow linearly with the delay')
    panel.legend()
    return figure


def report(rows: list[Row]) -> list[Any]:
    """A table and what it says."""
    heads = ['delay', 'tau', 'step size', 'iterations', 'bound T5']
    cells = [
        [r.model, str(r.tau), f'{r.step_size:.4g}', f'{r.iterations:,}', f'{r.bound:,}']
        for r in rows
    ]
    says = [
        f'Iterations to {TARGET:g} under a {name} delay: {start:.0f} + {slope:.1f} tau, a line '
        f'that explains {share:.2%} of the variance.'
        for name, (slope, start, share) in lines(rows).items()
    ]
    title = f'Late gradients, not compressed, to {TARGET:g} of the first gap'
    return [tables.table(title, heads, cells, names=2), *says]
