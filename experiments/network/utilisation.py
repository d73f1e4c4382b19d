"""The share of the time in which workers compute gradients, against links and local steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments import figures
from experiments.exchanges import COLORS, EXACT, LOCAL
from experiments.network.measure import Row
from experiments.network.report import by_link, label

BEST = 'TopK 4 % >> sign'  # what `compressed_adam` sends by default


class Curve(NamedTuple):
    """One line of the figure."""

    name: str
    share: Callable[[dict[str, Row]], float]  # from the rows of a link
    style: dict


def curves(compute: float, schemes: set[str]) -> list[Curve]:
    """The exact mean every so many steps, and what was measured with compression.

    A step without an exchange takes `compute` seconds. With the exact mean after H of them, a
    period takes H - 1 of these and one measured step: nothing overlaps in a compiled step.
    """

    def every(period: int) -> Callable[[dict[str, Row]], float]:
        return lambda own: period * compute / ((period - 1) * compute + own[EXACT].median)

    found = [Curve(EXACT, every(1), {'color': figures.GREY})]
    for period, line in ((8, figures.DASHED), (128, figures.DOTTED)):
        style = {'color': figures.GREY, 'linestyle': line}
        found.append(Curve(f'{EXACT} after {period} local steps, computed', every(period), style))
    for name in (BEST, LOCAL):
        if name in schemes:
            style = {'color': COLORS[name], 'marker': 'o', 'markersize': 4}
            found.append(Curve(name, lambda own, name=name: compute / own[name].median, style))
    return found


def findings(rows: list[Row], compute: float) -> list[str]:
    """The shares on the slowest link, and what no exchange can beat, in sentences."""
    links = by_link(rows)
    link, own = min(links.items(), key=lambda item: item[0].bits or math.inf)
    parts = [f'{c.name} {min(1, c.share(own)):.2%}' for c in curves(compute, set(own))]
    limits = [
        f'{label(link)} {own[EXACT].median / compute:.3g}'
        for link, own in links.items()
        if link.bits
    ]
    return [
        f'Share of the time spent on gradients at {label(link)}: {", ".join(parts)}.',
        f'Times faster than the {EXACT} if nothing were exchanged: {", ".join(limits)}.',
    ]


def figure(rows: list[Row], compute: float) -> Figure:
    """The share against the speed of the links."""
    links = {link: own for link, own in by_link(rows).items() if link.bits and not link.delay}
    drawing, panels = figures.panels(1, 1, (6.4, 4.2))
    panel = panels[0, 0]
    speeds = [link.bits for link in links]
    drawn = curves(compute, {row.scheme for row in rows})
    for curve in drawn:
        panel.plot(speeds, [min(1, curve.share(own)) for own in links.values()], **curve.style)
    panel.set(
        xscale='log',
        xlabel='link of every worker, bit/s',
        ylabel='time spent on gradients',
        ylim=(0, 1.05),
    )
    panel.set_xticks(speeds, [link.name.replace('bit/s', '').replace(' ', '') for link in links])
    panel.xaxis.minorticks_off()
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    figures.legend(drawing, [(curve.name, curve.style) for curve in drawn], columns=1)
    return drawing
