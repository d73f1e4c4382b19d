"""Tables, sentences and figures of step times against the speed of the links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from experiments import figures, tables
from experiments.exchanges import COLORS, EXACT
from experiments.network.links import Link
from experiments.network.measure import Row, Trained
from gradzip._quantities import duration

BEYOND = 4  # an unlimited link is drawn so many times faster than the fastest limited one
Ways = Mapping[str, Trained]  # by scheme


def label(link: Link) -> str:
    """As it stands in tables."""
    return link.name if not link.delay else f'{link.name}, {link.delay * 1e3:g} ms'


def by_link(rows: list[Row]) -> dict[Link, dict[str, Row]]:
    """Link to scheme to row, in the order measured."""
    found: dict[Link, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.link, {})[row.scheme] = row
    return found


def step_table(rows: list[Row]) -> Table:
    """Milliseconds a step, and how many times faster than the exact mean."""
    return _grid(
        f'{rows[0].workers} workers: ms a step (times faster than the {EXACT})',
        rows,
        lambda row, exact: f'{row.median * 1e3:,.0f} ({exact.median / row.median:.3g})',
    )


def step_findings(rows: list[Row]) -> list[str]:
    """Which scheme wins on every link, in sentences."""
    lines = []
    for link, own in by_link(rows).items():
        best, exact = min(own.values(), key=lambda row: row.median), own[EXACT]
        if best is exact:
            lines.append(f'{label(link)}: do not compress; the {EXACT} is the fastest.')
        else:
            lines.append(
                f'{label(link)}: {best.scheme}, {best.median * 1e3:,.0f} ms a step, '
                f'{exact.median / best.median:.3g} times faster than the {EXACT} '
                f'({exact.median * 1e3:,.0f} ms).'
            )
    return lines


def step_figure(rows: list[Row], entries: int) -> Figure:
    """Step time and speed-up against bandwidth."""
    figure, panels = figures.panels(1, 2, (5.5, 4.4))
    speed_panel(panels[0, 0], rows, lambda row, exact: row.median)
    speed_panel(panels[0, 1], rows, lambda row, exact: exact.median / row.median)
    title = f'a gradient of {entries / 1e6:.1f} M entries, {rows[0].workers} workers'
    panels[0, 0].set(ylabel='seconds a step', title=title)
    panels[0, 1].set(ylabel=f'times faster than the {EXACT}', title='speed-up')
    panels[0, 0].legend()
    return figure


def training_times(rows: list[Row], ways: Ways) -> dict[str, dict[str, float]]:
    """Link to scheme to seconds until the loss; only schemes that reached it."""
    return {
        label(link): {s: ways[s].steps * row.median for s, row in own.items() if ways[s].reached}
        for link, own in by_link(rows).items()
    }


def training_table(rows: list[Row], ways: Ways) -> Table:
    """Seconds to the loss, and how many times sooner than the exact mean."""

    def cell(row: Row, exact: Row) -> str:
        if not ways[row.scheme].reached:
            return '-'
        own, whole = (ways[r.scheme].steps * r.median for r in (row, exact))
        return f'{duration(own)} ({whole / own:.3g})'

    steps = {s: str(way.steps) if way.reached else f'> {way.steps}' for s, way in ways.items()}
    target = ways[EXACT].target
    title = f'{rows[0].workers} workers: time to a loss of {target:.3f} on unseen text'
    return _grid(f'{title} (times sooner than the {EXACT})', rows, cell, steps=steps)


def training_findings(rows: list[Row], ways: Ways) -> list[str]:
    """Which scheme reaches the loss first on every link."""
    lines = []
    for name, own in training_times(rows, ways).items():
        best = min(own, key=lambda scheme: own[scheme])
        if best == EXACT:
            lines.append(f'{name}: do not compress; the {EXACT} is there first.')
        else:
            lines.append(
                f'{name}: {best} is at the loss after {duration(own[best])}, '
                f'{own[EXACT] / own[best]:.3g} times sooner than the {EXACT} '
                f'({duration(own[EXACT])}).'
            )
    return lines


def training_figure(rows: list[Row], ways: Ways) -> Figure:
    """The loss against steps; the time to it against the speed of the links."""
    figure, panels = figures.panels(1, 2, (5.5, 4.4))
    left, right = panels[0]
    for name, way in ways.items():
        steps, losses, _ = zip(*way.losses, strict=True)
        left.plot(steps, losses, linewidth=1.2, color=COLORS[name], label=name)
    target = ways[EXACT].target
    left.axhline(target, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    left.set(xlabel='steps', ylabel='loss on unseen text, nats a character')
    left.legend()
    reached = [row for row in rows if ways[row.scheme].reached]
    speed_panel(right, reached, lambda row, exact: ways[row.scheme].steps * row.median)
    right.set_ylabel(f'seconds to a loss of {target:.2f}')
    return figure


def speed_panel(panel: Axes, rows: list[Row], value: Callable[[Row, Row], float]) -> None:
    """value(row, row of the exact mean) against the speed of the links, those without delay."""
    links = {link: own for link, own in by_link(rows).items() if not link.delay}
    unlimited = BEYOND * max((link.bits for link in links if link.bits is not None), default=1e10)
    places = [link.bits or unlimited for link in links]
    figures.log_log(panel, xlabel='link of every worker, bit/s')
    panel.set_xticks(places, [link.name.replace('bit/s', '').replace(' ', '') for link in links])
    panel.xaxis.minorticks_off()
    for name in dict.fromkeys(row.scheme for row in rows):
        y = [value(own[name], own[EXACT]) for own in links.values()]
        panel.plot(places, y, color=COLORS[name], marker='o', markersize=4, label=name)


def csv_row(row: Row) -> dict[str, Any]:
    """What is said of a row in every CSV file; seconds a step in `median`."""
    return {
        'workers': row.workers,
        'bits_per_second': '' if row.link.bits is None else f'{row.link.bits:.0f}',
        'delay': row.link.delay,
        'scheme': row.scheme,
        'bytes': row.bytes,
        'steps': len(row.seconds),
        'median': f'{row.median:.6f}',
        'min': f'{min(row.seconds):.6f}',
        'max': f'{max(row.seconds):.6f}',
    }


def _grid(
    title: str, rows: list[Row], cell: Callable[[Row, Row], str], **columns: Mapping[str, str]
) -> Table:
    """Schemes down, links across; further columns by their heads."""
    links, found = by_link(rows), []
    for name in dict.fromkeys(row.scheme for row in rows):
        own = [measured[name] for measured in links.values()]
        cells = [cell(row, there[EXACT]) for row, there in zip(own, links.values(), strict=True)]
        found.append([name, f'{own[0].bytes:,}', *(c[name] for c in columns.values()), *cells])
    heads = ['scheme', 'bytes a step', *columns, *map(label, links)]
    return tables.table(title, heads, found)
