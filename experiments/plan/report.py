"""What the plan says: a table, sentences, and a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from rich.table import Table

from experiments.exchanges import EXACT, color_of
from experiments.plan.model import Cost, Host, crossover
from experiments.plan.units import duration, speed
from experiments.tables import write_csv

WORTH = 1.1  # times faster, below which compression is not worth the steps that it may cost
RANGE = 1e6, 1e11  # bits per second in the figure
COLUMNS = ('scheme', 'sent', 'exchange', 'network', 'step', 'faster', 'overlapped', 'pays_below')


class Place(NamedTuple):
    """Where the training will run."""

    bits: float  # per second, of every worker's link
    latency: float  # seconds each way
    workers: int
    params: int
    compute: float  # seconds of a step without any exchange
    host: Host


class Choice(NamedTuple):
    """One scheme there."""

    scheme: str
    sent: int  # bytes that a worker sends over its link in a step
    exchange: float  # seconds: encoding, decoding, the descent
    network: float  # seconds
    step: float  # seconds, compute and both
    overlapped: float  # seconds with delay(1), where compute and network run at the same time
    pays_below: float  # bits per second; 0 never, infinity always


def ranked(costs: dict[str, Cost], place: Place) -> list[Choice]:
    """The fastest first."""
    found = []
    for scheme, cost in costs.items():
        network = cost.network(place.bits, place.latency, place.host)
        below = (
            math.nan
            if scheme == EXACT
            else crossover(cost, costs[EXACT], place.latency, place.host)
        )
        found.append(
            Choice(
                scheme,
                sum(c.sent for c in cost.collectives),
                cost.offline,
                network,
                place.compute + cost.offline + network,
                max(place.compute, network) + cost.offline,
                below,
            )
        )
    return sorted(found, key=lambda choice: choice.step)


def table(choices: list[Choice], place: Place) -> Table:
    """A row a scheme."""
    exact = _exact(choices)
    shown = Table(
        title=f'{place.params / 1e6:,.4g} M parameters, {place.workers} workers, '
        f'{speed(place.bits)}, {duration(place.latency)} each way, '
        f'{duration(place.compute)} of computing a step'
    )
    shown.add_column('scheme')
    for name in ('sent a step', 'exchange', 'network', 'step', 'times faster', 'with delay(1)'):
        shown.add_column(name, justify='right')
    shown.add_column('pays below', justify='right')
    for c in choices:
        times = (duration(t) for t in (c.exchange, c.network, c.step))
        faster = f'{exact.step / c.step:.3g}'
        shown.add_row(
            c.scheme, f'{c.sent / 1e6:,.4g} MB', *times, faster, duration(c.overlapped), _below(c)
        )
    return shown


def advice(choices: list[Choice], place: Place) -> list[str]:
    """What to take, in sentences; also when not to compress."""
    best, exact = choices[0], _exact(choices)
    gain = exact.step / best.step
    lines = []
    if gain < WORTH:
        why = 'is the fastest' if best is exact else f'is within {gain - 1:.1%} of the fastest'
        lines.append(f'Do not compress: the {EXACT}, {duration(exact.step)} a step, {why}.')
        paying = [c for c in choices if 0 < c.pays_below < math.inf]
        if paying:
            first = max(paying, key=lambda c: c.pays_below)
            lines.append(f'It would begin to pay below {speed(first.pays_below)}: {first.scheme}.')
    else:
        lines.append(
            f'Take {best.scheme}: {duration(best.step)} a step where the {EXACT} takes '
            f'{duration(exact.step)}, {gain:.3g} times faster.'
        )
        lines.append(
            'A biased or coarse message can need more steps to the same loss: compare a short run. '
            f'It may need up to {gain:.3g} times as many and still be there first.'
        )
    if exact.overlapped < best.step:
        lines.append(
            f'The {EXACT} one step late (gz.delay(1) in front) would take '
            f'{duration(exact.overlapped)} if the backend overlaps it with computing.'
        )
    return lines


def write(path: Path, choices: list[Choice]) -> None:
    """A row a scheme; seconds, bytes, bits per second."""
    exact = _exact(choices)

    def line(c: Choice) -> tuple:
        times = f'{c.exchange:.6f}', f'{c.network:.6f}', f'{c.step:.6f}'
        rest = f'{exact.step / c.step:.4f}', f'{c.overlapped:.6f}', f'{c.pays_below:.4g}'
        return c.scheme, c.sent, *times, *rest

    write_csv(path, COLUMNS, map(line, choices))


def draw(path: Path, costs: dict[str, Cost], place: Place) -> None:
    """A step against the speed of the link; yours is marked."""
    yours = [place.bits] if math.isfinite(place.bits) else []
    x = np.geomspace(min([RANGE[0], *yours]), max([RANGE[1], *yours]), 200)
    figure, panel = plt.subplots(figsize=(6.4, 4.4), layout='constrained')
    for scheme, cost in costs.items():
        y = [place.compute + cost.step(bits, place.latency, place.host) for bits in x]
        panel.loglog(x, y, color=color_of(scheme), label=scheme)
    for bits in yours:
        panel.axvline(bits, color='0.5', linestyle=':', linewidth=1)
        panel.annotate(
            speed(bits), (bits, 1), xycoords=('data', 'axes fraction'), fontsize=8,
            xytext=(3, -10), textcoords='offset points',
        )  # fmt: skip
    panel.set(
        xlabel='link of every worker, bit/s',
        ylabel='seconds a step',
        title=f'{place.params / 1e6:,.4g} M parameters, {place.workers} workers',
    )
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _exact(choices: list[Choice]) -> Choice:
    return next(c for c in choices if c.scheme == EXACT)


def _below(choice: Choice) -> str:
    if math.isnan(choice.pays_below):
        return ''
    if choice.pays_below == 0:
        return 'nowhere'
    return 'everywhere' if math.isinf(choice.pays_below) else speed(choice.pays_below)
