"""Measurements of an exchange, as functions of (target, sent, mean).

`target` is what a worker wanted to send, `sent` what it sent, and `mean` what every worker
received. Pass any of these functions, or your own, by name:
`error_feedback(..., metrics={'lost': gz.metrics.lost})`. The values are averaged over the workers,
kept in the state and read with `optax.tree.get(state, 'lost')`. Only what is asked for is computed.
A state has the value of the last step, or with `total` the sum over all steps: the bits that a
worker has sent so far are `total(bits(scheme, params))`.

Where params are sharded, a function sees one device's shards, and `data_parallel` averages its
values over the shards as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from gradzip import _collectives as collectives
from gradzip._base import Array, AxisName, PyTree, Scheme, memory_like
from gradzip._traffic import payload_bytes

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


def error_norm(target: PyTree, sent: PyTree, mean: PyTree) -> Array:
    """Returns the Euclidean norm of what was not sent, |target - sent|: of a memory. f[].

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> float(gz.metrics.error_norm(jnp.array([4.0, 3.0]), jnp.array([4.0, 0.0]), None))
      3.0
    """
    del mean
    return jnp.asarray(optax.tree.norm(optax.tree.sub(target, sent)))


def staleness(target: PyTree, sent: PyTree, mean: PyTree) -> Array:
    """Returns |target - sent|_1 / |sent|_1, the steps for which a memory holds gradients back. f[].

    By Little's law, what waits divided by what leaves in a step is the mean time of waiting. Here
    that holds where gradients do not cancel in the memory, and on average over the steps. Where
    they cancel, they never leave, and the figure is too small. It is 0 if nothing was sent.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.error_feedback(gz.TopK(0.2), metrics={'late': gz.metrics.staleness})
      >>> state = tx.init(jnp.zeros(5))
      >>> for _ in range(20):  # each of five entries is sent in every fifth step
      ...   _, state = tx.update(jnp.ones(5), state)
      >>> float(state.metrics['late'])
      2.0
    """
    del mean
    waiting = optax.tree.norm(optax.tree.sub(target, sent), ord=1)
    return _ratio(waiting, optax.tree.norm(sent, ord=1))


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


@dataclasses.dataclass(frozen=True)
class Total:
    """A metric whose values are summed over the steps; `total` makes it."""

    metric: Metric

    def __call__(self, target: PyTree, sent: PyTree, mean: PyTree) -> Array:
        """Returns the value of one step."""
        return self.metric(target, sent, mean)


def total(metric: Metric) -> Total:
    """Returns a metric that is the sum of another one over all steps so far.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> params = jnp.zeros(100_000)
      >>> sent = gz.metrics.total(gz.metrics.bits(gz.TopK(0.01), params))
      >>> tx = gz.compress(gz.TopK(0.01), metrics={'sent': sent})
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...   _, state = tx.update(jnp.ones(100_000), state)
      >>> float(state.metrics['sent'])  # three times 5120 bytes
      122880.0
    """
    if not callable(metric):
        raise TypeError(f'total(metric=...) must be a function; got {metric!r}.')
    return Total(metric)


def bits(scheme: Scheme, params: PyTree) -> Metric:
    """Returns a metric: the bits that a worker sends in a step under a scheme, as `payload_bytes`.

    They are a constant, in float32. Under a `Schedule` every step counts as its largest.

    Args:
      scheme: the scheme of the exchange that the metric is given to.
      params: tree of arrays, or of their shapes and dtypes.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> float(gz.metrics.bits(gz.Identity(), jnp.zeros(100))(None, None, None))
      3200.0
    """
    count = 8.0 * payload_bytes(scheme, params)

    def metric(target: PyTree, sent: PyTree, mean: PyTree) -> Array:
        del target, sent, mean
        return jnp.full([], count, jnp.float32)

    return metric


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
    metrics: Metrics,
    before: dict[str, PyTree],
    target: PyTree,
    sent: PyTree,
    mean: PyTree,
    axis_name: AxisName | None,
) -> dict[str, PyTree]:
    """Returns every metric, averaged over the workers; `before` has the values up to this step."""
    if not metrics:
        return {}
    values = {name: f(target, sent, mean) for name, f in metrics.items()}
    values = collectives.mean(values, axis_name)
    sums = {name for name, f in metrics.items() if isinstance(f, Total)}
    return {n: optax.tree.add(before[n], v) if n in sums else v for n, v in values.items()}


def _ratio(part: ArrayLike, whole: ArrayLike) -> Array:
    whole = jnp.asarray(whole)
    return jnp.asarray(part) / jnp.where(whole == 0, 1, whole)
