"""One run: many workers on one device by `vmap`, or on as many devices by `shard_map`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments.comparison.methods import AXIS, Method, matrix_like, transformation
from experiments.problems import Problem
from experiments.shards import Shards, loss, shards

Mapper = Literal['vmap', 'shard_map']

CHUNK = 500  # iterations of one compiled call: the progress bar moves, and dispatch costs nothing
RECORDS = 400  # iterations at which the gap is taken: spaced by 2 %, finer than a line is wide


class Curve(NamedTuple):
    """The relative gap along a run. It ends early where it is no longer a number."""

    iteration: np.ndarray  # i64[records], 0 first
    gap: np.ndarray  # f64[records]


def simulate(
    problem: Problem,
    method: Method,
    delay: int,
    *,
    iterations: int,
    mapper: Mapper,
    seed: int,
    advance: Callable[[int], None] = lambda done: None,
) -> Curve:
    """Descends from zero and measures the gap now and then; `advance` hears of the progress.

    The run is in float32. The gap is evaluated in float64 from the recorded weights: near the
    optimum F is flat, so weights that are right to 1e-7 have a gap right to far less than that.
    """
    length = min(CHUNK, iterations)
    tx = transformation(method, problem, delay, seed)
    w, state, descend = _prepare(tx, problem, mapper, length)
    mine, wanted = shards(problem), record_at(iterations)
    gaps = [problem.relative_gap(np.zeros((1, problem.features)))]
    for start in range(0, iterations, length):
        w, state, ws = descend(w, state, mine)
        here = wanted[(wanted > start) & (wanted <= start + length)]
        ws = np.asarray(ws).reshape(length, -1)[here - start - 1]  # waits: nothing queues up
        gaps.append(problem.relative_gap(ws))
        advance(min(length, iterations - start))
        if not np.all(np.isfinite(gaps[-1])):
            break
    gap = np.concatenate(gaps)
    return Curve(wanted[: len(gap)], gap)


def record_at(iterations: int) -> np.ndarray:
    """0, and then every iteration at first, ever fewer later: i64[records]."""
    spaced = np.geomspace(1, iterations, RECORDS).round().astype(int)
    return np.unique([0, *spaced])


def check_devices(mapper: Mapper, workers: int) -> None:
    """Refuses `shard_map` with fewer devices than workers, after asking the CPU for as many.

    A CPU can pretend to be many devices, if told so before JAX first computes.
    """
    if mapper == 'vmap':
        return
    with contextlib.suppress(RuntimeError):  # JAX has computed already: what there is must do
        if jax.config.values['jax_num_cpu_devices'] < workers:
            jax.config.update('jax_num_cpu_devices', workers)
    if jax.device_count() < workers:
        raise ValueError(
            f'--mapper shard_map needs a device for each of {workers} workers; JAX sees '
            f'{jax.device_count()} ({jax.default_backend()}). Pass --workers {jax.device_count()}, '
            'or --mapper vmap, or set JAX_PLATFORMS=cpu, where devices can be forced.'
        )


def _prepare(
    tx: optax.GradientTransformation, problem: Problem, mapper: Mapper, length: int
) -> tuple[jax.Array, Any, Callable]:
    """The first weights and state, and `length` steps of all workers as one jitted function."""
    lam, kind = problem.lam, problem.kind

    def descend(w: jax.Array, state: Any, mine: Shards) -> tuple[jax.Array, Any, jax.Array]:
        def step(carry: tuple, _: None) -> tuple:
            w, state = carry
            gradient = jax.grad(loss)(gz.localize(w, AXIS), mine, lam, kind)
            updates, state = tx.update(gradient, state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), w

        (w, state), ws = jax.lax.scan(step, (w, state), length=length)
        return w, state, ws

    like = matrix_like(problem.features)
    state = jax.eval_shape(tx.init, like)
    map_workers = _vmap if mapper == 'vmap' else _shard_map
    init, descend = map_workers(tx.init, descend, state, problem.workers)
    w = jnp.zeros(like.shape, like.dtype)
    return w, init(w), jax.jit(descend)


def _vmap(init: Callable, descend: Callable, state: Any, workers: int) -> tuple[Callable, Callable]:
    specs = gz.state_specs(state, 0, None)
    init = jax.vmap(init, in_axes=None, out_axes=specs, axis_name=AXIS, axis_size=workers)
    out = (None, specs, None)
    return init, jax.vmap(descend, in_axes=(None, specs, 0), out_axes=out, axis_name=AXIS)


def _shard_map(
    init: Callable, descend: Callable, state: Any, workers: int
) -> tuple[Callable, Callable]:
    mesh = jax.make_mesh(
        (workers,), (AXIS,), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:workers]
    )
    specs, P = gz.state_specs(state), jax.P

    def one(w: jax.Array, state: Any, mine: Shards) -> tuple[jax.Array, Any, jax.Array]:
        return descend(w, state, jax.tree.map(lambda a: a[0], mine))  # a shard of one row

    return (
        jax.shard_map(init, mesh=mesh, in_specs=P(), out_specs=specs),
        jax.shard_map(one, mesh=mesh, in_specs=(P(), specs, P(AXIS)), out_specs=(P(), specs, P())),
    )
