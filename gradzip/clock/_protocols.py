"""Protocols: when the server takes a step, and which gradients it uses for it.

Step k makes version k + 1 of the model of version k. A gradient computed at version b and used by
step k is k - b steps late. A worker whose gradient has arrived starts again at the newest version,
at once unless its protocol makes it wait.
"""

from __future__ import annotations

import dataclasses

from gradzip import _checks as checks


class Protocol:
    """When the server takes a step. `simulate` knows the classes of `gradzip.clock`."""

    def needs(self) -> int:
        """Returns how many workers it waits for in one step; with fewer, no step completes."""
        return 1


@dataclasses.dataclass(frozen=True)
class Synchronous(Protocol):
    """Every step waits for the gradients of all workers, which all start together.

    Example:
      >>> from gradzip import clock
      >>> run = clock.simulate(clock.Synchronous(), [clock.Constant(1), clock.Constant(3)], steps=2)
      >>> run.step_seconds
      array([3., 6.])

    Reference: nearly optimal in many regimes; arXiv 2602.03802.
    """


@dataclasses.dataclass(frozen=True)
class MSynchronous(Protocol):
    """Every step waits for the first m of the workers, which all start together.

    The other workers stop and start again at the new model; what they computed is lost.

    Args:
      m: gradients in a step, at least 1.

    Raises:
      ValueError: m below 1; from `simulate`, there are fewer workers.
      TypeError: m is not an integer.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(1), clock.Constant(3)]
      >>> clock.simulate(clock.MSynchronous(1), times, steps=2).step_seconds
      array([1., 2.])

    Reference: arXiv 2602.03802, where it is nearly optimal in many regimes.
    """

    m: int

    def __post_init__(self) -> None:
        checks.integer('MSynchronous', 'm', self.m, 1)

    def needs(self) -> int:
        return self.m


@dataclasses.dataclass(frozen=True)
class Asynchronous(Protocol):
    """Every gradient is used as soon as it arrives, and no worker ever waits.

    Args:
      batch: how many gradients, of any age, make a step; by default every gradient makes one.

    Raises:
      ValueError: batch below 1.
      TypeError: batch is not an integer.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(2), clock.Constant(5)]
      >>> run = clock.simulate(clock.Asynchronous(), times, steps=4)
      >>> run.step_seconds, run.delays
      (array([2., 4., 5., 6.]), array([0, 0, 2, 1], dtype=int32))

    Reference: Koloskova, Stich, Jaggi, arXiv 2206.08307; Mishchenko, Bach, Even, Woodworth, arXiv
      2206.07638.
    """

    batch: int = 1

    def __post_init__(self) -> None:
        checks.integer('Asynchronous', 'batch', self.batch, 1)


@dataclasses.dataclass(frozen=True)
class Quorum(Protocol):
    """Semi-asynchronous: a step waits until `quorum` workers have delivered, however old.

    Workers who have delivered wait for the step. The others compute on, and their gradients count
    for a later step.

    Args:
      quorum: gradients in a step, at least 1. With 1 it is `Asynchronous`; with all workers,
        `Synchronous`.

    Raises:
      ValueError: quorum below 1; from `simulate`, there are fewer workers.
      TypeError: quorum is not an integer.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(2), clock.Constant(2), clock.Constant(5)]
      >>> run = clock.simulate(clock.Quorum(2), times, steps=3)
      >>> run.step_seconds, run.worker
      (array([2., 4., 6.]), array([0, 1, 0, 1, 2, 0], dtype=int32))
    """

    quorum: int

    def __post_init__(self) -> None:
        checks.integer('Quorum', 'quorum', self.quorum, 1)

    def needs(self) -> int:
        return self.quorum


@dataclasses.dataclass(frozen=True)
class RoundRobin(Protocol):
    """The server takes one gradient after the other in a fixed order of the workers.

    A worker whose gradient is ready waits for its turn, and starts again after it. After the first
    round, every gradient is n - 1 steps late.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(1), clock.Constant(3)]
      >>> run = clock.simulate(clock.RoundRobin(), times, steps=5)
      >>> run.step_seconds, run.delays
      (array([1., 3., 3., 6., 6.]), array([0, 1, 1, 1, 1], dtype=int32))

    Reference: Langford, Smola, Zinkevich, arXiv 0911.0491.
    """


@dataclasses.dataclass(frozen=True)
class Rennala(Protocol):
    """Every step collects `batch` gradients of the newest version; older ones are dropped.

    Workers never wait and finish what they have begun, also if it has become too old.

    Args:
      batch: gradients in a step, at least 1.

    Raises:
      ValueError: batch below 1.
      TypeError: batch is not an integer.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(2), clock.Constant(5)]
      >>> run = clock.simulate(clock.Rennala(2), times, steps=2)
      >>> run.step_seconds, run.used  # the slow worker's first gradient is too old
      (array([4., 8.]), array([ True,  True, False,  True,  True]))

    Reference: Tyurin, Richtarik, arXiv 2305.12387.
    """

    batch: int

    def __post_init__(self) -> None:
        checks.integer('Rennala', 'batch', self.batch, 1)


@dataclasses.dataclass(frozen=True)
class Ringmaster(Protocol):
    """Asynchronous, but gradients that are `limit` or more steps late are dropped.

    Workers never wait and finish what they have begun.

    Args:
      limit: steps, at least 1. With 1 only gradients of the newest version are used.

    Raises:
      ValueError: limit below 1.
      TypeError: limit is not an integer.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(2), clock.Constant(5)]
      >>> run = clock.simulate(clock.Ringmaster(2), times, steps=4)
      >>> run.step_seconds, run.used
      (array([2., 4., 6., 8.]), array([ True,  True, False,  True,  True]))

    Reference: Maranjyan, Tyurin, Richtarik, arXiv 2501.16168, without calculation stops.
    """

    limit: int

    def __post_init__(self) -> None:
        checks.integer('Ringmaster', 'limit', self.limit, 1)


@dataclasses.dataclass(frozen=True)
class BoundedStaleness(Protocol):
    """Asynchronous, but no worker is more than `slack` gradients ahead of the slowest.

    A worker which is further ahead waits until the slowest has delivered.

    Args:
      slack: gradients, at least 0. With 0 all workers deliver once before any starts again.

    Raises:
      ValueError: slack is negative.
      TypeError: slack is not an integer.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(1), clock.Constant(3)]
      >>> run = clock.simulate(clock.BoundedStaleness(1), times, steps=6)
      >>> run.worker, run.step_seconds
      (array([0, 0, 1, 0, 1, 0], dtype=int32), array([1., 2., 3., 4., 6., 7.]))

    Reference: stale synchronous parallel; Ho et al., 2013, NeurIPS, "More effective distributed ML
      via a stale synchronous parallel parameter server".
    """

    slack: int

    def __post_init__(self) -> None:
        checks.integer('BoundedStaleness', 'slack', self.slack, 0)
