"""Data that is refused, a split that loses nothing, the simulator, and what a memory does."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from typer.testing import CliRunner

import gradzip as gz
from experiments import comparison, data
from experiments.comparison import METHODS, Run, app, matrix_like, run
from experiments.problems import CURVATURE, Problem, loss, split
from experiments.simulate import AXIS, message_bits, simulate

TWO_CLASSES = '+1 1:0.5 3:1\n-1 2:1\n+1 1:1 2:-0.5\n-1 3:-1\n+1 2:0.25\n'


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
    """Forty-three uneven examples for eight workers."""
    everything = data.load('breast_cancer')
    some = data.Data('small', everything.x[:43], everything.y[:43])
    return split(some, workers=8, seed=0, regularisation=0.01)


@pytest.mark.parametrize('name', data.BUILT_IN)
def test_data_sets(name: str):
    """Two classes of about equal size."""
    found = data.load(name)
    assert found.x.shape[0] == len(found.y) > 500
    assert set(found.y) == {-1.0, 1.0}
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
    ],
)
def test_refused_arguments(libsvm: Path, arguments: tuple[str, ...], message: str):
    """What was given and what is allowed, before anything runs."""
    common = ('--data', str(libsvm), '--out', str(libsvm.parent), '--workers', '5')
    code, output = run_cli(*common, *arguments)
    assert code == 2
    assert message in ' '.join(output.split())


@pytest.mark.parametrize('workers', [1, 3, 8, 43])
def test_split_loses_no_example(workers: int):
    """Every example is held once, and padding weighs nothing."""
    everything = data.load('breast_cancer')
    some = data.Data('some', everything.x[:43], everything.y[:43])
    problem = split(some, workers, 1, 0.01)
    _, x, y, weight, _ = problem.risk
    sizes = np.sum(weight > 0, axis=1)
    assert problem.examples == sum(sizes) == 43
    assert max(sizes) - min(sizes) <= 1
    held = np.concatenate([x, y[..., None]], axis=2)[weight > 0]
    ours, theirs = (sorted(map(tuple, a)) for a in (held, np.c_[some.x, some.y]))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(weight.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize('name', ['breast_cancer', 'diabetes'])
def test_workers_optimise_the_problem(name: str):
    """The mean of the workers' losses is F as one reads it, uneven split and all."""
    everything = data.load(name)
    some = everything._replace(x=everything.x[:43], y=everything.y[:43])
    problem = split(some, 8, 0, 0.01)
    kind, x, y, weight, lam = problem.risk
    w = np.random.default_rng(0).normal(size=problem.features)
    total = 0.0
    for xs, ys, weights in zip(x, y, weight, strict=True):
        for row, label, each in zip(xs, ys, weights, strict=True):
            z = row @ w
            one = (z - label) ** 2 / 2 if kind == 'least_squares' else np.logaddexp(0, -label * z)
            total += each * one / problem.workers
    total += lam / 2 * w @ w
    own = functools.partial(loss, kind=kind, lam=lam)
    shards = tuple(jnp.asarray(a, jnp.float32) for a in (x, y, weight))
    values = jax.vmap(own, in_axes=(None, 0))(jnp.asarray(w, jnp.float32), shards)
    assert np.mean(values) == pytest.approx(total, rel=1e-5)
    start, least = (value_of(problem, v) for v in (0 * w, problem.optimum))
    gap = (total - least) / (start - least)
    assert problem.relative_gap(w[None])[0] == pytest.approx(gap, rel=1e-9)


def value_of(problem: Problem, w: np.ndarray) -> float:
    kind, x, y, weight, lam = problem.risk
    z = x @ w
    losses = (z - y) ** 2 / 2 if kind == 'least_squares' else np.logaddexp(0, -y * z)
    return float(np.sum(weight * losses) / problem.workers + lam / 2 * w @ w)


def gradient_of(problem: Problem, w: np.ndarray) -> np.ndarray:
    kind, x, y, weight, lam = problem.risk
    z = x @ w
    slope = z - y if kind == 'least_squares' else -y / (1 + np.exp(y * z))
    return np.einsum('nr,nrd->d', weight * slope, x) / problem.workers + lam * w


@pytest.mark.parametrize('name', [*data.BUILT_IN, *data.TARGETS])
def test_optimum(name: str):
    """Strong convexity turns a small gradient into a proof: F - F* <= |grad F|^2 / (2 lam)."""
    problem = split(data.load(name), 7, 0, 0.01)
    gradient = gradient_of(problem, problem.optimum)
    assert gradient @ gradient / (2 * problem.risk.lam) < 1e-12
    h, direction = 1e-6, np.random.default_rng(0).normal(size=problem.features)
    w = problem.optimum + direction
    slope = (value_of(problem, w + h * direction) - value_of(problem, w - h * direction)) / (2 * h)
    assert gradient_of(problem, w) @ direction == pytest.approx(slope, rel=1e-5)


