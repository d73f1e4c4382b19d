"""The methods that are compared: what is sent, and which optimizer turns it into a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

import gradzip as gz
from experiments import figures
from experiments.exchanges import LOCAL, LOCAL_SCHEME, LOCAL_STEPS, adam_after_memory, local_adam

AXIS = 'worker'
WARM_UP = 20  # steps over which the rate grows from zero
EXACT = 'exact Adam'
SYNC_EVERY = 10  # steps between two exchanges of DiLoCo and SparseLoCo
Rate = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Method:
    """A chain for every rate of its optimizer.

    Args:
      name: as it stands in tables.
      make: from a schedule to the chain.
      factor: its best rate, divided by that of exact Adam, is looked for around this number.
      sync_every: the number of steps for which one exchange stands.
      style: of its line in figures.
    """

    name: str
    make: Callable[[Rate], optax.GradientTransformation]
    factor: float = 1.0
    sync_every: int = 1
    style: dict[str, Any] = dataclasses.field(default_factory=dict)

    def chain(self, rate: float | jax.Array) -> optax.GradientTransformation:
        """The chain at this rate, after the warm-up."""
        return self.make(lambda count: rate * jnp.minimum(1, count / WARM_UP))

    def bits(self, params: Any, workers: int) -> float:
        """Sent by a worker for each entry and step."""
        entries = sum(leaf.size for leaf in jax.tree.leaves(params))
        sent = gz.step_bytes(self.chain(1.0), params, {AXIS: workers})
        return 8 * sent / entries / self.sync_every


def exact(rate: Rate) -> optax.GradientTransformation:
    """Adam as people run it, on the exact mean."""
    return optax.chain(gz.compress(gz.Identity(), AXIS), optax.adam(rate))


def exact_without_momentum(rate: Rate) -> optax.GradientTransformation:
    """The exact mean under the optimizer of `compressed_adam`."""
    return optax.chain(gz.compress(gz.Identity(), AXIS), adam_after_memory(rate))


def with_momentum(rate: Rate) -> optax.GradientTransformation:
    """A memory in front of Adam as people run it."""
    return optax.chain(gz.error_feedback(gz.TopK(0.04) >> gz.ScaledSign(), AXIS), optax.adam(rate))


def compressed(scheme: gz.Compressor | gz.Reducer) -> Callable[[Rate], Any]:
    """`compressed_adam` with this scheme."""
    return lambda rate: gz.compressed_adam(rate, AXIS, scheme, key=0)


def together(scheme: gz.Compressor) -> Callable[[Rate], Any]:
    """`compressed_adam` on one array of all leaves, so that a selection is among all entries."""
    return lambda rate: optax.flatten(gz.compressed_adam(rate, AXIS, scheme, key=0))


def diloco(rate: Rate) -> optax.GradientTransformation:
    """DiLoCo with the outer step that its paper recommends: exact pseudo-gradients and momentum."""
    return gz.local_steps(
        optax.adamw(rate, b2=0.95, weight_decay=0.1),
        gz.compress(gz.Identity(), AXIS),
        optax.sgd(0.7, momentum=0.9, nesterov=True),
        AXIS,
        sync_every=SYNC_EVERY,
    )


def sparse_loco(mean_over: Literal['workers', 'senders']) -> Callable[[Rate], Any]:
    """SparseLoCo: 64 of 4096 entries in two bits, a decayed memory, an outer step alone."""
    scheme = gz.BlockTopK(64, 4096) >> gz.QSGD(1, block=64)
    return lambda rate: gz.local_steps(
        optax.adamw(rate, b2=0.95, weight_decay=0.1),
        gz.error_feedback(gz.Gather(scheme, mean_over=mean_over), AXIS, decay=0.95, key=0),
        optax.sgd(0.7),
        AXIS,
        sync_every=SYNC_EVERY,
    )


def local(scheme: gz.Compressor, steps: int) -> Callable[[Rate], Any]:
    """Local steps of Adam without momentum, a compressed exchange, and another Adam outside."""
    return lambda rate: local_adam(rate, scheme, AXIS, steps)


METHODS = [
    Method(EXACT, exact, style={'color': figures.GREY, 'linewidth': 2.5}),
    Method(
        'exact Adam, b1 = 0, b2 = 0.99',
        exact_without_momentum,
        style={'color': figures.GREY, 'linestyle': figures.DASHED},
    ),
    Method(
        'TopK 4 % >> sign before Adam',
        with_momentum,
        style={'color': figures.ORANGE, 'linestyle': figures.DOTTED},
    ),
    Method(
        'TopK 4 % >> sign, compressed_adam',
        compressed(gz.TopK(0.04) >> gz.ScaledSign()),
        style={'color': figures.BLUE},
    ),
    Method(
        'TopK 4 % >> sign among all leaves',
        together(gz.TopK(0.04) >> gz.ScaledSign()),
        style={'color': figures.BLUE, 'linestyle': figures.DASHED},
    ),
    Method(
        'TopK 1 % >> sign, compressed_adam',
        compressed(gz.TopK(0.01) >> gz.ScaledSign()),
        style={'color': figures.SKY},
    ),
    Method(
        'TopK 1 % >> sign among all leaves',
        together(gz.TopK(0.01) >> gz.ScaledSign()),
        style={'color': figures.SKY, 'linestyle': figures.DASHED},
    ),
    Method(
        'sign, compressed_adam', compressed(gz.ScaledSign()), style={'color': figures.VERMILION}
    ),
    Method(
        'PowerSGD rank 4, compressed_adam',
        compressed(gz.PowerSGD(4)),
        style={'color': figures.INDIGO},
    ),
    Method(
        LOCAL,
        local(LOCAL_SCHEME, LOCAL_STEPS),
        factor=2**-2.5,
        sync_every=LOCAL_STEPS,
        style={'color': figures.GREEN},
    ),
    Method(
        'DiLoCo',
        diloco,
        factor=2.0,
        sync_every=SYNC_EVERY,
        style={'color': figures.GREEN, 'linestyle': figures.DASHED},
    ),
    Method(
        'SparseLoCo',
        sparse_loco('workers'),
        factor=2.0,
        sync_every=SYNC_EVERY,
        style={'color': figures.INDIGO, 'linestyle': figures.DASHED},
    ),
    Method(
        'SparseLoCo, mean over senders',
        sparse_loco('senders'),
        factor=2.0,
        sync_every=SYNC_EVERY,
        style={'color': figures.VERMILION, 'linestyle': figures.DASHED},
    ),
]
