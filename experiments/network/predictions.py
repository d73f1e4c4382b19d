"""The cost model against the network: what it says of every scheme on every link, and what was."""

from __future__ import annotations

import math
import statistics
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from experiments import figures
from experiments.exchanges import AXIS, EXACT, exchange
from experiments.network.measure import Row
from experiments.network.report import by_link, label
from gradzip._plan.model import Cost, Host, crossover, host_from
from gradzip._quantities import speed
from gradzip._traffic import collectives_of


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
    axes = {AXIS: workers}
    costs = {s: Cost(t, collectives_of(exchange(s), shapes, axes)) for s, t in offline.items()}
    return Model(costs, host_from(costs[EXACT], unlimited, slower))


def predict(found: Model, rows: list[Row]) -> list[Prediction]:
    """For every row what the model says. It knows no local steps, and leaves them out."""
    out = []
    for row in rows:
        if row.scheme not in found.costs:
            continue
        cost, bits = found.costs[row.scheme], row.link.bits or math.inf
        out.append(Prediction(row, cost.offline, cost.step(bits, row.link.delay, found.host)))
    return out


def findings(found: Model, predicted: list[Prediction]) -> list[str]:
    """How far off it is, what it chooses, and where it sees compression begin to pay."""
    judged = [p for p in predicted if (p.row.scheme, p.row.link.bits) != (EXACT, None)]
    if not judged:
        return []
    probed = ', '.join(f'{name} {times:.3g}' for name, times in found.host.slower.items())
    worst = max(judged, key=lambda p: abs(p.error))
    choices = chosen(predicted)
    slower = max(ratio for _, _, ratio in choices.values())
    lines = [
        f'Cost model: {len(judged)} steps predicted, '
        f'{statistics.median(abs(p.error) for p in judged):.1%} off in the median, '
        f'{abs(worst.error):.0%} at most ({worst.row.scheme}, {label(worst.row.link)}).',
        f'It was given the times of {EXACT} at no limit ({speed(found.host.bits)} through the '
        f'hosts), and of collectives against their bytes on one link: {probed}.',
        f'What it chooses is the fastest on {sum(c[0] == c[1] for c in choices.values())} of '
        f'{len(choices)} links, and at most {slower - 1:.0%} slower than the fastest.',
    ]
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


def csv_row(p: Prediction) -> dict[str, Any]:
    """A scheme on a link; seconds."""
    times = {'offline': p.offline, 'predicted': p.seconds, 'measured': p.row.median}
    return {
        'workers': p.row.workers,
        'link': label(p.row.link),
        'scheme': p.row.scheme,
        **{name: f'{t:.6f}' for name, t in times.items()},
        'error': f'{p.error:.4f}',
    }


def figure(predicted: list[Prediction]) -> Figure:
    """Measured against predicted, a colour a link."""
    out, panels = figures.panels(1, 1, (5.4, 4.6))
    panel = panels[0, 0]
    figures.log_log(panel, xlabel='seconds a step, predicted', ylabel='seconds a step, measured')
    links = list(dict.fromkeys(label(p.row.link) for p in predicted))
    for i, name in enumerate(links):
        own = [p for p in predicted if label(p.row.link) == name]
        color = matplotlib.colormaps['viridis'](i / max(1, len(links) - 1) * 0.9)
        x, y = [p.seconds for p in own], [p.row.median for p in own]
        panel.plot(x, y, 'o', color=color, alpha=0.8, label=name)
    ends = [f([p.seconds for p in predicted]) for f in (min, max)]
    panel.plot(ends, ends, color='0.3', linewidth=1)
    low, high = ([times * end for end in ends] for times in (0.75, 1.25))
    panel.fill_between(ends, low, high, color='0.9', label='within 25 %')
    panel.legend()
    return out
