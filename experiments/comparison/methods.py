"""What is compared: every scheme of the library, its step-size, and what it sends."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

import gradzip as gz
from experiments.message import message_bits
from experiments.problems import Problem

AXIS = 'worker'
KEPT = 0.1  # share of entries that sparsifiers keep: 3 of 30, 7 of 64, 103 of 1024
LEVELS = 7  # of QSGD: codes of four bits
RANK = 1  # of PowerSGD: two vectors instead of a matrix


@dataclasses.dataclass(frozen=True)
class Method:
    """A scheme, with a memory of what it lost or without."""

    name: str  # on the command line and in files
    label: str  # for people
    scheme: gz.Compressor | gz.Reducer
    memory: bool = False

    @property
    def kind(self) -> str:
        if self.memory:
            return 'biased, with memory'
        return 'biased, no memory' if _omega(self.scheme, matrix_like(64)) is None else 'unbiased'


# As the papers count: 32 bits for an index. Packed ones take fewer.
TOPK, SIGN, POWER = gz.TopK(KEPT, indices='plain'), gz.ScaledSign(), gz.PowerSGD(RANK)
TOPK_QSGD = TOPK >> gz.QSGD(LEVELS)
METHODS = (
    Method('exact', 'exact', gz.Identity()),
    Method('randk', 'RandK', gz.RandK(KEPT)),
    Method('bernoulli', 'Bernoulli, shared', gz.Bernoulli(KEPT)),
    Method('bernoulli-own', 'Bernoulli, own', gz.Gather(gz.Bernoulli(KEPT))),
    Method('qsgd', 'QSGD', gz.QSGD(LEVELS)),
    Method('ternary-l2', 'Ternary, l2', gz.Ternary('l2')),
    Method('ternary-max', 'Ternary, max', gz.Ternary('max')),
    Method('topk', 'TopK', TOPK),
    Method('topk-qsgd', 'TopK >> QSGD', TOPK_QSGD),
    Method('sign', 'ScaledSign', SIGN),
    Method('powersgd', 'PowerSGD', POWER),
    Method('topk-memory', 'TopK + memory', TOPK, True),
    Method('topk-qsgd-memory', 'TopK >> QSGD + memory', TOPK_QSGD, True),
    Method('sign-memory', 'ScaledSign + memory', SIGN, True),
    Method('powersgd-memory', 'PowerSGD + memory', POWER, True),
)
HYPERPARAMETERS = (
    f'TopK, RandK and Bernoulli keep {KEPT:.0%} of the entries, QSGD has {LEVELS} levels, PowerSGD '
    f'rank {RANK}; workers share one Bernoulli mask or draw their own.'
)


def step_size(method: Method, problem: Problem, delay: int) -> float:
    """1 / (L (1 + noise + delay)): fixed, and stable for every scheme and delay.

    noise: the relative variance omega of an unbiased scheme, by which gradient descent on one
    worker must shorten 1/L. Workers that draw independently average it to omega / n; what they draw
    together does not average out.
    delay: gradients that are tau steps late allow steps below 2 sin(pi / (4 tau + 2)) / L on a
    quadratic; 1 / (L (1 + tau)) is at least pi/2 times shorter.
    Biased schemes take the step of the exact gradient: without a memory most stall at any
    step-size, and with one they keep up.
    Twice these steps were tried with every scheme, at delays 0, 4 and 16, on all three data sets:
    none diverged.
    """
    noise = _omega(method.scheme, matrix_like(problem.features)) or 0.0
    if not _shared(method.scheme):
        noise /= problem.workers
    return 1 / (problem.smoothness * (1 + noise + delay))


def transformation(
    method: Method, problem: Problem, delay: int, seed: int
) -> optax.GradientTransformation:
    """Gradients arrive late, are compressed, and descend."""
    exchange = gz.error_feedback if method.memory else gz.compress
    return optax.chain(
        gz.delay(delay, AXIS),
        exchange(method.scheme, AXIS, key=seed),
        optax.sgd(step_size(method, problem, delay)),
    )


def scheme_bits(scheme: gz.Compressor | gz.Reducer, like: jax.ShapeDtypeStruct) -> int:
    """Bits that a worker sends in one step."""
    inner = scheme.compressor if isinstance(scheme, gz.Gather) else scheme
    if isinstance(inner, gz.Reducer):  # PowerSGD: its factors are summed, and never padded
        return 8 * gz.payload_bytes(inner, like)
    return message_bits(inner, like)


def matrix_like(features: int) -> jax.ShapeDtypeStruct:
    """The weights as the most nearly square matrix, which PowerSGD needs; a row if d is prime."""
    rows = max(r for r in range(1, math.isqrt(features) + 1) if features % r == 0)
    return jax.ShapeDtypeStruct((rows, features // rows), jnp.float32)


def _omega(scheme: gz.Compressor | gz.Reducer, like: jax.ShapeDtypeStruct) -> float | None:
    inner = scheme.compressor if isinstance(scheme, gz.Gather) else scheme
    return inner.omega(like) if isinstance(inner, gz.Compressor) else None


def _shared(scheme: gz.Compressor | gz.Reducer) -> bool:
    """Whether all workers draw the same: a bare linear compressor is summed in flight."""
    return isinstance(scheme, gz.Compressor) and scheme.linear
