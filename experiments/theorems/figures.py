"""Each run with its bound on top, and all predictions beside what was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.theorems.algorithms import SCHEMES
from experiments.theorems.report import spaced
from experiments.theorems.runs import TARGET, Case, Run, by_case

PANEL = (3.6, 2.7)  # inches
COLUMNS = 3  # panels in a row
SMALLEST = TARGET / 3  # where panels end: runs go on falling after the target
# Colours of Okabe and Ito, which colour-blind readers can tell apart; no compression is grey.
COLORS = {
    'none': '0.35',
    'bernoulli': '#0072B2',
    'ternary': '#009E73',
    'qsgd': '#E69F00',
    'shared': '#56B4E9',
    'topk': '#D55E00',
}
MARKERS = {
    'gradient descent': 'o',
    'mini-batch': 's',
    'distributed': 'D',
    'stale': '^',
    'Q-IAG': 'v',
}


def draw(runs: list[Run], folder: Path) -> list[Path]:
    """Writes a figure for each problem, and one of all predictions, as PNG and SVG."""
    figures = {f'bounds_{case.problem.name}': _bounds(case, own) for case, own in by_case(runs)}
    figures['predicted_measured'] = _predictions(runs)
    paths = []
    for name, figure in figures.items():
        for suffix in ('png', 'svg'):
            paths.append(folder / f'{name}.{suffix}')
            figure.savefig(paths[-1], dpi=130)
    return paths


def _bounds(case: Case, runs: list[Run]) -> Figure:
    """A panel for each algorithm and delay: averages solid, bounds dashed."""
    titles = list(dict.fromkeys(run.row.title for run in runs))
    lines = math.ceil(len(titles) / COLUMNS)
    size = (PANEL[0] * COLUMNS, PANEL[1] * lines + 1.3)
    figure = Figure(figsize=size, layout='constrained')
    panels = figure.subplots(lines, COLUMNS, squeeze=False, sharey=True)
    for panel, title in zip(panels.flat, titles, strict=False):
        _panel(panel, [run for run in runs if run.row.title == title])
        panel.set_title(title, fontsize=10)
    for panel in panels.flat[len(titles) :]:
        panel.axis('off')
    for row in panels:
        row[0].set_ylabel(r'$E|x_k - x^*|^2\,/\,|x_0 - x^*|^2$')
    for panel in panels[-1]:
        panel.set_xlabel('iteration')
    figure.suptitle(
        f'{case.problem.name}, {case.problem.workers} workers: runs (solid, average of seeds) '
        'under their bounds (dashed), each at the step-size of its theorem',
        fontsize=11,
    )
    _legend(figure, runs)
    return figure


def _panel(panel: Axes, runs: list[Run]) -> None:
    panel.set(xscale='log', yscale='log', ylim=(SMALLEST, 2.0))
    panel.grid(color='0.92', linewidth=0.8)
    panel.set_axisbelow(True)
    panel.axhline(TARGET, color='0.6', linewidth=1, zorder=1)
    for run in runs:
        shown = np.array(spaced(len(run.mean) - 1)[1:])  # a log axis has no zero
        start, color = run.mean[0], COLORS[run.row.scheme.name]
        panel.plot(shown, run.mean[shown] / start, color=color, linewidth=1.6)
        if run.bound is not None:
            dashes: Any = (0, (4, 2))
            panel.plot(
                shown, run.bound[shown] / start, color=color, linewidth=1.1, linestyle=dashes
            )


def _legend(figure: Figure, runs: list[Run]) -> None:
    names = {run.row.scheme.name for run in runs}
    handles = [
        Line2D([], [], color=COLORS[scheme.name], label=scheme.label)
        for scheme in SCHEMES
        if scheme.name in names
    ]
    handles += [
        Line2D([], [], color='k', label='run'),
        Line2D([], [], color='k', linestyle=(0, (4, 2)), label='bound'),
        Line2D([], [], color='0.6', linewidth=1, label='target'),
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=5, frameon=False, fontsize=9)


def _predictions(runs: list[Run]) -> Figure:
    """Iterations and bits, predicted against measured: a point a run, all above the diagonal."""
    figure = Figure(figsize=(9, 5.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    shown = [
        run
        for run in runs
        if run.measured and run.predicted is not None and math.isfinite(run.predicted)
    ]
    _scatter(left, shown, lambda run, count: count, 'iterations to the target')
    _scatter(right, shown, lambda run, count: run.bits_until(count), 'bits to the target')
    figure.suptitle(
        f'What the theorems predict and what the runs take, until {TARGET:g} of the start',
        fontsize=11,
    )
    schemes = [scheme for scheme in SCHEMES if any(run.row.scheme is scheme for run in shown)]
    kinds = [kind for kind in MARKERS if any(run.row.algorithm == kind for run in shown)]
    handles = [
        *(Line2D([], [], color=COLORS[s.name], marker='o', ls='', label=s.label) for s in schemes),
        *(Line2D([], [], color='k', marker=MARKERS[kind], ls='', label=kind) for kind in kinds),
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=6, frameon=False, fontsize=9)
    return figure


def _scatter(panel: Axes, runs: list[Run], count: Any, what: str) -> None:
    panel.set(xscale='log', yscale='log', xlabel=f'{what}, measured', ylabel='predicted')
    panel.grid(color='0.92', linewidth=0.8)
    panel.set_axisbelow(True)
    points = [(count(run, run.measured), count(run, run.predicted), run) for run in runs]
    for x, y, run in points:
        color, marker = COLORS[run.row.scheme.name], MARKERS[run.row.algorithm]
        panel.plot(x, y, marker=marker, color=color, markersize=6, alpha=0.8)
    if points:
        low = min(min(x, y) for x, y, _ in points)
        high = max(max(x, y) for x, y, _ in points)
        panel.plot([low, high], [low, high], color='0.4', linewidth=1, zorder=1)
        panel.annotate('equal', (low, low), color='0.3', fontsize=8, va='top')
