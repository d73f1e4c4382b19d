"""Seconds to a small gradient: the bounds hold in simulated runs, and the equations are solved."""

import math

import numpy as np
import pytest

from gradzip import clock, theory

SECONDS = [1.0, 2.0, 1.0, 3.0, 10.0]
START = np.array([1.0, -2.0, 0.5, 3.0])
TARGET = theory.Target(L=2.0, F0=float(np.sum(START**2 / (1 + START**2))), variance=2.0, eps=0.5)
BOUNDS = {  # a bound, and the protocol that it is about
    'synchronous': (theory.time_synchronous(TARGET, SECONDS), clock.Synchronous()),
    'm-synchronous': (theory.time_m_synchronous(TARGET, SECONDS, 3), clock.MSynchronous(3)),
    'asynchronous': (theory.time_asynchronous(TARGET, SECONDS), clock.Asynchronous()),
    'Rennala': (theory.time_rennala(TARGET, SECONDS), clock.Rennala(TARGET.batch)),
    'Ringmaster': (theory.time_ringmaster(TARGET, SECONDS), clock.Ringmaster(TARGET.batch)),
    'Ringmaster 9': (theory.time_ringmaster(TARGET, SECONDS, 9), clock.Ringmaster(9)),
}


def gradient(x):
    """Of the sum of x^2 / (1 + x^2), which is not convex; its second derivative is at most 2."""
    return 2 * x / (1 + x**2) ** 2


def mean_squared_gradient(run, step_size, seeds=64):
    """SGD whose steps use the gradients of a simulated run, with noise of the target's variance."""
    rng = np.random.default_rng(0)
    iterates, squares = [np.broadcast_to(START, (seeds, 4))], []
    of_step = [[] for _ in range(run.steps)]
    for born, applied in zip(run.born[run.used], run.applied[run.used], strict=True):
        of_step[applied].append(born)
    for versions in of_step:
        x = iterates[-1]
        squares.append(np.mean(np.sum(gradient(x) ** 2, -1)))
        noise = rng.normal(size=(len(versions), seeds, 4)) * math.sqrt(TARGET.variance / 4)
        found = np.stack([gradient(iterates[v]) for v in versions]) + noise
        iterates.append(x - step_size * found.mean(0))
    return np.mean(squares)


@pytest.mark.parametrize('name', BOUNDS)
def test_the_target_is_reached_in_the_seconds_of_the_bound(name):
    bound, protocol = BOUNDS[name]
    times = [clock.Constant(h) for h in SECONDS]
    run = clock.simulate(protocol, times, steps=bound.steps)
    assert run.step_seconds[-1] <= bound.seconds * (1 + 1e-9)
    assert run.step_seconds[-1] > bound.seconds / 4
    measured = mean_squared_gradient(run, bound.step_size)
    assert TARGET.eps / 40 < measured < TARGET.eps
    assert bound.seconds_a_step == bound.seconds / bound.steps


def test_the_longest_delay_of_asynchronous_workers():
    """That of the theorem is reached, but for gradients that arrive in the same instant."""
    bound, protocol = BOUNDS['asynchronous']
    run = clock.simulate(protocol, [clock.Constant(h) for h in SECONDS], steps=2000)
    tau = int(bound.protocol.split()[-1])
    assert tau == 10 + 5 + 10 + 4
    assert tau - 1 <= run.delays.max() <= tau


def test_the_step_size_is_the_largest_of_the_theorem():
    """Its two conditions, and the bound at the number of steps and one less."""
    for tau, batch in ((0, 1), (0, 7), (3, 1), (40, 2)):
        gamma, steps = theory.late_sgd(TARGET, tau, batch=batch)
        s2, L = TARGET.variance / batch, TARGET.L
        room = 1 - (L * gamma + 2 * (L * gamma * tau) ** 2)
        noise = s2 * (L * gamma + 2 * L**2 * gamma**2 * tau)
        assert room >= -1e-12
        assert noise <= TARGET.eps / 2 * (1 + 1e-12)
        assert min(room, TARGET.eps / 2 - noise) < 1e-12
        assert 2 * TARGET.F0 / (gamma * steps) + noise <= TARGET.eps * (1 + 1e-12)
        assert 2 * TARGET.F0 / (gamma * (steps - 1)) + noise > TARGET.eps
    exact = theory.Target(L=2.0, F0=1.0, variance=0.0, eps=0.1)
    assert theory.late_sgd(exact, 0) == (0.5, 40)


