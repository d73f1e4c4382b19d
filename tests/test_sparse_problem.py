"""Sparse problems of the simulator: the same losses, gradients and gaps as dense ones."""

import jax
import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from experiments import data, sparse
from experiments.problems import Problem, split
from experiments.sparse_problem import SparseProblem, drawn
from gradzip import advice

pytestmark = pytest.mark.usefixtures('fast_compilation')


def test_losses_gradients_and_gaps_are_those_of_the_dense_problem():
    x, y = drawn(23, 40, 6)  # workers hold 8, 8 and 7 examples, of different numbers of entries
    dense = split(data.Data('drawn', x.toarray(), y), 3, 0, 0.05)
    _, each, labels, weight, lam = dense.risk
    held = [w > 0 for w in weight]
    thin = SparseProblem(
        'drawn',
        tuple(sp.csr_matrix(a[on]) for a, on in zip(each, held, strict=True)),
        tuple(a[on] for a, on in zip(labels, held, strict=True)),
        lam,
    )
    w = np.random.default_rng(0).normal(size=40).astype(np.float32)

    def both(problem: Problem | SparseProblem):
        return jax.vmap(jax.value_and_grad(problem.loss), (None, 0))(w, problem.shards)

    for found, expected in zip(both(thin), both(dense), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    ws = np.stack([np.zeros(40), w, dense.optimum])
    np.testing.assert_allclose(thin.relative_gap(ws), dense.relative_gap(ws), atol=1e-7)
    assert thin.constants == advice.measure('logistic', list(thin.x), list(thin.y), lam)


def test_the_report_compares_with_the_exact_mean():
    x, y = drawn(8, 10, 3)
    problem = SparseProblem('drawn', (x[:4], x[4:]), (y[:4], y[4:]), 0.1)
    found = [
        sparse.Found('exact mean', 10, 320, 5.0),
        sparse.Found('TopK', 20, 16, 6.0),
        sparse.Found('QSGD', None, 40, 6.0),
    ]
    says = sparse.report(problem, found)[1]
    assert says == 'Beside the exact mean: TopK 2 times the iterations at 10 times fewer bits.'


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch):
    name = 'TopK 1 %, memory'
    monkeypatch.setattr(sparse, 'SCHEMES', {name: sparse.SCHEMES[name]})
    result = CliRunner().invoke(sparse.app, ['--quick', '--out', str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert name in (tmp_path / 'sparse.txt').read_text()
