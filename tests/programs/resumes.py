"""Train with checkpoints, and resume. RANK PORT PROCESSES DEVICES UNTIL FOLDER."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

import gradzip as gz

EVERY = 4  # steps from checkpoint to checkpoint


def loss(params, batch, *, aux, key):
    """Mean squared error with dropout, and a running mean of the inputs."""
    x, y = batch
    mean = 0.9 * aux + 0.1 * jnp.mean(x, 0)
    x = jnp.where(jax.random.bernoulli(key, 0.9, x.shape), x - mean, 0)
    return jnp.mean((x @ params['w'] + params['b'] - y) ** 2), mean


def bits(tree) -> dict[str, np.ndarray]:
    """Every array of the tree as bytes, by its path."""
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        numbers = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        whole = multihost_utils.process_allgather(numbers, tiled=True)
        found[jax.tree_util.keystr(path)] = np.atleast_1d(np.asarray(whole)).view(np.uint8)
    return found


def main(rank: str, port: str, processes: str, devices: str, until: str, folder: str) -> None:
    """Train from the last checkpoint, if there is one, to a step."""
    count = int(processes)
    jax.config.update('jax_num_cpu_devices', int(devices) // count)
    if count > 1:
        jax.config.update('jax_cpu_collectives_implementation', 'gloo')
        jax.distributed.initialize(f'127.0.0.1:{port}', count, int(rank))
    mesh = jax.make_mesh((int(devices),), ('data',))
    x, w, params = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    tx = optax.chain(
        gz.per_worker(optax.trace(0.5), 'data'),
        gz.error_feedback(gz.TopK(0.1) >> gz.QSGD(7), 'data', key=1),
        optax.adam(1e-2),
    )
    training, step = gz.data_parallel(
        loss, {'w': params, 'b': np.zeros(32, np.float32)}, tx, mesh, 'data',
        aux=np.zeros(32, np.float32), key=0, printer=None,
    )  # fmt: skip
    path = pathlib.Path(folder).absolute()
    with ocp.CheckpointManager(path / 'steps') as manager:
        done = manager.latest_step()
        if done is not None:
            like = jax.tree.map(ocp.utils.to_shape_dtype_struct, training)
            training = manager.restore(done, args=ocp.args.StandardRestore(like))
        found = bits(training)
        for i in range(done or 0, int(until)):
            training, value = jax.block_until_ready(step(training, (x, x @ w)))
            print('step', i, float(value).hex(), flush=True)
            if (i + 1) % EVERY == 0:
                found = bits(training)
                manager.save(i + 1, args=ocp.args.StandardSave(training))
                manager.wait_until_finished()
    if rank == '0':
        np.savez(path / f'bits_{processes}.npz', **found)


if __name__ == '__main__':
    main(*sys.argv[1:])
