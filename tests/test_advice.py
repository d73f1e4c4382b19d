"""Tests of `advice.measure` against loops over workers, rows and coordinates."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from gradzip import advice, theory
from gradzip._empirical import Risk, optimum_of

N, ROWS, D = 4, 6, 5


def example(seed=0, density=1.0, rows=ROWS):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, rows, D))
    if density < 1:  # some coordinates of a worker are zero in all of its rows
        on = rng.random((N, D)) < density
        on[np.arange(N), rng.integers(0, D, N)] = True
        on[rng.integers(0, N, D), np.arange(D)] = True
        x *= on[:, None]
    y = np.sign(rng.normal(size=(N, rows)))
    return x, y


def hessian(kind, x, weight, lam_of, i, curvature):
    total = np.diag([lam_of(i, j) for j in range(D)])
    for r in range(x.shape[1]):
        total = total + weight[i, r] * curvature * np.outer(x[i, r], x[i, r])
    return total


def reference(kind, x, y, lam, weight, split):
    """Returns L, mu and the rest by their definitions: in sum form first, then divided by n."""
    supports = [{j for j in range(D) if np.any(x[i, :, j] != 0)} for i in range(N)]
    touched = [sum(j in s for s in supports) for j in range(D)]
    if not split and lam > 0:
        supports = [set(range(D)) for _ in range(N)]

    def lam_of(i, j):
        return (N * lam / touched[j] if j in supports[i] else 0.0) if split else lam

    curvature = 0.25 if kind == 'logistic' else 1.0
    parts = [hessian(kind, x, weight, lam_of, i, curvature) for i in range(N)]
    each = [np.linalg.eigvalsh(part)[-1] for part in parts]
    of_f = np.linalg.eigvalsh(sum(parts))  # f = n F
    conflict = np.array([[float(i == j or bool(supports[i] & supports[j])) for j in range(N)]
                         for i in range(N)])  # fmt: skip
    sigma = np.linalg.eigvalsh(conflict)[-1]
    cov = max(sum(each[i] for i in range(N) if j in supports[i]) for j in range(D))
    square = max(sum(each[i] ** 2 for i in range(N) if j in supports[i]) for j in range(D))
    return {
        'L': of_f[-1] / N,
        'mu': lam if kind == 'logistic' else of_f[0] / N,
        'L_max': max(each),
        'L_mean': sum(each) / N,
        'L_rms': math.sqrt(sum(e**2 for e in each) / N),
        'sigma': sigma,
        'L_cov': cov / N,
        'L_e': min(sum(each), math.sqrt(sigma * square)) / N,
    }


@pytest.mark.parametrize('kind', ['logistic', 'least_squares'])
@pytest.mark.parametrize('split', [False, True])
@pytest.mark.parametrize('density', [1.0, 0.5, 0.2])
def test_constants_follow_their_definitions(kind, split, density):
    for seed in range(3):
        x, y = example(seed, density)
        weight = np.random.default_rng(seed).random((N, ROWS))
        problem = advice.measure(kind, x, y, 0.1, weight=weight, split=split)
        for name, value in reference(kind, x, y, 0.1, weight, split).items():
            np.testing.assert_allclose(getattr(problem, name), value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize('kind', ['logistic', 'least_squares'])
def test_the_optimum_is_that_of_a_long_descent(kind):
    x, y = example(1)
    start = np.arange(D) / 3.0
    problem = advice.measure(kind, x, y, 0.05, start=start)

    def gradients(w):
        z = x @ w
        slope = z - y if kind == 'least_squares' else -y / (1 + np.exp(y * z))
        return np.einsum('nr,nrd->nd', slope, x) / ROWS + 0.05 * w

    def value(w):
        z = x @ w
        losses = (z - y) ** 2 / 2 if kind == 'least_squares' else np.log1p(np.exp(-y * z))
        return losses.mean() + 0.025 * w @ w

    w = start
    for _ in range(5000):
        w = w - gradients(w).mean(axis=0) / problem.L
    assert pytest.approx(np.sum((start - w) ** 2), rel=1e-10) == problem.V0
    assert pytest.approx(value(start) - value(w), rel=1e-10) == problem.F0
    assert pytest.approx(np.sum(gradients(w) ** 2), rel=1e-9) == problem.G


@pytest.mark.parametrize('seed', range(3))
def test_gradients_stay_within_mu_l_and_l_e(seed):
    """No difference of gradients leaves the range that the constants allow."""
    x, y = example(seed)
    problem = advice.measure('least_squares', x, y, 0.1)
    curvature = np.einsum('nri,nrj->nij', x, x) / ROWS + 0.1 * np.eye(D)
    rng = np.random.default_rng(seed)
    for _ in range(50):
        u = rng.normal(size=D)
        quotient = np.linalg.norm(curvature.mean(axis=0) @ u) / np.linalg.norm(u)
        assert problem.mu * (1 - 1e-9) <= quotient <= problem.L * (1 + 1e-9)
        late = np.mean([c @ (u * rng.uniform(-1, 1, D)) for c in curvature], axis=0)
        assert problem.L_e is not None
        assert np.linalg.norm(late) <= problem.L_e * np.linalg.norm(u) * (1 + 1e-9)


def test_the_curvature_of_a_ball_is_below_that_of_its_points():
    x, y = example(1)
    y = np.sign(y)
    everywhere = advice.measure('logistic', x, y, 0.05)
    radius = 1.5 * math.sqrt(everywhere.V0 or 0)
    inside = advice.measure('logistic', x, y, 0.05, within=radius)
    assert dataclasses.replace(inside, mu=0.05) == everywhere
    assert inside.mu > 0.0501
    data = Risk('logistic', x, y, np.full(y.shape, 1 / ROWS), 0.05)
    optimum, rng = optimum_of(data, np.zeros(D)), np.random.default_rng(0)
    for _ in range(50):
        u = rng.normal(size=D)
        z = x @ (optimum + radius * u / np.linalg.norm(u))
        hessian = np.einsum('nr,nri,nrj->ij', 1 / (2 + np.exp(z) + np.exp(-z)), x, x)
        assert np.linalg.eigvalsh(hessian)[0] / (N * ROWS) + 0.05 >= inside.mu
    exact = advice.measure('least_squares', x, y, 0.05)
    same = advice.measure('least_squares', x, y, 0.05, within=2 * math.sqrt(exact.V0 or 0))
    assert same.mu == pytest.approx(exact.mu, rel=1e-12)


def test_padding_does_not_change_the_constants():
    x, y = example(2)
    weight = np.full((N, ROWS), 1 / ROWS)
    padded_x = np.concatenate([x, np.full((N, 2, D), np.nan)], axis=1)
    padded_y = np.concatenate([y, np.full((N, 2), np.nan)], axis=1)
    padded_weight = np.concatenate([weight, np.zeros((N, 2))], axis=1)
    for kind in ('logistic', 'least_squares'):
        plain = advice.measure(kind, x, y, 0.1)
        padded = advice.measure(kind, padded_x, padded_y, 0.1, weight=padded_weight)
        for name in vars(plain):
            assert getattr(padded, name) == pytest.approx(getattr(plain, name), rel=1e-9), name


def test_g_is_zero_if_all_workers_have_the_same_optimum():
    x, _ = example(3)
    problem = advice.measure('least_squares', x, x @ np.ones(D))
    assert problem.G == 0
    assert pytest.approx(D) == problem.V0


def test_fewer_examples_than_coordinates():
    """F is not strongly convex, and x* is the optimum nearest to the start."""
    x, y = example(4, rows=1)  # four examples, five coordinates
    problem = advice.measure('least_squares', x, y)
    nearest = np.linalg.lstsq(x[:, 0], y[:, 0], rcond=None)[0]
    assert problem.mu == 0
    assert pytest.approx(nearest @ nearest, rel=1e-9) == problem.V0


def test_disjoint_data_without_a_regulariser():
    x = np.eye(4)[:, None] * np.array([1.0, 2.0, 3.0, 4.0])[:, None, None]
    problem = advice.measure('least_squares', x, np.ones((4, 1)))
    assert problem.sigma == 1
    assert problem.L_max == pytest.approx(16)
    assert pytest.approx(4) == problem.L
    assert problem.L_cov == pytest.approx(4)
    assert problem.L_e == pytest.approx(4)


def test_badly_scaled_data_and_far_starts():
    x, y = example(5, rows=40)
    x = x * np.array([1e-2, 1.0, 1e2, 1.0, 1.0])
    for start in (np.zeros(D), np.full(D, 30.0)):
        problem = advice.measure('logistic', x, y, 1e-3, start=start)
        assert problem.F0 is not None
        assert problem.V0 is not None
        assert 0 < problem.mu * problem.V0 / 2 <= problem.F0 <= problem.L * problem.V0 / 2


def test_a_start_at_the_optimum_is_consistent():
    """F0 and V0 are rounding there, and `Problem` refuses an F0 that contradicts V0."""
    x, y = example(6)
    far = advice.measure('least_squares', x, y, 0.1, start=np.ones(D))
    rows, targets = x.reshape(-1, D), y.reshape(-1)
    gram = rows.T @ rows / len(rows) + 0.1 * np.eye(D)
    optimum = np.linalg.solve(gram, rows.T @ targets / len(rows))
    for kind in ('least_squares', 'logistic'):
        at = optimum
        for _ in range(50 if kind == 'logistic' else 0):  # Newton's method
            chance = 1 / (1 + np.exp(targets * (rows @ at)))
            slope = rows.T @ (-targets * chance) / len(rows) + 0.1 * at
            curvature = (rows.T * (chance * (1 - chance))) @ rows / len(rows) + 0.1 * np.eye(D)
            at = at - np.linalg.solve(curvature, slope)
        for nudge in (0.0, 1e-9, 1e-7):
            near = advice.measure(kind, x, y, 0.1, start=at + nudge)
            assert near.V0 is not None
            assert far.V0 is not None
            assert near.V0 < 1e-10 * far.V0


def test_the_result_is_accepted_by_the_theorems():
    x, y = example(0)
    problem = advice.measure('logistic', x, y, 0.1)
    assert isinstance(problem, theory.Problem)
    assert theory.q_iag(problem, 1.0, tau=3).at(10) > 0
    assert theory.gd(problem, 0.0).iterations(1e-3) < 1000
    assert advice.measure('logistic', x[:1], y[:1], 0.1).G == 0


X, Y = example()
REFUSALS = {
    'kind': (lambda: advice.measure('svm', X, Y, 0.1), 'logistic'),
    'no lam': (lambda: advice.measure('logistic', X, Y), 'above 0'),
    'negative lam': (lambda: advice.measure('least_squares', X, Y, -1.0), 'at least 0'),
    'shape x': (lambda: advice.measure('logistic', X[0], Y[0], 0.1), 'For one worker pass'),
    'shape y': (lambda: advice.measure('logistic', X, Y[:, :1], 0.1), 'shape'),
    'labels': (lambda: advice.measure('logistic', X, 0 * Y, 0.1), '1 and -1'),
    'nan': (lambda: advice.measure('logistic', X * np.nan, Y, 0.1), 'finite'),
    'weight shape': (lambda: advice.measure('logistic', X, Y, 0.1, weight=[1.0]), 'weight'),
    'weight sign': (lambda: advice.measure('logistic', X, Y, 0.1, weight=-abs(Y)), 'weight'),
    'idle': (lambda: advice.measure('logistic', X, Y, 0.1, weight=0 * Y), 'each worker'),
    'start': (lambda: advice.measure('logistic', X, Y, 0.1, start=np.zeros(2)), 'start'),
    'near': (lambda: advice.measure('logistic', X, Y, 0.1, within=0.0), r'\|x_0 - x\*\|'),
    'untouched': (
        lambda: advice.measure('logistic', X * np.arange(D), Y, 0.1, split=True),
        'coordinate 0',
    ),
}


@pytest.mark.parametrize('name', REFUSALS)
def test_errors(name):
    call, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_split_must_be_true_or_false():
    with pytest.raises(TypeError, match=r"split=.*True or False; got 'no'"):
        advice.measure('logistic', X, Y, 0.1, split='no')  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize('kind', ['logistic', 'least_squares'])
@pytest.mark.parametrize('split', [True, False])
@pytest.mark.parametrize('features', [5, 90])
def test_sparse_data_have_the_constants_of_dense_ones(kind, split, features):
    """Above 64 features eigenvalues are Lanczos' and below they are those of a small matrix."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 30, features)) * (rng.random((N, 30, features)) < 0.1)
    x[np.arange(features) % N, 0, np.arange(features)] = 1.0  # every coordinate is touched
    y = np.sign(rng.normal(size=x.shape[:2]))
    start = rng.normal(size=features) / 3
    dense = advice.measure(kind, x, y, 0.2, split=split, start=start)
    sparse = advice.measure(
        kind, list(map(sp.csr_matrix, x)), list(y), 0.2, split=split, start=start
    )
    for name, value in dataclasses.asdict(dense).items():
        if name == 'mu':  # of least squares too, the l2 term is what is certain
            assert sparse.mu == 0.2 <= value
        else:
            np.testing.assert_allclose(getattr(sparse, name), value, rtol=1e-6, err_msg=name)


def test_sparse_data_that_do_not_fit():
    x, y = [sp.csr_matrix(np.eye(3)), sp.csr_matrix(np.eye(3))], [np.ones(3), -np.ones(3)]
    for change, message in (
        ({'x': [x[0], np.eye(3)]}, 'one sparse matrix'),
        ({'x': [x[0], sp.csr_matrix(np.eye(4))]}, 'as many features'),
        ({'y': [y[0], np.ones(2)]}, 'as many labels as rows'),
        ({'y': [y[0], 2 * y[1]]}, 'labels y of 1 and -1'),
        ({'x': [x[0], math.nan * x[1]]}, 'finite'),
        ({'weight': np.ones((2, 3))}, 'for dense data'),
        ({'within': 1.0}, 'for dense data'),
        ({'start': np.zeros(4)}, r'of shape \(3,\)'),
        ({'x': [sp.csr_matrix((3, 3))] * 2, 'split': True}, 'no worker touches'),
    ):
        options: dict[str, Any] = {'x': x, 'y': y, 'regularisation': 0.1} | change
        with pytest.raises(ValueError, match=message):
            advice.measure('logistic', **options)
