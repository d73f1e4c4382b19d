"""The table, the sentences and the figure of training with late gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table as Grid

from experiments import figures, tables
from experiments.late_training.cells import SCHEME_NAME, Cell
from experiments.late_training.delays import Found, Table, early, extra_loss, steps_ratio
from experiments.memory.runs import EVERY, SMOOTH, Run, Setting
from experiments.models import Model

STYLES: dict[str, dict[str, Any]] = {
    'exact': {'color': figures.GREY, 'linewidth': 2.2},
    'compensated': {'color': figures.ORANGE, 'linestyle': figures.DASHED},
    'compressed': {'color': figures.BLUE, 'linewidth': 2.2},
    'compensated, compressed': {'color': figures.SKY, 'linestyle': figures.DASHED},
}
BASE = {'color': 'k', 'linestyle': figures.DOTTED, 'linewidth': 1}


def table(found: Table, setting: Setting, model: Model) -> Grid:
    """Rates, losses and steps of all cells."""
    heads = [
        'optimizer, delay', 'gradients', 'bits an entry', 'best rate', 'strength', 'rates tried',
        'loss', 'seeds', 'more than at delay 0', 'steps / exact',
    ]  # fmt: skip
    rows = []
    for cell, own in found.items():
        losses = own.losses(setting)
        base = dataclasses.replace(cell, tau=0, compensated=False)
        ratio = steps_ratio(found, cell, setting)
        rows.append(
            [
                f'{cell.optimizer}, {cell.tau}', cell.treatment,
                f'{cell.method(1.0).bits(model.params, setting.workers):.3g}',
                f'{own.runs[0].rate:.3g}', f'{own.strength:g}' if cell.compensated else '-',
                f'{own.tried}', f'{losses.mean():.3f}', f'{losses.min():.3f}-{losses.max():.3f}',
                f'{extra_loss(found, cell, base, setting).mean():+.3f}' if cell.tau else '-',
                f'{ratio:.2f}' if np.isfinite(ratio) else '-',
            ]
        )  # fmt: skip
    size = setting.size
    title = (
        f'Training with late gradients: {model.entries:,} parameters ({size.layers} layers of '
        f'width {size.width}), {setting.workers} workers of {setting.examples} windows of '
        f'{size.context} characters, {setting.horizon} steps'
    )
    caption = (
        f'Loss on unseen text in nats a character after {setting.horizon} steps, a mean of {SMOOTH}'
        f' measurements over {SMOOTH * EVERY} steps. Rates were tuned for every row on the first '
        'seed, in factors of 2, then the strength of the compensation at that rate, 1 or 16. '
        f'Compressed: {SCHEME_NAME} with a memory, under Adam without momentum. steps / exact: '
        f'steps to the loss of exact training without delay after {early(setting)}, over these; '
        f'"-": not within {setting.horizon} steps.'
    )
    return tables.table(title, heads, rows, names=2, caption=caption)


def findings(found: Table, setting: Setting) -> list[str]:
    """What delays cost, and whether compression or compensation changes that."""
    optimizers = list(dict.fromkeys(cell.optimizer for cell in found))
    delays = [tau for tau in dict.fromkeys(cell.tau for cell in found) if tau]
    says, late = [], ', '.join(map(str, delays))
    for optimizer in optimizers:
        exact = [_extra(found, Cell(optimizer, tau), Cell(optimizer, 0), setting) for tau in delays]
        packed = [
            _extra(found, Cell(optimizer, tau, True), Cell(optimizer, 0, True), setting)
            for tau in delays
        ]
        says.append(
            f'{optimizer}: delays of {late} steps add {", ".join(exact)} nats after '
            f'{setting.horizon} steps; with compression {", ".join(packed)}.'
        )
        gaps = [
            _extra(found, Cell(optimizer, tau, True), Cell(optimizer, tau), setting)
            for tau in (0, *delays)
        ]
        says.append(
            f'{optimizer}: compression changes the loss by {", ".join(gaps)} nats at delays of '
            f'0, {late} steps.'
        )
        for tau in delays:
            says.append(_compensation(found, optimizer, tau, setting))
    return says


def _extra(found: Table, cell: Cell, base: Cell, setting: Setting) -> str:
    return f'{extra_loss(found, cell, base, setting).mean():+.3f}'


def _compensation(found: Table, optimizer: str, tau: int, setting: Setting) -> str:
    """How much compensation changes the loss, and in how many seeds it is lower."""
    parts = []
    for compressed in (False, True):
        cell = Cell(optimizer, tau, compressed, True)
        change = extra_loss(found, cell, Cell(optimizer, tau, compressed), setting)
        lower = f'lower in {(change < 0).sum()} of {len(change)} seeds'
        where = 'with compression' if compressed else 'without compression'
        parts.append(f'{change.mean():+.3f} nats {where} ({lower})')
    return (
        f'{optimizer}, delay {tau}: compensation changes the loss by {parts[0]} and by {parts[1]}.'
    )


def figure(found: Table, setting: Setting) -> Figure:
    """Loss against steps: a column for each optimizer, a row for each delay."""
    optimizers = list(dict.fromkeys(cell.optimizer for cell in found))
    delays = list(dict.fromkeys(cell.tau for cell in found))
    drawing, panels = figures.panels(
        len(delays), len(optimizers), (5.2, 2.7), sharex=True, sharey='col'
    )
    for (row, column), panel in np.ndenumerate(panels):
        optimizer, tau = optimizers[column], delays[row]
        own = [f for f in found.values() if (f.cell.optimizer, f.cell.tau) == (optimizer, tau)]
        _curve(panel, found[Cell(optimizer, 0)], setting, BASE)
        for one in own:
            _curve(panel, one, setting, STYLES[one.cell.treatment])
        panel.set_title(f'{optimizer}, {f"{tau} steps late" if tau else "not late"}')
        if column == 0:
            panel.set_ylabel('loss, nats')
        if row == len(delays) - 1:
            panel.set_xlabel('step')
    for column, optimizer in enumerate(optimizers):
        own = [f for f in found.values() if f.cell.optimizer == optimizer]
        ends = [f.losses(setting).mean() for f in own]
        finite = figures.finite(ends)
        panels[0, column].set_ylim(min(finite) - 0.1, max(finite) + 0.7)
    labels = [*STYLES.items(), ('exact and not late', BASE)]
    figures.legend(drawing, labels, columns=5)
    return drawing


def _curve(panel: Axes, found: Found, setting: Setting, style: dict[str, Any]) -> None:
    """The mean of the seeds, and how far they are apart."""
    curves = [_padded(run, setting) for run in found.runs]
    steps = (np.arange(len(curves[0])) + SMOOTH) * EVERY
    panel.plot(steps, np.mean(curves, 0), **style)
    if style is not BASE:
        panel.fill_between(
            steps, np.min(curves, 0), np.max(curves, 0), color=style['color'], alpha=0.15, lw=0
        )


def _padded(run: Run, setting: Setting) -> np.ndarray:
    """The smoothed losses; NaN after a run has diverged."""
    whole = np.full(setting.horizon // EVERY - SMOOTH + 1, np.nan)
    whole[: len(run.smooth)] = run.smooth[: len(whole)]
    return whole
