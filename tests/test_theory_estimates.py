"""EF21, DIANA, MARINA, EControl: their bounds against an independent evaluation, and against runs.

The evaluation uses the formulas of the papers and finds the largest step by bisection. The runs are
plain NumPy, with 24 seeds, and the mean over these must stay below the bound at every iteration.
"""

import dataclasses
import math

import numpy as np
import pytest

from gradzip import theory
from tests.test_theory import SEEDS, agrees, bernoulli, data, drawn, largest, one_mask, top

FLAT = {seed: dataclasses.replace(drawn(seed), mu=0.0) for seed in range(4)}


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('delta', [1.0, 0.3, 0.01])
def test_ef21(seed, delta):
    p, mean = drawn(seed), drawn(seed).L_mean
    theta = 1 - math.sqrt(1 - delta)
    ratio = (1 - delta) / theta**2  # beta / theta
    gamma = largest(lambda g: max(g * p.L + 2 * ratio * (g * mean) ** 2, 2 * g * p.mu / theta))
    for error0 in (0.0, 0.7):
        initial = p.F0 + gamma / theta * error0
        agrees(theory.ef21(p, delta, error0=error0), gamma, 1 - gamma * p.mu, initial, 0)
    published = min(1 / (p.L + mean * math.sqrt(2 * ratio)), theta / (2 * p.mu))
    assert published <= theory.ef21(p, delta).step_size <= 1.25 * published
    gamma = largest(lambda g: g * p.L + ratio * (g * mean) ** 2)
    bound = theory.ef21(FLAT[seed], delta, error0=0.7)
    assert (bound.quantity, bound.floor) == ('gradient_mean', 0)
    assert bound.step_size == pytest.approx(gamma)
    assert bound.at(9) == pytest.approx(2 * p.F0 / (gamma * 9) + 0.7 / (theta * 9))


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('omega', 'probability'), [(0.0, None), (9.0, None), (4.0, 0.5)])
@pytest.mark.parametrize('shared', [False, True])
def test_marina(seed, omega, probability, shared):
    q, n = probability or 1 / (1 + omega), 1 if shared else drawn(seed).n
    p = drawn(seed)
    noise = (1 - q) * omega / (q * n)
    gamma = largest(lambda g: max(g * p.L + 2 * noise * (g * p.L_rms) ** 2, 2 * g * p.mu / q))
    options = {'probability': probability, 'shared': shared}
    agrees(theory.marina(p, omega, **options), gamma, 1 - gamma * p.mu, p.F0, 0)
    gamma = largest(lambda g: g * p.L + noise * (g * p.L_rms) ** 2)
    bound = theory.marina(FLAT[seed], omega, **options)
    assert bound.step_size == pytest.approx(gamma)
    assert bound.step_size >= 1 / (p.L + p.L_rms * math.sqrt(noise)) * (1 - 1e-12)
    assert bound.at(9) == pytest.approx(2 * p.F0 / (gamma * 9))


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('omega', 'alpha'), [(0.0, None), (9.0, None), (4.0, 0.05)])
@pytest.mark.parametrize('shared', [False, True])
def test_diana(seed, omega, alpha, shared):
    p = drawn(seed)
    noise = omega if shared else omega / p.n
    a = alpha or 1 / (1 + omega)
    for share in (1.0, 0.3):
        gamma = share / (p.L + 6 * noise * p.L_max)
        step = None if share == 1 else gamma
        bound = theory.diana(p, omega, alpha=alpha, step_size=step, shared=shared)
        initial = p.V0 + 4 * noise * gamma**2 / a * p.G / p.n
        agrees(bound, gamma, max(1 - gamma * p.mu, 1 - a / 2), initial, 0)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('delta', [0.9, 0.3, 0.01])
