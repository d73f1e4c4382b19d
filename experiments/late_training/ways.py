"""Ways to train with one slow worker, and the clock that says when every gradient arrives."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import optax

import gradzip as gz
from experiments import figures
from experiments.exchanges import adam_after_memory
from experiments.late_training.cells import SCHEME
from experiments.memory.methods import Rate
from gradzip import clock

WORKERS = 8
GRADIENT = 0.1  # seconds of a gradient, in the mean
SLOWER = 5.0  # times, of the last worker
SIGMA = 0.2  # of the logarithm of the seconds
LINK, LATENCY = '50Mbit', '1ms'


@dataclasses.dataclass(frozen=True)
class Way:
    """A protocol, and whether its messages are compressed."""

    name: str
    protocol: clock.Protocol
    batch: int  # gradients in a step
    compressed: bool
    style: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def chain(self, rate: Rate) -> optax.GradientTransformationExtraArgs:
        """One gradient in every update; the optimizer takes a step when there are enough."""
        own = gz.error_feedback(SCHEME) if self.compressed else optax.identity()
        adam = adam_after_memory(rate) if self.compressed else optax.adam(rate)
        return optax.chain(gz.take_turns(own, WORKERS), gz.every(adam, self.batch))


PROTOCOLS = {
    'synchronous': (clock.Synchronous(), WORKERS, figures.GREY),
    f'first {WORKERS - 1} of {WORKERS}': (
        clock.MSynchronous(WORKERS - 1), WORKERS - 1, figures.ORANGE,
    ),
    'asynchronous': (clock.Asynchronous(), 1, figures.BLUE),
}  # fmt: skip
WAYS = [
    Way(
        name + (', compressed' if compressed else ''),
        protocol,
        batch,
        compressed,
        {'color': color, 'linestyle': figures.DASHED if compressed else '-'},
    )
    for name, (protocol, batch, color) in PROTOCOLS.items()
    for compressed in (False, True)
]


class Arrivals(NamedTuple):
    """The gradients that are used within a time, in the order of their use."""

    worker: np.ndarray  # i32[gradients]
    delays: np.ndarray  # i32[gradients], in steps
    step_seconds: np.ndarray  # f64[steps], when each step was taken


def network(params: Any, compressed: bool) -> clock.Network:
    """What a message and its answer cost.

    A worker receives the model, or every message since its last one if these are shorter. A message
    goes to all workers once, so that a worker receives as many in a cycle as there are workers, in
    the mean.
    """
    model = gz.payload_bytes(gz.Identity(), params)
    up = gz.payload_bytes(SCHEME, params) if compressed else model
    return clock.Network(up=up, down=min(WORKERS * up, model), link=LINK, latency=LATENCY)


def horizon(links: clock.Network, rounds: int, seed: int) -> float:
    """The seconds of so many rounds of the synchronous protocol."""
    found = clock.simulate(clock.Synchronous(), times(), steps=rounds, network=links, seed=seed)
    return float(found.step_seconds[-1])


def arrivals(way: Way, links: clock.Network, until: float, seed: int) -> Arrivals:
    """What arrives until so many seconds have passed."""
    steps = int(1.2 * until / clock.predict(way.protocol, times(), network=links)) + 10
    run = clock.simulate(way.protocol, times(), steps=steps, network=links, seed=seed)
    assert run.step_seconds[-1] > until, 'more steps are needed than predicted'
    count = int(np.searchsorted(run.step_seconds, until, side='right'))
    own = run.used & (run.applied < count)
    delays = (run.applied - run.born)[own]
    return Arrivals(run.worker[own], delays, run.step_seconds[:count])


def times() -> list[clock.Times]:
    """Of one gradient, for every worker: the last one is slow."""
    means = [GRADIENT] * (WORKERS - 1) + [SLOWER * GRADIENT]
    return [clock.LogNormal(mean, sigma=SIGMA) for mean in means]
