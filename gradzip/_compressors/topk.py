"""The entries of largest magnitude."""

from __future__ import annotations

import dataclasses
import math

from gradzip import _checks as checks
from gradzip._base import Array, Key, Like
from gradzip._compressors import sparse
from gradzip._compressors.sparse import Form, Indexed, Sparse
from gradzip._kernels.fused import Flat, added
from gradzip._kernels.selection import take_top_k, top_k


@dataclasses.dataclass(frozen=True)
class TopK(Indexed):
    """Keeps the ceil(fraction * n) entries of largest magnitude, ties by the lower index.

    NaN counts as larger than infinity, so that it is sent and noticed instead of staying in a
    memory.

    Args:
      fraction: the share of entries that is kept, in (0, 1]; at least one entry is.
      indices: 'packed' writes an index in at most log2(n / k) + 2 bits, 'plain' in 32. For 10
        million entries at 1 %, packing takes less than a tenth of the time of a memory step, and so
        does unpacking a payload (`experiments/bench_compressors.py`). It saves three eighths of the
        bytes.

    Payload: `values` and their ascending `indices` in the flat array; k (4 + L / 8) bytes for k
      float32 entries, where L is 11.97, 8.56 and 5.25 bits at 0.1, 1 and 10 %, or 32 if 'plain'.

    Guarantee: contractive with delta = k / n, reached when all magnitudes are equal. It is biased:
      use it under `error_feedback` or `ef21`.

    Raises:
      ValueError: fraction is outside (0, 1], or indices is another word; at trace time, the array
        has 2**31 entries or more.
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
        values, indices = top_k(x.ravel(), kept(self.fraction, x.size))
        return Sparse(values, sparse.write(indices, x.size, self.indices))

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Sparse, Array]:
        del key
        sparse.check_size(self, x)
        parts = Flat(x) if memory is None else Flat(memory, x)
        values, indices, rest = take_top_k(parts, kept(self.fraction, x.size))
        return Sparse(values, sparse.write(indices, x.size, self.indices)), rest

    def adds(self, like: Like) -> bool:
        return 0 < kept(self.fraction, like.size) < like.size and added(like.size, like.dtype)

    def indices_of(self, payload: Sparse, like: Like) -> Array:
        return sparse.read(payload.indices, kept(self.fraction, like.size), like.size)

    def delta(self, like: Like) -> float:
        return kept(self.fraction, like.size) / like.size if like.size else 1.0


def kept(fraction: float, size: int) -> int:
    """How many of `size` entries a fraction keeps.

    The product is rounded before `ceil`: in binary, 0.1 * 30 is slightly more than 3.
    """
    return math.ceil(round(fraction * size, 6))
