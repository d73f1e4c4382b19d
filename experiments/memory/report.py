"""The table, the sentences and the figure of a comparison."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter
from rich.table import Table

from experiments import figures, tables
from experiments.memory.methods import EXACT, Method
from experiments.memory.runs import EVERY, LONGEST, SMOOTH, Run, Setting

FLOAT = 32  # bits


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of one method."""

    method: Method
    bits: float  # for each entry and step
    runs: list[Run]  # at its best rate, one for each seed
    ratios: list[float]  # steps to exact Adam's loss, over the horizon; infinity if not reached

    @property
    def ratio(self) -> float:
        """The mean over seeds; infinity if one of them did not reach the loss."""
        return float(np.mean(self.ratios))


def rows(methods: list[Method], found: dict[str, list[Run]], params: Any, setting: Setting) -> list:
    """One for each method; the targets are the losses of exact Adam with the same seeds."""
    targets = [run.after(setting.horizon) for run in found[EXACT]]
    out = []
    for method in methods:
        runs = found[method.name]
        steps = [run.reached(target) for run, target in zip(runs, targets, strict=True)]
        ratios = [np.inf if s is None else s / setting.horizon for s in steps]
        out.append(Row(method, method.bits(params, setting.workers), runs, ratios))
    return out


def table(found: list[Row], setting: Setting, entries: int, searched: bool = True) -> Table:
    """Bits, rates, steps and losses of all methods."""
    rates = 'tuned for every method on the first seed, in factors of 1.41' if searched else 'given'
    heads = [
        'method',
        'bits an entry',
        'times fewer',
        'best rate' if searched else 'rate',
        'steps / exact',
        'seeds',
        'loss',
    ]
    lines = []
    for row in found:
        losses = [run.after(setting.horizon) for run in row.runs]
        lines.append(
            [
                row.method.name,
                f'{row.bits:.3g}',
                f'{FLOAT / row.bits:.3g}',
                f'{row.runs[0].rate:.2g}',
                _ratio(row.ratio),
                ' '.join(_ratio(ratio) for ratio in row.ratios),
                f'{np.mean(losses):.4f}',
            ]
        )
    size = setting.size
    return tables.table(
        f'Steps to the loss of exact Adam after {setting.horizon} steps: {entries:,} parameters '
        f'({size.layers} layers of width {size.width}), {setting.workers} workers of '
        f'{setting.examples} windows of {size.context} characters',
        heads,
        lines,
        caption=f'Loss on unseen text in nats a character after {setting.horizon} steps, a mean of '
        f'{SMOOTH} measurements over {SMOOTH * EVERY} steps. Rates were {rates}. '
        f'"-": not reached within {LONGEST} horizons.',
    )


def _ratio(ratio: float) -> str:
    return f'{ratio:.2f}' if np.isfinite(ratio) else '-'


def findings(found: list[Row]) -> list[str]:
    """What the methods that are compressed need, in sentences."""
    lines = []
    for row in found[1:]:
        fewer = f'{FLOAT / row.bits:.3g} times fewer bits'
        if np.isfinite(row.ratio):
            lines.append(f'{row.method.name}: {row.ratio:.2f} times the steps at {fewer}.')
        else:
            lines.append(f'{row.method.name}: not at the loss of exact Adam, at {fewer}.')
    return lines


def figure(found: list[Row], setting: Setting) -> Figure:
    """Loss against steps on the first seed, and steps against bits."""
    drawing, panels = figures.panels(1, 2, (6.0, 4.4))
    curves, front = panels[0]
    for row in found:
        run = row.runs[0]
        steps = (np.arange(len(run.smooth)) + SMOOTH) * EVERY
        curves.plot(steps, run.smooth, **row.method.style)
    target = found[0].runs[0].after(setting.horizon)
    curves.axhline(target, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    shown = [run.runs[0].smooth for run in found]
    top = float(np.median([curve[min(len(curve) - 1, 60 // EVERY)] for curve in shown]))
    curves.set(
        xlabel='step', ylabel='loss on unseen text, nats', title='loss', ylim=(target - 0.25, top)
    )
    for row in found:
        color = row.method.style['color']
        if np.isfinite(row.ratio):
            spread = [[row.ratio - min(row.ratios)], [max(row.ratios) - row.ratio]]
            front.errorbar(row.bits, row.ratio, yerr=spread, color=color, marker='o', capsize=3)
        else:
            front.plot(row.bits, LONGEST, color=color, marker='^')
    front.axhline(1, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    front.set(
        xscale='log',
        xlabel='bits an entry and step',
        ylabel=f'steps to exact Adam after {setting.horizon}, over {setting.horizon}',
        title=f'steps against bits (triangles: not within {LONGEST})',
    )
    front.xaxis.set_major_formatter(FormatStrFormatter('%g'))
    figures.legend(drawing, [(row.method.name, row.method.style) for row in found], columns=3)
    return drawing
