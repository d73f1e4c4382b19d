"""Tables of the runs, and what they say."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import tables
from experiments.clock.runs import SLOWEST, TARGET, TARGET_TIMES, Result, ToTarget
from gradzip import clock


def table(n: int, results: list[Result]) -> Any:
    """A table of all runs with so many workers."""
    heads = [
        'times', 'protocol', 'ms a step', 'predicted', 'ratio', 'gradients used a second',
        'delay: mean', '95 %', 'longest', 'dropped', 'busy', 'useful',
    ]  # fmt: skip
    rows = []
    for r in results:
        delays, dropped = r.run.delays, 1 - r.run.used.mean()
        rows.append(
            [
                r.times, str(r.run.protocol), f'{1e3 * r.seconds:,.4g}',
                f'{1e3 * r.predicted:,.4g}', f'{r.ratio:.2f}',
                f'{r.gradients:,.4g}', f'{delays.mean():,.4g}',
                f'{np.quantile(delays, 0.95):,.0f}', f'{delays.max():,}', f'{dropped:.0%}',
                f'{r.run.utilisation.mean():.0%}', f'{r.run.useful.mean():.0%}',
            ]
        )  # fmt: skip
    return tables.table(f'{n:,} workers', heads, rows, names=2)


def compared(what: str, results: list[Result]) -> str:
    """How far the simulation is from the predictions."""
    ratios = np.array([r.ratio for r in results])
    far = results[int(np.argmax(abs(np.log(ratios))))]
    return (
        f'{what}, simulated over predicted: from {ratios.min():.2f} to {ratios.max():.2f} in '
        f'{len(results)} runs, {np.median(ratios):.2f} in the median. The farthest is '
        f'{far.run.protocol} with {far.workers:,} workers, times {far.times}.'
    )


def targets(bounds: dict[int, list[ToTarget]]) -> Any:
    """A table of the seconds until the target."""
    heads = ['workers', 'protocol', 'steps', 'bound']
    for name in TARGET_TIMES:
        heads += [name, 'predicted', 'ratio']
    rows = []
    for n, found in bounds.items():
        for bound, results in found:
            row = [f'{n:,}', bound.protocol, f'{bound.steps:,}', f'{bound.seconds:,.0f}']
            for r in results:
                row += [f'{r.seconds:,.0f}', f'{r.predicted:,.0f}', f'{r.ratio:.2f}']
            rows.append(row)
    title = (
        f'Seconds until the mean of |grad F|^2 is {TARGET.eps:g}: L = {TARGET.L:g}, F0 = '
        f'{TARGET.F0:g}, variance {TARGET.variance:g}, workers of 1 to {SLOWEST:g} s a gradient'
    )
    says = 'The bound and its steps are for constant times; the other times have the same means.'
    return tables.table(title, heads, rows, names=2, caption=says)


def timed(run: clock.Run, seconds: float) -> str:
    """How long the clock took for many events."""
    return (
        f'The clock made {len(run.worker):,} events of {run.workers:,} asynchronous workers with '
        f'exponential times in {seconds:.1f} seconds of one CPU core.'
    )


def csv_row(r: Result) -> dict[str, Any]:
    """One run."""
    return {
        'times': r.times, 'workers': r.workers, 'protocol': str(r.run.protocol),
        'seconds': r.seconds, 'predicted': r.predicted, 'gradients_per_second': r.gradients,
        'mean_delay': r.run.delays.mean(), 'longest_delay': r.run.delays.max(),
        'dropped': 1 - r.run.used.mean(), 'utilisation': r.run.utilisation.mean(),
        'useful': r.run.useful.mean(),
    }  # fmt: skip
