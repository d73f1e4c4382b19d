"""Low-rank factors, one power iteration a step."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from gradzip import axes, checks
from gradzip.base import Array, AxisName, Key, Like, Reduced, Reducer, State

FIRST_BASIS = 0  # any constant: the first Q must be the same on every worker, and full rank


@dataclasses.dataclass(frozen=True)
class PowerSGD(Reducer):
    """mean = P Q^T with P = orth(pmean(M_w Q_old)), Q_w = M_w^T P and Q = pmean(Q_w).

    Q starts as a fixed Gaussian function of the shape and is warm ever after. A worker's own share
    is `sent` = P Q_w^T, a projection of its M_w, so a memory of M_w - P Q_w^T cannot grow as the
    one of M_w - P Q^T does. A leaf becomes a matrix of its first axis against the rest; leaves with
    fewer than two axes, or no smaller than their factors, are averaged exactly.

    Args:
      rank: columns of P and Q, at least 1.

    Bytes: two all-reduces of 4 rank (rows + columns) bytes in all, for each float32 matrix.

    Raises:
      ValueError: rank below 1.
      TypeError: rank is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> scheme = lambda p: gz.PowerSGD(rank=2) if p.ndim == 2 else gz.Identity()
      >>> gz.payload_bytes(scheme, {'w': jnp.zeros((64, 32)), 'b': jnp.zeros(32)})  # of 8320
      896

    Reference: Vogels, Karimireddy, Jaggi, arXiv 1905.13727, algorithms 1 and 2.
    """

    rank: int

    def __post_init__(self) -> None:
        checks.integer('PowerSGD', 'rank', self.rank, 1)

    def init(self, like: Like) -> State:
        if not self._pays(like):
            return ()
        shape = (math.prod(like.shape[1:]), self.rank)
        return jax.random.normal(jax.random.key(FIRST_BASIS), shape, like.dtype)

    def _pays(self, like: Like | Array) -> bool:
        if like.ndim < 2:
            return False
        rows, columns = like.shape[0], math.prod(like.shape[1:])
        return self.rank * (rows + columns) < rows * columns

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        del keys
        low = [i for i, x in enumerate(xs) if self._pays(x)]
        exact = [i for i, x in enumerate(xs) if not self._pays(x)]
        matrices = [xs[i].reshape(xs[i].shape[0], -1) for i in low]
        products = [m @ states[i].astype(m.dtype) for m, i in zip(matrices, low, strict=True)]
        means = axes.mean_together(products + [xs[i] for i in exact], axis_name)
        products, averages = means[: len(low)], means[len(low) :]
        bases = [jnp.linalg.qr(p)[0] for p in products]
        mine = [m.T @ p for m, p in zip(matrices, bases, strict=True)]
        everyones = axes.mean_together(mine, axis_name)
        out = {i: Reduced(a, xs[i], states[i]) for i, a in zip(exact, averages, strict=True)}
        for i, p, q_mine, q in zip(low, bases, mine, everyones, strict=True):
            out[i] = Reduced(
                (p @ q.T).reshape(xs[i].shape),
                (p @ q_mine.T).reshape(xs[i].shape),
                q.astype(states[i].dtype),
            )
        return [out[i] for i in range(len(xs))]
