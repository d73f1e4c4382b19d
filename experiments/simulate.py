"""The simulator: all workers and all seeds of a run on one device, by `vmap`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import gradzip as gz
from experiments.problems import Problem
from experiments.sparse_problem import SparseProblem
from gradzip._buffer import payload_bits

AXIS = 'worker'
CHUNK = 1000  # iterations of one compiled call, at most: the progress bar moves

Advance = Callable[[int], Any]
Job = tuple[str, int, Callable[[Advance], Any]]  # title, iterations, and what runs them


def simulate(
    problem: Problem | SparseProblem,
    make: Callable[[jax.Array], optax.GradientTransformation],
    keys: jax.Array,
    iterations: int,
    record: Callable[[jax.Array], jax.Array],
    *,
    shape: tuple[int, ...] | None = None,
    start: np.ndarray | None = None,
    advance: Advance = lambda steps: None,
) -> np.ndarray:
    """record(w_k) for k = 0 .. iterations, in float32: f32[iterations + 1, seeds, ...].

    Args:
      problem: what the workers minimise.
      make: from a key to a chain that exchanges over AXIS and descends.
      keys: one for each seed.
      iterations: how many steps are taken.
      record: what is kept of the weights after each step.
      shape: of the weights as the chain sees them; (features,) by default.
      start: w_0, f64[features]; zeros by default.
      advance: called with the number of iterations that were done.
    """
    begin = np.zeros(problem.features) if start is None else start
    w = jnp.asarray(begin, jnp.float32).reshape(shape or (problem.features,))
    return descend(
        jax.grad(problem.loss), problem.shards, w, make, keys, iterations, record,
        loss=problem.loss, advance=advance,
    )  # fmt: skip


def descend(
    gradient: Callable[[jax.Array, tuple], jax.Array],
    shards: Any,
    start: jax.Array,
    make: Callable[[jax.Array], optax.GradientTransformation],
    keys: jax.Array,
    iterations: int,
    record: Callable[[jax.Array], jax.Array],
    *,
    loss: Callable[[jax.Array, Any], jax.Array] | None = None,
    advance: Advance = lambda steps: None,
) -> np.ndarray:
    """The same with any gradient of one worker, given the weights and its part of the shards.

    Args:
      gradient: of (weights, part of the worker).
      shards: a tree of arrays whose first axis is that of the workers.
      start: the weights at the start.
      loss: of (weights, part of the worker), for chains with a line search.
      make, keys, iterations, record, advance: as in `simulate`.
    """
    count = len(jax.tree.leaves(shards)[0])
    workers: dict[str, Any] = {'axis_name': AXIS, 'axis_size': count}
    tx = optax.with_extra_args_support(make(keys[0]))  # the key that a seed uses is in its state
    specs = gz.state_specs(jax.eval_shape(tx.init, start), 0, None)

    def update(w: jax.Array, state: Any, mine: tuple) -> tuple[Any, Any]:
        extra = {} if loss is None else {'value_fn': lambda w, loss=loss: loss(w, mine)}
        updates, state = tx.update(gradient(gz.localize(w, AXIS), mine), state, w, **extra)
        return optax.apply_updates(w, updates), state

    step = jax.vmap(update, in_axes=(None, specs, 0), out_axes=(None, specs), **workers)
    length = min(CHUNK, max(1, iterations))

    def chunk(carry: tuple, shards: tuple) -> tuple[tuple, jax.Array]:
        def iterate(carry: tuple, _: None) -> tuple:
            w, state = step(carry[0], carry[1], shards)
            return (w, state), record(w)

        return jax.lax.scan(iterate, carry, length=length)

    def init(key: jax.Array) -> tuple:
        state = jax.vmap(lambda _: make(key).init(start), out_axes=specs, **workers)
        return start, state(jnp.arange(count))

    carry = jax.jit(jax.vmap(init))(keys)
    run = jax.jit(jax.vmap(chunk, (0, None), (0, 1)), donate_argnums=0)
    found = [np.repeat(np.asarray(record(start))[None, None], len(keys), axis=1)]
    for done in range(0, iterations, length):
        carry, recorded = run(carry, shards)
        found.append(np.asarray(recorded))  # waits, so that no queue of calls builds up
        advance(min(length, iterations - done))
    return np.concatenate(found)[: iterations + 1]


def run_jobs(jobs: Iterable[Job], console: Console) -> list[Any]:
    """What every job returns, behind a progress bar."""
    jobs = list(jobs)
    columns = TextColumn('{task.description}'), BarColumn(), TimeRemainingColumn()
    results, total = [], sum(length for _, length, _ in jobs)
    with Progress(*columns, TextColumn('left'), console=console) as progress:
        bar = progress.add_task('', total=total)
        for i, (title, _, run) in enumerate(jobs):
            done = sum(length for _, length, _ in jobs[:i])
            progress.update(bar, description=f'{i + 1}/{len(jobs)} {title}', completed=done)
            results.append(run(lambda steps: progress.advance(bar, steps)))
        progress.update(bar, description='done', completed=total)
    return results


def message_bits(scheme: gz.Compressor | gz.Reducer, like: jax.ShapeDtypeStruct) -> int:
    """Bits of a worker's message, counted on its arrays.

    `gz.payload_bytes` also counts the padding of a gathered buffer to rows of 512 bytes, as it
    crosses a wire. Beside a million entries the padding is nothing, with 30 it would be most of the
    message. Bernoulli's message has room for the most entries that a draw may keep.
    """
    compressor = scheme.compressor if isinstance(scheme, gz.Gather) else scheme
    if isinstance(compressor, gz.Reducer):  # PowerSGD: its factors are summed, and never padded
        return 8 * gz.payload_bytes(compressor, like)
    return payload_bits(compressor, like)
