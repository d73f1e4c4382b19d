"""Two real processes over gloo give what the simulator gives."""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from gradzip._agreement import difference

ROOT = pathlib.Path(__file__).parent.parent
# Only a program that hangs runs into this: on an idle machine each ends within a minute, but tests
# must also pass where much else runs.
TIMEOUT = 1200  # seconds


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(program: str, *arguments: str) -> Iterator[list[subprocess.Popen]]:
    """Ranks 0 and 1 of a program in tests/programs, which takes RANK PORT and these arguments.

    Whatever happens, neither outlives the block.
    """
    port = str(free_port())
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONWARNINGS': 'default'}
    ranks = [
        subprocess.Popen(
            [sys.executable, '-m', f'tests.programs.{program}', str(rank), port, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        for rank in (0, 1)
    ]
    try:
        yield ranks
    finally:
        for p in ranks:
            p.kill()
            p.wait()


def communicate(ranks: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Standard output and standard error of both, read side by side so that no pipe fills up."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(lambda p: p.communicate(timeout=TIMEOUT), ranks))


def run_both(program: str, *arguments: str) -> list[str]:
    """The standard output of ranks 0 and 1, which both end well."""
    with running(program, *arguments) as ranks:
        outputs = communicate(ranks)
    for p, (_, stderr) in zip(ranks, outputs, strict=True):
        assert p.returncode == 0, stderr[-3000:]
    return [stdout for stdout, _ in outputs]


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['topk', 'qsgd', 'two shot', 'powersgd', 'hierarchical'])
def test_two_processes_of_four_devices(scheme, tmp_path):
    run_both('two_processes', scheme, str(tmp_path))
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


@pytest.mark.slow
def test_a_worker_ends_with_an_error_if_the_other_dies():
    """The other one ends with an error that says so, and takes no third step alone."""
    with running('one_dies') as ranks:
        (shown, said), _ = communicate(ranks)
    assert ranks[0].returncode != 0
    steps = re.findall(r'^\d [\d.]+$', shown, re.M)  # gloo prints lines of its own
    assert len(steps) == 2, 'two steps together, and no third one alone'
    assert re.search('closed by peer|reset by peer|heartbeat|unhealthy', said, re.I), said[-3000:]


OTHER = 'the leaf at "[\'w\']" is float32[3,4] on process 0; float32[3,5] on process 1.'
SAID = {
    'check same': 'fine',
    'check shape': OTHER,
    'check dtype': "the leaf at '[0]' is float32[7] on process 0; float16[7] on process 1.",
    'check missing': '"[\'b\']" is float32[4] on process 0; no such leaf on process 1.',
    'check none': '"[\'w\']" is float32[2] on process 0; no such leaf on process 1.',
    'check order': "['a'], ['b'] on process 0; ['b'], ['a'] on process 1.",
    'check no array': '"[\'w\']" is float32[2] on process 0; str on process 1.',
    'check same again': 'fine',
    'front_door params': '"[\'w\']" is float32[6] on process 0; float32[7] on process 1.',
    'front_door batch': "'[0]' is float32[4,6] on process 0; float32[8,6] on process 1.",
    'front_door nothing': 'fine',
    'front_door own rows': 'fine',
}


@pytest.mark.slow
def test_leaves_that_differ_between_processes_are_named_on_both():
    """One pair of processes runs all cases, so an error in one case must not break a later one."""
    for shown in run_both('disagree'):
        lines = dict(re.findall(r'^((?:check|front_door) [\w ]+): (.*)$', shown, re.M))
        assert list(lines) == list(SAID)
        for case, said in SAID.items():
            assert said in lines[case], case
            assert said == 'fine' or 'must be the same on every process' in lines[case]


def test_many_processes_are_told_in_groups():
    same = [f'[{i}]\tfloat32[3]' for i in range(9)]
    told = difference({0: same, 3: ['[0]\tfloat32[4]'], 4: same, 7: []})
    assert "'[0]' is float32[3] on processes 0, 4; float32[4] on process 3; no such leaf on" in told
    assert 'And 5 more leaves.' in told
