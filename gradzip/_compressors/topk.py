"""The entries of largest magnitude."""

from __future__ import annotations

import dataclasses
import math

from gradzip import _checks as checks
from gradzip._base import Array, Key, Like
from gradzip._compressors import sparse
from gradzip._compressors.sparse import Form, Indexed, Sparse


@dataclasses.dataclass(frozen=True)
class TopK(Indexed):
    """Keeps the ceil(fraction * n) entries of largest magnitude, ties by the lower index.

    NaN counts as larger than infinity, so it is sent and seen, not remembered in silence.

    Args:
      fraction: the share of entries that is kept, in (0, 1]; at least one entry is.
      indices: 'packed' writes them in at most log2(n / k) + 2 bits each, 'plain' in 32. Of 10
        million entries at 1 %, packing is under a tenth of a memory step, unpacking a payload too
        (`experiments/bench_compressors.py`), and three eighths of the bytes are saved.

    Payload: `values` and their ascending `indices` in the flat array; k (4 + L / 8) bytes for k
      float32 entries, L = 11.97, 8.56, 5.25 bits at 0.1, 1 and 10 %, or 32.

    Guarantee: contractive with delta = k / n, reached when all magnitudes are equal. Biased: use it
    under `error_feedback` or `ef21`.

    Raises:
      ValueError: fraction outside (0, 1], another form of indices; at trace time, an array of
        2**31 entries or more.
      TypeError: fraction is not a number.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.TopK(0.5, indices='plain').encode(jnp.array([1.0, -4.0, 2.0, 0.0]), jax.random.key(0))
      Sparse(values=Array([-4.,  2.], dtype=float32), indices=Array([1, 2], dtype=int32))

    Reference: Stich, Cordonnier, Jaggi, arXiv 1809.07599, definition 2.1 and lemma A.1.
    """

    fraction: float
    _: dataclasses.KW_ONLY
    indices: Form = 'packed'

    def __post_init__(self) -> None:
        checks.unit_interval('TopK', 'fraction', self.fraction)
        sparse.check_form('TopK', self.indices)

    def encode(self, x: Array, key: Key) -> Sparse:
        del key
        sparse.check_size(self, x)
        values, indices = sparse.largest(x.ravel(), kept(self.fraction, x.size))
        return Sparse(values, sparse.write(indices, x.size, self.indices))

    def indices_of(self, payload: Sparse, like: Like) -> Array:
        return sparse.read(payload.indices, kept(self.fraction, like.size), like.size)

    def delta(self, like: Like) -> float:
        return kept(self.fraction, like.size) / like.size if like.size else 1.0


def kept(fraction: float, size: int) -> int:
    """How many of `size` entries a fraction keeps; 0.1 of 30 is 3, whatever binary says."""
    return math.ceil(round(fraction * size, 6))
