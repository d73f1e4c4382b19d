"""Chains whose parts were tuned together."""

from __future__ import annotations

import optax

from gradzip._base import AxisName, KeyLike, Scheme
from gradzip._compressors.scaled_sign import ScaledSign
from gradzip._compressors.topk import TopK
from gradzip._feedback.error_feedback import error_feedback

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
      >>> tx = gz.compressed_adam(0.1, None, gz.TopK(0.5))
      >>> params = jnp.zeros(2)
      >>> update, state = tx.update(jnp.array([1.0, 2.0]), tx.init(params), params)
      >>> [round(float(u), 4) for u in update]
      [0.0, -0.1]
    """
    memory = error_feedback(scheme, axis_name, key=key)
    adam = optax.adamw(learning_rate, b1=0.0, b2=b2, eps=eps, weight_decay=weight_decay)
    return optax.chain(memory, adam)
