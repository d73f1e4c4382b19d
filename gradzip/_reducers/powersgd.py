"""A reducer that sends low-rank factors, from one power iteration per step."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from gradzip import _checks as checks, _collectives as collectives
from gradzip._base import (
    Array,
    AxisName,
    Key,
    Like,
    Reduced,
    Reducer,
    State,
    like_of,
)
from gradzip._kernels.low_rank import expand, project, project_rows
from gradzip._kernels.parts import entries
from gradzip._reducers.low_rank import (
    FIRST_BASIS,
    check,
    gaussian,
    matrix,
    matrix_shape,
    next_basis,
    orthonormal,
    pays,
)


class Refreshed(NamedTuple):
    """The state of one leaf under `PowerSGD(refresh=...)`."""

    count: Array  # i32[], the number of steps taken
    basis: Array  # Q of the step before: f[columns, rank]


@dataclasses.dataclass(frozen=True)
class PowerSGD(Reducer):
    """mean = P Q^T with P = orth(pmean(M_w Q_old)), Q_w = M_w^T P and Q = pmean(Q_w).

    The first Q is a fixed Gaussian matrix for each shape; every later step starts from the Q of the
    step before. A worker's contribution is `sent` = P Q_w^T, a projection of its M_w, so that a
    memory of M_w - P Q_w^T cannot grow as one of M_w - P Q^T does. A leaf becomes a matrix by
    splitting its axes in two where rows + columns are fewest. Leaves with fewer than two axes, and
    those that would not shrink by `min_rate`, are averaged exactly. Matrices of one shape are
    multiplied and orthogonalised together.

    Matrices of zeros and of any rank have orthonormal columns too. NaN and infinity reach the mean,
    but the columns of Q that are not finite are replaced by those of the step before, so that the
    next finite gradient is exchanged correctly.

    A direction that the basis does not contain is never sent, as long as no gradient turns the
    basis: there are losses on which the memory then grows without bound (arXiv 2509.11254). With
    `refresh=100`, every hundredth step starts from a new Gaussian matrix, which contains a part of
    every direction. (The paper takes singular vectors, which need the whole matrix on one worker.)

    Args:
      rank: the number of columns of P and Q, at least 1.
      min_rate: the least factor by which the factors must have fewer entries than the leaf, at
        least 1.
      refresh: the number of steps between two new bases, at least 1; None for never.

    Bytes: two all-reduces in all. The first carries 4 rank rows bytes for each float32 matrix and
      4 n bytes for each leaf of n entries that is averaged exactly; the second carries 4 rank
      columns bytes for each matrix. Neither depends on the number of workers.

    Raises:
      ValueError: rank, min_rate or refresh below 1.
      TypeError: rank or refresh is not an integer, or min_rate is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> params = {'w': jnp.zeros((64, 32)), 'b': jnp.zeros(32)}
      >>> gz.payload_bytes(gz.PowerSGD(rank=2), params)  # of 8320
      896

    Reference: Vogels, Karimireddy, Jaggi, arXiv 1905.13727, algorithms 1 and 2; arXiv 2509.11254
    (the counterexample, and a refresh).
    """

    rank: int
    _: dataclasses.KW_ONLY
    min_rate: float = 2.0
    refresh: int | None = None

    def __post_init__(self) -> None:
        check('PowerSGD', self.rank, self.min_rate)
        if self.refresh is not None:
            checks.integer('PowerSGD', 'refresh', self.refresh, 1)

    def init(self, like: Like) -> State:
        if not self._pays(like):
            return ()
        basis = gaussian(like, self.rank, FIRST_BASIS)
        return basis if self.refresh is None else Refreshed(jnp.zeros([], jnp.int32), basis)

    def _pays(self, like: Like | Array) -> bool:
        return pays(like, self.rank, self.min_rate)

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        del keys
        bases = [self._basis(x, state) for x, state in zip(xs, states, strict=True)]
        found = self._reduce(xs, bases, axis_name)
        return [r._replace(state=_with(s, r.state)) for r, s in zip(found, states, strict=True)]

    def _basis(self, x: Array, state: State) -> Array | tuple[()]:
        """Returns the basis for this step."""
        if self.refresh is None or not isinstance(state, Refreshed):
            return state
        turn = state.count // self.refresh
        new = gaussian(like_of(x), self.rank, FIRST_BASIS + turn)
        return jnp.where(state.count % self.refresh == 0, new, state.basis)

    def _reduce(
        self, xs: list[Array], states: list[Any], axis_name: AxisName | None
    ) -> list[Reduced]:
        exact = [i for i, x in enumerate(xs) if not self._pays(x)]
        groups = _same_shapes({i: x for i, x in enumerate(xs) if self._pays(x)})
        matrices = {i: matrix(x) for i, x in enumerate(xs) if self._pays(x)}
        products = [
            jnp.stack([project(matrices[i], states[i].astype(matrices[i].dtype)) for i in group])
            for group in groups
        ]
        means = collectives.mean_together(products + [xs[i] for i in exact], axis_name)
        bases = [entries(orthonormal(p)) for p in means[: len(groups)]]
        mine = [
            jnp.stack([project_rows(matrices[i], p) for i, p in zip(group, each, strict=True)])
            for group, each in zip(groups, bases, strict=True)
        ]
        everyones = collectives.mean_together(mine, axis_name)
        out = {
            i: Reduced(mean, xs[i], jnp.zeros_like(xs[i]), states[i])
            for i, mean in zip(exact, means[len(groups) :], strict=True)
        }
        for group, each, *stacked in zip(groups, bases, mine, everyones, strict=True):
            rows = (entries(q) for q in stacked)
            for i, p, q_mine, q in zip(group, each, *rows, strict=True):
                mean, sent = (
                    expand(p, q_).reshape(xs[i].shape).astype(xs[i].dtype) for q_ in (q, q_mine)
                )
                out[i] = Reduced(mean, sent, xs[i] - sent, next_basis(q.T, states[i]))
        return [out[i] for i in range(len(xs))]


def _with(state: State, basis: Array) -> State:
    """Returns the state of the next step."""
    if not isinstance(state, Refreshed):
        return basis
    return Refreshed(jnp.asarray(optax.safe_increment(state.count)), basis)


def _same_shapes(xs: dict[int, Array]) -> list[list[int]]:
    """Groups the keys of the arrays by the shape and dtype of their matrices."""
    groups: dict[tuple, list[int]] = {}
    for i, x in xs.items():
        groups.setdefault((matrix_shape(x), x.dtype), []).append(i)
    return list(groups.values())