def test_econtrol(seed, delta):
    """The best rate over a grid of z, from the inequalities of the proof; more noise, less rate."""
    p, q, c = drawn(seed), math.sqrt(1 - delta), 0.4
    eta = min(1, (1 - q) / (4 * q))
    default = theory.econtrol(p, delta, eta)
    for gamma in (default.step_size, 0.2 * default.step_size):
        bound = theory.econtrol(p, delta, eta, step_size=gamma)
        b = max(np.roots([eta**2, 1 - eta - (1 + eta) * q, -q]).real)
        k = max(1 - eta + b * eta**2, q / b + (1 + eta) * q)
        B = (b * p.L_rms) ** 2 / (1 - k)
        theta = 1 - k - 2 * B * gamma**2 * max(eta, q / b) ** 2
        z = np.linspace(0, 2 - gamma * p.L, 20001)[1:-1]
        weight = gamma * (1 - c) * z / (2 * p.L * B * gamma**2) / gamma**2
        pull = gamma * p.mu * (2 - gamma * p.L - z)
        x = (weight * (theta - pull) - gamma * p.L / (c * z)) / pull  # 1/t - 1
        r = np.where(x > 0, pull * x / (1 + np.maximum(x, 0)), 0)
        first = (p.L_rms * math.sqrt(p.V0) + math.sqrt(p.G / p.n)) ** 2
        initial = (1 + 1 / weight) * (p.V0 + weight * (gamma * b) ** 2 * first)
        assert 1 - bound.factor == pytest.approx(r.max(), rel=1e-5)
        assert bound.at(0) == pytest.approx(initial[r.argmax()], rel=1e-2)
        assert (bound.floor, bound.quantity) == (0, 'V')
        assert bound.factor >= default.factor * (1 - 1e-3 * (1 - default.factor))
    exact = theory.econtrol(p, 1.0, 0.5)
    agrees(exact, 1 / p.L, 1 - p.mu / p.L, p.V0, 0)


