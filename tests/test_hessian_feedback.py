"""Error feedback corrected by the Hessian: against NumPy, its law, its errors, and its bound."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from gradzip import theory
from tests import reference
from tests.mappers import AXIS, mesh_of
from tests.test_theory import data

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS, SIZE, STEPS, GAMMA = 3, 12, 25, 0.15


@pytest.mark.parametrize('exact', [True, False], ids=['value_fn', 'diagonal'])
def test_descent_is_that_of_the_reference_and_nothing_is_lost(exact):
    """On a quadratic, x - gamma mean(e) is where exact gradient descent would be."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(SIZE, SIZE)) / 3
    hessian = root @ root.T + np.eye(SIZE) / 2 if exact else np.diag(rng.uniform(0.5, 4, SIZE))
    linear = rng.normal(size=(WORKERS, SIZE))
    tx = gz.hessian_feedback(gz.TopK(0.25), AXIS, step_size=GAMMA)
    specs = gz.state_specs(jax.eval_shape(tx.init, jnp.zeros(SIZE)), 0, None)

    def worker(x, state, b):
        def loss(x):
            return x @ jnp.float32(hessian) @ x / 2 - b @ x

        extra = {'value_fn': loss} if exact else {'hessian_diagonal': jnp.diag(hessian)}
        update, state = tx.update(jax.grad(loss)(gz.localize(x, AXIS)), state, x, **extra)
        return x - GAMMA * update, state

    step = jax.vmap(worker, (None, specs, 0), (None, specs), axis_name=AXIS)

    @jax.jit
    def run(linear):
        init = jax.vmap(lambda _: tx.init(jnp.zeros(SIZE)), out_axes=specs, axis_name=AXIS)
        carry = jnp.zeros(SIZE), init(jnp.arange(WORKERS))
        return jax.lax.scan(lambda c, _: (step(*c, linear), None), carry, length=STEPS)[0]

    x, state = run(jnp.asarray(linear, jnp.float32))
    expected, errors = reference.hessian_feedback(
        hessian, linear, lambda v: reference.top_k(v, 3), GAMMA, STEPS
    )
    np.testing.assert_allclose(x, expected, atol=1e-5)
    np.testing.assert_allclose(state.feedback.error.rows[:, 0], errors, atol=1e-5)
    y = np.zeros(SIZE)
    for _ in range(STEPS):
        y = y - GAMMA * (hessian @ y - linear.mean(0))
    np.testing.assert_allclose(x - GAMMA * errors.mean(0), y, atol=1e-5)
    assert np.linalg.norm(x - y) > 0.01


def test_under_shard_map_each_worker_has_the_hessian_of_its_own_loss():
    """Differentiated by replicated params, it would be the sum of the Hessians of all workers."""
    curvature, start = jnp.array([1.0, 3.0]), jnp.array([2.0, 1.5])
    tx = gz.hessian_feedback(gz.TopK(0.5), AXIS, step_size=GAMMA)

    def run(curvature):
        def loss(x):
            return curvature * jnp.sum(x * x) / 2

        x, state = start, tx.init(start)
        for _ in range(2):
            gradient = jax.grad(loss)(gz.localize(x, AXIS))
            update, state = tx.update(gradient, state, x, value_fn=loss)
            x = x - GAMMA * update
        return x

    mapped = jax.shard_map(
        lambda c: run(c[0]), mesh=mesh_of(2), in_specs=jax.P(AXIS), out_specs=jax.P()
    )
    expected = jax.vmap(run, axis_name=AXIS, out_axes=None)(curvature)
    np.testing.assert_allclose(jax.jit(mapped)(curvature), expected, rtol=1e-6)


