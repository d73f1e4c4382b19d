"""One worker: RANK WORKERS ADDRESS ROWS. Reads commands, writes answers, a JSON object a line.

{"scheme": NAME} compiles the exchange and answers with its bytes; {"scheme": NAME, "steps": K} runs
K steps and answers with their seconds. The gradient is one (ROWS, ROWS) float32 matrix; parameters
and memory are donated, as in training. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments.network.schemes import AXIS, schemes

RATE = 1e-3  # of the plain descent that uses the mean, so that nothing is left out by the compiler
START_SECONDS = 60


class Exchange:
    """A scheme, compiled, with its parameters and memory."""

    def __init__(self, tx: optax.GradientTransformation, gradient: jax.Array) -> None:
        mesh, rows = _mesh(), gradient.shape[1]
        params = jax.ShapeDtypeStruct((rows, rows), jnp.float32)
        specs = gz.state_specs(jax.eval_shape(tx.init, params))

        def start() -> tuple[jax.Array, Any]:
            zeros = jnp.zeros(params.shape, params.dtype)
            return zeros, tx.init(zeros)

        def step(params: jax.Array, state: Any, gradient: jax.Array) -> tuple[jax.Array, Any]:
            mean, state = tx.update(gradient[0], state, params)
            return params - RATE * jnp.asarray(mean), state

        made = jax.shard_map(start, mesh=mesh, in_specs=(), out_specs=(jax.P(), specs))
        self.make, self.gradient = jax.jit(made), gradient
        self.own = self.make()
        mapped = jax.shard_map(
            step, mesh=mesh, in_specs=(jax.P(), specs, jax.P(AXIS)), out_specs=(jax.P(), specs)
        )
        lowered = jax.jit(mapped, donate_argnums=(0, 1)).lower(*self.own, gradient)
        self.compiled = lowered.compile()

    def rest(self) -> None:
        """Gives parameters and memory back; the next run starts from zeros."""
        self.own = None

    def run(self, steps: int) -> list[float]:
        """Seconds of every step."""
        seconds = []
        self.own = self.own or self.make()
        for _ in range(steps):
            begin = time.perf_counter()
            self.own = jax.block_until_ready(self.compiled(*self.own, self.gradient))
            seconds.append(time.perf_counter() - begin)
        return seconds


def _mesh() -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(jax.devices()), (AXIS,))


def own_gradient(rank: int, workers: int, rows: int) -> jax.Array:
    """Gaussian, different on every worker: (workers, rows, rows), a row of it here."""
    mine = np.random.default_rng(rank).standard_normal((1, rows, rows), np.float32)
    sharding = jax.NamedSharding(_mesh(), jax.P(AXIS))
    return jax.make_array_from_process_local_data(sharding, mine, (workers, rows, rows))


def main(rank: str, workers: str, address: str, rows: str) -> None:
    """Answers until nobody asks."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # gloo prints to standard output

    def answer(words: dict) -> None:
        print(json.dumps(words), file=answers, flush=True)

    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(
        address, int(workers), int(rank), initialization_timeout=START_SECONDS
    )
    gradient = own_gradient(int(rank), int(workers), int(rows))
    known, compiled = schemes(), {}
    answer({'ready': rank})
    for line in sys.stdin:
        command = json.loads(line)
        name = command['scheme']
        for other in compiled:
            if other != name:
                compiled[other].rest()
        if name not in compiled:
            compiled[name] = Exchange(known[name], gradient)
        steps = compiled[name].run(command.get('steps', 0))
        answer({'bytes': gz.wire_bytes(compiled[name].compiled), 'seconds': steps})


if __name__ == '__main__':
    main(*sys.argv[1:])
