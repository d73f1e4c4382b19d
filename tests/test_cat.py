"""The fraction that `CAT` chooses, against NumPy, and what it costs to a target."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from tests.mappers import AXIS

pytestmark = pytest.mark.usefixtures('fast_compilation')

GRID = (0.1, 0.3, 1.0)


def cost(fraction, sizes, overhead, packet):
    """Bits of a message of float32 values and packed indices, counted on a payload."""
    payloads = [gz.TopK(fraction).encode(jnp.ones(n), jax.random.key(0)) for n in sizes]
    bits = 8 * sum(a.nbytes for a in jax.tree.leaves(payloads))
    return overhead + (bits if packet is None else packet * math.ceil(bits / packet))


def share(x, fraction):
    """The energy that TopK keeps, leaf by leaf, as a share of all."""
    kept = [np.sort(a**2)[::-1][: math.ceil(round(fraction * a.size, 6))].sum() for a in x]
    return sum(kept) / sum(np.sum(a**2) for a in x)


def top(x, fraction):
    """Returns the largest entries, and zeros in place of the others."""
    cut = np.sort(np.abs(x))[-math.ceil(round(fraction * x.size, 6))]
    return np.where(np.abs(x) >= cut, x, 0)


@pytest.mark.slow
@pytest.mark.parametrize(('overhead', 'packet'), [(0.0, None), (70.0, None), (5.0, 600.0)])
def test_costs_are_counted_on_payloads(overhead, packet):
    xs = [jnp.zeros(20), jnp.zeros(10)]
    for fraction in GRID:
        found = gz.CAT(GRID, overhead=overhead, packet=packet)._cost(xs, fraction)
        assert found == cost(fraction, (20, 10), overhead, packet)


def test_workers_choose_the_most_descent_for_their_bits():
    """Of two leaves and three workers, in the mean; where entries are huge or tiny too."""
    overhead, packet = 1000.0, None
    tx = gz.compress(gz.CAT(GRID, overhead=overhead), AXIS)
    update = jax.jit(jax.vmap(tx.update, (0, None), (None, None), axis_name=AXIS))
    costs = [cost(fraction, (20, 10), overhead, packet) for fraction in GRID]
    state, found = tx.init((jnp.zeros(20), jnp.zeros(10))), set()
    for seed, power, size in itertools.product(range(3), (0.05, 1, 19), (1e-25, 1.0, 1e25)):
        rng = np.random.default_rng(seed)
        x = [rng.normal(size=(3, n)) for n in (20, 10)]
        x = [np.sign(a) * np.abs(a) ** power for a in x]  # from equal entries to a few
        x = [np.float32(size * a / np.max(np.abs(a))) for a in x]
        means, _ = update(tuple(map(jnp.asarray, x)), state)
        gains = [
            np.mean([share([np.float64(a[w]) for a in x], fraction) for w in range(3)]) / c
            for fraction, c in zip(GRID, costs, strict=True)
        ]
        best = GRID[int(np.argmax(gains))]
        for mean, a in zip(means, x, strict=True):
            expected = np.mean([top(row, best) for row in a], axis=0)
            np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6 * size)
        found.add(best)
    assert len(found) > 1


def test_it_costs_little_more_than_the_best_fixed_fraction():
    """Gradient descent on a quadratic at 1 / L; the cost until a thousandth of the start."""
    overhead = 200.0
    curvature = jnp.asarray(np.geomspace(0.05, 1, 20), jnp.float32)
    costs = np.array([cost(fraction, (20,), overhead, None) for fraction in GRID])
    counts = np.array([2, 6, 20])

    def spent(scheme):
        tx = gz.compress(scheme)

        def step(carry, _):
            w, state = carry
            update, state = tx.update(curvature * w, state)
            gap = jnp.sum(curvature * w**2)
            return (w - update, state), (gap, jnp.sum(update != 0))

        first = jnp.asarray(np.random.default_rng(0).normal(size=20), jnp.float32)
        _, (gaps, kept) = jax.jit(lambda w: jax.lax.scan(step, (w, tx.init(w)), length=1500))(first)
        end = int(np.argmax(np.asarray(gaps) <= 1e-3 * gaps[0]))
        assert end > 0
        which = np.abs(np.asarray(kept)[:end, None] - counts).argmin(axis=1)
        return costs[which].sum()

    adaptive = spent(gz.CAT(GRID, overhead=overhead))
    fixed = min(spent(gz.TopK(fraction)) for fraction in GRID)
    assert adaptive <= 1.02 * fixed + costs.max()
