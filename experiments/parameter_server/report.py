"""The table, the sentences and the figure: real processes beside the clock."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from experiments import figures, tables
from experiments.network.report import label
from experiments.parameter_server.runs import REPEATS, Compared
from experiments.parameter_server.setting import GRADIENT, SIGMA, SLOWER, SYNCHRONOUS, WORKERS

BAR = 1.25  # how far apart measured and predicted may be, as a factor
FAST, SLOW = slice(0, WORKERS - 1), slice(WORKERS - 1, WORKERS)
GROUPS = {'fast workers': FAST, 'the slow worker': SLOW}
COLORS = {'fast workers': figures.SKY, 'the slow worker': figures.VERMILION}
SHOWN = 2e-3  # the smallest predicted share in the figure


def asynchronous(found: list[Compared]) -> list[Compared]:
    """The runs that have delays."""
    return [c for c in found if c.protocol != SYNCHRONOUS]


def within(found: list[Compared]) -> bool:
    """Whether seconds and delays are near enough to the predicted ones."""
    ratios = [c.ratio for c in found]
    ratios += [c.delays_ratio(who) for c in asynchronous(found) for who in (FAST, SLOW)]
    near = all(1 / BAR <= ratio <= BAR for ratio in ratios)
    return near and all(c.distance <= BAR - 1 for c in asynchronous(found))


def table(found: list[Compared], size: int) -> Table:
    """Seconds and delays of all runs."""
    heads = [
        'protocol', 'scheme', 'link', 'gradients', 'ms a step', 'predicted', 'ratio',
        'delay, fast', 'predicted', 'delay, slow', 'predicted', 'distance', 'by luck',
    ]  # fmt: skip
    rows = []
    for c in found:
        row = [
            c.protocol, c.scheme, label(c.link), f'{len(c.measured.worker)}',
            f'{1e3 * c.measured.seconds_a_step:.0f}', f'{1e3 * c.predicted.seconds_a_step:.0f}',
            f'{c.ratio:.2f}',
        ]  # fmt: skip
        if c.protocol == SYNCHRONOUS:
            row += ['-'] * 6
        else:
            for who in (FAST, SLOW):
                row += [f'{a.mean_delay(who):.2f}' for a in (c.measured, c.predicted)]
            row += [f'{c.distance:.3f}', f'{c.luck:.3f}']
        rows.append(row)
    title = f'A server and {WORKERS} workers, real processes, beside the clock'
    caption = (
        f'The model and its gradient have {size:,} entries. A gradient is set to take '
        f'{1e3 * GRADIENT:.0f} ms in the mean (log-normal, sigma {SIGMA:g}), and {SLOWER:g} times '
        'as long on the slow worker: the processes sleep for it, so that they compute at once on '
        f'few cores. Every worker has a link of its own. Predicted: the mean of {REPEATS} runs of '
        'the clock, which was told these times, the bytes and the speed of the links. distance: '
        'total variation between the distributions of worker and delay; by luck: that of a run of '
        'the clock.'
    )
    return tables.table(title, heads, rows, names=3, caption=caption)


def findings(found: list[Compared]) -> list[str]:
    """How far the clock is off, and what compression changes."""
    ratios, late = [c.ratio for c in found], asynchronous(found)
    far = max(found, key=lambda c: abs(np.log(c.ratio)))
    says = [
        f'Seconds a step, measured over predicted: from {min(ratios):.2f} to {max(ratios):.2f} in '
        f'{len(found)} runs. The farthest is {far.protocol}, {far.scheme}, {label(far.link)}.'
    ]
    parts = []
    for name, who in GROUPS.items():
        own = [c.delays_ratio(who) for c in late]
        parts.append(f'from {min(own):.2f} to {max(own):.2f} for {name}')
    says.append(
        f'Mean delay, measured over predicted: {" and ".join(parts)}. The distributions are up to '
        f'{max(c.distance for c in late):.3f} apart in total variation; a run of the clock is up '
        f'to {max(c.luck for c in late):.3f} from the mean of its runs.'
    )
    says += [*_compression(late)]
    says.append(
        f'The bar, all within {BAR - 1:.0%}, is {"met" if within(found) else "not met"}. '
        f'Gradients took {max(c.computing for c in found):.3f} times the set seconds at most.'
    )
    return says


def _compression(late: list[Compared]) -> list[str]:
    """How much faster compressed messages make the asynchronous server, on each link."""
    schemes = list(dict.fromkeys(c.scheme for c in late))
    by = {(c.scheme, label(c.link)): c for c in late}
    parts = []
    for scheme in schemes[1:]:
        for link in dict.fromkeys(label(c.link) for c in late):
            exact, packed = by[schemes[0], link], by[scheme, link]
            was = exact.measured.seconds_a_step / packed.measured.seconds_a_step
            said = exact.predicted.seconds_a_step / packed.predicted.seconds_a_step
            parts.append(f'{was:.2f} times ({said:.2f} predicted) with {scheme} at {link}')
    return [f'The asynchronous server is faster by {", ".join(parts)}.'] if parts else []


def csv_row(c: Compared) -> dict[str, Any]:
    """One run."""
    late = c.protocol != SYNCHRONOUS
    delays = {
        f'{name}_delay_{who}': f'{arrived.mean_delay(chosen):.4f}' if late else ''
        for who, chosen in (('fast', FAST), ('slow', SLOW))
        for name, arrived in (('measured', c.measured), ('predicted', c.predicted))
    }
    return {
        'protocol': c.protocol, 'scheme': c.scheme, 'link': label(c.link),
        'gradients': len(c.measured.worker),
        'measured_seconds_a_step': f'{c.measured.seconds_a_step:.6f}',
        'predicted_seconds_a_step': f'{c.predicted.seconds_a_step:.6f}', **delays,
        'distance': f'{c.distance:.4f}' if late else '', 'computing': f'{c.computing:.4f}',
    }  # fmt: skip


def histogram_rows(found: list[Compared]) -> list[dict[str, Any]]:
    """How often each delay was, among the gradients of the fast workers and of the slow one."""
    return [
        {
            'scheme': c.scheme, 'link': label(c.link), 'workers': name, 'delay': delay,
            'measured': f'{measured:.4f}', 'predicted': f'{predicted:.4f}',
        }
        for c in asynchronous(found)
        for name, who in GROUPS.items()
        for delay, (measured, predicted) in enumerate(zip(*c.shares(who), strict=True))
    ]  # fmt: skip


def figure(found: list[Compared]) -> Figure:
    """Delays as measured (bars) and as predicted (points): a row a scheme, a column a link."""
    late = asynchronous(found)
    schemes = list(dict.fromkeys(c.scheme for c in late))
    links = list(dict.fromkeys(label(c.link) for c in late))
    drawing, panels = figures.panels(len(schemes), len(links), (4.0, 2.8), sharex=True, sharey=True)
    for c in late:
        panel = panels[schemes.index(c.scheme), links.index(label(c.link))]
        _histogram(panel, c)
    for panel in panels[-1]:
        panel.set_xlabel('steps late')
    for panel in panels[:, 0]:
        panel.set_ylabel('share of their gradients')
    bars = [
        (f'{name}, measured', {'color': color, 'linewidth': 7, 'alpha': 0.6})
        for name, color in COLORS.items()
    ]
    points = [(f'{name}, predicted', _point(color)) for name, color in COLORS.items()]
    figures.legend(drawing, [*bars, *points], columns=4)
    return drawing


def _histogram(panel: Axes, c: Compared) -> None:
    for i, (name, who) in enumerate(GROUPS.items()):
        measured, predicted = c.shares(who)
        shown = np.flatnonzero((measured > 0) | (predicted > SHOWN))
        x = shown + 0.4 * i - 0.2
        panel.bar(x, measured[shown], width=0.4, color=COLORS[name], alpha=0.6)
        panel.plot(x, predicted[shown], **_point(COLORS[name]))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title(
        f'{c.scheme}, {label(c.link)}: a step in {1e3 * c.measured.seconds_a_step:.0f} ms, '
        f'predicted {1e3 * c.predicted.seconds_a_step:.0f}',
        fontsize=9,
    )


def _point(color: str) -> dict[str, Any]:
    return {
        'color': color, 'marker': 'o', 'linestyle': '', 'markeredgecolor': 'k', 'markersize': 4,
    }  # fmt: skip
