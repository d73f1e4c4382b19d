"""One of two processes: train on a 2 x 4 mesh, save the parameters. RANK PORT SCHEME FOLDER."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz

STEPS = 15
BOTH = ('node', 'gpu')
SCHEMES = {
    'topk': lambda: gz.error_feedback(gz.TopK(0.1), BOTH),
    'qsgd': lambda: gz.compress(gz.QSGD(7), BOTH, key=0),
    'two shot': lambda: gz.error_feedback(gz.TwoShot(gz.QSGD(7)), BOTH, key=0),
    'powersgd': lambda: gz.ef21(gz.PowerSGD(2), BOTH),
    'hierarchical': lambda: gz.hierarchical(
        gz.error_feedback(gz.TopK(0.1), axis_name='node'), local_axis='gpu', local_size=4
    ),
}


def problem():
    """A least-squares problem of 64 examples."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(64, 20)), rng.normal(size=(20, 6))
    params = {'w': jnp.zeros((20, 6)), 'b': jnp.zeros(6)}
    return params, (np.float32(x), np.float32(x @ w))


def loss(params, batch):
    """Mean squared error."""
    x, y = batch
    return jnp.mean((x @ params['w'] + params['b'][None] - y) ** 2)


def main(rank: str, port: str, scheme: str, folder: str) -> None:
    """Train, and save what this process holds."""
    jax.config.update('jax_num_cpu_devices', 4)
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(rank))
    mesh = jax.make_mesh((2, 4), BOTH)
    jax.set_mesh(mesh)
    params, batch = problem()
    tx = optax.chain(SCHEMES[scheme](), optax.sgd(0.05))
    specs = gz.state_specs(jax.eval_shape(tx.init, params))

    @jax.jit
    @jax.shard_map(in_specs=(jax.P(), specs, jax.P(BOTH)), out_specs=(jax.P(), specs))
    def step(params, state, batch):
        grads = jax.grad(loss)(gz.localize(params, BOTH), batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def put(tree, spec):
        sharding = jax.NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda a: jax.make_array_from_callback(a.shape, sharding, lambda i: np.asarray(a)[i]),
            tree,
        )

    state = gz.distribute(tx.init(params), mesh)
    params, batch = put(params, jax.P()), put(batch, jax.P(BOTH))
    for _ in range(STEPS):
        params, state = jax.block_until_ready(step(params, state, batch))
    local = {name: np.asarray(leaf.addressable_data(0)) for name, leaf in params.items()}
    np.savez(f'{folder}/{rank}.npz', **local)


if __name__ == '__main__':
    main(*sys.argv[1:])
