"""A biased compressor made unbiased by a second message."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from gradzip._base import (
    LARGE_LEAF,
    Array,
    Compressor,
    Key,
    Like,
    Payload,
    check_compressor,
)


class Twofold(NamedTuple):
    """Two messages that add up."""

    kept: Payload  # of the contractive compressor
    rest: Payload  # of the unbiased one, for what the first left


@dataclasses.dataclass(frozen=True)
class Induced(Compressor):
    """Sends C(v) and Q(v - C(v)): the strong entries as they are, the rest without bias.

    It goes where theory needs unbiasedness, and its noise is only that of the rest.

    Args:
      c: C, a contractive compressor: one that states delta.
      q: Q, an unbiased compressor: one that states omega.

    Payload: both payloads, `kept` and `rest`.

    Guarantee: unbiased with omega = omega_Q (1 - delta_C): given C(v), Q is unbiased with
      E|Q(v - C(v)) - (v - C(v))|^2 <= omega_Q |v - C(v)|^2, and |v - C(v)|^2 is at most
      (1 - delta_C) |v|^2.

    Raises:
      TypeError: c states no delta, or q no omega; either is not a Compressor.

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

    c: Compressor
    q: Compressor

    def __post_init__(self) -> None:
        check_compressor('Induced', 'c', self.c)
        check_compressor('Induced', 'q', self.q)
        if self.c.delta(LARGE_LEAF) is None:
            raise TypeError(
                f'Induced(c=...) must state delta, as TopK does; got {self.c!r}. An unbiased one '
                'needs no second message.'
            )
        if self.q.omega(LARGE_LEAF) is None:
            raise TypeError(f'Induced(q=...) must state omega, as QSGD does; got {self.q!r}.')

    @property
    def random(self) -> bool:
        return self.c.random or self.q.random

    def encode(self, x: Array, key: Key) -> Twofold:
        first, second = _keys(key)
        kept = self.c.encode(x, first)
        return Twofold(kept, self.q.encode(self.c.remainder(x, kept, first), second))

    def decode(self, payload: Twofold, like: Like, key: Key) -> Array:
        first, second = _keys(key)
        return self.c.decode(payload.kept, like, first) + self.q.decode(payload.rest, like, second)

    def decode_mean(self, payloads: Twofold, like: Like, keys: Key) -> Array:
        first, second = jax.vmap(_keys)(keys)
        kept = self.c.decode_mean(payloads.kept, like, first)
        return kept + self.q.decode_mean(payloads.rest, like, second)

    def remainder(self, x: Array, payload: Twofold, key: Key) -> Array:
        first, second = _keys(key)
        return self.q.remainder(self.c.remainder(x, payload.kept, first), payload.rest, second)

    def omega(self, like: Like) -> float:
        omega, delta = self.q.omega(like), self.c.delta(like)
        assert omega is not None  # stated for one leaf, stated for all
        assert delta is not None
        return omega * (1 - delta)

    def scaled(self, payload: Twofold, factor: Array | float) -> Twofold:
        return Twofold(self.c.scaled(payload.kept, factor), self.q.scaled(payload.rest, factor))


def _keys(key: Key) -> tuple[Key, Key]:
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
