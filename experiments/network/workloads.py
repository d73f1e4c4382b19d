"""What is exchanged on the network: a bare gradient, or those of a transformer in training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.exchanges import (
    AXIS,
    LOCAL,
    LOCAL_SCHEME,
    LOCAL_STEPS,
    MEMORY_IS_MOMENTUM,
    adam_after_memory,
    exchange,
    local_adam,
)
from experiments.models import Model, Size, text

RATE = 1e-3  # of both optimizers; the same for every scheme
EXAMPLES = 4  # windows of text a worker and step
UNSEEN = 64  # windows on which progress is measured, or a few less, so that all have as many
PyTree = Any


class Workload(NamedTuple):
    """What a worker trains, and on what."""

    start: Callable[[], PyTree]  # the parameters, traced
    gradient: Callable[[PyTree, Any], PyTree]  # this worker's own, on its part of a batch
    batch: Callable[[int], jax.Array]  # of a step: split among the workers
    chain: Callable[[str], optax.GradientTransformation]  # a scheme's exchange and the optimizer
    loss: Callable[[PyTree, Any], jax.Array] | None = None  # where there is one to follow
    unseen: Callable[[], jax.Array] | None = None  # what it is followed on, split among the workers

    @property
    def shapes(self) -> PyTree:
        """Of the parameters."""
        return jax.eval_shape(self.start)


def bare_gradient(rows: int, rank: int = 0, workers: int = 1) -> Workload:
    """A matrix of Gaussian entries, different on every worker, the same in every step."""

    @functools.cache
    def made() -> jax.Array:
        mine = np.random.default_rng(rank).standard_normal((1, rows, rows), np.float32)
        return _split(mine, workers)

    return Workload(
        lambda: jnp.zeros((rows, rows)),
        lambda params, own: own[0],
        lambda step: made(),
        lambda scheme: optax.chain(exchange(scheme), optax.sgd(RATE)),
    )


def transformer(size: Size, rank: int = 0, workers: int = 1) -> Workload:
    """Characters of Python's reference manual, other windows on every worker and in every step."""
    model = Model(size)

    def mine(windows: np.ndarray) -> jax.Array:
        return _split(np.split(windows, workers)[rank], workers)

    return Workload(
        lambda: model.params,
        jax.grad(model.loss),
        lambda step: mine(text().batch(EXAMPLES * workers, size, step)),
        _adam,
        model.loss,
        lambda: mine(text().unseen(UNSEEN // workers * workers, size)),
    )


def _adam(scheme: str) -> optax.GradientTransformation:
    if scheme == LOCAL:
        return local_adam(RATE / 2, LOCAL_SCHEME, AXIS, LOCAL_STEPS)
    without = scheme in MEMORY_IS_MOMENTUM
    adam = adam_after_memory(RATE) if without else optax.adam(RATE)
    return optax.chain(exchange(scheme), adam)


def workload(words: dict, rank: int = 0, workers: int = 1) -> Workload:
    """By its description: {"rows": 4096}, or {"layers": 4, ...} as of a `Size`."""
    if 'rows' in words:
        return bare_gradient(words['rows'], rank, workers)
    return transformer(Size(**words), rank, workers)


def mesh() -> jax.sharding.Mesh:
    """All processes, one device each."""
    return jax.sharding.Mesh(np.array(jax.devices()), (AXIS,))


def _split(mine: np.ndarray, workers: int) -> jax.Array:
    sharding = jax.NamedSharding(mesh(), jax.P(AXIS))
    shape = (workers * mine.shape[0], *mine.shape[1:])
    return jax.make_array_from_process_local_data(sharding, mine, shape)
