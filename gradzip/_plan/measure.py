"""What every exchange costs on this device, measured on a part of the parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradzip._base import Compressor, PyTree, Reducer, Scheme
from gradzip._plan import timing
from gradzip._plan.offline import Offline

SAMPLE = 1 << 22  # entries on which times are taken; more parameters cost proportionally more
FEW, MANY = 2, 8  # workers with which times are taken; other numbers lie on a line through both
ROUNDS = 7
RATE = 1e-3  # of the descent that uses the mean


class Sample(NamedTuple):
    """A part of a tree that costs about 1 / scale of the whole."""

    leaves: list[jax.ShapeDtypeStruct]
    whole: dict[tuple[int, ...], tuple[int, ...]]  # shape in the sample to shape in the tree
    scale: float


def sample(leaves: list[Any], most: int) -> Sample:
    """Fewer leaves of every shape, and of large ones a part, so that about `most` entries are left.

    Leaves of different shapes keep different shapes, so that `scheme_of` can tell them apart.
    """
    total = sum(math.prod(leaf.shape) for leaf in leaves)
    share = min(1.0, most / max(total, 1))
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    found: list[jax.ShapeDtypeStruct] = []
    whole: dict[tuple[int, ...], tuple[int, ...]] = {}
    for like in dict.fromkeys(shapes):
        wanted = share * shapes.count(like)
        count = max(1, math.floor(wanted))
        shape = _shortened(like.shape, min(1.0, wanted / count))
        while whole.setdefault(shape, like.shape) != like.shape:
            shape = _resized(shape, max(shape) + 1)
        found += count * [jax.ShapeDtypeStruct(shape, like.dtype)]
    return Sample(found, whole, total / max(sum(math.prod(x.shape) for x in found), 1))


def scheme_of(scheme: Scheme, part: Sample) -> Scheme:
    """The scheme for a sample: a function of a leaf still sees the leaf of the whole tree."""
    if isinstance(scheme, Compressor | Reducer):
        return scheme
    return lambda like: scheme(jax.ShapeDtypeStruct(part.whole[like.shape], like.dtype))


def seconds(
    exchanges: Mapping[str, optax.GradientTransformation],
    part: Sample,
    axis_name: str,
    workers: int,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Of every exchange among so many workers, without a network, on the whole tree."""
    counts = sorted({FEW, min(workers, MANY)})
    cases = {
        (name, count): _step(tx, part.leaves, {axis_name: count})
        for name, tx in exchanges.items()
        for count in counts
    }
    times = {case: float(np.median(t)) for case, t in timing.measure(cases, rounds).items()}
    return {
        name: part.scale * line(counts, [times[name, count] for count in counts], workers)
        for name in exchanges
    }


def line(counts: list[int], seconds: list[float], workers: int) -> float:
    """Seconds for another number of workers, on the line through one or two measured ones."""
    if len(counts) == 1 or workers == counts[0]:
        return seconds[0]
    slope = (seconds[1] - seconds[0]) / (counts[1] - counts[0])
    return seconds[0] + max(slope, 0.0) * (workers - counts[0])


def _step(
    tx: optax.GradientTransformation, likes: list[jax.ShapeDtypeStruct], sizes: dict[str, int]
) -> timing.Case:
    """The exchange and a plain descent, as one of so many workers takes them."""
    keys = jax.random.split(jax.random.key(0), len(likes))
    gradient = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, likes, strict=True)]
    params = [jnp.zeros(x.shape, x.dtype) for x in likes]
    own = params, tx.init(params)

    def step(params: PyTree, state: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
        mean, state = tx.update(gradient, state, params)
        return jax.tree.map(lambda p, m: p - RATE * m, params, mean), state

    alone = Offline(step, sizes, (*own, gradient))

    def run(own: tuple, gradient: PyTree, received: list) -> tuple:
        return None, alone(received, *own, gradient)

    return timing.jitted(run, own, gradient, alone.received)


def _shortened(shape: tuple[int, ...], share: float) -> tuple[int, ...]:
    """A part of the longest axis."""
    if share == 1 or math.prod(shape) <= 1:
        return shape
    return _resized(shape, max(1, math.ceil(share * max(shape))))


def _resized(shape: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The shape with its longest axis of another length."""
    i = shape.index(max(shape))
    return (*shape[:i], length, *shape[i + 1 :])
