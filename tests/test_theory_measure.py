"""The constants of any loss, against exact ones, and what is said of where they come from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradzip import advice, theory
from gradzip.theory import _curvature as curvature, _supports as supports

FIELDS = [field.name for field in dataclasses.fields(theory.Problem)]


def least_squares(w, mine):
    """Of a worker that regularises the coordinates that it touches."""
    x, y, ridge = mine
    return jnp.mean((x @ w - y) ** 2) / 2 + jnp.sum(ridge * w**2) / 2


def workers():
    """Returns four workers on a ring of eight coordinates, two shared with each neighbour."""
    rng = np.random.default_rng(3)
    x = np.zeros((4, 6, 8))
    for i in range(4):
        x[i][:, np.arange(2 * i, 2 * i + 4) % 8] = rng.normal(size=(6, 4))
    y = rng.normal(size=(4, 6))
    on = np.any(x != 0, axis=1)
    return x, y, 0.3 * 4 * on / on.sum(axis=0)


@pytest.mark.parametrize('dense', [True, False])
def test_constants_of_least_squares(monkeypatch: pytest.MonkeyPatch, dense: bool):
    """By eigenvalues of the Hessian, and by Lanczos and power iteration."""
    if not dense:
        monkeypatch.setattr(curvature, 'DENSE', 0)
    x, y, ridge = workers()
    exact, lines = advice.measure('least_squares', x, y, 0.3, split=True), []
    with jax.enable_x64(True):
        batches = tuple(map(jnp.asarray, (x, y, ridge)))
        found = theory.measure(
            least_squares, jnp.zeros(8), batches, points=1, iterations=200 if not dense else 2,
            progress=lines.append,
        )  # fmt: skip
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(found.problem, name), getattr(exact, name), rtol=1e-6, err_msg=name
        )
    assert len(lines) == found.points == 2
    assert ('L' in found.exact) == dense
    assert found.exact >= {'n'}
    assert 'V0' not in found.exact
    assert found.gradient < 1e-6
    assert str(found).count('\n') == len(FIELDS) - 1


def test_a_loss_that_is_not_convex_along_a_path():
    """Of cosines: constants are estimates, and the theorems without convexity take them."""
    batches = np.array([[1.0, 2.0, 0.5], [2.0, 1.0, 0.0]], np.float32)
    params = {'first': jnp.array([0.2, 1.0]), 'last': jnp.array([0.3])}

    def loss(params, a):
        return jnp.sum(jnp.cos(a[:2] * params['first'])) + jnp.sum(jnp.cos(a[2:] * params['last']))

    path = [jax.tree.map(lambda x, s=s: s * x, params) for s in (2.0, 3.0)]
    found = theory.measure(loss, params, jnp.asarray(batches), path=path)
    w = np.array([0.2, 1.0, 0.3]) * np.array([1.0, 2.0, 3.0])[:, None]
    curvature = -(batches[:, None] ** 2) * np.cos(batches[:, None] * w)  # worker, point, entry
    assert pytest.approx(np.max(np.abs(curvature.mean(0))), rel=1e-2) == found.problem.L
    assert found.problem.L_max == pytest.approx(np.max(np.abs(curvature)), rel=1e-2)
    assert found.lowest == pytest.approx(np.min(curvature.mean(0)), rel=1e-2)
    assert found.problem.mu == 0
    assert found.exact == {'n'}
    assert found.points == 3
    assert 'last point' in found.how['G']
    gradient = -batches * np.sin(batches * w[-1])
    assert pytest.approx(np.sum(gradient**2), rel=1e-4) == found.problem.G
    assert theory.iag(found.problem, tau=2).quantity == 'gradient_mean'


def test_a_loss_whose_second_derivative_has_a_tie_at_the_start():
    """Of softplus at 0, for which automatic differentiation returns twice the derivative."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 2)), jnp.float32)

    def loss(w, x):
        return jnp.mean(jax.nn.softplus(x @ w)) + 0.1 * jnp.sum(w * w)

    found = theory.measure(loss, jnp.zeros(2), x, path=[jnp.array([0.1, 0.0])])
    flat = np.asarray(x, float).reshape(-1, 2)
    L = np.linalg.eigvalsh(flat.T @ flat / len(flat) / 4)[-1] + 0.2
    assert 0.9 * L < found.problem.L < 1.01 * L


@pytest.mark.parametrize('seed', range(4))
def test_degrees_bound_what_eigenvalues_give(monkeypatch: pytest.MonkeyPatch, seed: int):
    rng = np.random.default_rng(seed)
    on, each = rng.random((30, 40)) < 0.06, rng.uniform(1, 2, 30)
    on[np.arange(30), rng.integers(0, 40, 30)] = True
    meet = [[float(bool(np.any(a & b))) for a in on] for b in on]
    sigma, cov, wide, exact = supports.graph_constants(on, each)
    assert exact
    assert sigma == pytest.approx(np.linalg.eigvalsh(np.array(meet))[-1])
    assert cov == pytest.approx(max(sum(each[on[:, j]]) for j in range(40)) / 30)
    monkeypatch.setattr(supports, 'EXACT', 4)
    bound, same, wider, exact = supports.graph_constants(on, each)
    assert not exact
    assert sigma <= bound <= 1 + max(map(sum, meet))
    assert same == cov
    assert wide <= wider


def test_what_is_refused():
    with pytest.raises(ValueError, match='first axis is the workers'):
        theory.measure(least_squares, jnp.zeros(2), (jnp.zeros((2, 3)), jnp.zeros((3, 3))))
    with pytest.raises(TypeError, match=r'points=.*integer'):
        theory.measure(least_squares, jnp.zeros(2), jnp.zeros((2, 3)), points=1.5)  # pyright: ignore[reportArgumentType]


def test_constants_of_workers_that_are_found_too_small_grow_until_they_bound_l():
    """In six steps, power iteration finds less of the L_i than the method of Lanczos finds of L."""
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 0.01, 300)
    x = jnp.tile(jnp.asarray(rng.normal(size=(40, 300)) * scales), (3, 1, 1))  # L_i = L for all

    def loss(w, x):
        return jnp.mean((x @ w) ** 2) / 2

    path = [jnp.zeros(300)]
    found = theory.measure(loss, jnp.ones(300), x, path=path, iterations=6).problem
    for constant in ('L_mean', 'L_rms', 'L_max', 'L_cov', 'L_e'):
        assert getattr(found, constant) == pytest.approx(found.L), constant
