"""Does the fraction that pays best at every step also cost the least until the target?

One node sends a part of the gradient of logistic regression, without a memory. `CAT` chooses the
fraction of a grid that promises the most descent for what the message costs: bits, packets, or
seconds. It is compared with every fraction of its grid, at the step 1 / L and with the step to the
minimum along the message (`gradzip.scale_by_newton_linesearch`).

A choice that knows the gap after every candidate for the next message, and takes the most progress
for its cost, shows what any rule can reach that looks one message ahead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments import data, figures
from experiments.paper.claim import Claim, Report, Settings, first, gaps_of
from experiments.paper.foreseen import End, foreseen
from experiments.problems import Problem, split
from experiments.simulate import AXIS, message_bits

NAME = 'cat'
ABOUT = 'The fraction that pays best, at every step'
DATA, QUICK_DATA = ('topics', 'breast_cancer'), ('breast_cancer',)
REGULARISATION, TARGET = 0.05, 1e-2
GRID = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FIXED_STEP, LINE_SEARCH = '1 / L', 'line search'
STEPS, QUICK_STEPS = {FIXED_STEP: 2000, LINE_SEARCH: 400}, 100
LATENCY = 1e-3 * 10e6  # bits that a link of 10 Mbit/s could have sent in a millisecond
PACKET = 1500 * 8  # bits
COSTS: dict[str, dict[str, Any]] = {
    'bits': {},
    'packets': {'packet': float(PACKET)},
    'seconds': {'overhead': LATENCY},
}
BAR = 1.02  # times the best fixed fraction

Curve = tuple[np.ndarray, np.ndarray]  # the gaps, and what was spent until then


def measure(settings: Settings, report: Report) -> Claim:
    """Runs every fraction once, and CAT once for each kind of cost, with both kinds of step."""
    names = settings.data or (QUICK_DATA if settings.quick else DATA)
    rows, curves = [], {}
    grid = GRID[-2:] if settings.quick else GRID
    costs = list(COSTS)[:1] if settings.quick else list(COSTS)
    for name in names:
        problem = split(data.load(name), 1, 0, REGULARISATION)
        for kind in (FIXED_STEP, LINE_SEARCH):
            report(f'{problem.name}, {kind}')
            steps = QUICK_STEPS if settings.quick else STEPS[kind]
            found = _compared(problem, grid, kind, costs, steps)
            for by, own in found.items():
                curves[problem.name, kind, by] = own
                ends = {scheme: _end(*curve) for scheme, curve in own.items()}
                price = {f: cost(problem, f, **COSTS[by]) for f in grid}
                step = 1 / problem.constants.L if kind == FIXED_STEP else None
                ends['foreseen'] = foreseen(problem, price, step, TARGET, steps)
                setting = {'data': problem.name, 'step': kind, 'cost': by}
                for scheme, (iterations, spent) in ends.items():
                    end = {'scheme': scheme, 'iterations': iterations, 'spent': spent}
                    rows.append(setting | end)
    return Claim(rows, draw(curves), says(rows))


def _compared(
    problem: Problem, grid: tuple[float, ...], kind: str, costs: list[str], steps: int
) -> dict[str, dict[str, Curve]]:
    """For every cost: the curve of each fraction and of CAT."""
    fixed = {f: descend(problem, gz.TopK(f), kind, steps)[0] for f in grid}
    found = {}
    for by in costs:
        options = COSTS[by]
        price = {fraction: cost(problem, fraction, **options) for fraction in grid}
        gap, kept = descend(problem, gz.CAT(grid, **options), kind, steps)
        chosen = nearest(kept, problem, grid)
        spent = np.concatenate([[0], np.cumsum([price[f] for f in chosen])])
        own = {str(f): (curve, price[f] * np.arange(steps + 1)) for f, curve in fixed.items()}
        found[by] = own | {'CAT': (gap, spent)}
    return found


def _end(curve: np.ndarray, costs: np.ndarray) -> End:
    end = first(curve, TARGET)
    return end, None if end is None else float(costs[end])


def descend(problem: Problem, scheme: Any, kind: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The gaps, f64[steps + 1], and how many entries each step sent, int[steps]."""
    mean = gz.compress(gz.Identity(), AXIS)  # one worker
    fixed = kind == FIXED_STEP
    step = optax.sgd(1 / problem.constants.L) if fixed else gz.scale_by_newton_linesearch(AXIS)
    tx = optax.chain(mean, gz.compress(scheme), step)
    found = gaps_of(problem, lambda key: tx, jnp.zeros(1), steps, weights=True)[:, 0]
    return found[:, 0], np.count_nonzero(np.diff(found[:, 1:], axis=0), axis=1)


