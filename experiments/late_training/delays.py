"""Training with late gradients: every cell at its best rate, and what came of it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from experiments.late_training.cells import RATES, Cell
from experiments.memory.runs import EVERY, SMOOTH, Run, Setting, Trainer

FACTOR = 2.0  # between neighbouring rates
STRENGTHS = 1.0, 16.0  # of the compensation; the rate is tuned with the first
EARLY = 0.2  # steps to a loss are counted to that of exact training after this share


class Found(NamedTuple):
    """What came of one cell."""

    cell: Cell
    runs: list[Run]  # at the best rate, one for each seed
    strength: float
    tried: int = 0  # runs of the first seed

    def losses(self, setting: Setting) -> np.ndarray:
        """On unseen text after the horizon: f64[seeds]."""
        return np.array([run.after(setting.horizon) for run in self.runs])


Table = dict[Cell, Found]


def compare(
    trainer: Trainer, cells: list[Cell], seeds: int, strengths: tuple[float, ...] = STRENGTHS
) -> Table:
    """Every cell's runs at its best rate, which is tuned on the first seed.

    A walk may stop early, as losses of late gradients are noisy. So that a compensation is not
    taken for better only because its walk went further, the walk without it is repeated from there.
    """
    table: Table = {}
    for cell in cells:
        table[cell] = _tuned(trainer, cell, seeds, strengths, _start(table, cell))
        if cell.compensated:
            plain = dataclasses.replace(cell, compensated=False)
            again = _tuned(trainer, plain, seeds, strengths, table[cell].runs[0].rate)
            table[plain] = min(
                table[plain], again, key=lambda found: found.losses(trainer.setting)[0]
            )
    tried = {cell: _tried(trainer, cell, strengths) for cell in cells}
    return {cell: found._replace(tried=tried[cell]) for cell, found in table.items()}


def _tried(trainer: Trainer, cell: Cell, strengths: tuple[float, ...]) -> int:
    names = {cell.method(strength).name for strength in strengths}
    return sum(run.seed == 0 and run.method in names for run in trainer.runs)


def _start(table: Table, cell: Cell) -> float:
    """A rate that is not far off: of the same cell without compensation, or with less delay."""
    alike = (cell.optimizer, cell.compressed)
    known = [f for c, f in table.items() if (c.optimizer, c.compressed) == alike]
    return known[-1].runs[0].rate if known else RATES[cell.optimizer]


def _tuned(
    trainer: Trainer, cell: Cell, seeds: int, strengths: tuple[float, ...], start: float
) -> Found:
    """Tuned on the first seed; a rate at which another seed diverges is too large."""
    horizon, strength = trainer.setting.horizon, strengths[0]
    best = trainer.tuned(cell.method(strength), start, 0, None, FACTOR)
    if cell.compensated:
        for other in strengths[1:]:
            run = trainer.run(cell.method(other), best.rate, 0, None)
            if run.after(horizon) < best.after(horizon):
                strength, best = other, run
    method, rate = cell.method(strength), best.rate
    while True:
        runs = [trainer.run(method, rate, seed, None) for seed in range(seeds)]
        if all(np.isfinite(run.after(horizon)) for run in runs):
            break
        rate /= FACTOR
    return Found(cell, runs, strength)


def extra_loss(table: Table, cell: Cell, base: Cell, setting: Setting) -> np.ndarray:
    """How much higher the loss of a cell is, for each seed: f64[seeds]."""
    return table[cell].losses(setting) - table[base].losses(setting)


def early(setting: Setting) -> int:
    """Steps after which the loss of exact training without delay is a target for all cells."""
    return max(SMOOTH, round(EARLY * setting.horizon / EVERY)) * EVERY


def steps_ratio(table: Table, cell: Cell, setting: Setting) -> float:
    """Steps to the loss of exact training without delay after `early` steps, over these.

    The mean over seeds; infinity if one of them does not get there within the horizon.
    """
    base = table[dataclasses.replace(cell, tau=0, compressed=False, compensated=False)]
    target = early(setting)
    ratios = []
    for run, exact in zip(table[cell].runs, base.runs, strict=True):
        steps = run.reached(exact.after(target))
        ratios.append(np.inf if steps is None else steps / target)
    return float(np.mean(ratios))
