"""Two figures: the relative gap against iterations, and against the bits that each worker sent."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.comparison.methods import HYPERPARAMETERS
from experiments.comparison.runs import TARGET, Run

PANEL = (4.4, 3.3)  # inches
LEGEND = 1.9  # inches below the panels
SMALLEST_GAP = 1e-6  # where panels end: far below the target, above what float32 still resolves
LARGEST_GAP = 2.0

# Colours of Okabe and Ito, and two of Tol, which colour-blind readers can tell apart. One family of
# schemes, one colour. How a line is drawn says the rest: solid or dashed is unbiased, dotted is
# biased, and solid with marks is the same biased scheme with a memory. Where lines lie on each
# other the marks alternate, and exact gradients are a broad band below all of them.
BLUE, SKY, GREEN, INDIGO = '#0072B2', '#56B4E9', '#009E73', '#332288'
VERMILION, ORANGE, PINK, WINE = '#D55E00', '#E69F00', '#CC79A7', '#882255'
DOTTED, SPARSELY, DASHED = (0, (1, 1.2)), (0, (1, 2.6)), (0, (6, 2))
STYLES: dict[str, dict[str, Any]] = {
    'exact': {'color': '0.72', 'linewidth': 5, 'zorder': 1.5},
    'randk': {'color': BLUE},
    'bernoulli': {'color': SKY},
    'bernoulli-own': {'color': SKY, 'linestyle': DASHED},
    'qsgd': {'color': GREEN},
    'ternary-l2': {'color': INDIGO},
    'ternary-max': {'color': INDIGO, 'linestyle': DASHED},
    'topk': {'color': VERMILION, 'linestyle': DOTTED},
    'topk-qsgd': {'color': ORANGE, 'linestyle': SPARSELY},
    'sign': {'color': PINK, 'linestyle': DOTTED},
    'powersgd': {'color': WINE, 'linestyle': DOTTED},
    'topk-memory': {'color': VERMILION, 'marker': 'o', 'markevery': (0.02, 0.16)},
    'topk-qsgd-memory': {'color': ORANGE, 'marker': 's', 'markevery': (0.06, 0.16)},
    'sign-memory': {'color': PINK, 'marker': '^', 'markevery': (0.10, 0.16)},
    'powersgd-memory': {'color': WINE, 'marker': 'D', 'markevery': (0.14, 0.16)},
}
COMMON: dict[str, Any] = {'linewidth': 1.6, 'markersize': 5}
LEGENDS: dict[str, Any] = {  # kind of method to place below the panels
    'unbiased': 'outside lower left',
    'biased, no memory': 'outside lower center',
    'biased, with memory': 'outside lower right',
}


def draw(runs: list[Run], folder: Path) -> list[Path]:
    """Writes both figures as PNG and SVG; one panel for each data set and delay."""
    paths = []
    for name, against in (('gap_by_iterations', 'iterations'), ('gap_by_bits', 'bits sent')):
        figure = _figure(runs, against)
        for suffix in ('png', 'svg'):
            paths.append(folder / f'{name}.{suffix}')
            figure.savefig(paths[-1], dpi=130)
    return paths


def _figure(runs: list[Run], against: str) -> Figure:
    names = list(dict.fromkeys(run.problem.name for run in runs))
    delays = list(dict.fromkeys(run.delay for run in runs))
    size = (max(PANEL[0] * len(delays), 9), PANEL[1] * len(names) + LEGEND)
    figure = Figure(figsize=size, layout='constrained')
    panels = figure.subplots(len(names), len(delays), squeeze=False, sharey=True, sharex='row')
    for row, name in zip(panels, names, strict=True):
        for panel, delay in zip(row, delays, strict=True):
            here = [r for r in runs if r.problem.name == name and r.delay == delay]
            _panel(panel, here, against)
            panel.set_title(f'{name}, {_late(delay)}', fontsize=10)
        row[0].set_ylabel(r'relative gap $(F(w_k) - F^*)\,/\,(F(w_0) - F^*)$')
    unit = 'iterations' if against == 'iterations' else 'bits sent by each worker'
    for panel in panels[-1]:
        panel.set_xlabel(unit)
    workers = runs[0].problem.workers
    figure.suptitle(
        f'How close to the optimum {workers} workers come with how many {against}, by scheme and '
        f'by delay of the gradients\n{textwrap.fill(HYPERPARAMETERS, int(11 * size[0]))}',
        fontsize=11,
    )
    _legends(figure, runs)
    return figure


def _panel(panel: Axes, runs: list[Run], against: str) -> None:
    panel.set(xscale='log', yscale='log', ylim=(SMALLEST_GAP, LARGEST_GAP))
    panel.grid(color='0.92', linewidth=0.8)
    panel.set_axisbelow(True)
    panel.axhline(TARGET, color='0.45', linewidth=1, zorder=1)
    panel.annotate(
        'target',
        (0.01, TARGET),
        xycoords=('axes fraction', 'data'),
        xytext=(0, 2),
        textcoords='offset points',
        color='0.35',
        fontsize=8,
    )
    for run in runs:
        unit = 1 if against == 'iterations' else run.bits
        x, gap = run.curve.iteration[1:] * unit, run.curve.gap[1:]  # a log axis has no zero
        panel.plot(x, np.maximum(gap, SMALLEST_GAP / 100), **(COMMON | STYLES[run.method.name]))
        if run.diverged:
            _cross(panel, float(x[-1]), STYLES[run.method.name]['color'])


def _cross(panel: Axes, x: float, color: str) -> None:
    """At the upper edge, where a run ended that was no number or grew."""
    panel.plot(x, LARGEST_GAP, 'X', color=color, markersize=11, clip_on=False, zorder=5)


def _legends(figure: Figure, runs: list[Run]) -> None:
    methods = list(dict.fromkeys(run.method for run in runs))
    for kind, place in LEGENDS.items():
        lines = [
            Line2D([], [], **(COMMON | STYLES[m.name]), label=m.label)
            for m in methods
            if m.kind == kind
        ]
        if any(run.diverged and run.method.kind == kind for run in runs):
            lines.append(Line2D([], [], color='k', marker='X', linestyle='', label='diverged here'))
        if lines:
            figure.legend(
                handles=lines,
                loc=place,
                title=kind,
                ncols=2 if len(lines) > 4 else 1,
                alignment='left',
                frameon=False,
                fontsize=9,
                handlelength=3.2,
            )


def _late(delay: int) -> str:
    return 'no delay' if delay == 0 else f'gradients {delay} step{"s" * (delay > 1)} late'
