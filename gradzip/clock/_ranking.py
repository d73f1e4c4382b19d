"""The ranked table of protocols and schemes."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from gradzip import _quantities as quantities
from gradzip._aligned import aligned
from gradzip.clock._protocols import Protocol

HEADS = ('protocol', 'scheme', 'time', 'steps', 'a step', 'longest delay', 'busy')


class RankRow(NamedTuple):
    """A protocol with a scheme, and how long they need.

    Example:
      >>> from gradzip import clock
      >>> clock.RankRow(clock.Synchronous(), 'sign', 20.0, 100, 0.2, 0, 0.9).scheme
      'sign'
    """

    protocol: Protocol
    scheme: str
    seconds: float  # until the target is reached
    steps: int  # until then
    seconds_a_step: float
    longest_delay: int  # in the simulation, in steps
    busy: float  # the share of the time in which the workers computed, on average


@dataclasses.dataclass(frozen=True, repr=False)
class Ranking:
    """What `rank` returns: `rows`, those that need the least time first. It prints as a table.

    Example:
      >>> from gradzip import clock
      >>> clock.Ranking((clock.RankRow(clock.Synchronous(), 'sign', 20.0, 100, 0.2, 0, 0.9),))
      protocol       scheme  time  steps  a step  longest delay  busy
      Synchronous()  sign    20 s    100  200 ms              0  90 %
    """

    rows: tuple[RankRow, ...]

    @property
    def best(self) -> RankRow:
        """The row that needs the least time."""
        return self.rows[0]

    def __repr__(self) -> str:
        return '\n'.join(aligned([HEADS, *(_cells(row) for row in self.rows)], words=2))


def _cells(row: RankRow) -> tuple[str, ...]:
    return (
        str(row.protocol), row.scheme, quantities.duration(row.seconds), f'{row.steps:,}',
        quantities.duration(row.seconds_a_step), f'{row.longest_delay:,}',
        f'{100 * row.busy:.0f} %',
    )  # fmt: skip
