"""Steps for a target, and the theorems of few lines, against brute force and against runs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from gradzip import theory
from tests.test_theory import (
    FLAT,
    MANY,
    ONE,
    SEEDS,
    agrees,
    bernoulli,
    data,
    delays,
    drawn,
    largest,
    powers,
    wrong,
)

FAMILIES: dict[str, tuple[Callable[..., theory.Bound], dict[str, Any]]] = {
    'minibatch': (theory.minibatch, {'omega': 3.0, 'batch': 1}),
    'dcgd': (theory.dcgd, {'omega': 3.0}),
    'stale': (theory.stale, {'omega': 3.0, 'tau': 6}),
    'q_iag': (theory.q_iag, {'omega': 3.0, 'tau': 6}),
    'ef14': (theory.ef14, {'delta': 0.2}),
    'exact': (theory.stale, {'omega': 0.0, 'tau': 6}),
    'ef21': (theory.ef21, {'delta': 0.2}),
    'flat': (theory.dcgd, {'omega': 3.0}),
}


@pytest.mark.parametrize('name', FAMILIES)
def test_no_step_and_no_split_reach_a_target_sooner(name):
    """Of a grid, by more than its spacing; and the step of a target reaches it at all."""
    (family, options), p = FAMILIES[name], drawn(1)
    p = dataclasses.replace(p, mu=0.0) if name == 'flat' else p
    for share in (0.3, 1e-3):
        eps = share * (p.F0 if name in ('ef21', 'flat') else p.V0)
        found = theory.for_target(family, p, eps, **options)
        reached = found.iterations(eps)
        assert found.at(int(reached)) <= eps
        for split in (None,) if name in ('exact', 'ef21') else (0.1, 1.0, 3.0, 10.0):
            make = functools.partial(family, p, **options, **({'split': split} if split else {}))
            for step in make().step_size * np.geomspace(1e-3, 1, 25):
                other = make(step_size=step).iterations(eps)
                assert reached <= 1.01 * other + 1, (split, step, other)


def test_targets_that_are_refused():
    for call, error, message in (
        (lambda: theory.for_target(theory.dcgd, MANY, 0.0, 1.0), ValueError, 'eps.*above 0'),
        (
            lambda: theory.for_target(theory.dcgd, MANY, 0.1, 1.0, step_size=0.1),
            TypeError,
            'leave step_size= out',
        ),
        (
            lambda: theory.for_target(theory.ef21_momentum, FLAT, 1e-3, 0.5, 0.5, 1.0),
            ValueError,
            'No step size of theorem EF21-SGDM reaches 0.001: its floor',
        ),
        (
            lambda: theory.for_target(theory.dcgd, dataclasses.replace(MANY, G=None), 0.1, 1.0),
            ValueError,
            'without G',
        ),
        (lambda: theory.halving(theory.q_iag, MANY, 0.1, 1.0, 3), ValueError, 'for_target'),
        (
            lambda: theory.halving(theory.dcgd, dataclasses.replace(MANY, mu=0.0), 0.1, 1.0),
            ValueError,
            'mu > 0',
        ),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('tau', [0, 6])
def test_a_halved_step_by_its_recursion(seed, tau):
    """V_{k+1} = (1 - progress) V_k + noise, whose late part is that of the steps really taken."""
    p, omega = drawn(seed), 3.0
    eps = 2e-3 * p.V0
    if tau:
        family, options = theory.stale, {'omega': omega, 'tau': tau}
    else:
        family, options = theory.dcgd, {'omega': omega}
    staged = theory.halving(family, p, eps, **options)
    constant = theory.for_target(family, p, eps, **options).iterations(eps)
    assert staged.iterations < constant
    assert staged.at(staged.iterations) <= eps * (1 + 1e-9)
    schedule = staged.schedule()
    value, steps, n = p.V0, [], p.n
    bounds = {s.start: s.bound for s in staged.stages}
    assert len(bounds) > 2
    weight, older, now = 0.0, 0.0, staged.stages[0].bound
    for k in range(staged.iterations + 1):
        assert value <= staged.at(k) * (1 + 1e-9)
        if k in bounds:
            now, since, older = bounds[k], k, weight
            floor, g = now.floor * n * p.mu, now.step_size / n
            # of the floor gamma w0 (1 + weight gamma L_cov tau); the split is that of the stage
            weight = floor / g
            assert now.step_size == pytest.approx(float(np.asarray(schedule(k), float)), rel=1e-5)
        g = now.step_size / n
        if not tau:
            value = now.factor * value + (1 - now.factor) * now.floor
        else:
            noise = (older if older and k < since + tau else weight) * g
            value = now.factor * value + g * noise
        steps.append(g)
    assert value <= eps * (1 + 1e-6)


def test_a_run_with_a_halved_step_stays_below_its_bound():
    d, tau, omega = data('LSn'), 4, 3.0
    p, rng, compress = d.problem, np.random.default_rng(5), bernoulli(0.25)
    assert p.V0 is not None
    staged = theory.halving(theory.stale, p, 0.002 * p.V0, omega, tau)
    assert len(staged.stages) > 1
    steps = np.concatenate(
        [
            np.full(end - s.start, s.bound.step_size)
            for s, end in zip(
                staged.stages,
                [*(s.start for s in staged.stages[1:]), staged.iterations],
                strict=True,
            )
        ]
    )[:3000]
    late = delays('const', tau, len(d.x), len(steps))
    w, past, found = np.tile(d.start, (SEEDS, 1)), [], []
    for k, step in enumerate(steps):
        found.append(np.mean(np.sum((w - d.optimum) ** 2, axis=1)))
        past.append(d.gradients(np.broadcast_to(w, (len(d.x), *w.shape))))
        w = w - step * compress(past[k - late[k][0]], rng).mean(axis=0)
        past[: max(0, k - tau)] = [None] * max(0, k - tau)
    assert all(value <= staged.at(k) for k, value in enumerate(found) if k)
    assert found[-1] < 0.1 * found[0]


def test_a_random_block():
    L = [4.0, 1.0, 0.5]
    problem = dataclasses.replace(ONE, L=4.0)
    agrees(theory.random_block(problem, L), 1 / 5.5, 1 - 0.3 / 5.5, 1.5, 0)
    p = [0.5, 0.25, 0.25]
    for gamma in (0.05, 0.2):
        progress = gamma * (1 - gamma * 8 / 2)
        bound = theory.random_block(problem, L, p, step_size=gamma)
        agrees(bound, gamma, 1 - 2 * 0.3 * progress, 1.5, 0)
    flat = theory.random_block(dataclasses.replace(problem, mu=0.0), L)
    assert flat.at(7) == pytest.approx(2 * 5.5 * 1.5 / 7)
    for chances in ([], [0.5, 0.5], [0.5, 0.25, 0.5]):
        with pytest.raises(ValueError, match='block'):
            theory.random_block(problem, L if chances else [], chances or None)


def test_workers_of_bounded_dissimilarity():
    p = drawn(2)
    for omega, B, Z, share in ((3.0, 2.0, 0.4, 0.5), (0.0, 1.0, 0.4, 1.0), (9.0, 1.5, 0.0, 0.8)):
        gamma = share / (p.L * (1 + omega * B / p.n))
        # E F+ <= F - gamma g2 + (L gamma^2 / 2) (g2 + (omega / n) (B g2 + Z)), summed over k
        kept = gamma - p.L * gamma**2 / 2 * (1 + omega / p.n * B)
        noise = p.L * gamma**2 / 2 * omega / p.n * Z
        bound = theory.dissimilar(p, omega, (B, Z), step_size=gamma)
        assert bound.at(11) == pytest.approx(p.F0 / (kept * 11) + noise / kept)
    with pytest.raises(TypeError, match='pair'):
        theory.dissimilar(p, 1.0, wrong(3.0))
    with pytest.raises(ValueError, match='independent'):
        theory.dissimilar(p, 1.0, (1.0, 0.0), shared=True)


def test_workers_whose_losses_are_bounded_below():
    """The recursion, run with equality, has a least gradient at most that of the bound."""
    p = drawn(2)
    for omega, D, share in ((3.0, 2.0, 0.1), (0.0, 0.4, 1.0), (9.0, 0.0, 0.02)):
        gamma = share / p.L
        bound = theory.bounded_below(p, omega, D, step_size=gamma)
        a = gamma**2 * p.L * p.L_max * omega / p.n
        kept = gamma - p.L * gamma**2 / 2
        for k in (1, 10, 200):
            weights = (1 + a) ** -np.arange(1.0, k + 1)
            exact = (p.F0 / weights.sum() + a * D) / kept  # the largest least gradient
            assert exact <= bound.at(k) * (1 + 1e-12)
            assert bound.at(k) <= 1.6 * exact
        assert bound.floor == pytest.approx(a * (p.F0 + D) / kept)
    with pytest.raises(ValueError, match='gap'):
        theory.bounded_below(p, 1.0, -1.0)
    with pytest.raises(ValueError, match='independent'):
        theory.bounded_below(p, 1.0, 1.0, shared=True)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('omega', [0.0, 4.0])
@pytest.mark.parametrize('stored', [False, True])
def test_t3_and_t4(seed, omega, stored):
    p, tau = drawn(seed), 3
    n, mu, L_e2, S2 = p.n, p.n * p.mu, (p.n * p.L_e) ** 2, p.n * p.L_rms**2
    L_g2 = min((n * p.L_mean) ** 2, p.sigma * S2)

    def q_e(g):
        if stored:
            q = 2 * g**3 / mu * L_e2 * tau**2 * (L_g2 + 2 * omega * S2)
            q += g**2 * (2 + tau) * L_g2 + 2 * g**2 * (2 + 3 * tau) * omega * S2
            return q, 2 * g**2 * omega * p.G * (2 + 3 * tau + 2 * g * L_e2 * tau**2 / mu)
        c = 2 if omega else 1
        q = c * g**3 / mu * L_e2 * tau * (tau * L_g2 + 2 * omega * S2) + 2 * g**2 * omega * S2
        return q, 2 * g**2 * omega * p.G * (1 + 2 * g * L_e2 * tau / mu)

    bound = theory.sequence_lemma(p, omega, tau, stored=stored)
    g = bound.step_size / n
    q, e = q_e(g)
    assert g <= 2 / (mu + n * p.L) * (1 + 1e-12)
    for other in (0.99 * g, min(1.01 * g, 2 / (mu + n * p.L))):
        assert q - g * mu <= q_e(other)[0] - other * mu
    rho = bound.factor
    assert 1 - g * mu + q * rho ** (-2 * tau) == pytest.approx(rho, abs=1e-12)
    assert rho <= (1 - g * mu + q) ** (1 / (1 + 2 * tau))
    agrees(bound, n * g, rho, p.V0, e / (g * mu - q))
    assert theory.sequence_lemma(p, omega, 0).factor < 1


@pytest.mark.parametrize('eta', [0.05, 0.5, 1.0])
def test_ef21_with_momentum(eta):
    """The Lyapunov function of the docstring, term by term."""
    p, delta, s2 = drawn(1), 0.2, 0.3
    theta = 1 - math.sqrt(1 - delta)
    beta = (1 - delta) / theta

    def left(g):
        on_h, on_n, on_p = g / theta, 2 * g * beta * eta / theta, g / eta
        pull = (1 - eta) ** 2 / eta
        moved = on_h * 2 * beta * eta**2 * p.L_rms**2 + pull * (on_n * p.L_rms**2 + on_p * p.L**2)
        return g * p.L + 2 * g * moved

    g = largest(left)
    start = p.F0 + g / theta * 0.7 + 2 * g * beta * eta / theta * s2 + g / eta * s2 / p.n
    noise = eta**2 * s2 * (g / eta / p.n + g / theta * (1 - delta) + 2 * g * beta * eta / theta)
    bound = theory.ef21_momentum(p, delta, eta, s2, error0=0.7)
    assert bound.step_size == pytest.approx(g)
    assert bound.at(13) == pytest.approx(2 * start / (g * 13) + 2 * noise / g)


def test_the_schedule_of_a_target_is_one_of_optax():
    staged = theory.halving(theory.dcgd, drawn(0), 1e-3, 3.0)
    steps = jax.vmap(staged.schedule())(np.arange(staged.iterations))
    starts = [s.start for s in staged.stages]
    assert np.flatnonzero(np.diff(steps)).tolist() == [s - 1 for s in starts[1:]]
    assert powers(0.0, 1.0, 5) == 5
    assert str(staged).count('\n') == 2 + len(starts)
    assert staged.bits(8) == 8 * staged.iterations * drawn(0).n
