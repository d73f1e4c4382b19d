"""Logistic regression on sparse examples that stay sparse, for the simulator.

A product with the examples is a sum of segments: the entries of a row are next to one another. Its
derivative adds every entry to the gradient at its column. Both take time in proportion to the
entries that are not zero.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from experiments.problems import weighted
from gradzip import advice, theory
from gradzip._empirical import losses

Matrix = Any  # scipy.sparse.csr_matrix, of whose shape type checkers infer None


class Entries(NamedTuple):
    """Those of each worker's examples that are not zero, by rows, filled up with zeros."""

    row: jax.Array  # i32[workers, entries]
    column: jax.Array  # i32[workers, entries]
    value: jax.Array  # f32[workers, entries]


@dataclasses.dataclass(frozen=True, eq=False)
class SparseProblem:
    """The examples as the workers hold them: one matrix and one array of labels for each."""

    name: str
    x: tuple[Matrix, ...]
    y: tuple[np.ndarray, ...]
    lam: float

    @property
    def workers(self) -> int:
        return len(self.x)

    @property
    def features(self) -> int:
        return self.x[0].shape[1]

    @functools.cached_property
    def constants(self) -> theory.Problem:
        """As `experiments.problems.Problem` has them."""
        return advice.measure('logistic', list(self.x), list(self.y), self.lam)

    @functools.cached_property
    def shards(self) -> tuple[Entries, jax.Array, jax.Array]:
        """The entries, labels and weights of all workers."""
        rows, entries = max(len(y) for y in self.y), max(x.nnz for x in self.x)

        def filled(parts: list[np.ndarray], length: int, dtype: Any, last: int = 0) -> jax.Array:
            out = np.full((len(parts), length), last, dtype)
            for line, part in zip(out, parts, strict=True):
                line[: len(part)] = part
            return jnp.asarray(out)

        each = [sp.coo_matrix(x) for x in self.x]  # in the order of the rows, as csr has them
        row = filled([x.row for x in each], entries, np.int32, rows - 1)
        column = filled([x.col for x in each], entries, np.int32)
        value = filled([x.data for x in each], entries, np.float32)
        y = filled(list(self.y), rows, np.float32)
        weight = filled([np.full(len(y), 1 / len(y)) for y in self.y], rows, np.float32)
        return Entries(row, column, value), y, weight

    def loss(self, w: jax.Array, mine: Any) -> jax.Array:
        """f_i of one worker, from its part of the shards."""
        (row, column, value), y, weight = mine
        z = jax.ops.segment_sum(
            value * w[column], row, num_segments=len(y), indices_are_sorted=True
        )
        return weighted(z, y, weight, 'logistic') + self.lam / 2 * jnp.sum(w * w)

    def relative_gap(self, ws: np.ndarray) -> np.ndarray:
        """(F(w) - F*) / (F(0) - F*) at each row of ws, in float64."""
        start = self.constants.need('F0', 'The gap')
        least = self._value(np.zeros(self.features)) - start
        return np.array([(self._value(w) - least) / start for w in ws.astype(np.float64)])

    def _value(self, w: np.ndarray) -> float:
        each = [losses('logistic', x @ w, y).mean() for x, y in zip(self.x, self.y, strict=True)]
        return float(np.mean(each) + self.lam / 2 * (w @ w))


def deal(name: str, x: Matrix, y: np.ndarray, workers: int, share: float) -> SparseProblem:
    """Shuffles examples and labels -1 and +1, and deals them out.

    `share` is lam over the largest curvature of the data term.
    """
    x = sp.csr_matrix(x)
    parts = np.array_split(np.random.default_rng(0).permutation(len(y)), workers)
    xs, ys = tuple(x[part] for part in parts), tuple(y[part] for part in parts)
    plain = advice.measure('logistic', list(xs), list(ys), 1e-6)
    return SparseProblem(name, xs, ys, share * (plain.L - 1e-6))


def drawn(rows: int, features: int, entries: int) -> tuple[Matrix, np.ndarray]:
    """Bags of words: words by Zipf's law, rows of length one, and labels that a line separates."""
    rng = np.random.default_rng(0)
    common = 1 / np.arange(1.0, features + 1)
    column = rng.choice(features, size=(rows, entries), p=common / common.sum())
    start = np.arange(0, rows * entries + 1, entries)
    x = sp.csr_matrix(
        (rng.exponential(size=rows * entries), column.ravel(), start), (rows, features)
    )
    x.sum_duplicates()
    x = sp.diags(1 / np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())) @ x
    margin = x @ rng.normal(size=features)
    return sp.csr_matrix(x), np.where(margin + rng.normal(size=rows) / 2 > 0, 1.0, -1.0)