def test_without_the_hessian_it_says_what_to_pass():
    tx, w = gz.hessian_feedback(gz.TopK(0.5), step_size=0.1), jnp.zeros(3)
    state = tx.init(w)
    for extra, message in (
        ({}, r'got neither: call tx.update\(grads, state, params, value_fn=loss\)'),
        ({'value_fn': jnp.sum, 'hessian_diagonal': w}, 'got both'),
        ({'hessian_diagonal': jnp.zeros(4)}, r'shape \(4,\)'),
    ):
        with pytest.raises(ValueError, match=message):
            tx.update(w, state, w, **extra)
    with pytest.raises(ValueError, match='takes the Hessian at the params'):
        tx.update(w, state, value_fn=jnp.sum)
    with pytest.raises(TypeError, match='must be a function of the params'):
        tx.update(w, state, w, value_fn=3.0)
    for step_size in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r'step_size=...\) must be finite and above 0'):
            gz.hessian_feedback(gz.TopK(0.5), step_size=step_size)


# ---- the bound -----------------------------------------------------------------------------------

ONE = theory.Problem(n=1, L=2.0, mu=0.05, V0=9.0)
EPS = 0.3


@pytest.mark.parametrize('share', [1.0, 0.5, 0.1])
def test_floors_against_an_independent_evaluation(share):
    """The sums of the proofs, term by term."""
    gamma = share * 2 / (ONE.mu + ONE.L)
    rho = max(abs(1 - gamma * ONE.mu), abs(1 - gamma * ONE.L))
    steps = np.arange(20_000)
    late = np.sum(rho**steps) * gamma  # of a residual of one in each step
    lipschitz = 0.7
    t = np.linspace(gamma * ONE.mu, gamma * ONE.L, 2001)
    drift = sum(np.max(t * np.abs(1 - t) ** j) for j in steps[:2000])
    for options, expected in (
        ({}, gamma * EPS),
        ({'hessian_error': 0.4}, gamma * EPS + late * gamma * 0.4 * EPS),
        (
            {'hessian_error': 0.4, 'hessian_lipschitz': lipschitz},
            gamma * EPS + late * (gamma * 0.4 * EPS + lipschitz * (gamma * EPS) ** 2 / 2),
        ),
        (
            {'hessian_error': None, 'hessian_lipschitz': lipschitz},
            gamma * EPS + late * gamma * ONE.L * EPS,
        ),
        ({'memory': False}, late * EPS),
    ):
        bound = theory.haec(ONE, EPS, step_size=gamma, **options)
        np.testing.assert_allclose(bound.floor, expected, rtol=1e-9)
        np.testing.assert_allclose(bound.at(7), rho**7 * 3 + expected, rtol=1e-9)
    plain = theory.haec(ONE, EPS, hessian_error=None, step_size=gamma).floor
    exact = gamma * EPS * (1 + drift)
    if gamma * ONE.L <= 1:
        assert exact <= plain <= 1.35 * exact
    else:
        np.testing.assert_allclose(plain, gamma * EPS + late * gamma * ONE.L * EPS, rtol=1e-9)


def distances(curvature, start, gamma, errors, weight, memory=True):
    """|x_k| of a run whose messages err by the given vectors; `weight` times the Hessian corrects.

    Any vectors of at most eps are the errors of some compressor.
    """
    x, e, out = np.array(start), np.zeros_like(start), [np.linalg.norm(start)]
    for error in errors:
        target = curvature * x + (e - weight * gamma * curvature * e if memory else 0)
        x, e = x - gamma * (target - error), error
        out.append(np.linalg.norm(x))
    return np.array(out)


def test_the_worst_errors_attain_the_floors():
    """Each method meets the errors that hurt it most; with those of another one it is far below."""
    curvature, count = np.geomspace(ONE.mu, ONE.L, 40), 400
    gamma, start = 1 / ONE.L, np.r_[3.0, np.zeros(39)]
    slow = np.tile(EPS * np.eye(40)[0], (count, 1))  # along the slowest direction, always
    waves = gamma * curvature * (1 - gamma * curvature) ** np.arange(count)[::-1, None]
    waves = -EPS * waves / np.linalg.norm(waves, axis=1, keepdims=True)  # through all directions
    waves[-1] *= -1  # the last error is added to the sum of the others
    ratio = {}
    for name, options, errors, weight in (
        ('HAEC', {}, slow, 1.0),
        ('error feedback', {'hessian_error': None}, waves, 0.0),
        ('no memory', {'memory': False}, slow, 0.0),
    ):
        bound = theory.haec(ONE, EPS, step_size=gamma, **options)
        run = distances(curvature, start, gamma, errors, weight, options.get('memory', True))
        limit = np.array([bound.at(k) for k in range(count + 1)])
        assert np.all(run <= limit * (1 + 1e-12)), name
        ratio[name] = run[-1] / bound.floor
    assert ratio['HAEC'] > 0.98
    assert ratio['no memory'] > 0.98
    assert ratio['error feedback'] > 0.4
    hurt = distances(curvature, start, gamma, slow, 1.0, memory=False)
    assert hurt[-1] > 10 * theory.haec(ONE, EPS, step_size=gamma).floor  # the check can fail


