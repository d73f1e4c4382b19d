"""Runs against an adversary: the worst compressors and delays that the theorems allow."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.wells import wells
from gradzip import theory
from tests.test_theory import Case, bernoulli, data, excess, top


def turned(angles):
    """Returns rotations of the plane, f64[angles, 2, 2]."""
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


@pytest.mark.parametrize('mu', [0.005, 0.1, 0.7])
@pytest.mark.parametrize('delta', [0.02, 0.3, 0.9])
def test_error_feedback_with_every_rotation(mu, delta):
    """C(v) = v - sqrt(1-delta) R v loses as much as delta allows, in any direction."""
    curvature = np.diag([mu, 1.0])
    start = turned(np.linspace(0, np.pi, 9))[:, :, 0]
    rotation = turned(np.linspace(0, 2 * np.pi, 16, endpoint=False))
    bound = theory.ef14(theory.Problem(n=1, L=1.0, mu=mu, V0=1.0), delta)
    x = np.broadcast_to(start[:, None], (9, 16, 2))
    error, worst = np.zeros_like(x), 0.0
    for k in range(1, 300):
        target = error + bound.step_size * x @ curvature
        error = np.sqrt(1 - delta) * np.einsum('rij,srj->sri', rotation, target)
        x = x - (target - error)
        worst = max(worst, np.max(np.sum(x**2, axis=-1)) / bound.at(k))
    assert 0.2 < worst <= 1


@pytest.mark.parametrize('seed', range(6))
def test_every_worker_chooses_the_worst_of_its_late_gradients(seed):
    """Theorems T1 and T5 without compression allow delays that depend on the iterates."""
    rng = np.random.default_rng(seed)
    n, d, tau = 3, 3, 1 + seed
    rows = rng.normal(size=(n, d))
    parts = rows[:, :, None] * rows[:, None]  # f_i = <a_i, x>^2 / 2, of rank one
    F = parts.mean(axis=0)
    ends, each = np.linalg.eigvalsh(F), np.sum(rows**2, axis=1)
    start = np.linalg.eigh(F)[1][:, 0]
    p = theory.Problem(
        n=n, L=ends[-1], mu=ends[0], L_max=each.max(), L_mean=each.mean(), G=0.0, V0=1.0,
        F0=start @ F @ start / 2,
    )  # fmt: skip
    longest = theory.stale(p, 0.0, tau).step_size
    for bound in (theory.iag(p, tau), theory.stale(p, 0.0, tau, step_size=0.7 * longest)):
        xs = [start]
        for k in range(1, 250):
            window = np.array(xs[-tau - 1 :])
            moved = xs[-1] - bound.step_size * np.einsum('ijk,wk->iwj', parts, window)
            worst = np.argmax(np.sum(moved**2, axis=-1), axis=1)
            late = np.einsum('ijk,ik->j', parts, window[worst]) / n
            xs.append(xs[-1] - bound.step_size * late)
            x = xs[-1]
            value = x @ x if bound.quantity == 'V' else x @ F @ x / 2
            assert value <= bound.at(k)


def test_wells_are_smooth_and_their_points_satisfy_the_assumption_with_equality():
    """The steps that A1 takes on them with probability 1/4 come near its factor."""
    phi, mu = wells(0.1)
    x = np.geomspace(1.05, 0.05, 4000)
    value, slope = phi.at(x, np)
    points = phi.q ** np.arange(10.0)
    there, down = phi.at(points, np)
    assert np.all(np.abs(np.diff(slope)) <= np.abs(np.diff(x)) * (1 + 1e-6))
    trapezoids = np.diff(x) * (slope[1:] + slope[:-1]) / 2
    np.testing.assert_allclose(np.diff(value), trapezoids, atol=1e-6)
    np.testing.assert_allclose(down**2, 2 * mu * there, rtol=1e-6)
    np.testing.assert_allclose(points - down, phi.q * points, rtol=1e-9)
    factor = 1 - 0.25 * (1 - phi.q**2)
    bound = theory.gd(theory.Problem(1, 1.0, mu, F0=1.0), 3.0, convex=False)
    assert 1 < np.log(factor) / np.log(bound.factor) < 1.5
    assert 0.095 < mu < 0.105


def test_runs_at_the_steps_of_other_theorems_exceed_them():
    """Error feedback as if nothing were lost, and random workers as if all of them sent."""
    full, ring = data('full').problem, data('LS').problem
    lossless = Case('full', theory.ef14(full, 1.0), top(1), memory=True, seeds=1)
    everyone = Case('LS', theory.dcgd(ring, 0.0), batch=1)
    noisy = Case('LS', theory.stale(ring, 0.0, 4), bernoulli(0.02), ('const', 4))
    with np.errstate(all='ignore'):
        for case in (lossless, everyone, noisy):
            assert excess(case) > 10
