"""What every claim is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.problems import Problem, loss
from experiments.simulate import simulate
from gradzip import _empirical as empirical

Report = Callable[[str], None]  # takes what is being done now
Make = Callable[[jax.Array], optax.GradientTransformation]  # from a key to a chain


class Settings(NamedTuple):
    """What the command line chooses."""

    quick: bool = False  # fewer settings, shorter runs
    data: tuple[str, ...] = ()  # data sets or LIBSVM files; () for those of the claim


class Claim(NamedTuple):
    """What a claim's `measure` returns."""

    rows: list[dict[str, Any]]  # of the CSV file
    figure: Figure
    says: str


def gaps(problem: Problem, make: Make, steps: int, *, seeds: int = 1) -> np.ndarray:
    """(F(w_k) - F*) / (F(0) - F*) for k = 0 .. steps: f64[steps + 1, seeds]."""
    return gaps_of(problem, make, jax.random.split(jax.random.key(0), seeds), steps)


def gaps_of(
    problem: Problem, make: Make, keys: jax.Array, steps: int, *, weights: bool = False
) -> np.ndarray:
    """The same for given keys, or whatever else tells `make` one run from another.

    With `weights` the weights follow, f64[steps + 1, keys, 1 + features]. Values are in float32, so
    that gaps below 1e-5 are rounding.
    """
    kind, x, y, weight, lam = problem.risk
    shards = tuple(jnp.asarray(a, jnp.float32) for a in (x, y, weight))
    least = empirical.value(problem.risk, problem.optimum)
    start = empirical.value(problem.risk, np.zeros(problem.features)) - least

    def record(w: jax.Array) -> jax.Array:
        value = jnp.mean(jax.vmap(lambda mine: loss(w, mine, kind, lam))(shards))
        gap = (value - least) / start
        return jnp.concatenate([gap[None], w]) if weights else gap

    return simulate(problem, make, keys, steps, record).astype(np.float64)


def first(curve: np.ndarray, target: float) -> int | None:
    """The first iteration at which a curve is at most the target; None if it never is."""
    below = np.flatnonzero(curve <= target)
    return int(below[0]) if len(below) else None


def some_of(curve: np.ndarray, count: int = 300) -> np.ndarray:
    """The iterations at which a long curve is drawn."""
    return np.unique(np.geomspace(1, len(curve), count).astype(int)) - 1


def shown(iterations: int | None) -> str:
    """For people."""
    return 'never' if iterations is None else f'{iterations:,}'
