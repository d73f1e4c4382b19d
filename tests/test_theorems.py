"""The main job: rows of the table, runs beside their bounds, and that it notices a broken one."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import gradzip as gz
from experiments import data
from experiments.__main__ import app
from experiments.problems import Problem, split
from experiments.theorems import report
from experiments.theorems.algorithms import SCHEMES, TARGET, Row, delay_label, rows
from experiments.theorems.runs import Run, like_of, run, target_of
from gradzip import theory

NAMES = [scheme.name for scheme in SCHEMES]


def run_cli(*arguments: str) -> tuple[int, str]:
    """The exit code and output; an exception that is not an exit is raised."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope='module')
def problem() -> Problem:
    """Forty-three uneven examples of least squares for eight workers."""
    everything = data.load('diabetes')
    some = everything._replace(x=everything.x[:43], y=everything.y[:43])
    return split(some, workers=8, seed=0, regularisation=0.2)


@pytest.fixture(scope='module')
def table(problem: Problem) -> list[Row]:
    return rows(problem.constants, like_of(problem), [2], NAMES)


def test_the_slowest_start_is_as_far_and_meets_the_least_curvature(problem: Problem):
    slow = dataclasses.replace(problem, slowest=True).constants
    plain = problem.constants
    assert (slow.L, slow.mu) == (plain.L, plain.mu)
    assert pytest.approx(plain.V0) == slow.V0
    assert 2 * slow.need('F0', '') == pytest.approx(plain.mu * plain.need('V0', ''))


def row_of(table: list[Row], algorithm: str, scheme: str) -> Row:
    return next(r for r in table if r.algorithm == algorithm and r.scheme.name == scheme)


def test_every_algorithm_has_its_rows(table: list[Row]):
    """Five algorithms; the shared mask only where C'' holds, a memory not in Q-IAG."""
    found = {(row.title, row.scheme.name) for row in table}
    everything = {
        'gradient descent': {'none', 'bernoulli', 'ternary', 'qsgd', 'topk'},
        'mini-batch': {'none', 'bernoulli', 'ternary', 'qsgd'},
        'distributed': {'none', 'bernoulli', 'ternary', 'qsgd', 'shared', 'topk'},
        'stale always 2': {'none', 'bernoulli', 'ternary', 'qsgd', 'topk'},
        'stale random to 2': {'none', 'bernoulli', 'ternary', 'qsgd', 'topk'},
        'Q-IAG in turns to 2': {'none', 'bernoulli', 'ternary', 'qsgd'},
    }
    assert found == {(title, name) for title, names in everything.items() for name in names}
    assert len(found) == len(table)


def test_theorems(table: list[Row]):
    """Each row's bound is that of its algorithm, and only a late memory has none."""
    names = {
        (row.algorithm, row.scheme.name): None if row.bound is None else row.bound.theorem[:2]
        for row in table
    }
    assert names['gradient descent', 'qsgd'] == 'A2'
    assert names['mini-batch', 'qsgd'] == 'B1'
    assert names['distributed', 'qsgd'] == 'C1'
    assert names['distributed', 'shared'] == "C'"
    assert names['distributed', 'topk'] == names['gradient descent', 'topk'] == 'EF'
    assert names['stale', 'qsgd'] == 'T1'
    assert names['stale', 'none'] in ('T1', 'T5')
    assert names['Q-IAG', 'qsgd'] == 'T2'
    assert [key for key, theorem in names.items() if theorem is None] == [('stale', 'topk')]


def test_every_bound_reaches_the_target(problem: Problem, table: list[Row]):
    """At the longest step where that is soonest; at a shorter one where workers disagree more."""
    V0 = problem.constants.need('V0', 'test')
    omega = gz.Bernoulli(0.25).omega(like_of(problem))
    for row in table:
        if row.bound is not None:
            assert row.bound.at(int(row.bound.iterations(TARGET * V0))) <= TARGET * V0
    exact = row_of(table, 'gradient descent', 'none')
    assert not exact.shortened
    assert exact.step_size == theory.gd(problem.constants.as_one(), 0.0).step_size
    hard = dataclasses.replace(problem.constants, G=1e3 * problem.constants.need('G', 'test'))
    row = row_of(rows(hard, like_of(problem), [2], NAMES), 'distributed', 'bernoulli')
    assert row.shortened
    assert row.bound is not None
    assert theory.dcgd(hard, omega).floor > V0
    assert row.bound.floor < TARGET * V0


