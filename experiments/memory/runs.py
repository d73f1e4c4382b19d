"""Training runs of simulated workers, and the search for each method's best rate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments.kept_runs import KeptRuns, best_of
from experiments.memory.methods import AXIS, EXACT, Method
from experiments.models import Model, Size, text
from experiments.progress import Say

EVERY = 5  # steps between two measurements of the loss on unseen text
SMOOTH = 4  # measurements whose mean counts
UNSEEN = 48  # windows of unseen text
LONGEST = 1.5  # a run that has not reached the loss yet ends after so many times the horizon
FINEST = 2**0.5  # neighbouring rates in the search differ by this factor


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all methods have in common."""

    size: Size
    workers: int
    examples: int  # windows of text a worker and step
    horizon: int  # steps after which exact Adam's loss is the target


@dataclasses.dataclass
class Run:
    """The loss on unseen text of one training, every `EVERY` steps."""

    method: str
    rate: float
    seed: int
    curve: list[float]

    @property
    def smooth(self) -> np.ndarray:
        """Means over the last `SMOOTH` measurements; the first is that after `SMOOTH * EVERY`."""
        return np.convolve(self.curve, np.full(SMOOTH, 1 / SMOOTH), 'valid')

    def after(self, steps: int) -> float:
        """The smoothed loss after so many steps; infinity if the run diverged before."""
        value = self.smooth[steps // EVERY - SMOOTH] if len(self.curve) * EVERY >= steps else np.inf
        return float(value) if np.isfinite(value) else float('inf')

    def reached(self, target: float) -> int | None:
        """The first step at which the smoothed loss is at the target, or None."""
        found = np.flatnonzero(self.smooth <= target)
        return int(found[0] + SMOOTH) * EVERY if len(found) else None


class Trainer:
    """Runs methods, and keeps what it ran in a file, so that an interrupted search goes on."""

    def __init__(self, setting: Setting, path: Path):
        self.setting, self._kept = setting, KeptRuns(path, setting, Run)
        self.say: Say = lambda text: None  # is told how far a run is
        self._unseen = text().unseen(UNSEEN, setting.size)
        self.runs = self._kept.runs
        self._programs: dict[str, tuple[Callable, Callable]] = {}

    def run(self, method: Method, rate: float, seed: int, target: float | None) -> Run:
        """Trains for the horizon, and beyond it until the loss is at the target, if it ever is."""
        for run in self.runs:
            if (run.method, run.seed) == (method.name, seed) and np.isclose(run.rate, rate):
                return run
        run = Run(method.name, rate, seed, [])
        setting = self.setting
        start, advance = self._program(method)
        carry = start(_model(setting.size, seed).params, rate)
        limit = setting.horizon if target is None else int(LONGEST * setting.horizon)
        for step in range(0, limit, EVERY):
            if step >= setting.horizon and run.reached(target or 0.0) is not None:
                break
            carry, loss = advance(carry, self._batches(seed, step), rate)
            run.curve.append(float(loss))
            done = step + EVERY
            self.say(f'{method.name}, rate {rate:.2g}, seed {seed}: {done}, {loss:.3f} nats')
            if not np.isfinite(run.curve[-1]):
                break
        self._kept.add(run)
        return run

    def tuned(
        self, method: Method, rate: float, seed: int, target: float | None, factor: float = FINEST
    ) -> Run:
        """The run at the best rate, found by walking from `rate` while the loss gets lower."""
        return best_of(
            lambda at: self.run(method, at, seed, target),
            lambda run: run.after(self.setting.horizon),
            rate,
            factor,
        )

    def _batches(self, seed: int, step: int) -> np.ndarray:
        """i32[EVERY, workers, examples, context + 1]."""
        setting = self.setting
        each = setting.workers * setting.examples
        first = 1_000_000 * (seed + 1) + step  # the seed of a step's windows
        windows = [text().batch(each, setting.size, first + i) for i in range(EVERY)]
        return np.stack(windows).reshape(EVERY, setting.workers, setting.examples, -1)

    def _program(self, method: Method) -> tuple[Callable, Callable]:
        """The first state of all workers, and `EVERY` steps; one compilation for all rates."""
        if method.name not in self._programs:
            self._programs[method.name] = self._compiled(method)
        return self._programs[method.name]

    def _compiled(self, method: Method) -> tuple[Callable, Callable]:
        model, unseen = _model(self.setting.size, 0), jnp.asarray(self._unseen)
        specs = gz.state_specs(jax.eval_shape(method.chain(1.0).init, model.params), 0, None)

        def start(params: Any, rate: jax.Array) -> tuple[Any, Any]:
            init = jax.vmap(
                lambda _: method.chain(rate).init(params), out_axes=specs, axis_name=AXIS
            )
            return jax.tree.map(jnp.copy, params), init(jnp.arange(self.setting.workers))

        def advance(carry: Any, batches: jax.Array, rate: jax.Array) -> tuple[Any, jax.Array]:
            tx = method.chain(rate)

            def worker(params: Any, state: Any, windows: jax.Array) -> tuple[Any, Any]:
                own = gz.local_params(params, state, AXIS)
                updates, state = tx.update(jax.grad(model.loss)(own, windows), state, params)
                return optax.apply_updates(params, updates), state

            step = jax.vmap(worker, (None, specs, 0), (None, specs), axis_name=AXIS)
            carry, _ = jax.lax.scan(
                lambda c, batch: (step(c[0], c[1], batch), None), carry, batches
            )
            return carry, model.loss(carry[0], unseen)

        return jax.jit(start), jax.jit(advance, donate_argnums=0)


@functools.cache
def _model(size: Size, seed: int) -> Model:
    return Model(size, seed)


def compare(
    trainer: Trainer, methods: list[Method], rate: float, seeds: int, search: bool = True
) -> dict[str, list[Run]]:
    """Each method's runs at its best rate: one for each seed. The rate is tuned on the first.

    Without a search, the rate is the given one, times the factor of the method.
    """
    found: dict[str, list[Run]] = {}
    targets: list[float] = []
    for method in methods:
        target = targets[0] if targets else None
        one_rate = trainer.tuned if search else trainer.run
        best = one_rate(method, rate * method.factor, 0, target)
        found[method.name] = [best]
        if method.name == EXACT:
            rate, targets = best.rate, [best.after(trainer.setting.horizon)]
        for seed in range(1, seeds):
            target = targets[seed] if seed < len(targets) else None
            run = trainer.run(method, best.rate, seed, target)
            found[method.name].append(run)
            if method.name == EXACT:
                targets.append(run.after(trainer.setting.horizon))
    return found
