"""Training in simulated time: one gradient after the other, each as late as the clock says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments.kept_runs import KeptRuns, best_of
from experiments.late_training import ways
from experiments.late_training.ways import WORKERS, Way
from experiments.models import Model, Size, text

EVERY = 5 * WORKERS  # gradients between two measurements of the loss, about
SMOOTH = 4  # measurements whose mean counts
UNSEEN = 48  # windows of unseen text
WARM_UP = 20 * WORKERS  # gradients over which the rate grows from zero
FACTOR = 2.0  # between neighbouring rates
CLOCK_SEED = 0  # all runs meet the same delays


@dataclasses.dataclass(frozen=True)
class Timed:
    """What all ways have in common."""

    size: Size
    examples: int  # windows of text in a gradient
    rounds: int  # of the synchronous protocol, whose time all ways have


@dataclasses.dataclass
class Curve:
    """The loss on unseen text of one training, and the simulated second of each measurement."""

    way: str
    rate: float
    seed: int
    seconds: list[float]
    losses: list[float]

    @property
    def smooth(self) -> np.ndarray:
        """Means over `SMOOTH` measurements, of which the last is at `seconds[SMOOTH - 1:]`."""
        return np.convolve(self.losses, np.full(SMOOTH, 1 / SMOOTH), 'valid')

    @property
    def last(self) -> float:
        """The smoothed loss at the end; infinity if the run diverged."""
        return float(self.smooth[-1]) if np.isfinite(self.losses).all() else float('inf')

    def reached(self, target: float) -> float | None:
        """The second at which the smoothed loss is at the target, or None."""
        found = np.flatnonzero(self.smooth <= target)
        return self.seconds[int(found[0]) + SMOOTH - 1] if len(found) else None


class Block(NamedTuple):
    """Gradients between two measurements."""

    worker: np.ndarray  # i32[gradients]
    windows: np.ndarray  # i32[gradients, examples, context + 1]
    second: float  # of the last step


def steps_a_block(way: Way) -> int:
    """Steps between two measurements."""
    return max(1, EVERY // way.batch)


class EventTrainer:
    """Trains in every way for the same simulated time, and keeps what it ran in a file."""

    def __init__(self, setting: Timed, path: Path) -> None:
        self.setting, self._kept = setting, KeptRuns(path, setting, Curve)
        self.say: Callable[[str], Any] = lambda text: None  # is told how far a run is
        self.runs = self._kept.runs
        self.params = Model(setting.size).params
        self.networks = {packed: ways.network(self.params, packed) for packed in (False, True)}
        self.until = ways.horizon(self.networks[False], setting.rounds, CLOCK_SEED)
        self._programs: dict[str, tuple[Callable, Callable]] = {}

    def arrivals(self, way: Way) -> ways.Arrivals:
        """The gradients that are used in the time that all ways have."""
        return ways.arrivals(way, self.networks[way.compressed], self.until, CLOCK_SEED)

    def run(self, way: Way, rate: float, seed: int) -> Curve:
        """Trains until the time is over."""
        for run in self.runs:
            if (run.way, run.seed) == (way.name, seed) and np.isclose(run.rate, rate):
                return run
        if way.name not in self._programs:
            self._programs[way.name] = self._compiled(way)
        start, advance = self._programs[way.name]
        run = Curve(way.name, rate, seed, [], [])
        carry = start(Model(self.setting.size, seed).params, rate)
        for block in self._blocks(way, seed):
            carry, loss = advance(carry, block.worker, block.windows, rate)
            run.seconds.append(block.second)
            run.losses.append(float(loss))
            said = f'{block.second:.0f} of {self.until:.0f} s, {loss:.3f} nats'
            self.say(f'{way.name}, rate {rate:.2g}, seed {seed}: {said}')
            if not np.isfinite(run.losses[-1]):
                break
        self._kept.add(run)
        return run

    def tuned(self, way: Way, rate: float) -> Curve:
        """The first seed's run at the best rate."""
        return best_of(lambda at: self.run(way, at, 0), lambda run: run.last, rate, FACTOR)

    def _blocks(self, way: Way, seed: int) -> Iterator[Block]:
        found, setting = self.arrivals(way), self.setting
        steps = steps_a_block(way)
        for last in range(steps, len(found.step_seconds) + 1, steps):
            own = found.worker[(last - steps) * way.batch : last * way.batch]
            first = 10_000_000 * (seed + 1) + last  # the seed of a block's windows
            drawn = text().batch(len(own) * setting.examples, setting.size, first)
            windows = drawn.reshape(len(own), setting.examples, -1)
            yield Block(own, windows, float(found.step_seconds[last - 1]))

    def _compiled(self, way: Way) -> tuple[Callable, Callable]:
        """The first state, and the gradients of a block; one compilation for all rates."""
        model, setting = Model(self.setting.size), self.setting
        unseen = jnp.asarray(text().unseen(UNSEEN, setting.size))
        stale = gz.stale_params(gz.Trace(self.arrivals(way).delays[:, None]))

        def chain(rate: Any) -> optax.GradientTransformationExtraArgs:
            return way.chain(lambda step: rate * jnp.minimum(1, step * way.batch / WARM_UP))

        def start(params: Any, rate: Any) -> tuple[Any, Any, Any]:
            return jax.tree.map(jnp.copy, params), stale.init(params), chain(rate).init(params)

        def advance(carry: Any, worker: Any, windows: Any, rate: Any) -> tuple[Any, jax.Array]:
            tx = chain(rate)

            def event(carry: Any, arrival: Any) -> tuple[Any, None]:
                (params, past, state), (worker, windows) = carry, arrival
                late, _ = stale.read(past, params)
                gradient = jax.grad(model.loss)(late, windows)
                updates, state = tx.update(gradient, state, params, worker=worker)
                past = stale.update(params, past)
                return (optax.apply_updates(params, updates), past, state), None

            carry, _ = jax.lax.scan(event, carry, (worker, windows))
            return carry, model.loss(carry[0], unseen)

        return jax.jit(start), jax.jit(advance, donate_argnums=0)


def compare(trainer: EventTrainer, chosen: list[Way], rate: float, seeds: int) -> dict[Way, list]:
    """Every way's runs at its best rate, one for each seed; tuned on the first."""
    found: dict[Way, list[Curve]] = {}
    for way in chosen:
        best = trainer.tuned(way, rate)
        rate = best.rate  # where the next search begins
        found[way] = [trainer.run(way, rate, seed) for seed in range(seeds)]
    return found
