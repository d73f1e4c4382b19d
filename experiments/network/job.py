"""A scheme at work in one process: steps over the network, the same without it, and training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import gradzip as gz
from experiments.exchanges import AXIS
from experiments.network.workloads import Workload, mesh
from gradzip._plan.offline import Offline

PyTree = Any


class Job:
    """A step, compiled, with the parameters and the state that it hands on."""

    def __init__(self, workload: Workload, scheme: str) -> None:
        self.workload = workload
        self.tx = workload.chain(scheme)
        shapes = workload.shapes
        self.specs = jax.P(), gz.state_specs(jax.eval_shape(self.tx.init, shapes))
        mapped = jax.shard_map(
            self._step, mesh=mesh(), in_specs=(*self.specs, jax.P(AXIS)), out_specs=self.specs
        )
        start = jax.shard_map(self._start, mesh=mesh(), in_specs=(), out_specs=self.specs)
        self._make = jax.jit(start)
        self.own: Any = self._make()
        lowered = jax.jit(mapped, donate_argnums=(0, 1)).lower(*self.own, workload.batch(0))
        self.compiled = lowered.compile()

    def _start(self) -> tuple[PyTree, PyTree]:
        params = self.workload.start()
        return params, self.tx.init(params)

    def _step(self, params: PyTree, state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        grads = self.workload.gradient(gz.local_params(params, state, AXIS), batch)
        updates, state = self.tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def rest(self) -> None:
        """Gives parameters and state back; the next run starts afresh."""
        self.own = None

    def run(self, steps: int) -> list[float]:
        """Seconds of every step."""
        self.own = self.own or self._make()
        seconds = []
        for i in range(steps):
            self.own, took = _timed(self.compiled, *self.own, self.workload.batch(i))
            seconds.append(took)
        return seconds

    def run_offline(self, steps: int) -> list[float]:
        """The same without the network, on what this process holds."""
        self.rest()
        batch = self.workload.batch(0).addressable_data(0)
        own = jax.jit(self._start)()
        alone = Offline(self._step, dict(mesh().shape), (*own, batch))
        step = jax.jit(alone, donate_argnums=(1, 2)).lower(alone.received, *own, batch)
        compiled = step.compile()
        seconds = []
        for _ in range(steps):
            own, took = _timed(compiled, alone.received, *own, batch)
            seconds.append(took)
        return seconds

    def train(self, target: float | None, every: int, most: int) -> list[tuple[int, float, float]]:
        """From the start until the loss on unseen examples is at most target: step, loss, seconds.

        The loss is looked at every so many steps; looking is not counted in the seconds.
        """
        self.own, seen, seconds = self._make(), [], 0.0
        loss, unseen = self._loss()
        for i in range(most):
            self.own, took = _timed(self.compiled, *self.own, self.workload.batch(i))
            seconds += took
            if (i + 1) % every == 0:
                seen.append((i + 1, float(loss(self.own[0], unseen)), seconds))
                if target is not None and seen[-1][1] <= target:
                    break
        return seen

    def _loss(self) -> tuple[Any, PyTree]:
        of, unseen = self.workload.loss, self.workload.unseen
        assert of is not None
        assert unseen is not None, 'a bare gradient has no loss'

        def mean(params: PyTree, batch: PyTree) -> jax.Array:
            return jax.lax.pmean(of(params, batch), AXIS)

        mapped = jax.shard_map(
            mean, mesh=mesh(), in_specs=(jax.P(), jax.P(AXIS)), out_specs=jax.P()
        )
        return jax.jit(mapped), unseen()


PROBES = {
    'psum': lambda x: jax.lax.psum(x, AXIS),
    'all_gather': lambda x: jax.lax.all_gather(x, AXIS),
    'all_to_all': lambda x: jax.lax.all_to_all(x, AXIS, 0, 0, tiled=True),
}


def probe(probe: str, words: int, steps: int) -> list[float]:
    """Seconds of a collective alone, each worker handing so many words to it."""

    def alone(x: jax.Array) -> jax.Array:
        return PROBES[probe](x)[None]

    mapped = jax.shard_map(
        alone, mesh=mesh(), in_specs=jax.P(AXIS), out_specs=jax.P(AXIS), check_vma=False
    )
    total = words * mesh().size
    place = jax.NamedSharding(mesh(), jax.P(AXIS))
    x = jax.make_array_from_callback((total,), place, lambda i: np.ones(total, np.uint32)[i])
    compiled = jax.jit(mapped).lower(x).compile()
    jax.block_until_ready(compiled(x))  # the first one touches memory
    return [_timed(compiled, x)[1] for _ in range(steps)]


def _timed(run: Callable, *args: Any) -> tuple[Any, float]:
    """What a program returns, and after how many seconds it is there."""
    begin = time.perf_counter()
    out = jax.block_until_ready(run(*args))
    return out, time.perf_counter() - begin
