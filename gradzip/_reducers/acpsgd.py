"""A reducer that sends one of two low-rank factors, in turn."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _collectives as collectives
from gradzip._base import Array, AxisName, Key, Like, Reduced, Reducer, State
from gradzip._kernels.low_rank import expand, project, project_rows
from gradzip._reducers.branches import shared_types
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


class Factors(NamedTuple):
    """The state of one leaf under `ACPSGD`."""

    count: Array  # i32[], 0 in steps that send P, and 1 in steps that send Q
    p: Array  # f[rows, rank]
    q: Array  # f[columns, rank]


@dataclasses.dataclass(frozen=True)
class ACPSGD(Reducer):
    """Sends P = pmean(M_w orth(Q)) in one step, and Q = pmean(M_w^T orth(P)) in the next.

    The mean is P orth(Q)^T or orth(P) Q^T. `PowerSGD` computes both factors in every step. Here
    each step has one all-reduce, about half the bytes, and half the products. The power iteration
    takes two steps for one of PowerSGD, so that the factors follow a changing gradient more slowly.
    A worker's contribution is P_w orth(Q)^T or orth(P) Q_w^T, a projection of its own matrix. Which
    leaves are averaged exactly, and how a leaf becomes a matrix, is as in `PowerSGD`.

    Args:
      rank: the number of columns of P and Q, at least 1.
      min_rate: the least factor by which both factors together must have fewer entries than the
        leaf, at least 1.

    Bytes: one all-reduce, of 4 rank rows or 4 rank columns bytes in turn for each float32 matrix,
      and 4 n bytes for each leaf of n entries that is averaged exactly. `payload_bytes` is the
      larger of the two.

    Raises:
      ValueError: rank or min_rate below 1.
      TypeError: rank is not an integer, or min_rate is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> params = {'w': jnp.zeros((64, 32)), 'b': jnp.zeros(32)}
      >>> gz.payload_bytes(gz.ACPSGD(rank=2), params)  # PowerSGD(2) sends 896
      640

    Reference: Zhang et al., arXiv 2306.08881, algorithm 2 (ACP-SGD).
    """

    rank: int
    _: dataclasses.KW_ONLY
    min_rate: float = 2.0

    def __post_init__(self) -> None:
        check('ACPSGD', self.rank, self.min_rate)

    def init(self, like: Like) -> State:
        if not pays(like, self.rank, self.min_rate):
            return ()
        p = jnp.zeros((matrix_shape(like)[0], self.rank), like.dtype)
        return Factors(jnp.zeros([], jnp.int32), p, gaussian(like, self.rank, FIRST_BASIS))

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        del keys
        counts = [state.count for state in states if isinstance(state, Factors)]
        turn = counts[0] if counts else jnp.zeros([], jnp.int32)

        def branch(send_p: bool) -> Any:
            def run(xs: list[Array], states: list[State]) -> list[Reduced]:
                found = self._send(send_p, xs, states, axis_name)
                return [shared_types(x, r, r.state) for x, r in zip(xs, found, strict=True)]

            return run

        return lax.cond(turn == 0, branch(True), branch(False), xs, states)

    def _send(
        self, send_p: bool, xs: list[Array], states: list[State], axis_name: AxisName | None
    ) -> list[Reduced]:
        low = [i for i, state in enumerate(states) if isinstance(state, Factors)]
        exact = [i for i in range(len(xs)) if i not in low]
        matrices = {i: matrix(xs[i]) for i in low}
        bases = {i: _basis(states[i].q if send_p else states[i].p, matrices[i]) for i in low}
        product = project if send_p else project_rows
        mine = {i: product(matrices[i], bases[i]) for i in low}
        sent = collectives.mean_together([mine[i] for i in low] + [xs[i] for i in exact], axis_name)
        means = dict(zip(low + exact, sent, strict=True))
        out = {i: Reduced(means[i], xs[i], jnp.zeros_like(xs[i]), states[i]) for i in exact}
        for i in low:
            x, basis, old = xs[i], bases[i], states[i]

            def whole(factor: Array, x: Array = x, basis: Array = basis) -> Array:
                pair = (factor, basis.T) if send_p else (basis, factor)
                return expand(*pair).reshape(x.shape).astype(x.dtype)

            if send_p:
                state = Factors(old.count + 1, next_basis(means[i], old.p), old.q)
            else:
                state = Factors(old.count - 1, old.p, next_basis(means[i].T, old.q))
            own = whole(mine[i])
            out[i] = Reduced(whole(means[i]), own, x - own, state)
        return [out[i] for i in range(len(xs))]


def _basis(factor: Array, m: Array) -> Array:
    return orthonormal(factor.astype(m.dtype))
