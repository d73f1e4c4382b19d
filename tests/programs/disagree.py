"""One of two processes that do not always have the same tree. RANK PORT: a line a case."""

import sys
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz


def zeros(*shape, dtype='float32'):
    """Of this shape."""
    return np.zeros(shape, dtype)


# name -> what rank 0 has, and what rank 1 has
TREES = {
    'same': ({'w': zeros(3, 4), 'b': zeros()}, {'w': zeros(3, 4), 'b': zeros()}),
    'shape': ({'w': zeros(3, 4), 'b': zeros(4)}, {'w': zeros(3, 5), 'b': zeros(4)}),
    'dtype': ([zeros(7)], [zeros(7, dtype='float16')]),
    'missing': ({'w': zeros(3, 4), 'b': zeros(4)}, {'w': zeros(3, 4)}),
    'none': ({'w': zeros(2)}, {}),
    'order': (OrderedDict(a=zeros(2), b=zeros(2)), OrderedDict(b=zeros(2), a=zeros(2))),
    'no array': ({'w': zeros(2)}, {'w': 'two'}),
    'same again': (zeros(5), zeros(5)),
}


def check(rank: int, name: str) -> None:
    """The public function alone."""
    gz.check_same_shapes(TREES[name][rank])


def front_door(rank: int, what: str) -> None:
    """data_parallel with params, or a batch, of another shape on rank 1."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
    tx = optax.chain(gz.error_feedback(gz.TopK(0.5), 'data'), optax.sgd(0.1))
    width = 6 + rank if what == 'params' else 6
    state, step = gz.data_parallel(
        lambda p, x: jnp.mean((x[0] @ p['w'] - 1) ** 2), {'w': zeros(width)}, tx, mesh, 'data'
    )
    for rows in (4, 8, 8):
        rows += 4 * rank if what == 'batch' else 0
        batch = np.ones((rows, 6), 'float64' if what == 'own rows' else 'float32')
        if what == 'own rows':  # those of the other process's workers never reach it
            batch[rows // 2 * (1 - rank) : rows // 2 * (2 - rank)] = np.nan
        state, value = jax.block_until_ready(step(state, (batch,)))
        assert np.isfinite(value)
    print(float(value), flush=True)


def main(rank: str, port: str) -> None:
    """Every case, and what it said."""
    jax.config.update('jax_num_cpu_devices', 2)
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(rank))
    cases = [(check, name) for name in TREES]
    cases += [(front_door, what) for what in ('params', 'batch', 'nothing', 'own rows')]
    for function, name in cases:
        try:
            function(int(rank), name)
            said = 'fine'
        except ValueError as error:
            said = ' '.join(str(error).split())
        print(f'{function.__name__} {name}: {said}', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
