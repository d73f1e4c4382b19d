"""The style of all figures: colours, grids, and how they are saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

matplotlib.rcParams.update(
    {
        'figure.constrained_layout.use': True,
        'figure.titlesize': 11,
        'axes.titlesize': 10,
        'axes.grid': True,
        'axes.axisbelow': True,
        'grid.color': '0.92',
        'legend.frameon': False,
        'legend.fontsize': 9,
        'lines.linewidth': 1.5,
        'lines.markersize': 5,
        'savefig.dpi': 130,
    }
)

# Colours of Okabe and Ito, and two of Tol, which colour-blind readers can tell apart. What is not
# compressed is grey.
GREY, ORANGE, SKY, GREEN, BLUE = '0.4', '#E69F00', '#56B4E9', '#009E73', '#0072B2'
VERMILION, PINK, INDIGO, WINE = '#D55E00', '#CC79A7', '#332288', '#882255'
DOTTED: Any = (0, (1, 1.4))
DASHED: Any = (0, (4, 2))


def panels(rows: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, Any]:
    """A figure and its panels, axes[rows, columns], each of so many inches."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows))
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def log_log(panel: Axes, **words: Any) -> None:
    """Both axes logarithmic, with labels, limits and a title."""
    panel.set(xscale='log', yscale='log', **words)


def legend(figure: Figure, styles: Iterable[tuple[str, dict[str, Any]]], columns: int = 5) -> None:
    """Below all panels: a label and the style of a line or a marker each."""
    handles = [Line2D([], [], label=label, **style) for label, style in styles]
    figure.legend(handles=handles, loc='outside lower center', ncols=columns)


def save(figure: Figure, path: Path) -> None:
    """As PNG."""
    figure.savefig(path)


def finite(values: Iterable[float | None]) -> list[float]:
    """Those that can be drawn."""
    return [v for v in values if v is not None and math.isfinite(v)]
