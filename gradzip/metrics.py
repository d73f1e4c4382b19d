"""Measurements of an exchange, as functions of (target, sent, mean).

`target` is what a worker wanted to send, `sent` what it sent, and `mean` what every worker
received. Pass any of these functions, or your own, by name:
`error_feedback(..., metrics={'lost': gz.metrics.lost})`. The values are averaged over the workers,
kept in the state and read with `optax.tree.get(state, 'lost')`. Only what is asked for is computed.

Where params are sharded, a function sees one device's shards, and `data_parallel` averages its
values over the shards as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradzip import _collectives as collectives
from gradzip._base import Array, AxisName, PyTree, memory_like

Metric = Callable[[PyTree, PyTree, PyTree], Array]
Metrics = Mapping[str, Metric]


def lost(target: PyTree, sent: PyTree, mean: PyTree) -> Array:
    """Returns the share of the energy that was not sent, |target - sent|^2 / |target|^2. f[].

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> float(gz.metrics.lost(jnp.array([4.0, 3.0]), jnp.array([4.0, 0.0]), None))
      0.36...
    """
    del mean
    difference = optax.tree.norm(optax.tree.sub(target, sent), squared=True)
    return _ratio(difference, optax.tree.norm(target, squared=True))


def cosine(target: PyTree, sent: PyTree, mean: PyTree) -> Array:
    """Returns the cosine of the angle between target and sent, 0 if either is zero. f[].

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> float(gz.metrics.cosine(jnp.array([4.0, 3.0]), jnp.array([4.0, 0.0]), None))
      0.8...
    """
    del mean
    return _ratio(optax.tree.vdot(target, sent), optax.tree.norm(target) * optax.tree.norm(sent))


def norm(target: PyTree, sent: PyTree, mean: PyTree) -> Array:
    """Returns the Euclidean norm of the target, such as gradient plus memory. f[].

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> float(gz.metrics.norm(jnp.array([4.0, 3.0]), None, None))
      5.0
    """
    del sent, mean
    return jnp.asarray(optax.tree.norm(target))


def nonzeros(target: PyTree, sent: PyTree, mean: PyTree) -> Array:
    """Returns the share of the entries of `mean` that are not zero. f[].

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> float(gz.metrics.nonzeros(None, None, jnp.array([4.0, 0.0])))
      0.5
    """
    del target, sent
    counts = [jnp.count_nonzero(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(mean)]
    return sum(counts, jnp.zeros([], jnp.float32)) / max(optax.tree.size(mean), 1)


def check(metrics: Metrics) -> None:
    """Raises TypeError for anything but a mapping from names to functions."""
    if not isinstance(metrics, Mapping) or not all(callable(f) for f in metrics.values()):
        raise TypeError(
            'metrics must map names to functions of (target, sent, mean), as '
            f"{{'lost': gradzip.metrics.lost}}; got {metrics!r}."
        )


def init(metrics: Metrics, params: PyTree) -> dict[str, PyTree]:
    """Returns zeros with the structure of what `measure` returns, for the first state."""
    likes = jax.tree.map(memory_like, params)
    shapes = {name: jax.eval_shape(f, likes, likes, likes) for name, f in metrics.items()}
    return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)


def measure(
    metrics: Metrics, target: PyTree, sent: PyTree, mean: PyTree, axis_name: AxisName | None
) -> dict[str, PyTree]:
    """Returns every metric, averaged over the workers."""
    values = {name: f(target, sent, mean) for name, f in metrics.items()}
    return collectives.mean(values, axis_name) if values else {}


def _ratio(part: ArrayLike, whole: ArrayLike) -> Array:
    whole = jnp.asarray(whole)
    return jnp.asarray(part) / jnp.where(whole == 0, 1, whole)
