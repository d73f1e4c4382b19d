"""The ranked table: what every scheme costs in a place, and what follows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from gradzip import _quantities as quantities
from gradzip._aligned import aligned
from gradzip._plan.model import Cost, Host, crossover
from gradzip._quantities import duration, speed

EXACT = 'exact mean'
WORTH = 1.1  # times faster, below which compression is not worth the steps that it may cost
HEADS = ('scheme', 'sent', 'exchange', 'network', 'step', 'faster', 'with delay(1)', 'pays below')


class PlanRow(NamedTuple):
    """What one scheme costs a step, as `gradzip.plan` predicts it.

    `overlapped` is the time of a step with `gradzip.delay(1)` in front of the exchange, where the
    network works while the next gradient is computed. `pays_below` is the speed of the links, in
    bits per second, below which the scheme is faster than the exact mean: 0 if it never is,
    infinity if it always is, NaN for the exact mean itself.

    Example:
      >>> import gradzip as gz
      >>> gz.PlanRow('sign', 1000, 0.002, 0.01, 0.012, 0.012, 4.0, 1e9).scheme
      'sign'
    """

    scheme: str
    sent: int  # bytes that a worker sends over its link in a step
    exchange: float  # seconds of encoding, decoding and the descent
    network: float  # seconds
    step: float  # seconds: the computing of the gradient, the exchange and the network
    overlapped: float  # seconds
    speedup: float  # times faster than the exact mean
    pays_below: float  # bits per second


@dataclasses.dataclass(frozen=True, repr=False)
class Plan:
    """Schemes ranked for a network: what `gradzip.plan` returns. It prints as a table.

    `rows` are the schemes, the fastest first, with the exact mean among them. `best` is the row to
    take, and `advice` says so in sentences.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> signs = {'sign': gz.ScaledSign()}
      >>> found = gz.plan(jnp.zeros(10_000), workers=4, link='1Mbit', schemes=signs, costs=0)
      >>> found.best.scheme, found.best.sent
      ('sign', 4608)
      >>> found.at('10Gbit', compute='1s').best.scheme
      'exact mean'
    """

    rows: tuple[PlanRow, ...]
    workers: int
    entries: int  # of the gradient
    link: float  # bits per second
    latency: float  # seconds each way
    compute: float  # seconds a step
    costs: Mapping[str, Cost]  # of every scheme, apart from the link
    host: Host  # what limits the ends of a link

    @property
    def exact(self) -> PlanRow:
        """The row of the exact mean, which is gradient descent without compression."""
        return self[EXACT]

    @property
    def best(self) -> PlanRow:
        """The fastest scheme; the exact mean where the fastest is not 10 % faster than it."""
        return self.rows[0] if self.rows[0].speedup >= WORTH else self.exact

    @property
    def advice(self) -> str:
        """What to take, in sentences; also when not to compress."""
        return '\n'.join([*self._choice(), *self._overlap()])

    def __getitem__(self, scheme: str) -> PlanRow:
        for row in self.rows:
            if row.scheme == scheme:
                return row
        raise KeyError(f'{scheme!r} is not in the plan, which has {[r.scheme for r in self.rows]}.')

    def at(self, link: Any = None, *, latency: Any = None, compute: Any = None) -> Plan:
        """The same schemes at another speed, latency or compute time, without measuring again.

        Arguments and errors are those of `gradzip.plan`; what is None stays as it is.
        """
        bits = self.link if link is None else quantities.bits_per_second('at(link=...)', link)
        late = self.latency if latency is None else quantities.seconds('at(latency=...)', latency)
        work = self.compute if compute is None else quantities.seconds('at(compute=...)', compute)
        return ranked(self.costs, self.workers, self.entries, bits, late, work, self.host)

    def __repr__(self) -> str:
        lines = aligned([HEADS, *(_cells(row) for row in self.rows)], words=1)
        title = (
            f'{self.entries:,} parameters, {self.workers} workers, link: {speed(self.link)}, '
            f'{duration(self.latency)} each way, {duration(self.compute)} of computing a step'
        )
        return '\n'.join([title, *lines, self.advice])

    def _choice(self) -> list[str]:
        best, exact, fastest = self.best, self.exact, self.rows[0]
        if best is not exact:
            return [
                f'Take {best.scheme}: {duration(best.step)} a step where the {EXACT} takes '
                f'{duration(exact.step)}, {best.speedup:.3g} times faster.',
                'A biased or coarse message can need more steps to the same loss: compare a short '
                f'run. It may need up to {best.speedup:.3g} times as many and still be there '
                'first.',
            ]
        near = f'is within {fastest.speedup - 1:.1%} of the fastest'
        why = 'is the fastest' if fastest is exact else near
        lines = [f'Do not compress: the {EXACT}, {duration(exact.step)} a step, {why}.']
        paying = [row for row in self.rows if 0 < row.pays_below < math.inf]
        if paying:
            first = max(paying, key=lambda row: row.pays_below)
            lines.append(f'It would begin to pay below {speed(first.pays_below)}: {first.scheme}.')
        return lines

    def _overlap(self) -> list[str]:
        if self.exact.overlapped >= self.best.step:
            return []
        return [
            f'The {EXACT} one step late (gz.delay(1) in front) would take '
            f'{duration(self.exact.overlapped)} if the backend overlaps it with computing.'
        ]


def ranked(
    costs: Mapping[str, Cost],
    workers: int,
    entries: int,
    link: float,
    latency: float,
    compute: float,
    host: Host,
) -> Plan:
    """The plan for a place, from what the schemes cost apart from it."""
    exact, rows = costs[EXACT], []
    alone = compute + exact.step(link, latency, host)
    for scheme, cost in costs.items():
        network = cost.network(link, latency, host)
        step = compute + cost.offline + network
        rows.append(
            PlanRow(
                scheme=scheme,
                sent=sum(c.sent for c in cost.collectives),
                exchange=cost.offline,
                network=network,
                step=step,
                overlapped=max(compute, network) + cost.offline,
                speedup=alone / step if step else 1.0,
                pays_below=math.nan if cost is exact else crossover(cost, exact, latency, host),
            )
        )
    rows.sort(key=lambda row: row.step)
    return Plan(tuple(rows), workers, entries, link, latency, compute, costs, host)


def _cells(row: PlanRow) -> tuple[str, ...]:
    times = (duration(t) for t in (row.exchange, row.network, row.step))
    faster = f'{row.speedup:.3g}'
    return (
        row.scheme, _size(row.sent), *times, faster, duration(row.overlapped),
        _below(row.pays_below),
    )  # fmt: skip


def _size(count: int) -> str:
    return f'{count / 1e6:,.4g} MB' if count >= 1e6 else f'{count / 1e3:.4g} kB'


def _below(bits: float) -> str:
    if math.isnan(bits):
        return ''
    if bits == 0:
        return 'nowhere'
    return 'everywhere' if math.isinf(bits) else speed(bits)
