"""How far is a step that needs no constant from the best fixed step, found by search?

Behind every exchange, DoG, DoWG (`optax.contrib.dog`, `dowg`) or a line search along the mean
message (`gradzip.scale_by_newton_linesearch`) takes the steps. The first one of DoG and DoWG comes
from the curvature along the first gradient (`gradzip.theory.first_step`). All are compared with the
best of a grid of fixed steps, which are all run until the target. Nothing is tuned for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments import data, figures
from experiments.paper.claim import Claim, Report, Settings, first, gaps_of
from experiments.problems import Problem, loss, split
from experiments.simulate import AXIS
from gradzip import _empirical as empirical, theory

NAME = 'adaptive'
ABOUT = 'A step that needs no constant'
DATA, WORKERS = ('diabetes', 'breast_cancer', 'digits'), 8
REGULARISATION = 0.005  # lam as a share of the curvature: L / mu is 141 to 201
TARGET, BAR = 1e-3, 2.0
GRID = tuple(float(step) for step in np.geomspace(0.1, 25.6, 17))  # times 1 / L, factors of 1.41
STEPS, QUICK_STEPS, QUICK_GRID = 1500, 40, (0.5, 2.0)
SEEDS, QUICK_SEEDS = 4, 1
TOP, RAND = gz.TopK(0.1), gz.RandK(0.25)

Exchange = Callable[[jax.Array], optax.GradientTransformation]
EXCHANGES: dict[str, tuple[Exchange, str]] = {
    'exact mean': (lambda key: gz.compress(gz.Identity(), AXIS), figures.GREY),
    'QSGD': (lambda key: gz.compress(gz.QSGD(7), AXIS, key=key), figures.ORANGE),
    'RandK, shared': (lambda key: gz.compress(RAND, AXIS, key=key), figures.SKY),
    'RandK, independent': (
        lambda key: gz.compress(gz.Gather(RAND), AXIS, key=key), figures.BLUE,
    ),
    'RandK, DIANA': (
        lambda key: gz.diana(gz.Gather(RAND), AXIS, alpha=0.25, key=key), figures.GREEN,
    ),
    'TopK, memory': (lambda key: gz.error_feedback(TOP, AXIS), figures.VERMILION),
    'TopK, EF21': (
        lambda key: gz.ef21(gz.Schedule((gz.Identity(), TOP), (1,)), AXIS), figures.PINK,
    ),
}  # fmt: skip
MARKERS = ('o', 's', '^')
RULES = ('DoG', 'DoWG', 'Newton line search')


def measure(settings: Settings, report: Report) -> Claim:
    """The iterations of every rule and of every fixed step, for all exchanges."""
    names = settings.data or (DATA[:1] if settings.quick else DATA)
    grid = QUICK_GRID if settings.quick else GRID
    exchanges = dict(list(EXCHANGES.items())[:1] if settings.quick else EXCHANGES)
    steps, seeds = (QUICK_STEPS, QUICK_SEEDS) if settings.quick else (STEPS, SEEDS)
    rows = []
    for name in names:
        problem = split(data.load(name), WORKERS, 0, REGULARISATION)
        start = first_step(problem)
        for title, (exchange, _) in exchanges.items():
            report(f'{problem.name}, {title}')
            curves = _fixed(problem, exchange, grid, steps, seeds)
            reached = {s: first(c, TARGET) for s, c in zip(grid, curves, strict=True)}
            counts = {s: count for s, count in reached.items() if count is not None}
            best = min(counts, key=lambda s: counts[s]) if counts else None
            row = {'data': problem.name, 'exchange': title, 'target': TARGET, 'first_step': start}
            row |= {'best_step_times_L': best, 'fixed': None if best is None else counts[best]}
            for rule in RULES:
                curve = _adaptive(problem, exchange, rule, start, steps, seeds)
                row[rule] = first(curve, TARGET)
            rows.append(row)
    return Claim(rows, draw(rows), says(rows))


def first_step(problem: Problem) -> float:
    """The first step of DoG, from zero."""
    kind, x, y, weight, lam = problem.risk
    batches = tuple(jnp.asarray(a, jnp.float32) for a in (x, y, weight))
    w = jnp.zeros(problem.features)
    return theory.first_step(lambda w, mine: loss(w, mine, kind, lam), w, batches)


def _fixed(
    problem: Problem, exchange: Exchange, grid: tuple[float, ...], steps: int, seeds: int
) -> np.ndarray:
    """The gaps of every fixed step, averaged over seeds: f64[steps in the grid, steps + 1]."""
    rates = jnp.asarray(grid) / problem.constants.L

    def make(number: jax.Array) -> optax.GradientTransformation:
        key = jax.random.fold_in(jax.random.key(0), number % seeds)
        descent = optax.inject_hyperparams(optax.sgd)(learning_rate=rates[number // seeds])
        return optax.chain(exchange(key), descent)

    found = gaps_of(problem, make, jnp.arange(len(grid) * seeds), steps)
    return found.T.reshape(len(grid), seeds, -1).mean(axis=1)


def _adaptive(
    problem: Problem, exchange: Exchange, rule: str, start: float, steps: int, seeds: int
) -> np.ndarray:
    """The gaps of a rule, averaged over seeds."""
    if rule == 'Newton line search':
        descent = gz.scale_by_newton_linesearch(AXIS)
    elif rule == 'DoG':
        descent = optax.contrib.dog(init_step=('learning_rate', start), eps=1e-30)
    else:
        zero = np.zeros(problem.features)
        gradient = empirical.gradients(problem.risk, zero[None], zero).mean(axis=0)
        guess = (start * float(np.linalg.norm(gradient))) ** 2  # the length of the first step
        descent = optax.contrib.dowg(init_estim_sq_dist=guess, eps=1e-30)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(seeds))
    found = gaps_of(problem, lambda key: optax.chain(exchange(key), descent), keys, steps)
    return found.mean(axis=1)


def draw(rows: list[dict[str, Any]]) -> Any:
    """Iterations of each rule against those of the best fixed step."""
    figure, panels = figures.panels(1, len(RULES), (4.2, 3.8), sharey=True)
    marks = dict(zip(dict.fromkeys(row['data'] for row in rows), MARKERS, strict=False))
    reached = [(row, rule) for row in rows for rule in RULES if row['fixed'] and row[rule]]
    ends = [count for row, rule in reached for count in (row['fixed'], row[rule])]
    for panel, rule in zip(panels[0], RULES, strict=True):
        for row, its in reached:
            if its == rule:
                color, mark = EXCHANGES[row['exchange']][1], marks.get(row['data'], 'D')
                panel.plot(row['fixed'], row[rule], mark, color=color, alpha=0.9)
        if ends:
            line = np.array([min(ends) / 1.3, max(ends) * 1.3])
            panel.plot(line, line, color='0.6', linewidth=1)
            panel.plot(line, BAR * line, color='0.6', ls=figures.DASHED, linewidth=1)
        figures.log_log(panel, xlabel='iterations of the best fixed step', title=rule)
    panels[0, 0].set_ylabel(f'iterations to {TARGET:g} of the gap')
    styles = [(e, {'color': EXCHANGES[e][1]}) for e in dict.fromkeys(r['exchange'] for r in rows)]
    shapes = [(name, {'color': 'k', 'marker': mark, 'ls': ''}) for name, mark in marks.items()]
    twice = ('twice', {'color': '0.6', 'ls': figures.DASHED})
    figures.legend(figure, [*styles, *shapes, ('equal', {'color': '0.6'}), twice], columns=4)
    return figure


def says(rows: list[dict[str, Any]]) -> str:
    """How many times the iterations of the best fixed step, and where that is above the bar."""
    return ' '.join(_says(rule, [row for row in rows if row['fixed']]) for rule in RULES)


def _says(rule: str, rows: list[dict[str, Any]]) -> str:
    ratios = {(row['data'], row['exchange']): row[rule] / row['fixed'] for row in rows if row[rule]}
    if not ratios:
        return f'{rule} never reached {TARGET:g} of the gap.'
    parts = [f'{name} with {e} {ratio:.2f}' for (name, e), ratio in ratios.items() if ratio > BAR]
    parts += [f'{row["data"]} with {row["exchange"]} never' for row in rows if not row[rule]]
    values = list(ratios.values())
    return (
        f'Iterations of {rule} over those of the best of {len(GRID)} fixed steps, until {TARGET:g} '
        f'of the gap: {np.median(values):.2f} in the median of {len(values)} settings, from '
        f'{min(values):.2f} to {max(values):.2f}. Above {BAR:g}: {", ".join(parts) or "none"}.'
    )
