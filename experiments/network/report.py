"""Tables and figures of step times against the speed of the links."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from rich.table import Table

from experiments.exchanges import EXACT, color_of
from experiments.network.links import Link
from experiments.network.measure import Row
from experiments.tables import write_csv

BEYOND = 4  # an unlimited link is drawn so many times faster than the fastest limited one

HEAD = ('workers', 'bits_per_second', 'delay', 'scheme', 'bytes')
COLUMNS = (*HEAD, 'steps', 'median', 'min', 'max')


def label(link: Link) -> str:
    """As it stands in tables."""
    return link.name if not link.delay else f'{link.name}, {link.delay * 1e3:g} ms'


def by_link(rows: list[Row]) -> dict[Link, dict[str, Row]]:
    """Link to scheme to row, in the order measured."""
    found: dict[Link, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.link, {})[row.scheme] = row
    return found


def table(rows: list[Row]) -> Table:
    """Schemes down, links across: milliseconds a step, and how many times faster."""
    links = by_link(rows)
    shown = Table(title=f'{rows[0].workers} workers: ms a step (times faster than the {EXACT})')
    shown.add_column('scheme')
    shown.add_column('bytes a step', justify='right')
    for link in links:
        shown.add_column(label(link), justify='right')
    for name in dict.fromkeys(row.scheme for row in rows):
        own = [measured[name] for measured in links.values()]
        cells = []
        for measured, row in zip(links.values(), own, strict=True):
            faster = measured[EXACT].median / row.median
            cells.append(f'{row.median * 1e3:,.0f} ({faster:.3g})')
        shown.add_row(name, f'{own[0].bytes:,}', *cells)
    return shown


def findings(rows: list[Row]) -> list[str]:
    """Where the best scheme wins, in sentences."""
    lines = []
    for link, measured in by_link(rows).items():
        best = min(measured.values(), key=lambda row: row.median)
        exact = measured[EXACT]
        if best.scheme == EXACT:
            lines.append(f'{label(link)}: do not compress; the {EXACT} is the fastest.')
            continue
        lines.append(
            f'{label(link)}: {best.scheme}, {best.median * 1e3:,.0f} ms a step, '
            f'{exact.median / best.median:.3g} times faster than the {EXACT} '
            f'({exact.median * 1e3:,.0f} ms).'
        )
    return lines


def write(path: Path, rows: list[Row]) -> None:
    """A row a scheme and link."""

    def line(row: Row) -> tuple:
        times = (f'{t:.6f}' for t in (row.median, min(row.seconds), max(row.seconds)))
        return *head(row), len(row.seconds), *times

    write_csv(path, COLUMNS, map(line, rows))


def head(row: Row) -> tuple:
    """The columns of `HEAD`."""
    bits = '' if row.link.bits is None else f'{row.link.bits:.0f}'
    return row.workers, bits, row.link.delay, row.scheme, row.bytes


def speed_axis(panel: Axes, links: Iterable[Link]) -> list[float]:
    """Makes an empty panel one against speeds, both logarithmic; returns where the links stand."""
    links = list(links)
    unlimited = BEYOND * max((link.bits for link in links if link.bits is not None), default=1e10)
    names = [link.name.replace('bit/s', '').replace(' ', '') for link in links]
    places = [link.bits or unlimited for link in links]
    panel.set(xscale='log', yscale='log')
    panel.set_xticks(places, names)
    panel.minorticks_off()
    panel.set_xlabel('link of every worker, bit/s')
    panel.grid(alpha=0.3)
    return places


def draw(path: Path, rows: list[Row], entries: int) -> None:
    """Step time and speed-up against bandwidth, links without delay."""
    links = {link: m for link, m in by_link(rows).items() if not link.delay}
    exact = [measured[EXACT].median for measured in links.values()]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.4), layout='constrained')
    x, _ = (speed_axis(panel, links) for panel in panels)
    for name in dict.fromkeys(r.scheme for r in rows):
        seconds = [measured[name].median for measured in links.values()]
        style = {'color': color_of(name), 'marker': 'o', 'markersize': 4, 'label': name}
        panels[0].plot(x, seconds, **style)
        panels[1].plot(x, [e / s for e, s in zip(exact, seconds, strict=True)], **style)
    title = f'a gradient of {entries / 1e6:.1f} M entries, {rows[0].workers} workers'
    panels[0].set(ylabel='seconds a step', title=title)
    panels[1].set(ylabel=f'times faster than the {EXACT}', title='speed-up')
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
