"""The largest entries of every block, with indices of a few bits."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, Key, Like, like_of, with_memory
from gradzip._compressors import sparse
from gradzip._compressors.sparse import Indexed
from gradzip._kernels import rows
from gradzip._kernels.fused import Flat, added, one_at_a_time
from gradzip._kernels.platform import choose
from gradzip._kernels.selection import read, remove, top_k
from gradzip._kernels.words import pack, unpack


class BlockSparse(NamedTuple):
    """The kept entries of each block, block by block, in the order of the array."""

    values: Array  # f[k * blocks]; fewer for a last block below k
    offsets: Array  # u32[words], positions within the blocks, packed


@dataclasses.dataclass(frozen=True)
class BlockTopK(Indexed):
    """Keeps the k entries of largest magnitude of every block of the flat array.

    Of equal magnitudes, the one with the lower index is kept. NaN counts as larger than infinity.
    A last, shorter block of r entries keeps min(k, r).

    Args:
      k: entries that are kept of a block, 1 to block.
      block: consecutive entries that compete with each other.

    Payload: `values`, and their `offsets` in ceil(log2(block)) bits each. With k = 16 and block
      1024 these are n / 1024 (64 + 20) bytes for n float32 entries.

    Guarantee: contractive with delta = k / block, reached when all magnitudes are equal, or
      min(k, n) / n for a leaf of n < block entries. It is biased: use it under `error_feedback` or
      `ef21`.

    Raises:
      ValueError: k is outside 1 to block, or block is below 1; at trace time, the array has 2**31
        entries or more.
      TypeError: k or block is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.BlockTopK(1, block=4).encode(jnp.array([1.0, 0, 3, 0, 0, 2]), jax.random.key(0))
      BlockSparse(values=Array([3., 2.], dtype=float32), offsets=Array([6], dtype=uint32))

    Reference: the layout is that of DeMo (Peng, Quesnelle, Kingma, arXiv 2411.19870) and of
      SparseLoCo (Sarfi et al., arXiv 2508.15706); the constant is that of arXiv 1809.07599, lemma
      A.1, applied to each block.
    """

    k: int
    block: int

    def __post_init__(self) -> None:
        checks.integer('BlockTopK', 'block', self.block, 1, (1 << 31) - 1)
        checks.integer('BlockTopK', 'k', self.k, 1, self.block)

    @property
    def bits(self) -> int:
        """How many bits one offset has."""
        return (self.block - 1).bit_length()

    def _count(self, size: int) -> int:
        return size // self.block * self.k + min(self.k, size % self.block)

    def _starts(self, size: int) -> Array:
        """The place where the block of each kept entry begins: i32[count]."""
        return lax.iota(jnp.int32, self._count(size)) // self.k * self.block

    def encode(self, x: Array, key: Key) -> BlockSparse:
        del key
        return self._made(x, None, lost=False)[0]

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[BlockSparse, Array]:
        del key
        return self._made(x, memory, lost=True)

    def adds(self, like: Like) -> bool:
        return self._has_kernel(like) and added(like.size, like.dtype)

    def _has_kernel(self, like: Like) -> bool:
        return rows.has_kernel(like.size, like.dtype, self.block, self.k)

    def _made(self, x: Array, memory: Array | None, *, lost: bool) -> tuple[BlockSparse, Any]:
        sparse.check_size(self, x)
        how = {'how': self, 'lost': lost}
        if not self._has_kernel(like_of(x)):
            return _made(x, memory, **how)
        return choose(x, memory, default=_made, tpu=_made_on_tpu, **how)

    def _payload(self, values: Array, offsets: Array) -> BlockSparse:
        words = pack(offsets, self.bits) if self.bits else jnp.zeros(0, jnp.uint32)
        return BlockSparse(values, words)

    def _last(self, flat: Array) -> Array:
        """The places that are kept in what is left after the whole blocks: i32[kept]."""
        tail = flat[flat.size // self.block * self.block :]
        return top_k(tail, min(self.k, tail.size))[1] if tail.size else jnp.zeros(0, jnp.int32)

    def indices_of(self, payload: BlockSparse, like: Like) -> Array:
        starts = self._starts(like.size)
        if not self.bits:
            return starts
        return starts + unpack(payload.offsets, self.bits, starts.size).astype(jnp.int32)

    def delta(self, like: Like) -> float:
        """That of the worst block; a last block of r entries keeps min(k, r) / r >= k / block."""
        if 0 < like.size < self.block:
            return min(self.k, like.size) / like.size
        return self.k / self.block if like.size else 1.0


def _made(x: Array, memory: Array | None, *, how: BlockTopK, lost: bool) -> tuple[BlockSparse, Any]:
    x = with_memory(x, memory)
    flat = x.ravel()
    offsets = jnp.concatenate([rows.top_k(flat, how.block, how.k).ravel(), how._last(flat)])
    values, indices = read(flat, how._starts(x.size) + offsets)
    return how._payload(values, offsets), remove(flat, indices).reshape(x.shape) if lost else ()


def _made_on_tpu(
    x: Array, memory: Array | None, *, how: BlockTopK, lost: bool
) -> tuple[BlockSparse, Any]:
    def take(*parts: Array) -> tuple[Array, Array, Array]:
        return rows.take_on_tpu(Flat(*parts), how.block, how.k)

    parts = (x,) if memory is None else (memory, x)
    if x.size % how.block == 0:
        values, offsets, rest = one_at_a_time(take, *parts)
        return how._payload(values, offsets), rest if lost else ()
    values, offsets, rest = one_at_a_time(take, *(part.ravel() for part in parts))
    # One after the other, so that XLA can write what is left in the place of the memory.
    last = how._last(rest)
    ends, after = read(rest, x.size // how.block * how.block + last)
    payload = how._payload(jnp.concatenate([values, ends]), jnp.concatenate([offsets, last]))
    return payload, remove(rest, after).reshape(x.shape) if lost else ()
