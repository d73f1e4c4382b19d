"""What every exchange costs on this machine, measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench import timing
from experiments.exchanges import AXIS, schemes
from experiments.plan.model import Cost
from experiments.plan.offline import Offline
from gradzip._traffic import collectives_of

SAMPLE = 2048  # rows of the square matrix on which times are taken: 4.2 million entries
FEW, MANY = 2, 8  # workers with whom times are taken; a straight line through both gives the others
RATE = 1e-3


class Case(NamedTuple):
    """A scheme among so many workers."""

    scheme: str
    workers: int


def costs(
    names: list[str], params: int, workers: int, rounds: int, advance: Callable[[], None]
) -> dict[str, Cost]:
    """Of every scheme for so many parameters and workers, from steps on a part of them."""
    rows = min(SAMPLE, max(1, math.isqrt(params)))
    scale = params / rows**2
    counts = sorted({FEW, min(workers, MANY)})
    cases = {
        Case(name, count): _step(schemes()[name], rows, count) for name in names for count in counts
    }
    times = timing.measure(cases, rounds, advance)
    found = {}
    for name in names:
        seconds = [float(np.median(times[Case(name, count)])) for count in counts]
        like = jax.ShapeDtypeStruct((rows, rows), jnp.float32)
        sent = collectives_of(schemes()[name], like, {AXIS: workers})
        found[name] = Cost(
            scale * _line(counts, seconds, workers),
            [c._replace(bytes=round(scale * c.bytes)) for c in sent],
        )
    return found


def _step(tx: optax.GradientTransformation, rows: int, workers: int) -> timing.Case:
    """The exchange and a plain descent without a network, as one of so many workers."""
    gradient = jax.random.normal(jax.random.key(0), (rows, rows))
    params = jnp.zeros((rows, rows))
    own = params, tx.init(params)

    def step(params: jax.Array, state: optax.OptState, gradient: jax.Array) -> tuple:
        mean, state = tx.update(gradient, state, params)
        return params - RATE * jnp.asarray(mean), state

    alone = Offline(step, {AXIS: workers}, (*own, gradient))

    def run(own: tuple, gradient: jax.Array, received: list) -> tuple:
        return None, alone(received, *own, gradient)

    return timing.jitted(run, own, gradient, alone.received)


def _line(counts: list[int], seconds: list[float], workers: int) -> float:
    if len(counts) == 1 or workers == counts[0]:
        return seconds[0]
    slope = (seconds[1] - seconds[0]) / (counts[1] - counts[0])
    return seconds[0] + max(slope, 0.0) * (workers - counts[0])
