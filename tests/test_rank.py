"""The ranked table: what is in it, in which order, and that its chains run under their bounds."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from experiments import data
from experiments.problems import Problem, split
from experiments.simulate import AXIS, simulate
from gradzip import advice, theory

SCHEMES = {
    'TopK': gz.TopK(0.25),
    'QSGD': gz.QSGD(7, block=None, norm='l2'),
    'Bernoulli': gz.Bernoulli(0.25),
}
SMALL = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.5, G=0.1, V0=1.0, F0=0.1)
TREE = {'w': jnp.zeros((4, 8)), 'b': jnp.zeros(4)}


@pytest.fixture(scope='module')
def problem() -> Problem:
    """Forty examples of least squares for eight workers."""
    everything = data.load('diabetes')
    some = everything._replace(x=everything.x[:40], y=everything.y[:40])
    return split(some, workers=8, seed=0, regularisation=0.2)


def test_every_algorithm_that_a_theorem_covers():
    found = {(c.method, c.scheme) for c in advice.rank(SMALL, SCHEMES, TREE, target=0.01)}
    memories = {(m, name) for m in ('error_feedback', 'ef21') for name in SCHEMES}
    noisy = {(m, name) for m in ('distributed', 'diana') for name in ('QSGD', 'Bernoulli')}
    assert found == memories | noisy | {
        ('distributed', 'exact mean'),
        ('shared draws', 'Bernoulli'),
    }
    late = advice.rank(SMALL, SCHEMES, TREE, target=0.01, delay=gz.Cyclic(4))
    assert {(c.method, c.scheme) for c in late} == {
        ('stale', 'exact mean'), ('stale', 'QSGD'), ('stale', 'Bernoulli'), ('iag', 'QSGD'),
        ('iag', 'Bernoulli'),
    }  # fmt: skip


def test_rows_are_what_the_theorems_say_of_the_worst_leaf():
    omega = max(SCHEMES['QSGD'].omega(leaf) or 0 for leaf in jax.tree.leaves(TREE))
    rows = {
        (c.method, c.scheme): c
        for c in advice.rank(SMALL, SCHEMES, TREE, target=0.01, by='iterations')
    }
    diana = rows['diana', 'QSGD']
    assert diana.first == theory.for_target(theory.diana, SMALL, 0.01, omega)
    assert diana.iterations == diana.first.iterations(0.01)
    assert diana.bits == diana.iterations * 8 * (
        128 + 32 + 2 * 32
    )  # codes in words, and two scales
    own = rows['distributed', 'QSGD']
    staged = theory.halving(theory.dcgd, SMALL, 0.01, omega)
    assert own.iterations == staged.iterations
    assert own.iterations <= theory.for_target(theory.dcgd, SMALL, 0.01, omega).iterations(0.01)
    ef21 = rows['ef21', 'TopK']  # |x - x*|^2 <= 2 (F - F*) / mu
    assert ef21.iterations == theory.ef21(SMALL, 0.25).iterations(0.1 * 0.01 / 2)
    found = advice.rank(SMALL, SCHEMES, TREE, target=0.01, delay=gz.Cyclic(4), by='bits')
    stored = next(c for c in found if (c.method, c.scheme) == ('iag', 'QSGD'))
    assert stored.bits == stored.iterations * 2 * (128 + 32 + 2 * 32)  # two of eight in a step


def test_seconds_follow_the_link():
    """On a slow link compression pays, on a fast one the computing of the gradient counts."""
    params = jnp.zeros(100_000)
    schemes = {'QSGD': gz.QSGD(7)}
    two = dataclasses.replace(SMALL, n=2, G=0.0)
    slow, fast = (
        advice.rank(two, schemes, params, target=0.01, link=link, compute='1ms')
        for link in ('1Mbit', 'unlimited')
    )
    assert slow[0].scheme == 'QSGD'
    assert fast[0].scheme == 'exact mean'
    assert fast[0].seconds == pytest.approx(1e-3 * fast[0].iterations)
    exact = next(c for c in slow if c.scheme == 'exact mean')
    sent = 8 * 400_000  # bits of a ring all-reduce of two
    assert exact.seconds == pytest.approx(exact.iterations * (1e-3 + sent / 1e6))
    seconds = [c.seconds for c in slow]
    assert seconds == sorted(s for s in seconds if s is not None)
    assert len(str(slow).splitlines()) == 2 + len(slow)


def test_the_chain_of_a_row_runs_at_its_step(problem: Problem):
    """With a step that is halved; the average of seeds stays below the bound."""
    constants = problem.constants
    start = constants.need('V0', 'test')
    schemes = {'Bernoulli': gz.Bernoulli(0.25)}
    found = advice.rank(constants, schemes, jnp.zeros(10), target=0.02 * start, by='iterations')
    choice = next(c for c in found if c.method == 'distributed' and c.scheme == 'Bernoulli')
    assert isinstance(choice.bound, theory.Staged)
    assert len(choice.bound.stages) > 1
    optimum, steps = jnp.asarray(problem.optimum, jnp.float32), 120
    run = simulate(
        problem, lambda key: choice.chain(AXIS, key=key), jax.random.split(jax.random.key(0), 16),
        steps, lambda w: jnp.sum((w - optimum) ** 2),
    ).mean(axis=1)  # fmt: skip
    bounds = np.array([choice.bound.at(k) for k in range(steps + 1)])
    assert np.all(run[1:] <= bounds[1:])
    assert run[-1] < 0.5 * start


def test_what_is_refused():
    for call, error, message in (
        ({'schemes': {}}, ValueError, 'at least one'),
        ({'schemes': {'a': gz.PowerSGD(2)}}, TypeError, r"Compressors; 'a' is PowerSGD"),
        ({'schemes': [gz.TopK(0.1)]}, TypeError, 'mapping'),
        ({'by': 'seconds'}, ValueError, 'pass link='),
        ({'by': 'luck'}, ValueError, "'seconds' or 'bits'"),
        ({'delay': 1.5}, TypeError, 'model of delay'),
        ({'problem': theory.Problem(n=2, L=1.0, mu=0.0, L_max=1.0)}, ValueError, 'mu > 0'),
    ):
        options: dict[str, Any] = {
            'problem': SMALL,
            'schemes': SCHEMES,
            'params': TREE,
            'target': 0.01,
        } | call
        with pytest.raises(error, match=message):
            advice.rank(**options)
    with pytest.raises(TypeError, match='Bound or a Staged'):
        theory.scale_by_theory(0.1)  # pyright: ignore[reportArgumentType]
