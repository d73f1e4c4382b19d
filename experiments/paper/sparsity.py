"""How much longer are steps where workers touch few common coordinates?

Least squares, 16 workers with 4 steps old gradients. Worker i depends on some of the coordinates;
sigma is the largest eigenvalue of I + A, with A the conflict graph. Theorems that ignore the
supports have sigma = n. Every run takes the longest step of its theorem.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import optax

import gradzip as gz
from experiments import figures
from experiments.paper.claim import Claim, Report, Settings, first, gaps, shown
from experiments.problems import Problem
from experiments.simulate import AXIS
from gradzip import _empirical as empirical, theory

NAME = 'sparsity'
ABOUT = 'Steps against the sparsity of the data'
WORKERS, ROWS, BLOCK, TAU = 16, 12, 4, 4  # each worker owns a block of coordinates
TARGET = 1e-3  # of the first gap
MOST, QUICK_MOST = 6000, 40


class Support(NamedTuple):
    """Which coordinates each worker depends on."""

    family: str
    title: str
    on: np.ndarray  # bool[workers, coordinates]


STYLES = {
    'block': {'color': figures.GREY, 'marker': 's', 'ls': ''},
    'ring': {'color': figures.BLUE, 'marker': 'o', 'ls': ''},
    'random': {'color': figures.ORANGE, 'marker': '^', 'ls': ''},
    'dense': {'color': figures.VERMILION, 'marker': 'D', 'ls': ''},
}


def supports() -> list[Support]:
    """Blocks of their own, windows that overlap with neighbours, random ones, and all."""
    size, own = WORKERS * BLOCK, np.repeat(np.eye(WORKERS, dtype=bool), BLOCK, axis=1)
    out = [Support('block', 'block', own)]
    for wide in (2, 4, 7):
        on = np.zeros((WORKERS, size), bool)
        for i in range(WORKERS):
            on[i, np.arange(i * BLOCK, (i + wide) * BLOCK) % size] = True
        out.append(Support('ring', f'ring, windows of {wide} blocks', on))
    rng = np.random.default_rng(0)
    for share in (0.01, 0.03, 0.1):
        on = own | (rng.random(own.shape) < share)
        out.append(Support('random', f'random, {share:.0%} more', on))
    return [*out, Support('dense', 'dense', np.ones_like(own))]


def problem_of(support: Support) -> Problem:
    """Rows of norm one on the support, with a common minimiser."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(WORKERS, ROWS, support.on.shape[1])) * support.on[:, None]
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    y = x @ rng.normal(size=support.on.shape[1])
    weight = np.full(y.shape, 1 / ROWS)
    return Problem(support.title, empirical.Risk('least_squares', x, y, weight, 0.0))


def blind(constants: theory.Problem) -> theory.Problem:
    """The same problem where the supports are not known."""
    return dataclasses.replace(constants, sigma=None, L_cov=None, L_e=None)


def measure(settings: Settings, report: Report) -> Claim:
    """The two steps of every support, and the iterations that each takes."""
    chosen = supports()
    chosen, most = (chosen[::7], QUICK_MOST) if settings.quick else (chosen, MOST)
    rows = []
    for support in chosen:
        report(support.title)
        problem = problem_of(support)
        row: dict[str, Any] = {
            'family': support.family, 'supports': support.title, 'sigma': problem.constants.sigma,
            'workers': WORKERS, 'tau': TAU, 'condition': problem.constants.L / problem.constants.mu,
        }  # fmt: skip
        for name, constants in (('sparse', problem.constants), ('blind', blind(problem.constants))):
            step = theory.stale(constants, 0.0, TAU).step_size
            late, mean = gz.delay(TAU, AXIS), gz.compress(gz.Identity(), AXIS)
            tx = optax.chain(late, mean, optax.sgd(step))
            if name == 'blind' and step == row['step_sparse']:
                row |= {'step_blind': step, 'iterations_blind': row['iterations_sparse']}
                continue
            curve = gaps(problem, lambda key, tx=tx: tx, most)[:, 0]
            row |= {f'step_{name}': step, f'iterations_{name}': first(curve, TARGET)}
        rows.append(row)
    return Claim(rows, draw(rows), says(rows))


def draw(rows: list[dict[str, Any]]) -> Any:
    """How much longer the step is, and how many fewer iterations a run takes, over sigma."""
    figure, panels = figures.panels(1, 2, (4.6, 3.6))
    for row in rows:
        style, share = STYLES[row['family']], row['sigma'] / WORKERS
        panels[0, 0].plot(share, row['step_sparse'] / row['step_blind'], **style)
        sparse, plain = row['iterations_sparse'], row['iterations_blind']
        if sparse and plain:
            panels[0, 1].plot(share, plain / sparse, **style)
    for panel in panels[0]:
        panel.plot([1 / WORKERS, 1], [WORKERS, 1], color='0.6', linestyle=figures.DASHED, lw=1)
        figures.log_log(panel, xlabel='sigma / n')
    panels[0, 0].set(ylabel='step with sigma over step with n', title='steps of T1 and T5')
    panels[0, 1].set(ylabel='times fewer iterations', title=f'runs to {TARGET:g} of the gap')
    line = ('n / sigma', {'color': '0.6', 'ls': figures.DASHED})
    figures.legend(figure, [*STYLES.items(), line])
    return figure


def says(rows: list[dict[str, Any]]) -> str:
    """Of every support: sigma, how much longer the step is, and the iterations."""
    parts = []
    for row in rows:
        longer = row['step_sparse'] / row['step_blind']
        parts.append(
            f'{row["supports"]}: sigma {row["sigma"]:.3g}, steps {longer:.3g} times longer, '
            f'{shown(row["iterations_sparse"])} iterations in place of '
            f'{shown(row["iterations_blind"])}'
        )
    return f'{WORKERS} workers whose gradients are {TAU} steps old: {"; ".join(parts)}.'
