"""Time to the same loss: steps of every scheme, times the time of a step on every link."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from rich.table import Table

from experiments.exchanges import EXACT, color_of
from experiments.network.measure import Row, Trained
from experiments.network.report import HEAD, by_link, head, label, speed_axis
from experiments.plan.units import duration
from experiments.tables import write_csv

COLUMNS = (*HEAD, 'steps_to_loss', 'reached', 'step', 'time_to_loss')
Ways = dict[str, Trained]  # by scheme


def times(rows: list[Row], ways: Ways) -> dict[str, dict[str, float]]:
    """Link to scheme to seconds until the loss; only schemes that reached it."""
    return {
        label(link): {s: ways[s].steps * row.median for s, row in own.items() if ways[s].reached}
        for link, own in by_link(rows).items()
    }


def table(rows: list[Row], ways: Ways, target: float) -> Table:
    """Schemes down, links across: seconds to the loss, and how many times sooner."""
    links, found = by_link(rows), times(rows, ways)
    shown = Table(
        title=f'{rows[0].workers} workers: time to a loss of {target:.3f} on unseen text '
        f'(times sooner than the {EXACT})'
    )
    shown.add_column('scheme')
    shown.add_column('bytes a step', justify='right')
    shown.add_column('steps', justify='right')
    for link in links:
        shown.add_column(label(link), justify='right')
    for name, way in ways.items():
        cells = []
        for own in found.values():
            reached = name in own
            cells.append(
                f'{duration(own[name])} ({own[EXACT] / own[name]:.3g})' if reached else '-'
            )
        steps = str(way.steps) if way.reached else f'> {way.steps}'
        size = next(row.bytes for row in rows if row.scheme == name)
        shown.add_row(name, f'{size:,}', steps, *cells)
    return shown


def findings(rows: list[Row], ways: Ways) -> list[str]:
    """Who is there first on every link."""
    lines = []
    for name, own in times(rows, ways).items():
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


def checked(where: str, whole: list[Trained], expected: dict[str, float]) -> list[str]:
    """Runs in full on one link, against steps times the time of a step."""
    return [
        f'In full at {where}: {run.scheme} took {duration(run.seconds)} for {run.steps} steps; '
        f'steps times step time is {duration(expected[run.scheme])}.'
        for run in whole
    ]


def write(path: Path, rows: list[Row], ways: Ways) -> None:
    """A row a scheme and link."""

    def line(row: Row) -> tuple:
        way = ways[row.scheme]
        to = f'{way.steps * row.median:.3f}' if way.reached else ''
        return *head(row), way.steps, way.reached, f'{row.median:.6f}', to

    write_csv(path, COLUMNS, map(line, rows))


def draw(path: Path, rows: list[Row], ways: Ways, target: float) -> None:
    """The loss against steps; the time to it against the speed of the links."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.4), layout='constrained')
    for name, way in ways.items():
        steps, losses, _ = zip(*way.losses, strict=True)
        style = {'color': color_of(name), 'label': name}
        panels[0].plot(steps, losses, linewidth=1.2, **style)
    panels[0].axhline(target, color='0.5', linestyle=':', linewidth=1)
    panels[0].set(xlabel='steps', ylabel='loss on unseen text, nats a character')
    links = {link: own for link, own in by_link(rows).items() if not link.delay}
    places = speed_axis(panels[1], links)
    for name, way in ways.items():
        if way.reached:
            y = [way.steps * own[name].median for own in links.values()]
            style = {'color': color_of(name), 'marker': 'o', 'markersize': 4, 'label': name}
            panels[1].plot(places, y, **style)
    panels[1].set_ylabel(f'seconds to a loss of {target:.2f}')
    panels[0].grid(alpha=0.3)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
