"""l2-regularised linear models whose examples are split over workers.

    F(w) = (1/n) sum_i f_i(w),   f_i(w) = (1/m_i) sum_j loss(<x_ij, w>, y_ij) + (lam/2) |w|^2

with loss softplus(-y z) for two classes, y = -1 or +1, and (z - y)^2 / 2 for least squares.

Worker i holds m_i shuffled examples; m_i differ by at most one, and every example is held. So an
example of worker i weighs 1 / (n m_i), and F is what the workers optimise, also with uneven splits.
Values and optimum are computed in NumPy and float64, apart from the simulation that they judge.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import Data
from gradzip import _empirical as empirical, advice, theory

CURVATURE = {'logistic': 0.25, 'least_squares': 1.0}  # largest second derivative of the loss


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The examples as the workers hold them, padded with rows that weigh nothing."""

    name: str
    risk: empirical.Risk
    slowest: bool = False  # whether the start lies along the slowest direction, or is 0

    @property
    def workers(self) -> int:
        return len(self.risk.x)

    @property
    def features(self) -> int:
        return self.risk.x.shape[2]

    @property
    def examples(self) -> int:
        return int(np.sum(self.risk.weight > 0))

    @functools.cached_property
    def constants(self) -> theory.Problem:
        """Smoothness, curvature, heterogeneity and the distance of the start to the optimum."""
        return self.measured()

    @functools.cached_property
    def restricted(self) -> theory.Problem:
        """The same for runs that never are farther from the optimum than at the start."""
        return self.measured(within=math.sqrt(self.constants.need('V0', 'restricted')))

    def measured(self, within: float | None = None) -> theory.Problem:
        """What `gradzip.advice.measure` says."""
        kind, x, y, weight, lam = self.risk
        return advice.measure(kind, x, y, lam, weight=weight, start=self.start, within=within)

    @functools.cached_property
    def optimum(self) -> np.ndarray:
        """w*: f64[features]."""
        return empirical.optimum_of(self.risk, np.zeros(self.features))

    @property
    def shards(self) -> tuple[jax.Array, ...]:
        """The examples, labels and weights of all workers, in float32."""
        _, x, y, weight, _ = self.risk
        return tuple(jnp.asarray(a, jnp.float32) for a in (x, y, weight))

    def loss(self, w: jax.Array, mine: tuple[jax.Array, ...]) -> jax.Array:
        """f_i of one worker, from its part of the shards."""
        return loss(w, mine, self.risk.kind, self.risk.lam)

    @functools.cached_property
    def start(self) -> np.ndarray:
        """w_0: zero, or as far from the optimum as zero along its slowest direction."""
        if not self.slowest:
            return np.zeros(self.features)
        kind, x, y, weight, lam = self.risk
        _, curvature = empirical.slopes(kind, x @ self.optimum, y, weight)
        hessian = np.einsum('nr,nrd,nre->de', curvature, x, x) / len(x) + lam * np.eye(x.shape[2])
        return self.optimum + np.linalg.norm(self.optimum) * np.linalg.eigh(hessian)[1][:, 0]

    def relative_gap(self, ws: np.ndarray) -> np.ndarray:
        """(F(w) - F*) / (F(w_0) - F*) at each row of ws; what rounding makes negative is zero."""
        with np.errstate(over='ignore', invalid='ignore'):  # a run that diverged shows in its gap
            values = np.array([empirical.value(self.risk, w) for w in ws.astype(np.float64)])
            least = empirical.value(self.risk, self.optimum)
            start = empirical.value(self.risk, self.start)
            return np.maximum((values - least) / (start - least), 0)  # keeps NaN


def split(
    data: Data, workers: int, seed: int, regularisation: float, slowest: bool = False
) -> Problem:
    """Shuffles the examples and deals them out evenly; the first workers hold one more.

    `regularisation` is lam as a share of the largest curvature of the data term.

    Raises:
      ValueError: fewer workers than one, or more than there are examples.
    """
    examples = len(data.y)
    if workers < 1:
        raise ValueError(f'--workers must be at least 1; got {workers}.')
    if workers > examples:
        raise ValueError(
            f'{workers} workers cannot share the {examples} examples of {data.name!r}: each needs '
            f'one at least. Pass --workers {examples} or fewer.'
        )
    parts = np.array_split(np.random.default_rng(seed).permutation(examples), workers)
    x, y = _padded([data.x[part] for part in parts]), _padded([data.y[part] for part in parts])
    weight = _padded([np.full(len(part), 1 / len(part)) for part in parts])
    rows = np.sqrt(CURVATURE[data.kind] * weight / workers)[..., None] * x
    curvature = float(np.linalg.norm(rows.reshape(-1, x.shape[2]), 2) ** 2)
    risk = empirical.Risk(data.kind, x, y, weight, regularisation * curvature)
    return Problem(data.name, risk, slowest)


def loss(w: jax.Array, mine: tuple[jax.Array, ...], kind: str, lam: float) -> jax.Array:
    """f_i of one worker, from its x, y and weight, at weights w of any shape."""
    x, y, weight = mine
    return weighted(x @ w.ravel(), y, weight, kind) + lam / 2 * jnp.sum(w * w)


def weighted(z: jax.Array, y: jax.Array, weight: jax.Array, kind: str) -> jax.Array:
    """The weighted sum of the losses of examples that the model takes to z."""
    losses = (z - y) ** 2 / 2 if kind == 'least_squares' else jax.nn.softplus(-y * z)
    return jnp.sum(weight * losses)


def _padded(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays of different lengths in one, filled up with zeros at the end."""
    out = np.zeros((len(parts), max(map(len, parts)), *parts[0].shape[1:]))
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out
