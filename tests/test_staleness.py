"""The experiment on late gradients: its problem, its clock, and what it reports."""

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.staleness import __main__ as command, adaptive, floors, least_squares, linear
from experiments.staleness.problem import quadratics


def test_the_constants_are_those_of_the_losses():
    problem = quadratics()
    mean, p = problem.curvature.mean(0), problem.constants
    np.testing.assert_allclose(mean @ problem.optimum, problem.linear.mean(0), atol=1e-12)
    each = [np.linalg.eigvalsh(a) for a in problem.curvature]
    assert max(values[-1] for values in each) <= p.known('L_max') * (1 + 1e-12)
    assert np.mean([values[-1] for values in each]) <= p.known('L_mean') * (1 + 1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(mean)[[0, -1]], [p.mu, p.L])


def test_a_server_that_waits_for_nobody():
    """Every worker begins anew from the version that its own gradient made."""
    arrivals = least_squares.asynchronous(500, workers=5)
    assert (np.diff(arrivals.seconds) >= 0).all()
    assert (arrivals.ages <= np.arange(500)).all()
    assert arrivals.ages.min() >= 0
    assert 3.5 < arrivals.ages.mean() <= 4  # the concurrency less one
    waits = least_squares.rounds(100, workers=5)
    assert waits[-1] > arrivals.seconds[-1]  # for as many gradients


def test_sentences_say_what_was_measured():
    rows = [
        linear.Row(model, tau, 0.1, 10 + 3 * tau, 99)
        for model in linear.MODELS
        for tau in (0, 4, 8)
    ]
    assert '10 + 3.0 tau, a line that explains 100.00%' in linear.report(rows)[1]
    rows = [
        floors.Row(f, p, 0.5 * (p if f[0] == 's' else 1), 0.1) for f in floors.FORMS for p in (1, 4)
    ]
    assert 'the floor of Q-IAG is 4.0 times as high' in floors.report(rows)[1]
    assert 'compressed at every use 1.00 times' in floors.report(rows)[1]
    gaps = np.geomspace(1, 1e-3, 10)
    rows = [adaptive.Row(rule, 0.1, gaps, 100 // (i + 1)) for i, rule in enumerate(adaptive.RULES)]
    assert 'Adaptive 2 4.0 times sooner' in adaptive.report(rows)[1]
    seconds = np.arange(10.0)
    found = [
        least_squares.Row(method, 0.1, seconds * (i + 1), gaps, 0)
        for i, method in enumerate(least_squares.METHODS)
    ]
    by_gradients, by_seconds = least_squares.report(found)[1:]
    assert 'asynchronous at 160, delay-adaptive at 160, synchronous at 160; the' in by_gradients
    assert 'asynchronous at 3, delay-adaptive at 6, synchronous at 9; the order of' in by_seconds
    late = [row._replace(seconds=99 - row.seconds) for row in found]
    assert 'not the order' in least_squares.report(late)[2]


@pytest.mark.slow
def test_the_command(tmp_path):
    options = ['--quick', '--parts', 'adaptive', '--out', str(tmp_path)]
    result = CliRunner().invoke(command.app, options)
    assert result.exit_code == 0, result.output
    said = ' '.join((tmp_path / 'staleness.txt').read_text().split())
    assert 'The fixed step does not reach 1e-06 in 300 steps' in said
    assert 'Adaptive 2 after' in said
    assert (tmp_path / 'adaptive.png').stat().st_size > 10_000
