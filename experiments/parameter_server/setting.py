"""What runs: schemes, protocols, and the seconds that gradients are set to take."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import gradzip as gz
from gradzip import clock

WORKERS = 4
SIZE = 500_000  # entries of the model: 2 MB
GRADIENT, SIGMA = 0.1, 0.25  # seconds of a gradient in the mean, and of their logarithm
SLOWER = 3.0  # times, of the last worker
DRAWN = 1000  # times of each worker
SCHEMES = {'exact': gz.Identity(), 'QSGD 4 bit': gz.QSGD(7)}
SYNCHRONOUS = 'synchronous'
PROTOCOLS = {SYNCHRONOUS: clock.Synchronous(), 'asynchronous': clock.Asynchronous()}


def times() -> list[clock.Times]:
    """Of every worker: the last one is slow."""
    means = [GRADIENT] * (WORKERS - 1) + [SLOWER * GRADIENT]
    return [clock.LogNormal(mean, sigma=SIGMA) for mean in means]


def drawn(seed: int) -> list[list[float]]:
    """The seconds that each worker's gradients are set to take."""
    rng = np.random.default_rng(seed)
    return [each.draw(rng, DRAWN).tolist() for each in times()]


def network(scheme: str, bits: float, size: int) -> clock.Network:
    """What the clock is told: the bytes of a message and of the model, and the speed of a link.

    Every worker has a link of its own, and the server's is not limited.
    """
    like = jax.ShapeDtypeStruct((size,), jnp.float32)
    up = gz.payload_bytes(SCHEMES[scheme], like)
    return clock.Network(up=up, down=like.size * like.dtype.itemsize, link=bits)
