"""Does the fraction that pays best at every step also cost the least until the target?

One node sends a part of the gradient of logistic regression, without a memory, at the step 1 / L.
`CAT` chooses the fraction of a grid that promises the most descent for what the
message costs: bits, packets, or seconds. It is compared with every fraction of its grid.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments import data, figures
from experiments.paper.claim import Claim, Report, Settings, first, gaps_of
from experiments.problems import Problem, split
from experiments.simulate import AXIS, message_bits

NAME = 'cat'
ABOUT = 'The fraction that pays best, at every step'
DATA, QUICK_DATA = ('topics', 'breast_cancer'), ('breast_cancer',)
REGULARISATION, TARGET = 0.05, 1e-2
GRID = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STEPS, QUICK_STEPS = 4000, 100
LATENCY = 1e-3 * 10e6  # bits that a link of 10 Mbit/s could have sent in a millisecond
PACKET = 1500 * 8  # bits
COSTS: dict[str, dict[str, Any]] = {
    'bits': {},
    'packets': {'packet': float(PACKET)},
    'seconds': {'overhead': LATENCY},
}
BAR = 1.02  # times the best fixed fraction


def measure(settings: Settings, report: Report) -> Claim:
    """Runs every fraction once, and CAT once for each kind of cost."""
    names = settings.data or (QUICK_DATA if settings.quick else DATA)
    steps, rows, curves = QUICK_STEPS if settings.quick else STEPS, [], {}
    for name in names:
        problem = split(data.load(name), 1, 0, REGULARISATION)
        grid = GRID[-3:] if settings.quick else GRID
        fixed = {}
        for fraction in grid:
            report(f'{problem.name}, TopK({fraction:g})')
            fixed[fraction] = descend(problem, gz.TopK(fraction), steps)[0]
        for kind, options in COSTS.items():
            report(f'{problem.name}, CAT by {kind}')
            price = {fraction: cost(problem, fraction, **options) for fraction in grid}
            gap, kept = descend(problem, gz.CAT(grid, **options), steps)
            chosen = nearest(kept, problem, grid)
            spent = np.concatenate([[0], np.cumsum([price[f] for f in chosen])])
            own = {str(f): (curve, price[f] * np.arange(steps + 1)) for f, curve in fixed.items()}
            own['CAT'] = gap, spent
            curves[problem.name, kind] = own
            for scheme, (curve, costs) in own.items():
                end = first(curve, TARGET)
                rows.append(
                    {
                        'data': problem.name, 'cost': kind, 'scheme': scheme, 'iterations': end,
                        'spent': None if end is None else float(costs[end]),
                    }
                )  # fmt: skip
    return Claim(rows, draw(curves), says(rows))


def descend(problem: Problem, scheme: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The gaps, f64[steps + 1], and how many entries each step sent, int[steps]."""
    mean = gz.compress(gz.Identity(), AXIS)  # one worker
    tx = optax.chain(mean, gz.compress(scheme), optax.sgd(1 / problem.constants.L))
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


def draw(curves: dict[tuple[str, str], dict[str, tuple[np.ndarray, np.ndarray]]]) -> Any:
    """The gap over the cost, a panel for each data set and kind of cost."""
    names = list(dict.fromkeys(name for name, _ in curves))
    figure, panels = figures.panels(len(names), len(COSTS), (3.6, 3.0), sharey=True)
    shades = {str(f): str(0.25 + 0.6 * i / len(GRID)) for i, f in enumerate(GRID)}
    titles = {'bits': ('kbit', 1e3), 'packets': ('packets', PACKET), 'seconds': ('seconds', 10e6)}
    for line, name in zip(panels, names, strict=True):
        for panel, kind in zip(line, COSTS, strict=True):
            unit, scale = titles[kind]
            for scheme, (curve, costs) in curves[name, kind].items():
                k = np.flatnonzero((curve > TARGET / 10) & (costs > 0))
                k = k[np.unique(np.geomspace(1, len(k), 300).astype(int)) - 1]
                blue = {'color': figures.BLUE, 'linewidth': 2.2}
                style = blue if scheme == 'CAT' else {'color': shades[scheme], 'linewidth': 1}
                panel.plot(costs[k] / scale, curve[k], **style)
            panel.axhline(TARGET, color='0.5', linestyle=figures.DOTTED, linewidth=1)
            figures.log_log(panel, xlabel=unit, title=f'{name}, by {kind}')
        line[0].set_ylabel('gap, relative')
    used = {s for own in curves.values() for s in own}
    styles = [(f'TopK({f})', {'color': c}) for f, c in shades.items() if f in used]
    figures.legend(figure, [('CAT', {'color': figures.BLUE}), *styles], columns=4)
    return figure


def says(rows: list[dict[str, Any]]) -> str:
    """What CAT spent, over what the best fixed fraction did."""
    parts, worst = [], 0.0
    for name, kind in dict.fromkeys((row['data'], row['cost']) for row in rows):
        own = {r['scheme']: r['spent'] for r in rows if (r['data'], r['cost']) == (name, kind)}
        adaptive = own.pop('CAT')
        reached = {scheme: spent for scheme, spent in own.items() if spent is not None}
        if adaptive is None or not reached:
            parts.append(f'{name} by {kind}: not reached')
            continue
        best = min(reached, key=lambda scheme: reached[scheme])
        ratio = adaptive / reached[best]
        worst = max(worst, ratio)
        parts.append(f'{name} by {kind} {ratio:.3f} times TopK({best})')
    if not worst:
        return f'What CAT spends until {TARGET:g} of the gap: {"; ".join(parts)}.'
    verdict = 'within' if worst <= BAR else 'above'
    return (
        f'What CAT spends until {TARGET:g} of the gap, over the best fixed fraction: '
        f'{"; ".join(parts)}. The largest is {worst:.3f}, {verdict} the bar of {BAR:g}.'
    )
