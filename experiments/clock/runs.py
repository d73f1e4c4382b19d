"""What is simulated: protocols with every kind of times, and until a target."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gradzip import clock, theory

START = 4  # of the steps of a run, a 1 / START is left out: workers start together
MANY, MANY_WORKERS = 10_000_000, 1000  # events and workers of the last run
MEAN = 1.0  # seconds
BAR = 1.5  # how far apart simulated and predicted seconds may be, as a factor
SLOWER = 4.0  # times, of a quarter of the workers
TIMES = {
    'constant': (clock.Constant(MEAN),),
    'exponential': (clock.Exponential(MEAN),),
    'log-normal': (clock.LogNormal(MEAN, sigma=1.0),),
    'Pareto': (clock.Pareto(MEAN, alpha=2.0),),  # whose variance is infinite
    'two speeds': (*[clock.Exponential(MEAN)] * 3, clock.Exponential(SLOWER * MEAN)),
}
TARGET = theory.Target(L=1.0, F0=1.0, variance=10.0, eps=0.1)
SLOWEST = 10.0  # times slower than the fastest, in the table of the target
TARGET_TIMES = {
    'constant': clock.Constant,
    'exponential': clock.Exponential,
    'Pareto': functools.partial(clock.Pareto, alpha=2.0),
}


class Result(NamedTuple):
    """One run, and what was predicted of it."""

    times: str
    workers: int
    run: clock.Run
    seconds: float  # of a step, after the start; or until the target
    predicted: float

    @property
    def name(self) -> str:
        return type(self.run.protocol).__name__

    @property
    def ratio(self) -> float:
        """Simulated over predicted."""
        return self.seconds / self.predicted

    @property
    def gradients(self) -> float:
        """Used in a second."""
        return float(self.run.used.sum()) / self.run.steps / self.seconds


def protocols(n: int) -> list[clock.Protocol]:
    """Every protocol, with constants for so many workers."""
    return [
        clock.Synchronous(),
        clock.MSynchronous(n // 2),
        clock.Quorum(n // 2),
        clock.RoundRobin(),
        clock.BoundedStaleness(4),
        clock.Rennala(n),
        clock.Ringmaster(n),
        clock.Asynchronous(),
    ]


def run(times: str, n: int, gradients: int, seed: int) -> Iterator[Result]:
    """All protocols with one kind of times, on the same seed."""
    speeds = TIMES[times]
    compute = [speeds[w % len(speeds)] for w in range(n)]
    for protocol in protocols(n):
        match protocol:
            case clock.Synchronous() | clock.MSynchronous() | clock.Rennala():
                steps = gradients
            case clock.Quorum():
                steps = 2 * gradients
            case _:
                steps = n * gradients
        found = clock.simulate(protocol, compute, steps=steps, seed=seed)
        first = steps // START
        seconds = (found.step_seconds[-1] - found.step_seconds[first]) / (steps - 1 - first)
        yield Result(times, n, found, float(seconds), clock.predict(protocol, compute))


class ToTarget(NamedTuple):
    """A theorem's bound, and runs of as many steps: their seconds are those until the target."""

    bound: theory.TimeBound
    results: list[Result]


def until_target(n: int, seed: int) -> Iterator[ToTarget]:
    """Workers need 1 to 10 seconds for a gradient: exactly, as in the theorems, or in the mean."""
    speeds = np.linspace(1, SLOWEST, n).tolist()
    best = theory.time_m_synchronous(TARGET, speeds)
    pairs = [
        (theory.time_synchronous(TARGET, speeds), clock.Synchronous()),
        (best, clock.MSynchronous(int(best.protocol.split()[-1]))),
        (theory.time_rennala(TARGET, speeds), clock.Rennala(TARGET.batch)),
        (theory.time_ringmaster(TARGET, speeds), clock.Ringmaster(TARGET.batch)),
        (theory.time_asynchronous(TARGET, speeds), clock.Asynchronous()),
    ]
    for bound, protocol in pairs:
        results = []
        for name, times in TARGET_TIMES.items():
            compute = [times(mean) for mean in speeds]
            found = clock.simulate(protocol, compute, steps=bound.steps, seed=seed)
            predicted = bound.steps * clock.predict(protocol, compute)
            seconds = float(found.step_seconds[-1])
            results.append(Result(name, n, found, seconds, predicted))
        yield ToTarget(bound, results)


def timed(seed: int) -> tuple[clock.Run, float]:
    """How many CPU-seconds the clock takes for many events."""
    start = time.process_time()
    protocol, compute = clock.Asynchronous(), clock.Exponential(MEAN)
    found = clock.simulate(protocol, compute, workers=MANY_WORKERS, steps=MANY, seed=seed)
    seconds = time.process_time() - start
    return found, seconds
