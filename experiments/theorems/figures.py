"""Each run with its bound on top, and all predictions beside what was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures
from experiments.problems import Problem
from experiments.theorems.algorithms import SCHEMES
from experiments.theorems.runs import TARGET, Run, by_problem

COLUMNS = 3  # panels in a row
SMALLEST = TARGET / 3  # where panels end: runs go on falling after the target
COLORS = dict(
    zip(
        [scheme.name for scheme in SCHEMES],
        (
            figures.GREY, figures.BLUE, figures.GREEN, figures.ORANGE, figures.SKY,
            figures.VERMILION,
        ),
        strict=True,
    )
)  # fmt: skip
MARKERS = {
    'gradient descent': 'o', 'mini-batch': 's', 'distributed': 'D', 'stale': '^', 'Q-IAG': 'v',
}  # fmt: skip


def draw(runs: list[Run], folder: Path) -> None:
    """A figure for each problem, and one of all predictions."""
    for problem, own in by_problem(runs):
        figures.save(_bounds(problem, own), folder / f'bounds_{problem.name}.png')
    figures.save(_predictions(runs), folder / 'predicted_measured.png')


def _bounds(problem: Problem, runs: list[Run]) -> Figure:
    """A panel for each algorithm and delay: averages solid, bounds dashed."""
    titles = list(dict.fromkeys(run.row.title for run in runs))
    lines = math.ceil(len(titles) / COLUMNS)
    figure, panels = figures.panels(lines, COLUMNS, (3.6, 3.0), sharey=True)
    for panel, title in zip(panels.flat, titles, strict=False):
        figures.log_log(panel, ylim=(SMALLEST, 2.0), title=title)
        _panel(panel, [run for run in runs if run.row.title == title])
    for panel in panels.flat[len(titles) :]:
        panel.axis('off')
    for row in panels:
        row[0].set_ylabel(r'$E|x_k - x^*|^2\,/\,|x_0 - x^*|^2$')
    for panel in panels[-1]:
        panel.set_xlabel('iteration')
    figure.suptitle(
        f'{problem.name}, {problem.workers} workers: runs (solid, average of seeds) '
        'under their bounds (dashed), each at the step-size of its theorem'
    )
    lines = [('run', {'color': 'k'}), ('bound', {'color': 'k', 'linestyle': figures.DASHED})]
    figures.legend(figure, [*_schemes(runs), *lines, ('target', {'color': '0.6'})])
    return figure


def _panel(panel: Axes, runs: list[Run]) -> None:
    panel.axhline(TARGET, color='0.6', linewidth=1, zorder=1)
    for run in runs:
        k = np.unique(np.geomspace(1, max(1, len(run.mean) - 1), 200).astype(int))
        k, color = k[k < len(run.mean)], COLORS[run.row.scheme.name]
        panel.plot(k, run.mean[k] / run.mean[0], color=color)
        if run.bound is not None:
            bound = run.bound[k] / run.mean[0]
            panel.plot(k, bound, color=color, linewidth=1.1, linestyle=figures.DASHED)


def _predictions(runs: list[Run]) -> Figure:
    """Iterations and bits, predicted against measured: a point a run, all above the diagonal."""
    figure, panels = figures.panels(1, 2, (4.5, 5.2))
    shown = [run for run in runs if run.measured and figures.finite([run.predicted])]
    _scatter(panels[0, 0], shown, lambda run, count: count, 'iterations to the target')
    _scatter(panels[0, 1], shown, lambda run, count: run.bits_until(count), 'bits to the target')
    figure.suptitle(
        f'What the theorems predict and what the runs take, until {TARGET:g} of the start'
    )
    kinds = [kind for kind in MARKERS if any(run.row.algorithm == kind for run in shown)]
    points = [(kind, {'color': 'k', 'marker': MARKERS[kind], 'ls': ''}) for kind in kinds]
    figures.legend(figure, [*_schemes(shown, marker='o', ls=''), *points], columns=6)
    return figure


def _scatter(panel: Axes, runs: list[Run], count: Any, what: str) -> None:
    figures.log_log(panel, xlabel=f'{what}, measured', ylabel='predicted')
    points = [(count(run, run.measured), count(run, run.predicted), run) for run in runs]
    for x, y, run in points:
        color, marker = COLORS[run.row.scheme.name], MARKERS[run.row.algorithm]
        panel.plot(x, y, marker=marker, color=color, alpha=0.8)
    if points:
        ends = [f(f(x, y) for x, y, _ in points) for f in (min, max)]
        panel.plot(ends, ends, color='0.4', linewidth=1, zorder=1)
        panel.annotate('equal', (ends[0], ends[0]), color='0.3', fontsize=8, va='top')


def _schemes(runs: list[Run], **style: Any) -> list[tuple[str, dict[str, Any]]]:
    there = {run.row.scheme.name for run in runs}
    return [(s.label, {'color': COLORS[s.name], **style}) for s in SCHEMES if s.name in there]
