"""One of two processes: reducers of every structure on arrays of its own. RANK PORT FOLDER.

Saves, for each of them, step and array, the mean, what this process sent and what it lost.
"""

import sys

import jax
import numpy as np

from gradzip._base import like_of
from tests.zoo import REDUCER_ROWS

# Law 2 compares the simulator with devices for all rows; processes differ in the collectives alone.
REDUCERS = {n: r.scheme for n, r in REDUCER_ROWS.items() if r.representative or n == 'cat'}
SHAPES = [(12, 3, 2), (), (0,)]
STEPS = 8  # through the whole schedule
PARTS = ('mean', 'sent', 'lost')
P = jax.P


def arrays(rank: int, step: int) -> list[np.ndarray]:
    """What a process has at a step; nobody else has the same."""
    rng = np.random.default_rng((rank, step))
    return [np.float32(rng.normal(size=shape) + 0.5) for shape in SHAPES]


def compiled(reducer, mesh):
    """(arrays, states, step) -> (means, (sent, lost), states), and the first states."""

    def worker(xs, states, step):
        key = jax.random.fold_in(jax.random.key(1), step)
        xs, keys = [x[0] for x in xs], list(jax.random.split(key, len(xs)))
        out = reducer.reduce(xs, states, keys, 'data')
        own = [(r.sent[None], r.lost[None]) for r in out]
        return [r.mean for r in out], own, [r.state for r in out]

    mapped = jax.shard_map(
        worker, mesh=mesh, in_specs=(P('data'), P(), P()), out_specs=(P(), P('data'), P())
    )
    states = [reducer.init(like_of(x)) for x in arrays(0, 0)]
    # The numbers are looked at, not the speed, and compiling is to take little time.
    return jax.jit(mapped, compiler_options={'xla_backend_optimization_level': 0}), states


def own_part(array: jax.Array) -> np.ndarray:
    """What this process holds."""
    return np.asarray(array.addressable_data(0))


def main(rank: str, port: str, folder: str) -> None:
    """One reducer after the other."""
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(rank))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
    rows = jax.NamedSharding(mesh, P('data'))
    found = {}
    for name, reducer in REDUCERS.items():
        reduce, states = compiled(reducer, mesh)
        for step in range(STEPS):
            xs = [
                jax.make_array_from_process_local_data(rows, x[None], (2, *x.shape))
                for x in arrays(int(rank), step)
            ]
            means, own, states = jax.block_until_ready(reduce(xs, states, np.int32(step)))
            for i, (mean, (sent, lost)) in enumerate(zip(means, own, strict=True)):
                # [:1]: of an empty array jax keeps every row on every process.
                parts = (own_part(mean), own_part(sent)[:1], own_part(lost)[:1])
                found |= {
                    f'{name}/{step}/{i}/{part}': array
                    for part, array in zip(PARTS, parts, strict=True)
                }
    np.savez(f'{folder}/{rank}.npz', **found)


if __name__ == '__main__':
    main(*sys.argv[1:])