@pytest.mark.parametrize(
    ('algorithm', 'scheme'),
    [('gradient descent', 'bernoulli'), ('stale', 'qsgd'), ('Q-IAG', 'ternary')],
)
def test_runs_stay_below_their_bounds(
    problem: Problem, table: list[Row], algorithm: str, scheme: str
):
    """At every iteration, in the average of seeds; and the run gets somewhere."""
    row = row_of(table, algorithm, scheme)
    found = run(problem, row, 150, seeds=24)
    assert found.distance.shape == (151, 24)
    assert not found.exceeded
    assert found.mean[-1] < 0.5 * found.mean[0]
    assert len(np.unique(found.distance[-1])) == 24  # every seed is another run


def test_a_run_is_the_iteration_on_paper(problem: Problem, table: list[Row]):
    """Gradients always two steps late, uncompressed: x_{k+1} = x_k - gamma grad F(x_{k-2})."""
    row = row_of(table, 'stale', 'none')
    assert row.shift == 2
    w = [np.zeros(problem.features)]
    for k in range(12):
        late = gradient_of(problem, w[k - 2]) if k >= 2 else 0
        w.append(w[k] - row.step_size * late)
    expected = [np.sum((x - problem.optimum) ** 2) for x in w]
    found = run(problem, row, 12, seeds=24).distance
    assert found.shape == (13, 1)  # nothing is random
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def gradient_of(problem: Problem, w: np.ndarray) -> np.ndarray:
    """Of least squares, in float64, from the examples as they are dealt out."""
    _, x, y, weight, lam = problem.risk
    return np.einsum('nr,nrd->d', weight * (x @ w - y), x) / problem.workers + lam * w


def test_a_broken_bound_is_noticed(
    problem: Problem, table: list[Row], monkeypatch: pytest.MonkeyPatch
):
    """A step far beyond the theorem's, under the theorem's bound; and the exit code says so."""
    row = row_of(table, 'distributed', 'bernoulli')
    assert row.bound is not None
    wrong = dataclasses.replace(row.bound, step_size=400 * row.step_size)
    monkeypatch.setattr(theory, 'for_target', lambda *_, **__: wrong)
    row = row_of(rows(problem.constants, like_of(problem), [2], NAMES), 'distributed', 'bernoulli')
    found = run(problem, row, 60, seeds=4)
    assert found.exceeded
    assert not np.all(np.isfinite(found.mean)) or found.mean[-1] > found.mean[0]
    assert 'BOUND EXCEEDED' in report.findings([found])[0]


def test_predictions(problem: Problem, table: list[Row]):
    """Iterations and bits of a bound, shifted where the run starts late."""
    row = row_of(table, 'stale', 'none')
    assert row.bound is not None
    predicted = row.predicted(target_of(problem))
    assert predicted == row.bound.iterations(target_of(problem)) + 2
    assert row.bound_at(1) == row.bound.at(0)
    assert row.bound_at(9) == row.bound.at(7)
    found = Run(problem, row, np.full((5, 1), 1e9))
    assert found.bits_until(10) == 10 * 8 * 320
    assert found.measured is None
    assert found.looseness is None
    late = row_of(table, 'Q-IAG', 'qsgd')
    assert late.messages == pytest.approx(8 / 3)


def test_labels():
    """What is said of a delay."""
    assert delay_label(gz.Constant(0)) == ''
    assert delay_label(gz.Constant(4)) == 'always 4'
    assert delay_label(gz.Uniform(4)) == 'random to 4'
    assert delay_label(gz.Cyclic(5)) == 'in turns to 4'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--workers', '1'), 'at least 2'),
        (('--workers', '443'), '443 workers cannot share'),
        (('--schemes', 'none,topj'), 'topj'),
        (('--delays', '0,4'), 'from 1'),
        (('--data', 'nothing'), 'neither a data set nor a file'),
    ],
)
def test_refused_arguments(tmp_path: Path, arguments: tuple[str, ...], message: str):
    """What was given and what is allowed, before anything runs."""
    code, output = run_cli('--data', 'diabetes', '--out', str(tmp_path / 'out'), *arguments)
    assert code == 2
    assert message in ' '.join(output.split())
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_command_line(tmp_path: Path):
    """A small table with its files; the figures hold more than axes."""
    code, output = run_cli(
        *('--data', 'diabetes', '--schemes', 'none,topk', '--delays', '2', '--iterations', '60'),
        *('--seeds', '3', '--out', str(tmp_path)),
    )
    assert code == 0, output
    assert 'No bound was exceeded' in output
    assert 'TopK + memory' in (tmp_path / 'tables.txt').read_text()
    with (tmp_path / 'runs.csv').open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 10
    assert {row['exceeded'] for row in found} == {'False'}
    first = found[0]
    assert (first['algorithm'], first['scheme'], first['bits_per_message']) == (
        'gradient descent', 'none', '320',
    )  # fmt: skip
    assert math.isclose(float(first['measured_bits']), 320 * int(first['measured_iterations']))
    for name in ('bounds_diabetes', 'predicted_measured'):
        assert (tmp_path / f'{name}.png').stat().st_size > 10_000