def test_the_best_m_is_the_best():
    each = [theory.time_m_synchronous(TARGET, SECONDS, m).seconds for m in range(1, 6)]
    assert theory.time_m_synchronous(TARGET, SECONDS).seconds == min(each)
    assert each[-1] == theory.time_synchronous(TARGET, SECONDS).seconds


def test_rennala_is_within_the_time_of_its_paper():
    """A step takes at most 2 min_m (S + m) / (sum over the m fastest of 1 / h)."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        h, batch = np.sort(rng.uniform(0.1, 5, size=12)), int(rng.integers(1, 40))
        found = theory.time_rennala(TARGET, h, batch).seconds_a_step
        m = np.arange(1, 13)
        assert found <= 2 * np.min((batch + m) / np.cumsum(1 / h))


def test_the_equilibrium_time():
    rng = np.random.default_rng(0)
    for _ in range(20):
        h, q = rng.uniform(0.1, 2, 6), rng.uniform(0.1, 2, 6)
        omega, noise = rng.uniform(0, 20), rng.uniform(0, 20)
        t = theory.equilibrium_time(omega, noise, h, q)
        order = np.argsort(np.maximum(h, q))
        found = []
        for j in range(1, 7):  # s sum 1 / (a + b / s) = 1 for the first j, by small steps
            a = (2 * omega * q + 2 * noise * h)[order[:j]]
            b = (4 * omega * noise * q * h)[order[:j]]
            s = 1.0
            for _ in range(500):
                s = 1 / np.sum(1 / (a + b / s)) / 2 + s / 2
            found.append(max(s, np.max(np.maximum(h, q)[order[:j]])))
        np.testing.assert_allclose(t, min(found), rtol=1e-6)
    assert theory.equilibrium_time(0, 0, [2.0, 1.0], [0.5, 3.0]) == 2.0
    # one worker, no noise of the gradient: 2 omega messages
    np.testing.assert_allclose(theory.equilibrium_time(8.0, 0.0, [1.0], [1.0]), 16.0)


def test_shadowheart_reaches_its_target():
    """The estimator of one step has at most the error on which the steps are based."""
    h, q, omega = np.array([1.0, 2.0, 4.0]), np.array([0.5, 2.0, 0.25]), 3.0
    bound = theory.time_shadowheart(TARGET, h, q, omega)
    t = bound.seconds_a_step / 2
    b, m = np.floor(t / h), np.floor(t / q)
    on = (b > 0) & (m > 0)
    a = omega / m[on] + (omega / (m[on] * b[on]) + 1 / b[on]) * TARGET.variance / TARGET.eps
    assert np.sum(1 / a) >= 1
    assert bound.steps == math.ceil(8 * TARGET.L * TARGET.F0 / TARGET.eps)


BAD = [
    (lambda: theory.Target(1.0, 0.0, 1.0, 0.1), ValueError, r'Target\(F0=...\) must be finite, ab'),
    (lambda: theory.Target(1.0, 1.0, -1.0, 0.1), ValueError, r'Target\(variance=...\) must be'),
    (lambda: theory.Target('1', 1.0, 1.0, 0.1), TypeError, r'Target\(L=...\) must be a number'),
    (lambda: theory.late_sgd(TARGET, -1), ValueError, r'late_sgd\(tau=...\) must be at least 0'),
    (lambda: theory.late_sgd(TARGET, 0, batch=0), ValueError, r'batch=...\) must be at least 1'),
    (lambda: theory.time_synchronous(TARGET, []), ValueError, 'must hold the seconds of each wor'),
    (lambda: theory.time_rennala(TARGET, [1, 0]), ValueError, r'seconds=...\) must be finite, abo'),
    (lambda: theory.time_rennala(TARGET, [1], 0), ValueError, r'batch=...\) must be at least 1'),
    (lambda: theory.time_ringmaster(TARGET, [1], 0), ValueError, r'limit=...\) must be at least 1'),
    (lambda: theory.time_m_synchronous(TARGET, [1], 2), ValueError, r'm=...\) must be from 1 to 1'),
    (lambda: theory.equilibrium_time(1, 1, [1], [1, 1]), ValueError, 'got 1 to compute and 2 to'),
    (lambda: theory.time_shadowheart(TARGET, [1], [1], None), ValueError, 'needs an unbiased'),
]


@pytest.mark.parametrize(('make', 'kind', 'message'), BAD, ids=lambda x: None)
def test_errors(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
