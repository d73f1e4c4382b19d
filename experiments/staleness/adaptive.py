"""Must a step be safe for the longest delay, if long delays are rare?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import gradzip as gz
from experiments import figures, tables
from experiments.staleness.problem import AXIS, WORKERS, Quadratics, run
from gradzip import delay_rules, theory

NAME = 'adaptive'
SLOW, PROBABILITY = 60, 0.005  # steps, and how often a worker's gradient is so late
TARGET = 1e-6  # of the first gap
RULES = {
    'fixed, safe for the longest delay': (None, figures.GREY),
    '1 / (1 + delay)': (delay_rules.Inverse(), figures.SKY),
    'Adaptive 1': (delay_rules.Adaptive1(0.9), figures.ORANGE),
    'Adaptive 2': (delay_rules.Adaptive2(), figures.BLUE),
}


class Row(NamedTuple):
    """One run."""

    rule: str
    step_size: float
    gaps: np.ndarray  # F(x_k) - F*, relative to the first
    iterations: int | None  # to the target


def measure(problem: Quadratics, quick: bool, report: Callable[[str], None]) -> list[Row]:
    """The same delays for all rules; each has the step size of its theorem."""
    rows, mean = [], problem.curvature.mean(0)
    model = gz.Straggler(PROBABILITY, SLOW)
    fixed = theory.iag(problem.constants, SLOW).step_size
    free = theory.delay_adaptive(problem.constants).step_size
    steps = 300 if quick else 8000
    for name, (rule, _) in RULES.items():
        report(name)
        step = fixed if rule is None else free

        def make(key: Any, rule: Any = rule, step: float = step) -> Any:
            parts = [gz.delay(model, AXIS, key=key), gz.compress(gz.Identity(), AXIS)]
            if rule is not None:
                parts.append(gz.scale_by_delay(rule, model, AXIS, key=key))
            return optax.chain(*parts, optax.sgd(step))

        keys = jax.random.split(jax.random.key(1), 1)
        gaps = run(problem, make, keys, steps, lambda x: x @ mean @ x / 2)[0]
        below = np.flatnonzero(gaps <= TARGET * gaps[0])
        first = int(below[0]) if len(below) else None
        rows.append(Row(name, step, gaps / gaps[0], first))
    return rows


def draw(rows: list[Row]) -> Figure:
    """The gaps over iterations."""
    figure, panels = figures.panels(1, 1, (6.4, 4.2))
    panel, labels = panels[0, 0], []
    for row in rows:
        after = '' if row.iterations is None else f': {row.iterations:,} iterations'
        style = {'color': RULES[row.rule][1]}
        panel.plot(row.gaps, **style)
        labels.append((f'{row.rule}{after}', style))
    last = max((row.iterations or len(row.gaps) for row in rows), default=1)
    panel.axhline(TARGET, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    panel.set(
        xscale='log', yscale='log', ylim=(TARGET / 10, 2), xlim=(1, 1.2 * last), xlabel='iteration',
        ylabel='$F(x_k) - F^*$, relative',
        title=f'Delays are mostly 0, and {SLOW} in {late_share():.1%} of the steps',
    )  # fmt: skip
    figures.legend(figure, labels, columns=2)
    return figure


def late_share() -> float:
    """In how many steps at least one worker's gradient is late."""
    return 1 - (1 - PROBABILITY) ** WORKERS


def report(rows: list[Row]) -> list[Any]:
    """A table and what it says."""
    heads = ['step size', 'without delay', f'iterations to {TARGET:g}']
    cells = [
        [r.rule, f'{r.step_size:.4g}', '-' if r.iterations is None else f'{r.iterations:,}']
        for r in rows
    ]
    base = rows[0].iterations
    reached = {row.rule: row.iterations for row in rows[1:] if row.iterations is not None}
    if base is None:
        steps = len(rows[0].gaps) - 1
        parts = [f'{rule} after {count} steps' for rule, count in reached.items()]
        says = (
            f'The fixed step does not reach {TARGET:g} in {steps} steps; of the others '
            f'{", ".join(parts) or "none does"}.'
        )
    else:
        parts = [f'{rule} {base / count:.1f} times sooner' for rule, count in reached.items()]
        says = f'Than with the fixed step, {TARGET:g} is reached: {", ".join(parts) or "by none"}.'
    title = f'A gradient is {SLOW} steps late with probability {PROBABILITY:g}'
    return [tables.table(title, heads, cells), says]
