"""What is trained on gradients that are late by so many steps: the cells of the comparison."""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

import gradzip as gz
from experiments.exchanges import adam_after_memory
from experiments.memory.methods import AXIS, Method, Rate

OPTIMIZERS = 'SGD', 'Adam'
DELAYS = 0, 4, 16  # steps
SCHEME = gz.TopK(0.04) >> gz.ScaledSign()
SCHEME_NAME = 'TopK 4 % >> sign'
DECAY = 0.95  # of the mean square in the adaptive compensation, as in its paper
RATES = {'SGD': 0.25, 'Adam': 4e-3}  # where the search begins


@dataclasses.dataclass(frozen=True)
class Cell:
    """An optimizer, a delay, and what is done with a late gradient."""

    optimizer: str
    tau: int  # steps
    compressed: bool = False
    compensated: bool = False

    @property
    def treatment(self) -> str:
        """What is done with a gradient."""
        named = {'compensated': self.compensated, 'compressed': self.compressed}
        return ', '.join(name for name, done in named.items() if done) or 'exact'

    def method(self, strength: float) -> Method:
        """The chain for every rate; without compensation it is the same for every strength."""
        name = f'{self.optimizer}, delay {self.tau}, {self.treatment}'
        if self.compensated:
            name += f' {strength:g}'
        return Method(name, lambda rate: self._chain(strength, rate))

    def _chain(self, strength: float, rate: Rate) -> optax.GradientTransformation:
        """Late gradients, a correction of each worker's own, an exchange, an optimizer.

        Behind a memory Adam has no momentum, as in `gz.compressed_adam`.
        """
        parts: list[Any] = [gz.delay(self.tau, AXIS)]
        if self.compensated:
            parts.append(gz.compensate(self.tau, AXIS, strength=strength, decay=DECAY))
        if self.compressed:
            parts.append(gz.error_feedback(SCHEME, AXIS))
        else:
            parts.append(gz.compress(gz.Identity(), AXIS))
        if self.optimizer == 'SGD':
            parts.append(optax.sgd(rate))
        elif self.compressed:
            parts.append(adam_after_memory(rate))
        else:
            parts.append(optax.adam(rate))
        return optax.chain(*parts)


def cells(optimizers: tuple[str, ...] = OPTIMIZERS, delays: tuple[int, ...] = DELAYS) -> list[Cell]:
    """All cells, the shorter delays first; without delay there is nothing to compensate."""
    return [
        Cell(optimizer, tau, compressed, compensated)
        for optimizer in optimizers
        for tau in delays
        for compressed in (False, True)
        for compensated in (False, True)
        if tau or not compensated
    ]
