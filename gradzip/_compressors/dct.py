"""Compression of a cosine transform."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, Key, Like, Payload, like_of, widest
from gradzip._compose import Wrapper


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

    def _transform(self, x: Array, *, inverse: bool) -> Array:
        """D x or D' x, block by block: f[n]."""
        flat = x.ravel().astype(self.inner_like(like_of(x)).dtype)
        whole = flat.size // self.block * self.block
        head = _rotated(flat[:whole].reshape(-1, self.block), inverse).ravel()
        if whole == flat.size:
            return head
        return jnp.concatenate([head, _rotated(flat[whole:].reshape(1, -1), inverse).ravel()])


def _rotated(rows: Array, inverse: bool) -> Array:
    matrix = jnp.asarray(_matrix(rows.shape[1]), rows.dtype)
    # With the default precision of some accelerators, entries would be rounded to bfloat16, and
    # the transform would not be orthonormal.
    return jnp.matmul(rows, matrix if inverse else matrix.T, precision=lax.Precision.HIGHEST)


def _matrix(size: int) -> np.ndarray:
    """The orthonormal DCT-II, one coefficient in each row: f64[size, size]."""
    i = np.arange(size)
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * i + 1) * i[:, None] / (2 * size))
    matrix[0] = np.sqrt(1 / size)
    return matrix
