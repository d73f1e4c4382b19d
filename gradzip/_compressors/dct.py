"""Compression of a cosine transform."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, Key, Like, Payload, like_of, widest, with_memory
from gradzip._compose import Wrapper
from gradzip._kernels.fused import LANES
from gradzip._kernels.platform import choose

WIDE_FROM = 1 << 16  # entries; programs for TPU get other forms for larger leaves


@dataclasses.dataclass(frozen=True)
class DCT(Wrapper):
    """Applies the orthonormal DCT-II to every block of the flat array, then `compressor`.

    Coefficient j of a block of b entries is y_j = s_j sum_i x_i cos(pi (2 i + 1) j / 2 b), with
    s_0 = sqrt(1 / b) and s_j = sqrt(2 / b) for j > 0. A last, shorter block has a transform of its
    own length, so that there are as many coefficients as entries. `DCT(BlockTopK(k, block), block)`
    keeps the k strongest frequencies of every block.

    Args:
      compressor: a compressor of the flat coefficients in at least float32.
      block: entries that are transformed together, 1 to 4096.

    Payload: that of the wrapped compressor.

    Guarantee: delta and omega of the wrapped compressor, up to rounding, because an orthonormal
      transform preserves distances: |x - D'C(Dx)| = |Dx - C(Dx)|. NaN or infinity spreads over its
      block.

    Raises:
      ValueError: block is out of range.
      TypeError: compressor is not a Compressor, or block is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> scheme, key = gz.DCT(gz.BlockTopK(1, 4), block=4), jax.random.key(0)
      >>> scheme.encode(jnp.full(8, 3.0), key).values  # a constant is one frequency
      Array([6., 6.], dtype=float32)

    Reference: Peng, Quesnelle, Kingma, arXiv 2411.19870 (DeMo). Its chunks are two-dimensional
      where a leaf is a matrix; here they are consecutive entries of the flat array.
    """

    block: int

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer('DCT', 'block', self.block, 1, 4096)

    def inner_like(self, like: Like) -> Like:
        return Like((like.size,), widest(jnp.float32, like.dtype))

    def encode(self, x: Array, key: Key) -> Payload:
        return self.compressor.encode(self._transform(x, inverse=False), key)

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        return self._back(self.compressor.decode(payload, self.inner_like(like), key), like)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        return self._back(self.compressor.decode_mean(payloads, self.inner_like(like), keys), like)

    def _back(self, coefficients: Array, like: Like) -> Array:
        return self._transform(coefficients, inverse=True).reshape(like.shape).astype(like.dtype)

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Payload, Array]:
        x = with_memory(x, memory)
        if x.size <= WIDE_FROM or x.dtype != self.inner_like(like_of(x)).dtype:
            return super().message(x, key)
        return choose(x, key, default=_message, tpu=_message_in_turn, how=self)

    def _transform(self, x: Array, *, inverse: bool) -> Array:
        """D x or D' x, block by block: f[n]."""
        flat = x.ravel().astype(self.inner_like(like_of(x)).dtype)
        whole = flat.size // self.block * self.block
        head = self._whole_blocks(flat[:whole], inverse)
        if whole == flat.size:
            return head
        return jnp.concatenate([head, _rotated(flat[whole:].reshape(1, -1), inverse).ravel()])

    def _whole_blocks(self, flat: Array, inverse: bool) -> Array:
        how = {'block': self.block, 'inverse': inverse}
        if flat.size <= WIDE_FROM or LANES % self.block or flat.size % LANES:
            return _in_rows(flat, **how)
        return choose(flat, default=_in_rows, tpu=_in_lanes, **how)


def _message(x: Array, key: Key, *, how: DCT) -> tuple[Payload, Array]:
    return Wrapper.message(how, x, key)


def _message_in_turn(x: Array, key: Key, *, how: DCT) -> tuple[Payload, Array]:
    """The same with x - D'C(D x) = D'(D x - C(D x)), which needs no decoding."""
    payload, lost = how.compressor.message(how._transform(x, inverse=False), key)
    return payload, how._back(lost, like_of(x))


def _in_rows(flat: Array, *, block: int, inverse: bool) -> Array:
    return _rotated(flat.reshape(-1, block), inverse).ravel()


def _in_lanes(flat: Array, *, block: int, inverse: bool) -> Array:
    """The transforms of the blocks in rows of 128 entries, as one product.

    TPU keeps rows of 128 entries without padding.
    """
    matrix = np.kron(np.eye(LANES // block), _matrix(block))
    rows = lax.optimization_barrier(flat).reshape(-1, LANES)
    return _product(rows, matrix, inverse).ravel()


def _rotated(rows: Array, inverse: bool) -> Array:
    return _product(rows, _matrix(rows.shape[1]), inverse)


def _product(rows: Array, matrix: np.ndarray, inverse: bool) -> Array:
    # With the default precision of some accelerators, entries would be rounded to bfloat16, and
    # the transform would not be orthonormal.
    right = jnp.asarray(matrix if inverse else matrix.T, rows.dtype)
    return jnp.matmul(rows, right, precision=lax.Precision.HIGHEST)


def _matrix(size: int) -> np.ndarray:
    """The orthonormal DCT-II, one coefficient in each row: f64[size, size]."""
    i = np.arange(size)
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * i + 1) * i[:, None] / (2 * size))
    matrix[0] = np.sqrt(1 / size)
    return matrix
