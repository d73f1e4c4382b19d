"""The experiments: data that is refused, a split that loses nothing, curves that mappers share."""

from __future__ import annotations

import csv
import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from experiments import data
from experiments.comparison import figures, report
from experiments.comparison.__main__ import app
from experiments.comparison.methods import METHODS, matrix_like, scheme_bits, step_size
from experiments.comparison.runs import Run
from experiments.comparison.simulate import Curve, check_devices, record_at, simulate
from experiments.problems import Problem, split
from experiments.shards import Dense, Sparse, loss, shards

TWO_CLASSES = '+1 1:0.5 3:1\n-1 2:1\n+1 1:1 2:-0.5\n-1 3:-1\n+1 2:0.25\n'
METHOD = {method.name: method for method in METHODS}


def run_cli(*arguments: str) -> tuple[int, str]:
    """The exit code and output; an exception that is not an exit is raised."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def libsvm(tmp_path: Path) -> Path:
    """A file of five examples, two classes and three features."""
    path = tmp_path / 'five.txt'
    path.write_text(TWO_CLASSES)
    return path


@pytest.fixture(scope='module')
def small() -> Problem:
    """Forty uneven examples for eight workers."""
    everything = data.load('breast_cancer')
    return split(data.Data('small', everything.x[:43], everything.y[:43]), workers=8, seed=0)


@pytest.mark.parametrize('name', data.BUILT_IN)
def test_data_sets(name: str):
    """Two classes of about equal size, and the sparse form only where it pays."""
    found = data.load(name)
    assert found.x.shape[0] == len(found.y) > 500
    assert set(found.y) == {-1.0, 1.0}
    assert sp.issparse(found.x) == (name == 'topics')
    assert 0.3 < np.mean(found.y > 0) < 0.7


def test_libsvm(libsvm: Path):
    """Features and labels of a file, whatever the labels are called."""
    found = data.load(str(libsvm))
    np.testing.assert_array_equal(found.y, [1, -1, 1, -1, 1])
    np.testing.assert_array_equal(found.x[2], [1, -0.5, 0])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'neither a data set nor a file'),
        ('', 'no examples'),
        ('+1 1:0.5\n-1 what is this\n', 'cannot be read as LIBSVM'),
        ('+1 1:0.5\n+1 2:1\n', r'1 class\(es\): 1'),
        ('1 1:0.5\n2 2:1\n3 1:1\n', r'3 class\(es\): 1, 2, 3'),
        ('+1 1:nan\n-1 2:1\n', 'NaN or infinity'),
        ('+1 1:0\n-1 2:0\n', 'no feature'),
        ('+1\n-1\n', 'no feature'),
    ],
)
def test_refused_files(tmp_path: Path, text: str | None, message: str):
    """What was given and what to do, without a traceback or an output folder."""
    path = tmp_path / 'data.txt'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        data.load(str(path))
    code, output = run_cli('--data', str(path), '--out', str(tmp_path / 'out'))
    assert code == 2
    assert 'Error:' in output
    assert 'Traceback' not in output
    assert not (tmp_path / 'out').exists()


def test_binary_file_is_refused(tmp_path: Path):
    """A file that is no text."""
    path = tmp_path / 'data.gz'
    path.write_bytes(b'\x1f\x8b\x08\x00 no gzip')
    with pytest.raises(ValueError, match='cannot be read as LIBSVM'):
        data.load(str(path))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--workers', '6'), '6 workers cannot share the 5 examples'),
        (('--workers', '0'), 'at least 1'),
        (('--schemes', 'exact,topj'), 'topj'),
        (('--delays', '0,-1'), 'whole numbers'),
        (('--mapper', 'shard_map'), 'needs a device for each of 5 workers'),
    ],
)
def test_refused_arguments(
    libsvm: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
):
    """What was given and what is allowed, before anything runs."""
    monkeypatch.setattr(jax, 'device_count', lambda: 1)
    common = ('--data', str(libsvm), '--out', str(libsvm.parent), '--workers', '5')
    code, output = run_cli(*common, *arguments)
    assert code == 2
    assert message in ' '.join(output.split())


def test_enough_devices():
    """The devices that there are suffice, or are not asked for."""
    check_devices('shard_map', 8)
    check_devices('vmap', 1000)


@pytest.mark.parametrize('workers', [1, 3, 8, 43])
def test_split_loses_no_example(workers: int):
    """Every example is held once, and padding weighs nothing."""
    everything = data.load('breast_cancer')
    some = data.Data('some', everything.x[:43], everything.y[:43])
    problem = split(some, workers, seed=1)
    assert sum(problem.sizes) == 43
    assert max(problem.sizes) - min(problem.sizes) <= 1
    ours, theirs = (
        np.asarray(sorted(map(tuple, a))) for a in (problem.a, some.x * some.y[:, None])
    )
    np.testing.assert_array_equal(ours, theirs)
    mine = shards(problem)
    assert int(np.sum(np.asarray(mine.weight) > 0)) == 43
    np.testing.assert_allclose(np.sum(mine.weight, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize('name', ['breast_cancer', 'diabetes'])
def test_workers_optimise_the_problem(name: str):
    """The mean of the workers' losses and gradients is F and its gradient, uneven split and all."""
    everything = data.load(name)
    some = everything._replace(x=everything.x[:43], y=everything.y[:43])
    small = split(some, workers=8, seed=0)
    w = np.random.default_rng(0).normal(size=small.features)
    own = functools.partial(loss, lam=small.lam, kind=small.kind)
    value_and_grad = jax.vmap(jax.value_and_grad(own), in_axes=(None, 0))
    values, gradients = value_and_grad(jnp.asarray(w, jnp.float32), shards(small))
    np.testing.assert_allclose(np.mean(values), small.value(w), rtol=1e-5)
    np.testing.assert_allclose(np.mean(gradients, axis=0), small.gradient(w), atol=1e-5)


