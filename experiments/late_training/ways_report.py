"""The table, the sentences and the figure of training in simulated time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table as Grid

from experiments import figures, tables
from experiments.late_training.events import SMOOTH, Curve, EventTrainer, steps_a_block
from experiments.late_training.ways import (
    GRADIENT,
    LATENCY,
    LINK,
    SIGMA,
    SLOWER,
    WAYS,
    WORKERS,
    Way,
)
from gradzip._quantities import duration

FIRST = WAYS[0]  # the synchronous way with exact messages, with whose end all are compared
Found = dict[Way, list[Curve]]


def seconds_to(found: Found, way: Way) -> float | None:
    """Seconds to the last loss of the synchronous way, a mean over seeds; None if not always."""
    targets = [run.last for run in found[FIRST]]
    times = [run.reached(t) for run, t in zip(found[way], targets, strict=True)]
    known = [t for t in times if t is not None]
    return float(np.mean(known)) if len(known) == len(times) else None


def table(found: Found, trainer: EventTrainer, entries: int) -> Grid:
    """Seconds, gradients, delays and losses of all ways."""
    heads = [
        'way', 'KB up', 'KB down', 'ms a step', 'gradients/s', 'delay: mean',
        'longest', 'best rate', 'tried', 'loss', 'seeds', 'seconds', 'sooner',
    ]  # fmt: skip
    rows, until = [], trainer.until
    for way, runs in found.items():
        arrived, network = trainer.arrivals(way), trainer.networks[way.compressed]
        losses = np.array([run.last for run in runs])
        seconds = seconds_to(found, way)
        tried = sum((run.way, run.seed) == (way.name, 0) for run in trainer.runs)
        rows.append(
            [
                way.name, f'{network.up / 1e3:.3g}', f'{network.down / 1e3:.3g}',
                f'{1e3 * until / len(arrived.step_seconds):.3g}',
                f'{len(arrived.worker) / until:.3g}', f'{arrived.delays.mean():.3g}',
                f'{arrived.delays.max()}', f'{runs[0].rate:.3g}', f'{tried}',
                f'{losses.mean():.3f}', f'{losses.min():.3f}-{losses.max():.3f}',
                *(['-', '-'] if seconds is None else [f'{seconds:.0f}', f'{until / seconds:.2f}']),
            ]
        )  # fmt: skip
    size, setting = trainer.setting.size, trainer.setting
    title = (
        f'Training for {duration(until)} of simulated time: {entries:,} parameters ({size.layers} '
        f'layers of width {size.width}), {WORKERS} workers, {setting.examples} windows of '
        f'{size.context} characters in a gradient'
    )
    caption = (
        f'A gradient takes {1e3 * GRADIENT:.0f} ms in the mean (log-normal, sigma {SIGMA:g}), and '
        f'{SLOWER:g} times as long on one worker; every worker has a link of {LINK}/s and '
        f'{LATENCY}. Loss on unseen text in nats a character at the end, a mean of {SMOOTH} '
        'measurements. Rates of Adam were tuned in factors of 2 on the first seed; tried: so many. '
        f'seconds: to the last loss of the way "{FIRST.name}"; "-": not reached with every seed.'
    )
    return tables.table(title, heads, rows, caption=caption)


def findings(found: Found, trainer: EventTrainer) -> list[str]:
    """Which way is where, and what compression changes."""
    until = duration(trainer.until)
    losses = {way: float(np.mean([run.last for run in runs])) for way, runs in found.items()}
    order = sorted(losses, key=lambda way: losses[way])
    says = [
        f'Loss after {until} of simulated time, the lowest first: '
        f'{"; ".join(f"{way.name} {losses[way]:.3f}" for way in order)}.'
    ]
    parts = []
    for way in found:
        if way is not FIRST:
            seconds = seconds_to(found, way)
            sooner = 'never' if seconds is None else f'{trainer.until / seconds:.2f} times sooner'
            parts.append(f'{way.name} {sooner}')
    says.append(f'The last loss of {FIRST.name} is reached by {", ".join(parts)}.')
    return says


def figure(found: Found) -> Figure:
    """Loss against simulated seconds, and against gradients: what is saved and what delays cost."""
    drawing, panels = figures.panels(1, 2, (5.4, 4.0), sharey=True)
    for way, runs in found.items():
        count = min(len(run.smooth) for run in runs)
        curve = np.mean([run.smooth[:count] for run in runs], 0)
        seconds = runs[0].seconds[SMOOTH - 1 :][:count]
        panels[0, 0].plot(seconds, curve, **way.style)
        panels[0, 1].plot(_gradients(way, count), curve, **way.style)
    ends = figures.finite([run.last for runs in found.values() for run in runs])
    target = float(np.mean([run.last for run in found[FIRST]]))
    for panel in panels[0]:
        panel.axhline(target, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    panels[0, 0].set(
        xlabel='simulated seconds', ylabel='loss on unseen text, nats', title='by the clock',
        ylim=(min(ends) - 0.05, 3.0), xlim=(0, None),
    )  # fmt: skip
    panels[0, 1].set(xlabel='gradients used', title='by the work done', xlim=(0, None))
    figures.legend(drawing, [(way.name, way.style) for way in found], columns=3)
    return drawing


def _gradients(way: Way, count: int) -> np.ndarray:
    """Used until each smoothed measurement."""
    return (np.arange(count) + SMOOTH) * way.batch * steps_a_block(way)
