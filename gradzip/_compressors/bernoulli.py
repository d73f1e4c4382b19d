"""Independent sampling of entries with one probability: the gradient sparsifier."""

from __future__ import annotations

import bisect
import dataclasses
import math

import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks, _noise as noise
from gradzip._base import Array, Key, Like
from gradzip._compressors.drawn import Drawn, Entries
from gradzip._kernels.bits import select
from gradzip._kernels.words import WORD_BITS, pack

OVERFLOW = 1e-9  # the probability that a draw keeps more entries than the payload holds


@dataclasses.dataclass(frozen=True)
class Bernoulli(Drawn):
    """Keeps every entry with the same probability p, independently, and multiplies it by 1 / p.

    Used as a reducer, it means `Sum(Bernoulli(p))`, where all workers share one mask. In
    `Gather(Bernoulli(p))` the masks of the workers are independent, as the theorems of the paper
    require, and receivers draw them again from the keys.

    Args:
      fraction: p, the probability of keeping an entry and so the expected share of the entries
        that are kept, in (0, 1].

    Payload: `values` of the kept entries in order. There are no indices, because the key determines
      them. Shapes are static, so there is room for p n + O(sqrt(n)) entries, which a draw exceeds
      with probability below 1e-9. The entries without room are lost, or stay in the memory if there
      is one.

    Guarantee: unbiased with omega = 1 / p - 1 (up to that 1e-9). It is linear for one key.

    Raises:
      ValueError: fraction is outside (0, 1].
      TypeError: fraction is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.Bernoulli(0.5).encode(jnp.array([1.0, 2.0, 3.0, 4.0]), jax.random.key(1))
      Entries(values=Array([6., 8., 0., 0.], dtype=float32))

    Reference: Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573, the gradient sparsifier.
    """

    fraction: float

    def __post_init__(self) -> None:
        checks.unit_interval('Bernoulli', 'fraction', self.fraction)

    def positions(self, size: int, key: Key) -> Array:
        """The kept positions in order, and then `size`, which is out of bounds: i32[capacity]."""
        rounded_up = -(-size // WORD_BITS) * WORD_BITS
        mask = noise.uniform(key, (rounded_up,), jnp.float32) < self.fraction
        mask &= lax.iota(jnp.int32, rounded_up) < size
        indices, valid = first_set(pack(mask, 1), capacity(size, self.fraction))
        return jnp.where(valid, indices, size)

    def encode(self, x: Array, key: Key) -> Entries:
        flat = x.ravel()
        values = flat.at[self.positions(flat.size, key)].get(mode='fill', fill_value=0)
        return Entries(values / self.fraction)

    def omega(self, like: Like) -> float:
        del like
        return 1 / self.fraction - 1


def first_set(words: Array, count: int) -> tuple[Array, Array]:
    """Positions of the first `count` set bits, i32[count], and a mask of those that exist."""
    if not (words.size and count):
        return jnp.zeros(count, jnp.int32), jnp.zeros(count, bool)
    ones = jnp.sum(lax.population_count(words).astype(jnp.int32), dtype=jnp.int32)
    return select(words, count), lax.iota(jnp.int32, count) < ones


def capacity(size: int, probability: float) -> int:
    """The fewest places that Binomial(size, probability) exceeds with probability below 1e-9.

    By Chernoff's bound, P(X >= a n) <= exp(-n KL(a | p)) for a > p, with KL increasing in a.
    """

    def exceeds_rarely(places: int) -> bool:
        share = (places + 1) / size
        return share > 1 or (
            share > probability and size * _divergence(share, probability) >= -math.log(OVERFLOW)
        )

    return bisect.bisect_left(range(size), True, key=exceeds_rarely)


def _divergence(a: float, p: float) -> float:
    """KL(Bernoulli(a) | Bernoulli(p)) for p < a <= 1, in nats."""
    rest = (1 - a) * math.log((1 - a) / (1 - p)) if a < 1 else 0.0
    return a * math.log(a / p) + rest
