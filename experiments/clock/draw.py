"""The figure: the predictions, what workers do with their time, and how late gradients are."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import figures
from experiments.clock.runs import BAR, TIMES, Result

SHOWN = 'exponential', 100  # times and workers of the delays in the figure
COLORS = {
    'Synchronous': figures.GREY,
    'MSynchronous': figures.WINE,
    'Quorum': figures.VERMILION,
    'RoundRobin': figures.PINK,
    'BoundedStaleness': figures.ORANGE,
    'Rennala': figures.GREEN,
    'Ringmaster': figures.SKY,
    'Asynchronous': figures.BLUE,
}
MARKERS = dict(zip(TIMES, 'osD^v', strict=True))


def draw(results: list[Result]) -> Figure:
    """Predictions, what workers do with their time, and how late gradients are used."""
    figure, panels = figures.panels(1, 3, (4.6, 4.0))
    for r in results:
        style = {'color': COLORS[r.name], 'marker': MARKERS[r.times], 'linestyle': ''}
        panels[0, 0].plot(r.predicted, r.ratio, fillstyle='none', **style)
    for ratio in (1 / BAR, 1, BAR):
        panels[0, 0].axhline(ratio, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    panels[0, 0].set(
        xscale='log', yscale='log', ylim=(0.5, 2), xlabel='seconds of a step, predicted',
        ylabel='simulated / predicted', title='the prediction',
    )  # fmt: skip
    panels[0, 0].set_yticks(
        [0.5, 1 / BAR, 1, BAR, 2], ['0.5', '1/1.5', '1', '1.5', '2'], minor=False
    )
    panels[0, 0].minorticks_off()
    times, n = SHOWN[0], min((r.workers for r in results), key=lambda x: abs(x - SHOWN[1]))
    chosen = [r for r in results if (r.times, r.workers) == (times, n)]
    for i, r in enumerate(chosen):
        panels[0, 1].barh(i, r.run.utilisation.mean(), color=COLORS[r.name], alpha=0.35)
        panels[0, 1].barh(i, r.run.useful.mean(), color=COLORS[r.name])
        counts = r.run.histogram / r.run.used.sum()
        late = 1 - np.cumsum(counts)[:-1]  # later than 0, 1, ... steps
        if len(late):
            panels[0, 2].plot(np.arange(1, len(counts)), late, color=COLORS[r.name])
    panels[0, 1].set_yticks(range(len(chosen)), [r.name for r in chosen])
    panels[0, 1].invert_yaxis()
    panels[0, 1].set(
        xlim=(0, 1), xlabel='share of the time: computing, of it used',
        title=f'{n} workers, {times} times',
    )  # fmt: skip
    panels[0, 2].set(
        xscale='log', yscale='log', ylim=(1e-4, 1.2), xlabel='steps late, at least',
        ylabel='share of the gradients', title=f'{n} workers, {times} times',
    )  # fmt: skip
    marks = [(t, {'marker': m, 'color': '0.3', 'linestyle': ''}) for t, m in MARKERS.items()]
    lines = [(name, {'color': color}) for name, color in COLORS.items()]
    figures.legend(figure, [*lines, *marks], columns=7)
    return figure
