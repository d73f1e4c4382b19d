"""What do schemes save, in iterations and in bits?

Every scheme runs at the step with which its theorem reaches a hundredth of the first distance
soonest (`experiments.theorems`), on data split over eight workers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data, figures
from experiments.paper.claim import Claim, Report, Settings, first, gaps, shown, some_of
from experiments.problems import Problem, split
from experiments.simulate import message_bits
from experiments.theorems.algorithms import SCHEMES, Row, rows as all_rows
from experiments.theorems.figures import COLORS

NAME = 'gap'
ABOUT = 'The gap against iterations and bits'
DATA = ('breast_cancer', 'digits')
WORKERS, REGULARISATION = 8, 0.05  # as in the main job
TARGET = 1e-2  # of the first gap
SEEDS, STEPS = 8, 3000
QUICK_SEEDS, QUICK_STEPS, QUICK_SCHEMES = 2, 60, ('none', 'topk')
FLOOR = 1e-5  # of what is drawn: below it, float32 rounds


def measure(settings: Settings, report: Report) -> Claim:
    """Runs every scheme on every data set."""
    names = settings.data or (DATA[:1] if settings.quick else DATA)
    schemes = QUICK_SCHEMES if settings.quick else tuple(s.name for s in SCHEMES)
    seeds, steps = (QUICK_SEEDS, QUICK_STEPS) if settings.quick else (SEEDS, STEPS)
    found, curves = [], {}
    for name in names:
        problem = split(data.load(name), WORKERS, 0, REGULARISATION)
        for row in rows_of(problem, schemes):
            report(f'{problem.name}, {row.scheme.label}')
            curve = gaps(problem, row.make, steps, seeds=seeds if row.random else 1).mean(axis=1)
            bits = message_bits(row.scheme.compressor, like_of(problem)) * problem.workers
            curves[problem.name, row.scheme.name] = curve, bits
            reached = first(curve, TARGET)
            found.append(
                {
                    'data': problem.name, 'scheme': row.scheme.name, 'step_size': row.step_size,
                    'bits_per_iteration': bits, 'target': TARGET, 'iterations': reached,
                    'bits': None if reached is None else reached * bits, 'last_gap': curve[-1],
                }
            )  # fmt: skip
    return Claim(found, draw(curves), ' '.join(says(found)))


def rows_of(problem: Problem, schemes: tuple[str, ...]) -> list[Row]:
    """Every worker compresses its own gradient, without delay."""
    rows = all_rows(problem.constants, like_of(problem), [], list(schemes))
    return [row for row in rows if row.algorithm == 'distributed']


def like_of(problem: Problem) -> jax.ShapeDtypeStruct:
    """The weights, as compressors see them."""
    return jax.ShapeDtypeStruct((problem.features,), jnp.float32)


def draw(curves: dict[tuple[str, str], tuple[np.ndarray, int]]) -> Any:
    """A row of panels for each data set: over iterations, and over bits."""
    names = list(dict.fromkeys(name for name, _ in curves))
    figure, panels = figures.panels(len(names), 2, (4.8, 3.2), sharey=True)
    for line, name in zip(panels, names, strict=True):
        for (data_set, scheme), (curve, bits) in curves.items():
            if data_set != name:
                continue
            k = some_of(curve)
            k = k[curve[k] > FLOOR]
            line[0].plot(k + 1, curve[k], color=COLORS[scheme])
            line[1].plot((k + 1) * bits / 1e3, curve[k], color=COLORS[scheme])
        figures.log_log(line[0], xlabel='iteration', ylabel='gap, relative', title=name)
        figures.log_log(line[1], xlabel='kbit sent by all workers', title=name)
        for panel in line:
            panel.axhline(TARGET, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    there = {scheme for _, scheme in curves}
    styles = [(s.label, {'color': COLORS[s.name]}) for s in SCHEMES if s.name in there]
    figures.legend(figure, styles, columns=3)
    return figure


def says(rows: list[dict[str, Any]]) -> list[str]:
    """For each data set, iterations and bits relative to no compression."""
    out = []
    for name in dict.fromkeys(row['data'] for row in rows):
        own = [row for row in rows if row['data'] == name]
        base = next(row for row in own if row['scheme'] == 'none')
        if base['iterations'] is None:
            out.append(f'{name}: without compression, {TARGET:g} of the gap was not reached.')
            continue
        parts = []
        for row in own:
            if row is base:
                continue
            label = next(s.label for s in SCHEMES if s.name == row['scheme'])
            if row['iterations'] is None:
                parts.append(f'{label} never')
            else:
                times, fewer = row['iterations'] / base['iterations'], base['bits'] / row['bits']
                parts.append(f'{label} {times:.2g} and {fewer:.2g}')
        out.append(
            f'{name}: {TARGET:g} of the gap is reached without compression after '
            f'{shown(base["iterations"])} iterations and {base["bits"] / 1e3:,.0f} kbit; times the '
            f'iterations, and times fewer bits: {", ".join(parts)}.'
        )
    return out
