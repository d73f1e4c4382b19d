"""Runs of real processes, and what the clock says of the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.network.links import Link
from experiments.network.workers import Workers
from experiments.parameter_server import setting
from experiments.parameter_server.setting import PROTOCOLS, SYNCHRONOUS, WORKERS
from gradzip import clock

REPEATS = 20  # runs of the clock, each with other random times


class Arrived(NamedTuple):
    """The gradients that a server used."""

    worker: np.ndarray  # i32[gradients]
    delay: np.ndarray  # i32[gradients], in steps
    seconds_a_step: float

    def histogram(self, longest: int) -> np.ndarray:
        """The share of all gradients by worker and delay: f64[workers, longest + 1]."""
        counts = np.zeros((WORKERS, longest + 1))
        np.add.at(counts, (self.worker, self.delay), 1)
        return counts / counts.sum()

    def mean_delay(self, workers: slice) -> float:
        """Of the gradients of some workers."""
        chosen = np.isin(self.worker, np.arange(WORKERS)[workers])
        return float(self.delay[chosen].mean())


class Compared(NamedTuple):
    """One run, and runs of the clock with the same distributions."""

    protocol: str
    scheme: str
    link: Link
    measured: Arrived
    simulated: list[Arrived]
    computing: float  # seconds of a gradient over the set ones, in the mean

    @property
    def predicted(self) -> Arrived:
        """All runs of the clock as one."""
        return Arrived(
            np.concatenate([run.worker for run in self.simulated]),
            np.concatenate([run.delay for run in self.simulated]),
            float(np.mean([run.seconds_a_step for run in self.simulated])),
        )

    @property
    def ratio(self) -> float:
        """Seconds a step, measured over predicted."""
        return self.measured.seconds_a_step / self.predicted.seconds_a_step

    def delays_ratio(self, workers: slice) -> float:
        """Mean delay of some workers, measured over predicted."""
        return self.measured.mean_delay(workers) / self.predicted.mean_delay(workers)

    def shares(self, workers: slice) -> list[np.ndarray]:
        """How often each delay was among the gradients of some workers, measured and predicted."""
        longest = int(max(run.delay.max() for run in (self.measured, *self.simulated)))
        both = [run.histogram(longest)[workers].sum(0) for run in (self.measured, self.predicted)]
        return [counts / counts.sum() for counts in both]

    @property
    def distance(self) -> float:
        """Between the distributions of worker and delay, in total variation."""
        return distance(self.measured, self.predicted)

    @property
    def luck(self) -> float:
        """How far a run of the clock is from all of its runs, in the mean."""
        return float(np.mean([distance(run, self.predicted) for run in self.simulated]))


def distance(a: Arrived, b: Arrived) -> float:
    """Total variation: 0 if the distributions are equal, 1 if they have nothing in common."""
    longest = int(max(a.delay.max(), b.delay.max()))
    return float(np.abs(a.histogram(longest) - b.histogram(longest)).sum() / 2)


def run(
    workers: Workers, protocol: str, scheme: str, link: Link, gradients: int, size: int
) -> Compared:
    """Lets the processes run, and the clock."""
    steps = gradients // WORKERS if protocol == SYNCHRONOUS else gradients
    times = setting.drawn(0)
    answers = workers.ask(scheme=scheme, protocol=protocol, steps=steps, times=times)
    worker, born, applied, seconds = np.array(answers[0]['records']).T
    measured = Arrived(
        worker.astype(np.int32), (applied - born).astype(np.int32), float(seconds.max()) / steps
    )
    spent = sum(sum(answer['seconds']) for answer in answers[1:])
    asked = sum(
        sum(own[: len(answer['seconds'])]) for own, answer in zip(times, answers[1:], strict=True)
    )
    bits = np.inf if link.bits is None else link.bits
    simulated = [
        _simulated(protocol, setting.network(scheme, bits, size), steps, seed)
        for seed in range(REPEATS)
    ]
    return Compared(protocol, scheme, link, measured, simulated, spent / asked)


def _simulated(protocol: str, network: clock.Network, steps: int, seed: int) -> Arrived:
    found = clock.simulate(
        PROTOCOLS[protocol], setting.times(), steps=steps, network=network, seed=seed
    )
    return Arrived(found.worker, found.applied - found.born, found.seconds_a_step)
