"""Memories on ten different quadratics: which reach the minimum, at the steps of the theorems."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import quadratics

EXACT = ('exact', 'EF21', 'EControl', 'DIANA', 'MARINA')


def test_the_constants_are_those_of_the_losses():
    """Against differences of gradients at random points, and the gradient at the minimum."""
    problem = quadratics.quadratics()
    rng, p = np.random.default_rng(1), problem.constants
    mean = problem.curvature.mean(0)
    np.testing.assert_allclose(mean @ problem.optimum, problem.linear.mean(0), atol=1e-12)
    for x in rng.normal(size=(100, quadratics.SIZE)):
        each = np.linalg.norm(problem.curvature @ x, axis=1) / np.linalg.norm(x)
        assert each.max() <= p.L_max
        assert each.mean() <= p.L_mean
        assert np.sqrt(np.mean(each**2)) <= p.L_rms
        assert p.mu <= np.linalg.norm(mean @ x) / np.linalg.norm(x) <= p.L
    assert p.G / p.n > p.L**2  # the workers' gradients are large at the minimum


@pytest.mark.slow
def test_differences_reach_the_minimum_and_gradients_do_not(tmp_path):
    result = CliRunner().invoke(quadratics.app, ['--out', str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / 'runs.csv').open() as file:
        ends = {row['method']: float(row['distance']) for row in csv.DictReader(file)}
    assert all(ends[name] < 1e-24 for name in EXACT)
    assert all(ends[name] > 1e-2 for name in ('TopK, no memory', 'RandK, no memory'))
    assert ends['error feedback'] > 1e-4
    assert (tmp_path / 'quadratics.png').stat().st_size > 10_000
