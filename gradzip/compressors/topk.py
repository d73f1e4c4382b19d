"""The entries of largest magnitude."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import checks
from gradzip.base import Array, Compressor, Key, Like
from gradzip.kernels import selection

LARGE = 1 << 17  # up to here lax.top_k costs at most milliseconds, and compiles faster


class Sparse(NamedTuple):
    """Some entries of a flat array; `indices` are distinct, in any order."""

    values: Array  # f[k]
    indices: Array  # i32[k]


@dataclasses.dataclass(frozen=True)
class TopK(Compressor):
    """Keeps the ceil(fraction * n) entries of largest magnitude, ties by the lower index.

    NaN counts as larger than infinity, so it is sent and seen, not remembered in silence.

    Args:
      fraction: the share of entries that is kept, in (0, 1]; at least one entry is.

    Payload: `values` and their `indices` in the flat array; 8 k bytes for k float32 entries.

    Guarantee: contractive with delta = k / n, reached when all magnitudes are equal. Biased: use it
    under `error_feedback` or `ef21`.

    Raises:
      ValueError: fraction outside (0, 1]; at trace time, an array of 2**31 entries or more.
      TypeError: fraction is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.TopK(0.5).encode(jnp.array([1.0, -4.0, 2.0, 0.0]), jax.random.key(0))
      Sparse(values=Array([-4.,  2.], dtype=float32), indices=Array([1, 2], dtype=int32))

    Reference: Stich, Cordonnier, Jaggi, arXiv 1809.07599, definition 2.1 and lemma A.1.
    """

    fraction: float
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.share('TopK', 'fraction', self.fraction)

    def encode(self, x: Array, key: Key) -> Sparse:
        del key
        if x.size >= 1 << 31:
            raise ValueError(
                f'{self!r} indexes entries with int32, but an array of shape {x.shape} has '
                f'{x.size} of them: split the parameter.'
            )
        flat = x.ravel()
        count = kept(self.fraction, flat.size)
        if flat.size > LARGE:
            return Sparse(*selection.top_k(flat, count))
        _, indices = lax.top_k(jnp.abs(flat), count)
        return Sparse(flat[indices], indices)

    def decode(self, payload: Sparse, like: Like, key: Key) -> Array:
        del key
        flat = jnp.zeros(like.size, like.dtype)
        flat = flat.at[payload.indices].set(payload.values, unique_indices=True)
        return flat.reshape(like.shape)

    def decode_mean(self, payloads: Sparse, like: Like, keys: Key) -> Array:
        flat = jnp.zeros(like.size, like.dtype)
        total = flat.at[payloads.indices.ravel()].add(payloads.values.ravel())
        return total.reshape(like.shape) / keys.shape[0]

    def delta(self, like: Like) -> float:
        return kept(self.fraction, like.size) / like.size if like.size else 1.0


def kept(fraction: float, size: int) -> int:
    """How many of `size` entries a fraction keeps; 0.1 of 30 is 3, whatever binary says."""
    return math.ceil(round(fraction * size, 6))
