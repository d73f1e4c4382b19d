"""Step times of every scheme on every link, and steps to a loss."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from experiments.exchanges import PERIODS
from experiments.network.job import PROBES
from experiments.network.links import Link
from experiments.network.workers import Workers
from gradzip._traffic import Collective

BUDGET_SECONDS = 4.0  # for the steps of one scheme on one link in one round
MOST_STEPS = 7
WARM_UP = 2  # steps: the first touches fresh memory, the second fills the pipe
OFFLINE_STEPS = 5  # after the warm-up
LOOKS = 10  # steps of training between two looks at the loss
UNLIMITED = Link('unlimited', None)
PROBED = 1e8  # bits per second
PROBE_WORDS, PROBE_STEPS = 1 << 20, 3  # four megabytes: more than sockets hold


class Row(NamedTuple):
    """One scheme on one link."""

    workers: int
    link: Link
    scheme: str
    bytes: int  # handed to the collectives by a worker in a step; a mean where few steps exchange
    seconds: list[float]  # of steps, or means over periods; all rounds; the slowest worker's

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)


class Trained(NamedTuple):
    """A scheme's way to a loss."""

    scheme: str
    target: float
    losses: list[tuple[int, float, float]]  # step, loss on unseen examples, seconds so far

    @property
    def reached(self) -> bool:
        """Whether it got there."""
        return any(loss <= self.target for _, loss, _ in self.losses)

    @property
    def steps(self) -> int:
        """Until it got there for the first time, or all that were done."""
        return self._arrival[0]

    @property
    def seconds(self) -> float:
        """Of these steps, on the link where they were done."""
        return self._arrival[2]

    @property
    def _arrival(self) -> tuple[int, float, float]:
        return next((look for look in self.losses if look[1] <= self.target), self.losses[-1])


def offline(workers: Workers, scheme: str) -> float:
    """Seconds a step without the network, while all workers do the same."""
    times = _slowest(workers.ask(scheme=scheme, do='offline', steps=WARM_UP + OFFLINE_STEPS))
    return statistics.median(times[WARM_UP:])


def slower(workers: Workers) -> dict[str, float]:
    """How many times longer than its bytes on a link each bare collective takes."""
    workers.network.limit(Link('probed', PROBED))
    found, words = {}, PROBE_WORDS // workers.count * workers.count  # as many for everyone
    for name in PROBES:
        answers = workers.ask(probe=name, words=words, steps=PROBE_STEPS)
        seconds = statistics.median(_slowest(answers))
        sent = Collective(name, 4 * words, workers.count).sent
        found[name] = seconds / (8 * sent / PROBED)
    return found


def steps(
    workers: Workers, links: list[Link], schemes: list[str], rounds: int, sizes: dict[str, int]
) -> Iterator[Row]:
    """Every scheme on every link, the rounds interleaved: the machine's other work moves too."""
    for link in links:
        workers.network.limit(link)
        seconds: dict[str, list[float]] = {scheme: [] for scheme in schemes}
        for _ in range(rounds):
            for scheme in schemes:
                seconds[scheme] += _steps(workers, scheme)
        for scheme in schemes:
            yield Row(workers.count, link, scheme, sizes[scheme], seconds[scheme])


def sizes(workers: Workers, schemes: list[str]) -> dict[str, int]:
    """Bytes a step of every scheme, read from the compiled programs."""
    found = {s: workers.ask(scheme=s, do='compile')[0]['bytes'] for s in schemes}
    return {scheme: size // PERIODS.get(scheme, 1) for scheme, size in found.items()}


def train(workers: Workers, scheme: str, target: float | None, most: int) -> Trained:
    """From the start to a loss, or for so many steps; then the last one's loss is the target."""
    words = {'target': target, 'every': min(LOOKS, most), 'most': most}
    found = [answer['losses'] for answer in workers.ask(scheme=scheme, do='train', **words)]
    slowest = max(found, key=lambda losses: losses[-1][2])
    losses = [tuple(look) for look in slowest]
    return Trained(scheme, losses[-1][1] if target is None else target, losses)


def _steps(workers: Workers, scheme: str) -> list[float]:
    """As many steps as the budget allows, the slowest worker's time of each.

    Where only one step of a period exchanges anything, these are means over whole periods.
    """
    period = PERIODS.get(scheme, 1)

    def run(periods: int) -> list[float]:
        seconds = _slowest(workers.ask(scheme=scheme, do='run', steps=period * periods))
        return [statistics.mean(seconds[i : i + period]) for i in range(0, len(seconds), period)]

    warm = run(1)
    if warm[0] > BUDGET_SECONDS:
        return warm  # so slow a link that the first step's page faults do not show
    run(WARM_UP - 1)
    return run(max(1, min(MOST_STEPS, int(BUDGET_SECONDS / (period * warm[0])))))


def _slowest(answers: list[dict]) -> list[float]:
    return [max(times) for times in zip(*(a['seconds'] for a in answers), strict=True)]