def test_sparse_is_dense(small: Problem):
    """Both forms have the same loss, gradient, smoothness and optimum."""
    x = np.where(np.abs(small.a) > 1, small.a, 0)
    dense = dataclasses.replace(small, a=x)
    sparse = dataclasses.replace(small, a=sp.csr_matrix(x))
    forms = shards(dense), shards(sparse)
    assert isinstance(forms[0], Dense)
    assert isinstance(forms[1], Sparse)
    w = np.random.default_rng(0).normal(size=small.features)
    own = functools.partial(loss, lam=0.1, kind='logistic')
    value_and_grad = jax.vmap(jax.value_and_grad(own), in_axes=(None, 0))
    in_jax = [value_and_grad(jnp.asarray(w, jnp.float32), form) for form in forms]
    for ours, theirs in zip(*in_jax, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert dense.smoothness == pytest.approx(sparse.smoothness, rel=1e-9)
    np.testing.assert_allclose(dense.gradient(w), sparse.gradient(w), rtol=1e-12)
    np.testing.assert_allclose(dense.value(w[None]), sparse.value(w[None]), rtol=1e-12)
    np.testing.assert_allclose(dense.optimum, sparse.optimum, atol=1e-6)


@pytest.mark.parametrize('name', [*data.BUILT_IN, *data.TARGETS])
def test_optimum(name: str):
    """Strong convexity turns a small gradient into a proof: F - F* <= |grad F|^2 / (2 lam)."""
    problem = split(data.load(name), workers=7, seed=0)
    gradient = problem.gradient(problem.optimum)
    assert gradient @ gradient / (2 * problem.lam) < 1e-12
    h, direction = 1e-6, np.random.default_rng(0).normal(size=problem.features)
    w = problem.optimum + direction
    slope = (problem.value(w + h * direction) - problem.value(w - h * direction)) / (2 * h)
    assert problem.gradient(w) @ direction == pytest.approx(slope, rel=1e-5)


def test_smoothness_bounds_the_curvature(small: Problem):
    """L is the curvature at zero, where every sigmoid is 1/2, along its steepest direction."""
    curvature = small.a.T @ (small.weight[:, None] * small.a) / 4
    largest = np.linalg.eigvalsh(curvature)[-1] + small.lam
    assert small.smoothness == pytest.approx(largest)


def test_step_sizes(small: Problem):
    """Exact gradients take 1/L; noise and lateness only shorten a step."""

    def steps(delay: int) -> list[float]:
        return [step_size(method, small, delay) * small.smoothness for method in METHODS]

    assert steps(0)[0] == 1
    assert all(0 < late < now <= 1 for late, now in zip(steps(16), steps(0), strict=True))


def test_message_bits():
    """Payloads without padding, and the most nearly square weights."""
    like = matrix_like(64)
    assert like.shape == (8, 8)
    assert matrix_like(31).shape == (1, 31)
    bits = {name: scheme_bits(method.scheme, like) for name, method in METHOD.items()}
    assert bits['exact'] == 64 * 32
    assert bits['topk'] == bits['topk-memory'] == 7 * (32 + 32)
    assert bits['randk'] == 7 * 32
    assert bits['sign'] == 64 + 32
    assert bits['ternary-l2'] == 2 * 64 + 32
    assert bits['powersgd'] == 16 * 32


@pytest.mark.parametrize('name', ['bernoulli-own', 'topk-memory'])
def test_mappers_agree(small: Problem, name: str):
    """One device or eight: the same curve."""
    curves = [
        simulate(small, METHOD[name], 2, iterations=25, mapper=mapper, seed=3)
        for mapper in ('vmap', 'shard_map')
    ]
    np.testing.assert_array_equal(curves[0].iteration, curves[1].iteration)
    np.testing.assert_allclose(curves[0].gap, curves[1].gap, rtol=1e-4)
    assert curves[0].gap[-1] < 0.9 * curves[0].gap[0]


def test_chunks_do_not_show(small: Problem, monkeypatch: pytest.MonkeyPatch):
    """How a run is cut into compiled calls changes nothing."""
    whole = simulate(small, METHOD['randk'], 1, iterations=23, mapper='vmap', seed=0)
    monkeypatch.setattr('experiments.comparison.simulate.CHUNK', 10)
    parts = simulate(small, METHOD['randk'], 1, iterations=23, mapper='vmap', seed=0)
    np.testing.assert_array_equal(whole.iteration, parts.iteration)
    np.testing.assert_allclose(whole.gap, parts.gap, rtol=1e-5)


def test_records():
    """The first iterations all, the last one always."""
    assert record_at(1).tolist() == [0, 1]
    records = record_at(10_000)
    assert records[0] == 0
    assert records[-1] == 10_000
    assert np.all(np.diff(records) > 0)


def test_divergence_is_seen(small: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that explodes ends, and says so in the table, the sentences and the figures."""
    monkeypatch.setattr('experiments.comparison.methods.step_size', lambda *_: 1e30)
    curve = simulate(small, METHOD['exact'], 0, iterations=20, mapper='vmap', seed=0)
    monkeypatch.undo()
    assert not np.isfinite(curve.gap[-1])
    runs = [Run(small, METHOD['exact'], 0, curve, 0.0, 1, 1)]
    assert runs[0].diverged
    assert 'DIVERGED' in report.findings(runs)[-1]
    assert len(figures.draw(runs, tmp_path)) == 4
    grew = Curve(np.arange(3), np.array([1.0, 0.5, 1.5]))
    assert dataclasses.replace(runs[0], curve=grew).diverged


def test_command_line(tmp_path: Path, libsvm: Path):
    """A small comparison writes its table, both CSV files and both figures."""
    out = tmp_path / 'out'
    code, output = run_cli(
        *('--data', 'breast_cancer', '--data', str(libsvm), '--schemes', 'exact, topk-memory'),
        *('--delays', '2', '--iterations', '40', '--workers', '5', '--out', str(out)),
    )
    assert code == 0, output
    assert 'TopK + memory' in output
    assert 'None of 4 runs diverged' in output
    assert 'five.txt' in (out / 'tables.txt').read_text()
    with (out / 'runs.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(r['data'], r['scheme'], r['delay']) for r in rows[:3]] == [
        ('breast_cancer', 'exact', '2'),
        ('breast_cancer', 'topk-memory', '2'),
        ('five.txt', 'exact', '2'),
    ]
    assert rows[1]['bits_per_step'] == '192'
    assert rows[1]['padded_bits_per_step'] == '4096'
    with (out / 'curves.csv').open() as file:
        assert len(list(csv.DictReader(file))) == 4 * 41
    for name in ('gap_by_iterations', 'gap_by_bits'):
        assert (out / f'{name}.png').stat().st_size > 10_000
        assert (out / f'{name}.svg').stat().st_size > 10_000