@pytest.mark.parametrize('problem', ['LSn', 'LOG'])
def test_no_run_exceeds_its_bound(problem):
    """Five workers round to a grid; Hessians are the mean one, its diagonal, each one's, none."""
    d = data(problem)
    p, (n, _, size) = d.problem, d.x.shape
    gamma, grid = 1 / p.L, 0.02
    eps = grid * math.sqrt(size) / 2
    # the third derivative of softplus is at most 1 / (6 sqrt 3)
    third = np.linalg.norm(d.x, axis=2) ** 3 / (6 * math.sqrt(3)) if d.kind == 'logistic' else 0.0
    lipschitz = float(np.mean(third))
    for method in ('mean', 'diagonal', 'own', 'none', 'no memory'):
        w, e = d.start.copy(), np.zeros((n, size))
        out, apart = [], [0.0]
        for _ in range(120):
            out.append(np.linalg.norm(w - d.optimum))
            each = hessians(d, w)
            mean = each.mean(0)
            used = {
                'mean': np.broadcast_to(mean, each.shape),
                'diagonal': np.broadcast_to(np.diag(np.diag(mean)), each.shape),
                'own': each,
            }.get(method, np.zeros_like(each))
            apart.append(math.sqrt(np.mean(np.linalg.norm(used - mean, 2, axis=(1, 2)) ** 2)))
            g = d.gradients(np.broadcast_to(w, (n, 1, size)))[:, 0]
            v = g + e - gamma * np.einsum('ijk,ik->ij', used, e)
            sent = grid * np.round(v / grid)
            e = np.zeros_like(e) if method == 'no memory' else v - sent
            w = w - gamma * sent.mean(0)
        bound = theory.haec(
            p, eps, step_size=gamma, memory=method != 'no memory', hessian_lipschitz=lipschitz,
            hessian_error=None if method == 'none' else max(apart),
        )  # fmt: skip
        limit = np.array([bound.at(k) for k in range(len(out))])
        assert np.all(np.array(out) <= limit), method
        assert out[-1] > 1e-3 * bound.floor


def hessians(d, w):
    """The Hessians of all workers."""
    z = d.x @ w
    chance = 1 / (1 + np.exp(-z))
    slope = chance * (1 - chance) if d.kind == 'logistic' else np.ones_like(z)
    curvature = np.einsum('nr,nrd,nre->nde', slope / d.x.shape[1], d.x, d.x)
    return curvature + np.einsum('nd,de->nde', d.ridge, np.eye(d.x.shape[2]))


def test_what_the_bound_refuses():
    for call, message in (
        (lambda: theory.haec(ONE, -1.0), r'error=...\) must be finite, at least 0'),
        (lambda: theory.haec(ONE, EPS, hessian_error=-1.0), 'hessian_error'),
        (lambda: theory.haec(ONE, EPS, hessian_lipschitz=-1.0), 'hessian_lipschitz'),
        (lambda: theory.haec(ONE, EPS, step_size=1.0), 'at most'),
        (lambda: theory.haec(dataclasses.replace(ONE, mu=0.0), EPS), 'mu > 0'),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match='True or False'):
        theory.haec(ONE, EPS, memory='no')
    assert theory.for_target(theory.haec, ONE, 0.01, EPS).iterations(0.01) > 0
