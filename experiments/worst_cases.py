"""For each theorem a problem whose run needs about as long as the theorem says.

Most are quadratics with two curvatures, whose start lies along the slow one, in many coordinates
that the compressor hits independently: averages over seeds alone would need very many.

    blocks     worker 0 alone holds the slow coordinates, the others share the fast one; the
               curvature of each loss is L_max, so that mu = L_max / n, and L = 7 mu
    offsets    the same with linear terms that cancel in F, so that G > 0
    one node   two curvatures
    wells      a sum of functions of one coordinate that is not convex: between the points of a run
               the slope falls below that of the Polyak-Lojasiewicz inequality (`experiments.wells`)
    opposed    f_0 = 21 x^2 / 2 and f_1 = -19 x^2 / 2, of which f_1 alone is late
               (L = mu, and L_e = 20 mu)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments.simulate import AXIS
from experiments.wells import wells
from gradzip import theory

WORKERS, TAU = 8, 6
COPIES = 256  # coordinates that are slow
DELTA, HIT, RARE = 0.25, 0.25, 1 / 32  # of the compressors
FREQUENT, SELDOM = (f'Bernoulli {Fraction(p)}' for p in (HIT, RARE))
OFFSET = 0.1  # slope of the linear terms

Key = jax.Array
Before = Callable[[Key], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Shrink(gz.Compressor):
    """C(v) = (1 - sqrt(1 - delta)) v: it loses as much as delta allows, in the same direction."""

    contraction: float

    def encode(self, x: jax.Array, key: Key) -> tuple[jax.Array]:
        del key
        return (x * (1 - math.sqrt(1 - self.contraction)),)

    def decode(self, payload: tuple[jax.Array], like: Any, key: Key) -> jax.Array:
        del like, key
        return payload[0]

    def delta(self, like: Any) -> float:
        del like
        return self.contraction


class Case(NamedTuple):
    """A theorem, a problem within its assumptions, and the exchange that runs it."""

    problem: str
    run: str
    family: Callable[..., theory.Bound]
    constants: theory.Problem
    options: dict[str, Any]
    gradient: Callable[[jax.Array, tuple], jax.Array]
    shards: tuple[jax.Array, ...]
    value: Callable[[jax.Array], jax.Array]  # F - F*
    before: Before
    start: jax.Array
    seeds: int = 32
    shift: int = 0  # iterations in which nothing has arrived


def cases() -> Iterator[Case]:
    """The worst cases."""
    hit, rare = gz.Bernoulli(HIT), gz.Bernoulli(RARE)
    noise, noisier = 1 / HIT - 1, 1 / RARE - 1
    blocks, offsets = _blocks(0.0), _blocks(OFFSET)
    one, stiff = _one_node(10.0), _one_node(100.0)
    yield _wells(hit)
    yield one(FREQUENT, theory.gd, {'omega': noise}, _whole(hit))
    yield one('shrinking', theory.gd, {'delta': DELTA}, _whole(Shrink(DELTA)), seeds=1)
    for made, seeds in ((blocks, 4096), (offsets, 512)):  # all coordinates share the workers drawn
        few = {'omega': noise, 'batch': 2}
        yield made(f'mini-batch of 2, {FREQUENT}', theory.minibatch, few, _few(hit), seeds=seeds)
    for made in (blocks, offsets):
        yield made(FREQUENT, theory.dcgd, {'omega': noise}, _exchange(hit))
    late = {'omega': noisier, 'tau': TAU}
    yield blocks(f'always {TAU} late, {SELDOM}', theory.stale, late, _late(rare), shift=TAU)
    turns = {**late, 'ordered': True}
    yield blocks(f'stored for {TAU}, {SELDOM}', theory.q_iag, turns, _stored(rare))
    yield _opposed()
    yield one(f'always {TAU} late, {SELDOM}', theory.stale_gd, late, _whole(rare, TAU), shift=TAU)
    shrink = Shrink(DELTA)
    yield stiff('shrinking with memory', theory.ef14, {'delta': DELTA}, _memory(shrink), seeds=1)
    yield blocks('shrinking with memory', theory.ef14, {'delta': DELTA}, _memory(shrink), seeds=1)


def _blocks(offset: float) -> Callable[..., Case]:
    """Worker 0 holds the slow coordinates, the others the fast one; offsets cancel in F."""
    n = WORKERS
    curvature, slope = np.zeros((2, n, COPIES + 1))
    curvature[0, :COPIES] = curvature[1:, COPIES] = 1
    slope[0, :COPIES], slope[1:, :COPIES] = offset, -offset / (n - 1)
    G = float(np.sum(slope**2))
    constants = theory.Problem(
        n, (n - 1) / n, 1 / n, L_max=1.0, L_mean=1.0, L_rms=1.0, sigma=n if offset else n - 1,
        L_cov=1.0 if offset else (n - 1) / n, L_e=1.0 if offset else (n - 1) / n, G=G,
        V0=COPIES, F0=COPIES / (2 * n),
    )  # fmt: skip
    name = 'offsets' if offset else 'blocks'
    return _quadratic(f'{name}, L = {n - 1} mu', constants, curvature, slope)


def _one_node(condition: float) -> Callable[..., Case]:
    curvature = np.ones((1, COPIES + 1))
    curvature[0, COPIES] = condition
    constants = theory.Problem(1, condition, 1.0, V0=COPIES, F0=COPIES / 2)
    name = f'one node, L = {condition:g} mu'
    return _quadratic(name, constants, curvature, np.zeros_like(curvature))


def _quadratic(
    name: str, constants: theory.Problem, curvature: np.ndarray, slope: np.ndarray
) -> Callable[..., Case]:
    """Returns what makes a case of f_i = sum_j (c_ij x_j^2 / 2 + s_ij x_j), whose optimum is 0."""
    shards = jnp.asarray(curvature, jnp.float32), jnp.asarray(slope, jnp.float32)
    mean = shards[0].mean(axis=0)
    start = jnp.arange(len(mean)) < max(1, len(mean) - 1)  # the last coordinate is the fast one

    def make(
        run: str,
        family: Callable[..., theory.Bound],
        options: dict[str, Any],
        before: Before,
        **rest: Any,
    ) -> Case:
        return Case(
            name, run, family, constants, options, lambda w, mine: mine[0] * w + mine[1], shards,
            lambda w: jnp.sum(mean * w * w) / 2, before, start.astype(jnp.float32), **rest,
        )  # fmt: skip

    return make


def _opposed() -> Case:
    """One coordinate: the late part of the gradient, of the opposite sign, is too large."""
    up, down = 21.0, 19.0
    constants = theory.Problem(
        2, 1.0, 1.0, L_max=up, L_mean=(up + down) / 2, L_e=(up + down) / 2, V0=1.0, F0=0.5
    )

    def before(key: Key) -> optax.GradientTransformation:
        late = gz.delay(gz.Fixed((0, TAU)), AXIS, key=key)
        return optax.chain(late, gz.compress(gz.Identity(), AXIS))

    make = _quadratic(
        'opposed, L_e = 20 mu', constants, np.array([[up], [-down]]), np.zeros((2, 1))
    )
    run = f'one of two always {TAU} late, exact'
    return make(run, theory.iag, {'tau': TAU}, before, seeds=1)


def _wells(hit: gz.Compressor) -> Case:
    phi, mu = wells(0.1)
    constants = theory.Problem(1, 1.0, mu, F0=COPIES * float(phi.at(1.0, np)[0]))
    return Case(
        'wells, L = 10 mu', f'smooth only, {FREQUENT}', theory.gd, constants,
        {'omega': 1 / HIT - 1, 'convex': False}, lambda w, mine: phi.at(w)[1] + mine[0],
        (jnp.zeros((1, 1)),), lambda w: jnp.sum(phi.at(w)[0]), _whole(hit),
        jnp.ones(COPIES),
    )  # fmt: skip


def _whole(scheme: gz.Compressor, tau: int = 0) -> Before:
    mean = optax.chain(gz.delay(gz.Constant(tau), AXIS), gz.compress(gz.Identity(), AXIS))
    return lambda key: optax.chain(mean, gz.compress(scheme, key=key))


def _exchange(scheme: gz.Compressor) -> Before:
    return lambda key: gz.compress(gz.Gather(scheme), AXIS, key=key)


def _few(scheme: gz.Compressor) -> Before:
    def before(key: Key) -> optax.GradientTransformation:
        who, what = jax.random.split(key)
        return optax.chain(gz.participate(2, AXIS, key=who), _exchange(scheme)(what))

    return before


def _late(scheme: gz.Compressor) -> Before:
    return lambda key: optax.chain(gz.delay(gz.Constant(TAU), AXIS), _exchange(scheme)(key))


def _stored(scheme: gz.Compressor) -> Before:
    return lambda key: gz.iag(scheme, AXIS, gz.Burst(TAU + 1), key=key)


def _memory(scheme: gz.Compressor) -> Before:
    return lambda key: gz.error_feedback(gz.Gather(scheme), AXIS, key=key)
