"""A biased compressor made unbiased by a second message."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradzip._base import (
    Array,
    Compressor,
    Key,
    Like,
    Payload,
    check_compressor,
    with_memory,
)
from gradzip._kernels.fused import fused
from gradzip._kernels.platform import choose

ONE_ENTRY = Like((1,), jnp.float32)  # a leaf for which every constant can be stated


class Twofold(NamedTuple):
    """Two messages that add up."""

    kept: Payload  # of the contractive compressor
    rest: Payload  # of the unbiased one, for what the first left


@dataclasses.dataclass(frozen=True)
class Induced(Compressor):
    """Sends C(v) and Q(v - C(v)): the large entries exactly, and the rest without bias.

    It serves where the theory needs an unbiased compressor, and only the rest is noisy.

    Args:
      first: C, a contractive compressor: one that states delta.
      second: Q, an unbiased compressor: one that states omega.

    Payload: the payloads of both, `kept` and `rest`.

    Guarantee: unbiased with omega = omega_Q (1 - delta_C). Given C(v), Q is unbiased with
      E|Q(v - C(v)) - (v - C(v))|^2 <= omega_Q |v - C(v)|^2, and |v - C(v)|^2 is at most
      (1 - delta_C) |v|^2. For a leaf for which `first` states no delta, omega is None.

    Raises:
      TypeError: first states no delta, or second no omega; either is not a Compressor.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> scheme = gz.Induced(gz.TopK(0.01), gz.QSGD(levels=7, block=None))
      >>> like = jnp.zeros(10_001)
      >>> round(gz.QSGD(levels=7, block=None).omega(like), 2), round(scheme.omega(like), 2)
      (7.14, 7.07)
      >>> payload = scheme.encode(jnp.array([8.0, 1.0]), jax.random.key(0))
      >>> payload.kept.values, payload.rest.scale  # the largest, and the rest in sevenths
      (Array([8.], dtype=float32), Array([0.14285715], dtype=float32))

    Reference: Horvath, Richtarik, arXiv 2006.11077, the induced compressor.
    """

    first: Compressor
    second: Compressor

    def __post_init__(self) -> None:
        check_compressor('Induced', 'first', self.first)
        check_compressor('Induced', 'second', self.second)
        if self.first.delta(ONE_ENTRY) is None:
            raise TypeError(
                f'Induced(first=...) must state delta, as TopK does; got {self.first!r}. An '
                'unbiased compressor needs no second message.'
            )
        if self.second.omega(ONE_ENTRY) is None:
            raise TypeError(
                f'Induced(second=...) must state omega, as QSGD does; got {self.second!r}.'
            )

    @property
    def random(self) -> bool:
        return self.first.random or self.second.random

    def encode(self, x: Array, key: Key) -> Twofold:
        first, second = _keys(key)
        kept = self.first.encode(x, first)
        return Twofold(kept, self.second.encode(self.first.remainder(x, kept, first), second))

    def decode(self, payload: Twofold, like: Like, key: Key) -> Array:
        first, second = _keys(key)
        kept = self.first.decode(payload.kept, like, first)
        return kept + self.second.decode(payload.rest, like, second)

    def decode_mean(self, payloads: Twofold, like: Like, keys: Key) -> Array:
        first, second = jax.vmap(_keys)(keys)
        kept = self.first.decode_mean(payloads.kept, like, first)
        return kept + self.second.decode_mean(payloads.rest, like, second)

    def remainder(self, x: Array, payload: Twofold, key: Key) -> Array:
        first, second = _keys(key)
        rest = self.first.remainder(x, payload.kept, first)
        return self.second.remainder(rest, payload.rest, second)

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Twofold, Array]:
        return self._made(x, key, memory, fit=False)

    def least_squares_message(
        self, x: Array, key: Key, memory: Array | None = None
    ) -> tuple[Twofold, Array]:
        return self._made(x, key, memory, fit=True)

    def _made(
        self, x: Array, key: Key, memory: Array | None, *, fit: bool
    ) -> tuple[Twofold, Array]:
        x = with_memory(x, memory)
        if not (self.first.selects and fused(x.size, x.dtype)):
            return _made(x, key, how=self, fit=fit)
        return choose(x, key, default=_made, tpu=_made_in_turn, how=self, fit=fit)

    def omega(self, like: Like) -> float | None:
        """None where one of the two states no constant for this leaf."""
        omega, delta = self.second.omega(like), self.first.delta(like)
        return None if omega is None or delta is None else omega * (1 - delta)

    def scaled(self, payload: Twofold, factor: Array | float) -> Twofold:
        kept = self.first.scaled(payload.kept, factor)
        return Twofold(kept, self.second.scaled(payload.rest, factor))


def _made(x: Array, key: Key, *, how: Induced, fit: bool) -> tuple[Twofold, Array]:
    made = Compressor.least_squares_message if fit else Compressor.message
    return made(how, x, key)


def _made_in_turn(x: Array, key: Key, *, how: Induced, fit: bool) -> tuple[Twofold, Array]:
    """The same from the messages of both, whose kernels write what is lost; nothing is decoded."""
    first, second = _keys(key)
    kept, left = how.first.message(x, first)
    rest, lost = how.second.message(left, second)
    payload = Twofold(kept, rest)
    if not fit:
        return payload, lost
    # The largest entry of x is a unit in which no square overflows. It is known from the pass that
    # computes x, where the largest decoded entry would need a pass of its own.
    largest = jnp.max(jnp.abs(x), initial=0)
    unit = jnp.where(largest == 0, 1, largest)
    a, b = x / unit, (x - lost) / unit
    energy = jnp.sum(b * b)
    factor = jnp.sum(a * b) / jnp.where(energy == 0, 1, energy)
    return how.scaled(payload, factor), x - factor * (x - lost)


def _keys(key: Key) -> tuple[Key, Key]:
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
