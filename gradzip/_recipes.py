"""Chains whose parts were tuned together."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from gradzip import _checks as checks
from gradzip._base import Array, AxisName, KeyLike, PyTree, Scheme
from gradzip._compressors.identity import Identity
from gradzip._compressors.scaled_sign import ScaledSign
from gradzip._compressors.topk import TopK
from gradzip._feedback.compress import compress
from gradzip._feedback.error_feedback import error_feedback
from gradzip._reducers.powersgd import PowerSGD

DEFAULT = TopK(0.04) >> ScaledSign()  # 0.30 bits an entry, 106 times fewer than float32


def compressed_adam(
    learning_rate: optax.ScalarOrSchedule,
    axis_name: AxisName | None,
    scheme: Scheme = DEFAULT,
    *,
    b2: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    key: KeyLike | None = None,
) -> optax.GradientTransformation:
    """Adam for compressed gradients: a memory before it, and no momentum in it.

    The memory of `error_feedback` holds back what was not sent, and sends it later. It averages
    gradients over time, as the momentum of Adam does. With both, the average reaches too far back:
    the optimizer goes on in directions that are long out of date. Therefore the momentum is left
    out (b1 = 0). An entry that is sent once in 25 steps arrives with the gradients of 25 steps in
    it, so its square varies more than that of a gradient; the second moment averages over fewer
    steps than usual (b2 = 0.99).

    This is the chain

        optax.chain(
            gz.error_feedback(scheme, axis_name),
            optax.adamw(learning_rate, b1=0.0, b2=b2, eps=eps, weight_decay=weight_decay),
        )

    `python -m experiments.memory` compares it with Adam on exact gradients, step by step.

    Each leaf has a selection of its own. `optax.flatten(gz.compressed_adam(...))` joins all leaves
    to one array, so that the selection is among all entries. The program then compiles sooner, and
    a step of many leaves takes less time on CPU. It is for params that every device holds whole.

    Args:
      learning_rate: a number or a schedule.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one. The
        default sends the signs of the largest 4 % of the entries.
      b2: the decay of the second moment, in [0, 1).
      eps: is added to the root of the second moment.
      weight_decay: as in `optax.adamw`.
      key: for random schemes: an int or a typed key, the same on all workers.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError, ValueError: as `error_feedback`.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.compressed_adam(1e-3, 'data', weight_decay=0.1)
      >>> tx.init(jnp.zeros(2))[0].error.axes  # each worker has a memory
      ('data',)
    """
    memory = error_feedback(scheme, axis_name, key=key)
    adam = optax.adamw(learning_rate, b1=0.0, b2=b2, eps=eps, weight_decay=weight_decay)
    return optax.chain(memory, adam)


def dion(
    learning_rate: optax.ScalarOrSchedule,
    axis_name: AxisName | None,
    rank: int,
    *,
    mu: float = 0.95,
    decay: float = 1.0,
    weight_decay: float = 0.0,
    adam_learning_rate: optax.ScalarOrSchedule | None = None,
    labels: Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformation:
    """Muon on low-rank updates: the memory of the exchange is the momentum.

    For the matrices, with gradient G_w of a worker and memory M_w, this is

        B_w = decay M_w + G_w;   P R_w^T = the projection of `PowerSGD`;   R = mean_w R_w
        M_w = B_w - (1 - mu) P R_w^T
        X = X - learning_rate sqrt(max(1, columns / rows)) orth(P R^T)

    that is `error_feedback(PowerSGD(rank), drop=1 - mu)` and the orthonormalisation of Muon, whose
    Newton-Schulz iteration brings the singular values that are not zero near 1. All other leaves
    have an exact exchange and Adam.

    A worker subtracts its own R_w, where the published code subtracts the mean R. The memories of
    the workers then have the same mean, and differ less. What the common P cannot express stays in
    a worker's memory: if workers disagree for long, set `decay=0.99`, which bounds it.

    Args:
      learning_rate: of the matrices; a number or a schedule.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.
      rank: of the updates, at least 1. The paper has a quarter to a half of the matrix's.
      mu: of the momentum, in [0, 1).
      decay: of the memory, in (0, 1].
      weight_decay: as in `optax.adamw`, for all leaves.
      adam_learning_rate: of all other leaves; by default that of the matrices.
      labels: from params to a tree of 'matrix' and 'adam'. By default leaves with two axes are
        matrices. Embeddings and the last layer train better under 'adam'.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError, ValueError: as `error_feedback` and `PowerSGD`; mu outside of [0, 1).

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> params = {'w': jnp.eye(4), 'b': jnp.zeros(4)}
      >>> tx = gz.dion(0.02, 'data', rank=1)
      >>> tx.init(params).inner_states['matrix'].inner_state[0].error.axes  # each worker's own
      ('data',)

    Reference: Ahn et al., arXiv 2504.05295, algorithm 1 (Dion).
    """
    checks.below_one('dion', 'mu', mu)
    adam_rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    low_rank = PowerSGD(rank, min_rate=1)
    matrices = optax.chain(
        error_feedback(low_rank, axis_name, decay=decay, drop=1 - mu),
        optax.contrib.scale_by_muon(
            beta=0.0, nesterov=False, weight_dimension_numbers=_all_matrices
        ),
        optax.stateless(_scaled_by_shape),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    rest = optax.chain(
        compress(Identity(), axis_name),
        optax.adamw(adam_rate, b1=0.9, b2=0.95, weight_decay=weight_decay),
    )
    return optax.partition({'matrix': matrices, 'adam': rest}, labels or _by_axes)


def _by_axes(params: PyTree) -> PyTree:
    return jax.tree.map(lambda p: 'matrix' if p.ndim == 2 else 'adam', params)


def _all_matrices(params: PyTree) -> PyTree:
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), params)


def _scaled_by_shape(updates: PyTree, params: PyTree | None = None) -> PyTree:
    """A matrix with more columns than rows has a smaller norm for each output without this."""
    del params

    def scaled(u: Array) -> Array:
        rows, columns = u.shape
        return u * max(1.0, columns / rows) ** 0.5

    return jax.tree.map(scaled, updates)
