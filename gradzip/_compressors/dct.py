"""Compression of frequencies instead of entries."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, Compressor, Key, Like, Payload, check_compressor, like_of, widest


@dataclasses.dataclass(frozen=True)
class DCT(Compressor):
    """Applies the orthonormal DCT-II to every block of the flat array, and `inner` to the result.

    Coefficient j of a block of b entries is y_j = s_j sum_i x_i cos(pi (2 i + 1) j / 2 b), with
    s_0 = sqrt(1 / b) and sqrt(2 / b) for the others. A last, shorter block has a transform of its
    own length, so there are as many coefficients as entries. `DCT(BlockTopK(k, block), block)`
    keeps the k strongest frequencies of every block.

    Args:
      inner: a compressor, of the flat coefficients in at least float32.
      block: entries that are transformed together, 1 to 4096.

    Payload: the inner compressor's.

    Guarantee: the inner compressor's delta and omega, because an orthonormal transform changes no
      distance: |x - D'C(Dx)| = |Dx - C(Dx)|. Up to rounding. One NaN or infinity spreads over its
      block.

    Raises:
      ValueError: block out of range.
      TypeError: inner is not a Compressor, or block not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> scheme, key = gz.DCT(gz.BlockTopK(1, 4), block=4), jax.random.key(0)
      >>> scheme.encode(jnp.full(8, 3.0), key).values  # a constant is one frequency
      Array([6., 6.], dtype=float32)

    Reference: Peng, Quesnelle, Kingma, arXiv 2411.19870 (DeMo), whose chunks are two-dimensional
      where a leaf is a matrix; here they are of the flat array.
    """

    inner: Compressor
    block: int

    def __post_init__(self) -> None:
        check_compressor('DCT', 'inner', self.inner)
        checks.integer('DCT', 'block', self.block, 1, 4096)

    @property
    def linear(self) -> bool:
        return self.inner.linear

    @property
    def random(self) -> bool:
        return self.inner.random

    def encode(self, x: Array, key: Key) -> Payload:
        return self.inner.encode(self._transform(x, inverse=False), key)

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        return self._back(self.inner.decode(payload, _coefficients(like), key), like)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        return self._back(self.inner.decode_mean(payloads, _coefficients(like), keys), like)

    def delta(self, like: Like) -> float | None:
        return self.inner.delta(_coefficients(like))

    def omega(self, like: Like) -> float | None:
        return self.inner.omega(_coefficients(like))

    def scaled(self, payload: Payload, factor: Array | float) -> Payload:
        return self.inner.scaled(payload, factor)

    def contractive(self) -> Compressor:
        return DCT(self.inner.contractive(), self.block)

    def _back(self, coefficients: Array, like: Like) -> Array:
        return self._transform(coefficients, inverse=True).reshape(like.shape).astype(like.dtype)

    def _transform(self, x: Array, *, inverse: bool) -> Array:
        """D x or D' x, block by block: f[n]."""
        flat = x.ravel().astype(_coefficients(like_of(x)).dtype)
        whole = flat.size // self.block * self.block
        head = _rotated(flat[:whole].reshape(-1, self.block), inverse).ravel()
        if whole == flat.size:
            return head
        return jnp.concatenate([head, _rotated(flat[whole:].reshape(1, -1), inverse).ravel()])


def _coefficients(like: Like) -> Like:
    return Like((like.size,), widest(jnp.float32, like.dtype))


def _rotated(rows: Array, inverse: bool) -> Array:
    matrix = jnp.asarray(_matrix(rows.shape[1]), rows.dtype)
    # Full precision: an accelerator's default would round to bfloat16, and nothing be orthonormal.
    return jnp.matmul(rows, matrix if inverse else matrix.T, precision=lax.Precision.HIGHEST)


def _matrix(size: int) -> np.ndarray:
    """The orthonormal DCT-II, a coefficient a row: f64[size, size]."""
    i = np.arange(size)
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * i + 1) * i[:, None] / (2 * size))
    matrix[0] = np.sqrt(1 / size)
    return matrix
