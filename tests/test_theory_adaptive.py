"""Theorems T7 and T8 against their formulas in sum form, and against runs in NumPy."""

import math

import numpy as np
import pytest

from gradzip import theory
from tests.messages import within_budget

N, D, STEPS = 4, 6, 160
RNG = np.random.default_rng(3)
CURVATURE = RNG.uniform(1, 4, (N, D))
CENTRES = RNG.normal(size=(N, D))
MEAN = CURVATURE.mean(0)
OPTIMUM = (CURVATURE * CENTRES).mean(0) / MEAN
PROBLEM = theory.Problem(
    n=N, L=MEAN.max(), mu=MEAN.min(), L_max=CURVATURE.max(),
    G=float(np.sum((CURVATURE * (OPTIMUM - CENTRES)) ** 2)), V0=float(np.sum(OPTIMUM**2)),
    F0=float(np.sum(MEAN * OPTIMUM**2) / 2),
)  # fmt: skip
DELAYS = {
    'random': RNG.integers(0, 9, (STEPS, N)),
    'rarely long': np.where(RNG.random((STEPS, N)) < 0.02, 30, 1),
    'together': np.repeat(np.arange(STEPS)[:, None] % 7, N, 1),
}


def run(step_size, delays, share=None, p=1.0, seed=0, adapt=True):
    """x_k - x* for all k, and the factors; every entry of a gradient is kept with probability p."""
    rng, steps = np.random.default_rng(seed), len(delays)
    delays = np.minimum(delays, np.arange(steps)[:, None])
    factors = within_budget(list(delays.max(1)), share) if adapt else [1.0] * steps
    path = [np.zeros(D)]
    for k in range(steps):
        late = np.stack([path[k - delays[k, i]] for i in range(N)])
        sent = CURVATURE * (late - CENTRES) * (rng.random((N, D)) < p) / p
        path.append(path[-1] - step_size * factors[k] * sent.mean(0))
    return np.stack(path) - OPTIMUM, factors


def bounds(bound, factors):
    return np.array([bound.at(factors[:k]) for k in range(len(factors) + 1)])


@pytest.mark.parametrize('share', [0.9, None])
@pytest.mark.parametrize('delays', DELAYS)
def test_runs_without_compression_stay_below_t7(delays, share):
    bound = theory.delay_adaptive(PROBLEM)
    rest, factors = run(bound.step_size, DELAYS[delays], share)
    gaps = np.sum(MEAN * rest**2, 1) / 2
    assert (gaps <= bounds(bound, factors) * (1 + 1e-9)).all()
    assert gaps[-1] < 1e-2 * gaps[0]  # the run gets somewhere, and so does the bound
    assert bound.at(factors) < bound.at([]) / 2


@pytest.mark.parametrize('share', [0.9, None])
def test_the_weighted_mean_of_gradients(share):
    bound = theory.delay_adaptive(theory.Problem(N, L=PROBLEM.L, mu=0, L_max=4.0, F0=PROBLEM.F0))
    rest, factors = run(bound.step_size, DELAYS['random'], share)
    norms = np.sum((MEAN * rest[:-1]) ** 2, 1)
    for k in range(1, STEPS, 10):
        mean = np.dot(factors[:k], norms[:k]) / np.sum(factors[:k])
        assert mean <= bound.at(factors[:k])
    assert bound.at([]) == bound.at([0.0]) == math.inf


@pytest.mark.parametrize('delays', DELAYS)
def test_runs_with_compression_stay_below_t8(delays):
    bound = theory.delay_adaptive(PROBLEM, omega=3.0)
    runs = [run(bound.step_size, DELAYS[delays], 0.9, 0.25, seed) for seed in range(16)]
    distances = np.mean([np.sum(rest**2, 1) for rest, _ in runs], axis=0)
    assert (distances <= bounds(bound, runs[0][1])).all()
    assert bound.floor > 0


def test_without_adapting_the_same_step_is_too_long():
    bound = theory.delay_adaptive(PROBLEM)
    rest, factors = run(bound.step_size, np.full((STEPS, N), 20), adapt=False)
    assert np.sum(MEAN * rest[-1] ** 2) / 2 > 1e6 * bound.at(factors)


@pytest.mark.parametrize('G', [0.0, 0.7])
def test_the_constants_in_sum_form(G):
    """With f = n F, gamma = eta / n, mu n and L_cov n, as the proofs write them."""
    p = theory.Problem(8, L=0.5, mu=0.1, L_max=2.0, sigma=3.0, L_cov=0.6, L_e=0.7, G=G, V0=1.0)
    for omega in (0.5, 4.0):
        w1 = omega if G == 0 else 2 * omega
        gamma = min(1 / (2 * (3 + w1)), 1 / (2 * math.sqrt(8 * 0.6 * 2 * (3 + w1))))
        bound = theory.delay_adaptive(p, omega)
        assert bound.step_size == pytest.approx(8 * gamma)
        floor = 2 * omega * G * gamma * (1 + 2 * gamma * 8 * 0.6) / (8 * 0.1)
        assert bound.floor == pytest.approx(floor)
        assert bound.at([1.0, 0.5]) == pytest.approx((1 - 0.8 * gamma) * (1 - 0.4 * gamma) + floor)
    h = theory.delay_adaptive(p).step_size * 0.7
    assert h**2 == pytest.approx(1 - h)
    assert theory.delay_adaptive(p, step_size=0.1).step_size == 0.1


def test_what_is_refused():
    with pytest.raises(ValueError, match='at most'):
        theory.delay_adaptive(PROBLEM, step_size=10.0)
    with pytest.raises(ValueError, match='mu > 0'):
        theory.delay_adaptive(theory.Problem(2, L=1.0, mu=0.0, L_max=1.0), 1.0)
    with pytest.raises(ValueError, match='independent'):
        theory.delay_adaptive(PROBLEM, 1.0, shared=True)
    with pytest.raises(ValueError, match=r'must be in \[0, 1\]; got 2.0'):
        theory.delay_adaptive(PROBLEM).at([2.0])
    with pytest.raises(ValueError, match='V0'):
        theory.delay_adaptive(theory.Problem(2, L=1.0, mu=0.5, L_max=1.0)).at([1.0])
    with pytest.raises(ValueError, match='G='):
        theory.delay_adaptive(theory.Problem(2, L=1.0, mu=0.5, L_max=1.0), 1.0).floor  # noqa: B018
