"""Two real processes over gloo give what the simulator gives."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz

PROGRAM = pathlib.Path(__file__).parent / 'programs' / 'two_processes.py'


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def run_both(*arguments: str) -> list[str]:
    """The standard output of ranks 0 and 1."""
    port = str(free_port())
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONWARNINGS': 'default'}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), port, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=PROGRAM.parent.parent.parent,
        )
        for rank in (0, 1)
    ]
    outputs = [p.communicate(timeout=240) for p in ranks]
    for p, (_, stderr) in zip(ranks, outputs, strict=True):
        assert p.returncode == 0, stderr[-3000:]
    return [stdout for stdout, _ in outputs]


@pytest.mark.parametrize('scheme', ['topk', 'qsgd', 'two shot', 'powersgd', 'hierarchical'])
def test_two_processes_of_four_devices(scheme, tmp_path):
    run_both(scheme, str(tmp_path))
    ranks = [dict(np.load(tmp_path / f'{rank}.npz')) for rank in (0, 1)]
    for name in ranks[0]:
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name])

    from tests.programs import two_processes as program

    params, batch = program.problem()
    tx = optax.chain(program.SCHEMES[scheme](), optax.sgd(0.05))
    specs = jax.eval_shape(tx.init, params)
    over = {
        a: gz.state_specs(specs, lambda axes, a=a: 0 if a in axes else None, None)
        for a in ('node', 'gpu')
    }

    def worker(params, state, x, y):
        grads = jax.grad(program.loss)(params, (x, y))
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step, make = worker, lambda _: tx.init(params)
    for axis in ('gpu', 'node'):
        step = jax.vmap(step, (None, over[axis], 0, 0), (None, over[axis]), axis_name=axis)
        make = jax.vmap(make, out_axes=over[axis], axis_name=axis)
    state = make(jnp.zeros((2, 4)))
    x, y = (a.reshape(2, 4, -1, *a.shape[1:]) for a in batch)
    step = jax.jit(step)
    for _ in range(program.STEPS):
        params, state = step(params, state, x, y)
    for name, leaf in params.items():
        np.testing.assert_allclose(ranks[0][name], leaf, rtol=1e-5, atol=1e-5)


def test_a_worker_that_dies_is_missed_and_not_waited_for():
    """The other one ends with an error that says so, well before the runtime's default minutes."""
    program, port = PROGRAM.parent / 'one_dies.py', str(free_port())
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    ranks = [
        subprocess.Popen(
            [sys.executable, '-m', f'tests.programs.{program.stem}', str(rank), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=PROGRAM.parent.parent.parent,
        )
        for rank in (0, 1)
    ]
    (shown, said), _ = (p.communicate(timeout=120) for p in ranks)
    assert ranks[0].returncode != 0
    steps = re.findall(r'^\d [\d.]+$', shown, re.M)  # gloo prints lines of its own
    assert len(steps) == 2, 'two steps together, and no third one alone'
    assert re.search('closed by peer|reset by peer|heartbeat|unhealthy', said, re.I), said[-3000:]