def test_the_regularisation_is_a_share_of_the_curvature(small: Problem):
    """L is the curvature at zero, where every sigmoid is 1/2, along its steepest direction."""
    _, x, _, weight, lam = small.risk
    curvature = np.einsum('nr,nri,nrj->ij', weight, x, x) / small.workers * CURVATURE['logistic']
    largest = np.linalg.eigvalsh(curvature)[-1]
    assert lam == pytest.approx(0.01 * largest)
    assert pytest.approx(1.01 * largest) == small.constants.L
    assert pytest.approx(np.sum(small.optimum**2)) == small.constants.V0


def test_message_bits():
    """Payloads without padding, and the most nearly square weights."""
    like = matrix_like(64)
    assert like.shape == (8, 8)
    assert matrix_like(31).shape == (1, 31)
    bits = {name: message_bits(scheme, like) for name, scheme in comparison.SCHEMES.items()}
    assert bits['exact'] == 64 * 32
    assert bits['TopK'] == 7 * (32 + 32)
    assert bits['ScaledSign'] == 64 + 32
    assert bits['PowerSGD'] == 16 * 32
    assert message_bits(gz.Gather(gz.Ternary('l2')), like) == 2 * 64 + 32


def make(key: jax.Array) -> optax.GradientTransformation:
    scheme = gz.Gather(gz.Bernoulli(0.5))
    return optax.chain(gz.compress(scheme, AXIS, key=key), optax.sgd(0.05))


@pytest.mark.slow
def test_chunks_do_not_show(small: Problem, monkeypatch: pytest.MonkeyPatch):
    """How a run is cut into compiled calls changes nothing; every seed is another run."""
    keys, steps = jax.random.split(jax.random.key(0), 2), []
    whole = simulate(small, make, keys, 23, jnp.ravel)
    monkeypatch.setattr('experiments.simulate.CHUNK', 10)
    parts = simulate(small, make, keys, 23, jnp.ravel, advance=steps.append)
    assert whole.shape == (24, 2, small.features)
    assert steps == [10, 10, 3]
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-7)
    assert not np.any(whole[0])
    assert np.any(whole[1, 0] != whole[1, 1])


def test_a_run_is_gradient_descent(small: Problem):
    """Exact gradients two steps late, at 1 / (3 L), in float64 on paper."""
    w, step = [np.zeros(small.features)], 1 / (3 * small.constants.L)
    for k in range(20):
        w.append(w[k] - step * gradient_of(small, w[k - 2]) if k >= 2 else w[k])
    found = run(small, 'exact', 2, 20, 0)
    assert found.step_size == pytest.approx(step)
    assert found.final_relative_gap == pytest.approx(small.relative_gap(w[-1][None])[0], rel=1e-4)


def result(scheme: str, to: int | None, final: float = 1e-5, bits: int = 10) -> Run:
    return Run('some', scheme, 0, 8, 43, 30, 0.1, bits, 100, 0, to, None, final)


def test_what_is_said_of_the_runs():
    """Bits to the target, savings, memories that help, and runs that diverged."""
    runs = comparison.with_savings(
        [
            result('exact', 40, bits=100),
            result('TopK', None),
            result('TopK + memory', 50),
            result('ScaledSign', None, float('nan')),
        ]
    )
    assert [r.saving for r in runs] == [1.0, None, 8.0, None]
    best, memory, diverged = comparison.findings(runs)
    assert best.endswith('TopK + memory at delay 0 (0.5 kbit, 8 times fewer than exact).')
    assert memory.startswith('Memory: of 1 runs with biased schemes, 0 reached the target without')
    assert 'DIVERGED[/]: ScaledSign on some at delay 0.' in diverged
    assert comparison.findings(runs[:3])[-1] == 'None of 3 runs diverged.'
    assert comparison.findings(runs[1:2])[0].endswith('initial gap: nothing at delay 0.')


@pytest.mark.slow
def test_command_line(tmp_path: Path, libsvm: Path):
    """A small comparison writes its table, its CSV file and its figure."""
    out = tmp_path / 'out'
    code, output = run_cli(
        *('--data', 'breast_cancer', '--data', str(libsvm), '--schemes', 'exact, TopK + memory'),
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
        ('breast_cancer', 'TopK + memory', '2'),
        ('five.txt', 'exact', '2'),
    ]
    assert rows[1]['bits_per_step'] == '192'
    assert (out / 'saving.png').stat().st_size > 10_000


def test_every_method_has_a_style():
    assert {comparison._style(method)['color'] for method in METHODS} == set(
        comparison.COLORS.values()
    )
