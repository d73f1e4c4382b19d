"""One of two processes that exchange gradients; rank 1 is gone after two steps. RANK PORT."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

import gradzip as gz

TIMEOUT = 10  # seconds, of the runtime's heartbeat


def main(rank: str, port: str) -> None:
    """Steps until the other one is missed."""
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(rank), heartbeat_timeout_seconds=TIMEOUT)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
    tx = gz.error_feedback(gz.TwoShot(gz.QSGD(7)), 'data', key=0)
    state, step = gz.data_parallel(
        lambda w, x: jnp.mean((x @ w - 1) ** 2), jnp.zeros(1000), tx, mesh, 'data', printer=None
    )
    for i in range(5):
        state, value = jax.block_until_ready(step(state, np.ones((4, 1000), np.float32)))
        print(i, float(value), flush=True)
        if i == 1 and rank == '1':
            os._exit(1)  # as if killed: no farewell


if __name__ == '__main__':
    main(*sys.argv[1:])
