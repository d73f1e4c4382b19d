"""Compression of a randomly rotated leaf."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradzip import _noise as noise
from gradzip._base import Array, Key, Like, Payload, like_of, with_memory
from gradzip._compose import Wrapper
from gradzip._kernels.fused import fused, one_at_a_time
from gradzip._kernels.platform import choose
from gradzip._kernels.words import WORD_BITS, unpack

LONGEST_BLOCK = 1 << 14  # rotated together by two products with matrices of 128 x 128
SHORTEST_BLOCK = 128  # a shorter block would save little padding
SIGNS_START = 1 << 31  # in the key's stream; the compressor draws from the beginning of it


@dataclasses.dataclass(frozen=True)
class Rotated(Wrapper):
    """C'(v) = R^T C(R v), where R multiplies by random signs and then by a Hadamard matrix.

    The entries of a rotated block are nearly Gaussian for every leaf, so that none is far larger
    than the others. A quantizer with one scale needs this.

    Args:
      compressor: any compressor. It compresses a flat array, padded with zeros to whole blocks of
        2^14 entries, or of fewer where the padding would exceed a sixteenth of the leaf.

    Payload: that of the wrapped compressor for the padded array. The signs come from the key.

    Guarantee: that of the wrapped compressor for an array of the padded size, because R is
      orthogonal and dropping the padding only reduces the error. A block with an entry that is not
      finite, or whose sums overflow, is not finite after decoding.

    Raises:
      TypeError: compressor is not a Compressor.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> rotated, key, x = gz.Rotated(gz.ScaledSign()), jax.random.key(0), jnp.eye(1, 4)[0]
      >>> rotated.decode(rotated.encode(x, key), x, key).round(6) + 0.0  # one entry: exact
      Array([1., 0., 0., 0.], dtype=float32)

    Reference: Suresh et al., arXiv 1611.00429, section 3.
    """

    random: ClassVar[bool] = True  # the signs
    _decoded_at_once: ClassVar[int] = 1

    def inner_like(self, like: Like) -> Like:
        return rotated_like(like)

    def encode(self, x: Array, key: Key) -> Payload:
        return self.compressor.encode(rotate(x, key), key)

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        return rotate_back(self.compressor.decode(payload, rotated_like(like), key), like, key)

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Payload, Array]:
        x = with_memory(x, memory)
        if x.dtype != jnp.float32 or not swept(like_of(x)):
            return super().message(x, key)
        return choose(x, key, default=_message, tpu=_message_in_turn, how=self)


def _message(x: Array, key: Key, *, how: Rotated) -> tuple[Payload, Array]:
    return Wrapper.message(how, x, key)


def _message_in_turn(x: Array, key: Key, *, how: Rotated) -> tuple[Payload, Array]:
    """The same with x - R'C(R x) = R'(R x - C(R x)), which needs no decoding."""
    payload, lost = how.compressor.message(rotate(x, key), key)
    return payload, rotate_back(lost, like_of(x), key)


def swept(like: Like) -> bool:
    """Whether programs for TPU have kernels that rotate a leaf like this."""
    return block_for(like.size) == LONGEST_BLOCK and fused(like.size, rotated_like(like).dtype)


def block_for(size: int) -> int:
    """How many entries of a leaf are rotated together."""
    block = min(LONGEST_BLOCK, 1 << max(size - 1, 0).bit_length())
    while -size % block > size // 16 and block > SHORTEST_BLOCK:
        block //= 2
    return block


def rotated_like(like: Like) -> Like:
    """Shape and dtype of the rotated array: flat, in whole blocks, in at least float32."""
    block = block_for(like.size)
    dtype = jnp.float64 if like.dtype == jnp.float64 else jnp.float32
    return Like((-(-like.size // block) * block,), dtype)


def rotate(x: Array, key: Key) -> Array:
    """R x, flat and padded."""
    like, block = rotated_like(like_of(x)), block_for(x.size)
    flat = jnp.pad(x.ravel().astype(like.dtype), (0, like.size - x.size))
    if not swept(like_of(x)):
        return _rotated(flat, key, block=block, back=False)
    return choose(flat, key, default=_rotated, tpu=_on_tpu, block=block, back=False)


def rotate_back(y: Array, like: Like, key: Key) -> Array:
    """R^T y without the padding."""
    block = block_for(like.size)
    if not swept(like):
        flat = _rotated(y, key, block=block, back=True)
    else:
        flat = choose(y, key, default=_rotated, tpu=_on_tpu, block=block, back=True)
    return flat[: like.size].astype(like.dtype).reshape(like.shape)


def _rotated(flat: Array, key: Key, *, block: int, back: bool) -> Array:
    """R or R^T. A Hadamard matrix is its own transpose."""
    signs = _signs(key, like_of(flat))
    return _hadamard(flat, block) * signs if back else _hadamard(flat * signs, block)


def _on_tpu(flat: Array, key: Key, *, block: int, back: bool) -> Array:
    from gradzip._kernels.mosaic import rotations  # only programs for TPU need Pallas

    def turned(flat: Array, key: Key) -> Array:
        return rotations.rotate(flat, jnp.stack(noise.seeds(key)), SIGNS_START, back=back)

    assert block == LONGEST_BLOCK
    return one_at_a_time(turned, flat, key)


def _signs(key: Key, like: Like) -> Array:
    words = noise.bits(key, (-(-like.size // WORD_BITS),), SIGNS_START)
    negative = unpack(words, 1, like.size) == 1
    return jnp.where(negative, -1, 1).astype(like.dtype)


def _hadamard(flat: Array, block: int) -> Array:
    """Every block times the orthonormal Hadamard matrix of its size, H_ab = H_a (x) H_b."""
    bits = block.bit_length() - 1
    left, right = (_matrix(k, flat.dtype) for k in (bits // 2, bits - bits // 2))
    squares = flat.reshape(-1, left.shape[0], right.shape[0])
    rows = jnp.matmul(squares, right, precision=lax.Precision.HIGHEST)
    return jnp.einsum('ab,nbc->nac', left, rows, precision=lax.Precision.HIGHEST).ravel()


def _matrix(bits: int, dtype: np.dtype) -> Array:
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.kron(matrix, [[1, 1], [1, -1]])
    return jnp.asarray(matrix / math.sqrt(len(matrix)), dtype)
