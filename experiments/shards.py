"""The examples of every worker as arrays of one shape, for JAX: dense rows, or their non-zeros."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from experiments.data import Kind
from experiments.problems import Problem


class Dense(NamedTuple):
    """All entries, with rows of zeros up to the largest worker's number; these weigh nothing."""

    a: jax.Array  # f32[workers, rows, features]
    weight: jax.Array  # f32[workers, rows], 1 / m_i or 0
    y: jax.Array  # f32[workers, rows]

    def margins(self, w: jax.Array) -> jax.Array:
        return self.a @ w


class Sparse(NamedTuple):
    """Non-zeros only, row by row, padded with zeros to the largest worker's number of them.

    A flat list, and not rows of the same length: one long document would make all of them long.
    """

    values: jax.Array  # f32[workers, entries]
    indices: jax.Array  # i32[workers, entries], the feature
    rows: jax.Array  # i32[workers, entries], the example, increasing
    weight: jax.Array  # f32[workers, rows], 1 / m_i or 0
    y: jax.Array  # f32[workers, rows]

    def margins(self, w: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(
            self.values * w[self.indices],
            self.rows,
            num_segments=self.weight.shape[-1],
            indices_are_sorted=True,
        )


Shards = Dense | Sparse


def shards(problem: Problem) -> Shards:
    """A problem's examples, one worker a row."""
    weight = _stack([np.full(size, 1 / size) for size in problem.sizes], np.float32)
    y, parts = _stack(problem.by_worker(problem.y), np.float32), problem.by_worker(problem.a)
    if isinstance(problem.a, np.ndarray):
        return Dense(_stack(parts, np.float32), weight, y)
    entries = [sp.coo_matrix(part) for part in parts]
    last = weight.shape[1] - 1  # padding goes to the last row, so that rows keep increasing
    return Sparse(
        _stack([e.data for e in entries], np.float32),
        _stack([e.col for e in entries], np.int32),
        _stack([e.row for e in entries], np.int32, fill=last),
        weight,
        y,
    )


def loss(w: jax.Array, mine: Shards, lam: float, kind: Kind) -> jax.Array:
    """f_i of one worker, at weights of any shape."""
    margins = mine.margins(w.ravel())
    squares = kind == 'least_squares'
    losses = (margins - mine.y) ** 2 / 2 if squares else jax.nn.softplus(-margins)
    return jnp.sum(mine.weight * losses) + lam / 2 * jnp.sum(w * w)


def stack(parts: list[np.ndarray], dtype: type, fill: int = 0) -> np.ndarray:
    """Arrays of different lengths in one, filled up at the end."""
    longest = max(len(part) for part in parts)
    out = np.full((len(parts), longest, *parts[0].shape[1:]), fill, dtype)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out


def _stack(parts: list[np.ndarray], dtype: type, fill: int = 0) -> jax.Array:
    return jnp.asarray(stack(parts, dtype, fill))
