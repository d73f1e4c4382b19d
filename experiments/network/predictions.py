"""The cost model against the network: what it says of every scheme on every link, and what was."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from experiments.exchanges import AXIS, EXACT, schemes
from experiments.network.measure import Row
from experiments.network.report import by_link, label
from experiments.plan.model import Cost, Host, crossover, host_from
from experiments.plan.units import speed
from experiments.tables import write_csv
from gradzip._traffic import collectives_of

COLUMNS = ('workers', 'link', 'scheme', 'offline', 'predicted', 'measured', 'error')


class Prediction(NamedTuple):
    """Of a step."""

    row: Row
    offline: float  # seconds
    seconds: float

    @property
    def error(self) -> float:
        """Relative to what was measured; positive where it took less than predicted."""
        return self.seconds / self.row.median - 1


class Model(NamedTuple):
    """The cost model of a workload on this machine."""

    costs: dict[str, Cost]
    host: Host


def model(
    offline: dict[str, float], shapes: Any, workers: int, unlimited: float, slower: dict[str, float]
) -> Model:
    """From seconds offline, the exact mean's step without a limit, and what probes showed."""
    known, axes = schemes(), {AXIS: workers}
    costs = {s: Cost(t, collectives_of(known[s], shapes, axes)) for s, t in offline.items()}
    return Model(costs, host_from(costs[EXACT], unlimited, slower))


def predict(found: Model, rows: list[Row]) -> list[Prediction]:
    """For every row what the model says."""
    return [
        Prediction(row, (cost := found.costs[row.scheme]).offline, _step(cost, row, found.host))
        for row in rows
    ]


def _step(cost: Cost, row: Row, host: Host) -> float:
    return cost.step(math.inf if row.link.bits is None else row.link.bits, row.link.delay, host)


def findings(found: Model, predicted: list[Prediction]) -> list[str]:
    """How far off it is, what it chooses, and where it sees compression begin to pay."""
    judged = [p for p in predicted if (p.row.scheme, p.row.link.bits) != (EXACT, None)]
    if not judged:
        return []
    probed = ', '.join(f'{name} {times:.3g}' for name, times in found.host.slower.items())
    errors = [abs(p.error) for p in judged]
    worst = max(judged, key=lambda p: abs(p.error))
    lines = [
        f'Cost model: {len(judged)} steps predicted, {statistics.median(errors):.1%} off in the '
        f'median, {abs(worst.error):.0%} at most ({worst.row.scheme}, {label(worst.row.link)}).'
    ]
    lines.append(
        f'It was given the times of {EXACT} at no limit ({speed(found.host.bits)} through the '
        f'hosts), and of collectives against their bytes on one link: {probed}.'
    )
    choices = chosen(predicted)
    slower = max(choices.values(), key=lambda choice: choice[2])
    lines.append(
        f'What it chooses is the fastest on {sum(c[0] == c[1] for c in choices.values())} of '
        f'{len(choices)} links, and at most {slower[2] - 1:.0%} slower than the fastest.'
    )
    for scheme, (said, seen) in crossovers(found, [p.row for p in predicted]).items():
        lines.append(
            f'{scheme} pays below {speed(said)} by the model, below {speed(seen)} as measured: '
            f'{max(said / seen, seen / said):.2f} times apart.'
        )
    return lines


def chosen(predicted: list[Prediction]) -> dict[str, tuple[str, str, float]]:
    """Link to the model's choice, the fastest measured, and the ratio of their measured times."""
    links: dict[str, list[Prediction]] = {}
    for p in predicted:
        links.setdefault(label(p.row.link), []).append(p)
    out = {}
    for name, own in links.items():
        choice = min(own, key=lambda p: p.seconds).row
        best = min((p.row for p in own), key=lambda row: row.median)
        out[name] = choice.scheme, best.scheme, choice.median / best.median
    return out


def crossovers(found: Model, rows: list[Row]) -> dict[str, tuple[float, float]]:
    """Scheme to the speed below which it pays: by the model, and as measured.

    Only those that paid on one limited link and did not on the next; between the two the ratio of
    times is read off as a power of the speed.
    """
    out = {}
    limited = {link.bits: m for link, m in by_link(rows).items() if link.bits and not link.delay}
    speeds = sorted(limited)
    for scheme, cost in found.costs.items():
        gains = [math.log(limited[b][EXACT].median / limited[b][scheme].median) for b in speeds]
        flips = [i for i in range(1, len(speeds)) if gains[i - 1] > 0 >= gains[i]]
        if scheme == EXACT or len(flips) != 1:
            continue
        i = flips[0]
        part = gains[i - 1] / (gains[i - 1] - gains[i])
        seen = math.exp((1 - part) * math.log(speeds[i - 1]) + part * math.log(speeds[i]))
        said = crossover(cost, found.costs[EXACT], host=found.host)
        if 0 < said < math.inf:
            out[scheme] = said, seen
    return out


def write(path: Path, predicted: list[Prediction]) -> None:
    """A row a scheme and link."""

    def line(p: Prediction) -> tuple:
        times = (f'{t:.6f}' for t in (p.offline, p.seconds, p.row.median))
        return p.row.workers, label(p.row.link), p.row.scheme, *times, f'{p.error:.4f}'

    write_csv(path, COLUMNS, map(line, predicted))


def draw(path: Path, predicted: list[Prediction]) -> None:
    """Measured against predicted, a colour a link."""
    figure, panel = plt.subplots(figsize=(5.4, 4.6), layout='constrained')
    links = list(dict.fromkeys(label(p.row.link) for p in predicted))
    for i, name in enumerate(links):
        own = [p for p in predicted if label(p.row.link) == name]
        x, y = [p.seconds for p in own], [p.row.median for p in own]
        color = plt.get_cmap('viridis')(i / max(1, len(links) - 1) * 0.9)
        panel.loglog(x, y, 'o', color=color, markersize=5, alpha=0.8, label=name)
    ends = [f([p.seconds for p in predicted]) for f in (min, max)]
    panel.loglog(ends, ends, color='0.3', linewidth=1)
    panel.fill_between(
        ends, [0.75 * e for e in ends], [1.25 * e for e in ends], color='0.9', label='within 25 %'
    )
    panel.set(xlabel='seconds a step, predicted', ylabel='seconds a step, measured')
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