def nearest(kept: np.ndarray, problem: Problem, grid: tuple[float, ...]) -> list[float]:
    """The fractions by which so many entries were sent, of which rounding may have lost some."""
    counts = np.array([math.ceil(round(f * problem.features, 6)) for f in grid])
    return [grid[i] for i in np.abs(kept[:, None] - counts).argmin(axis=1)]


def cost(
    problem: Problem, fraction: float, overhead: float = 0.0, packet: float | None = None
) -> float:
    """Of a message, in bits."""
    like = jax.ShapeDtypeStruct((problem.features,), jnp.float32)
    bits = message_bits(gz.TopK(fraction), like)
    return overhead + (bits if packet is None else packet * math.ceil(bits / packet))


def draw(curves: dict[tuple[str, str, str], dict[str, Curve]]) -> Any:
    """The gap over the cost: a panel for each data set, kind of step and kind of cost."""
    lines_of = list(dict.fromkeys((name, kind) for name, kind, _ in curves))
    columns = list(dict.fromkeys(by for _, _, by in curves))
    figure, panels = figures.panels(len(lines_of), len(columns), (3.6, 2.6), sharey=True)
    shades = {str(f): str(0.25 + 0.6 * i / len(GRID)) for i, f in enumerate(GRID)}
    titles = {'bits': ('kbit', 1e3), 'packets': ('packets', PACKET), 'seconds': ('seconds', 10e6)}
    for line, (name, kind) in zip(panels, lines_of, strict=True):
        for panel, by in zip(line, columns, strict=True):
            unit, scale = titles[by]
            for scheme, (curve, costs) in curves[name, kind, by].items():
                k = np.flatnonzero((curve > TARGET / 10) & (costs > 0))
                k = k[np.unique(np.geomspace(1, len(k), 300).astype(int)) - 1]
                blue = {'color': figures.BLUE, 'linewidth': 2.2}
                style = blue if scheme == 'CAT' else {'color': shades[scheme], 'linewidth': 1}
                panel.plot(costs[k] / scale, curve[k], **style)
            panel.axhline(TARGET, color='0.5', linestyle=figures.DOTTED, linewidth=1)
            figures.log_log(panel, xlabel=unit, title=f'{name}, {kind}, by {by}')
        line[0].set_ylabel('gap, relative')
    used = {s for own in curves.values() for s in own}
    styles = [(f'TopK({f})', {'color': c}) for f, c in shades.items() if f in used]
    figures.legend(figure, [('CAT', {'color': figures.BLUE}), *styles], columns=4)
    return figure


def says(rows: list[dict[str, Any]]) -> str:
    """What CAT spent, over what the best fixed fraction did, with both kinds of step."""
    kinds = list(dict.fromkeys(row['step'] for row in rows))
    said = [_says(kind, [row for row in rows if row['step'] == kind]) for kind in kinds]
    saved = list(_saved(rows))
    if saved:
        said.append(
            f'With the {LINE_SEARCH}, CAT spends {min(saved):.2g} to {max(saved):.2g} times less '
            f'than the best fixed fraction at {FIXED_STEP}.'
        )
    return ' '.join(said)


def _saved(rows: list[dict[str, Any]]) -> Iterator[float]:
    """What the best fixed fraction at 1 / L spent, over what CAT did with the line search."""
    for row in rows:
        if (row['step'], row['scheme']) == (LINE_SEARCH, 'CAT') and row['spent']:
            same = [r for r in rows if (r['data'], r['cost']) == (row['data'], row['cost'])]
            fixed = [
                r['spent'] for r in same
                if r['step'] == FIXED_STEP and r['scheme'] not in ('CAT', 'foreseen') and r['spent']
            ]  # fmt: skip
            if fixed:
                yield min(fixed) / row['spent']


def _says(kind: str, rows: list[dict[str, Any]]) -> str:
    parts, worst = [], 0.0
    for name, by in dict.fromkeys((row['data'], row['cost']) for row in rows):
        own = {r['scheme']: r['spent'] for r in rows if (r['data'], r['cost']) == (name, by)}
        adaptive, foresight = own.pop('CAT'), own.pop('foreseen')
        reached = {scheme: spent for scheme, spent in own.items() if spent is not None}
        if adaptive is None or not reached:
            parts.append(f'{name} by {by}: not reached')
            continue
        best = min(reached, key=lambda scheme: reached[scheme])
        ratio = adaptive / reached[best]
        worst = max(worst, ratio)
        known = 'never' if foresight is None else f'{foresight / reached[best]:.3f}'
        parts.append(f'{name} by {by} {ratio:.3f} times TopK({best}), foreseen {known}')
    what = f'What CAT spends until {TARGET:g} of the gap'
    if not worst:
        return f'{what}, {kind}: {"; ".join(parts)}.'
    verdict = 'within' if worst <= BAR else 'above'
    return (
        f'{what} over the best fixed fraction, {kind}: {"; ".join(parts)}. The largest is '
        f'{worst:.3f}, {verdict} the bar of {BAR:g}.'
    )