def test_what_is_refused():
    p, flat = drawn(0), FLAT[0]
    for call, message in (
        (lambda: theory.ef21(p, None), 'contractive'),
        (lambda: theory.ef21(p, 0.5, error0=-1.0), 'error0=.*at least 0'),
        (lambda: theory.ef21(p, 0.5, step_size=10.0), 'at most'),
        (lambda: theory.marina(p, None), 'unbiased'),
        (lambda: theory.marina(p, 1.0, probability=1.5), r'in \(0, 1\]'),
        (lambda: theory.econtrol(p, None, 0.1), 'contractive'),
        (lambda: theory.econtrol(p, 0.5, 0.3), r'eta=.*below .* = 0.207107.*got 0.3'),
        (lambda: theory.econtrol(p, 0.5, 0.0), 'eta'),
        (lambda: theory.econtrol(flat, 0.5, 0.1), 'mu > 0.*theory.ef21'),
        (lambda: theory.econtrol(p, 0.5, 0.1, step_size=10.0), 'below'),
        (lambda: theory.econtrol(dataclasses.replace(p, G=None), 0.5, 0.1).at(3), 'V0'),
        (lambda: theory.diana(flat, 1.0), 'mu > 0.*theory.marina'),
        (lambda: theory.diana(p, 1.0, alpha=0.6), r'at most 1 / \(1 \+ omega\); got 0.6'),
        (lambda: theory.diana(dataclasses.replace(p, G=None), 1.0).at(3), 'without G'),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for theorem, constant in ((theory.ef21, 0.5), (theory.marina, 1.0), (theory.diana, 1.0)):
        with pytest.raises(TypeError, match=r'shared=.*True or False'):
            theorem(p, constant, shared='no')


class Run:
    """One of the methods from the start of a problem: each step returns the direction."""

    def __init__(self, name, compress, omega, first, eta):
        self.name, self.compress, self.p, self.eta = name, compress, 1 / (1 + omega), eta
        self.rng, self.last, self.error = np.random.default_rng(7), first, np.zeros_like(first)
        self.own, self.mean = first * (name not in ('diana', 'econtrol')), first.mean(0)

    def direction(self, gradients, k):
        if self.name == 'ef21':  # the first message is sent in full
            self.own = self.own + self.compress(gradients - self.own, self.rng)
            return self.own.mean(0)
        if self.name == 'econtrol':
            target = self.eta * self.error + gradients - self.own
            self.own = self.own + self.compress(target, self.rng)
            self.error = self.error + gradients - self.own
            return self.own.mean(0)
        if self.name == 'diana':
            message = self.compress(gradients - self.own, self.rng)
            direction = (self.own + message).mean(0)
            self.own = self.own + self.p * message
            return direction
        coin = self.rng.random(gradients.shape[1]) < self.p  # of each seed
        change = self.mean + self.compress(gradients - self.last, self.rng).mean(0)
        self.mean = np.where(coin[:, None] | (k == 0), gradients.mean(0), change)
        self.last = gradients
        return self.mean


def excess(name, problem, bound, compress, omega=0.0, eta=0.0):
    """The largest ratio of the mean over seeds to the bound, over the iterations."""
    d = data(problem)
    steps = int(min(bound.iterations(1e-8 * bound.at(1)), 400))
    w = np.tile(d.start, (SEEDS, 1))
    gradients = d.gradients(np.broadcast_to(w, (len(d.x), *w.shape)))
    run, best = Run(name, compress, omega, gradients, eta), d.values(d.optimum[None])
    sums, worst = 0, 0
    for k in range(steps + 1):
        if bound.quantity == 'gradient_mean':
            value = sums / max(k, 1)
            sums += np.sum(gradients.mean(0) ** 2, axis=1).mean()
        elif bound.quantity == 'F':
            value = (d.values(w) - best).mean()
        else:
            value = np.sum((w - d.optimum) ** 2, axis=1).mean()
        worst = max(worst, value / bound.at(k)) if k else 0
        w = w - bound.step_size * run.direction(gradients, k)
        gradients = d.gradients(np.broadcast_to(w, (len(d.x), *w.shape)))
    return worst


@pytest.mark.parametrize(
    ('name', 'flat'),
    [
        ('ef21', False),
        ('ef21', True),
        ('diana', False),
        ('marina', False),
        ('marina', True),
        ('econtrol', False),
    ],
)
@pytest.mark.parametrize('problem', ['LSn', 'LOG'])
def test_no_run_exceeds_its_bound(name, problem, flat):
    p = data(problem).problem
    if flat:
        p = dataclasses.replace(p, mu=0.0)
    if name == 'ef21':  # the gradient of a worker has 8 entries
        worst = excess(name, problem, theory.ef21(p, 2 / 8), top(2))
    elif name == 'econtrol':
        bound = theory.econtrol(p, 2 / 8, 0.04)
        worst = excess(name, problem, bound, top(2), eta=0.04)
    else:
        bound = {'diana': theory.diana, 'marina': theory.marina}[name](p, 3.0)
        worst = excess(name, problem, bound, bernoulli(0.25), 3.0)
    assert 0.01 < worst <= 1


@pytest.mark.parametrize('name', ['ef21', 'diana', 'marina', 'econtrol'])
def test_a_run_at_the_step_of_a_bound_without_a_term_exceeds_it(name):
    """The noise of the compressor, or its dependence between the workers, is forgotten."""
    p = data('full').problem
    wrong = {
        'ef21': lambda: (theory.ef21(p, 1.0), top(1), 0.0),
        'econtrol': lambda: (theory.econtrol(p, 1.0, 0.01), top(1), 0.0, 0.01),
        'diana': lambda: (theory.diana(p, 19.0), one_mask(0.02), 49.0),
        'marina': lambda: (theory.marina(p, 0.0), bernoulli(0.02), 49.0),
    }[name]()
    with np.errstate(all='ignore'):
        assert excess(name, 'full', *wrong) > 10
