"""Products of a large matrix and a narrow one, in the layouts that are fast on every platform.

On CPU, XLA multiplies row-major matrices of these shapes at the speed of memory. The product of a
transposed large matrix and a narrow one takes two to twelve times as long as its transpose does.
"""

from __future__ import annotations

import jax.numpy as jnp

from gradzip._base import Array
from gradzip._kernels.platform import choose

UNROLLED_UP_TO = 16  # columns; a product of more takes longer than writing and reading its result


def project(m: Array, q: Array) -> Array:
    """M Q: f[rows, rank]."""
    return _matmul(m, q)


def project_rows(m: Array, p: Array) -> Array:
    """The transpose of M^T P, which is P^T M: f[rank, columns]."""
    return _matmul(p.T, m)


def expand(p: Array, q: Array) -> Array:
    """P Q, of P f[rows, rank] and Q f[rank, columns].

    The CPU form is a sum of products of columns and rows. XLA fuses it into what uses the result,
    which is then not stored.
    """
    if p.shape[1] > UNROLLED_UP_TO:
        return _matmul(p, q)
    return choose(p, q, cpu=_expand_on_cpu, default=_matmul)


def _expand_on_cpu(p: Array, q: Array) -> Array:
    total = p[:, :1] * q[:1]
    for i in range(1, p.shape[1]):
        total += p[:, i : i + 1] * q[i : i + 1]
    return total


def _matmul(a: Array, b: Array) -> Array:
    """Multiplies in full precision, since accelerators would round float32 factors otherwise."""
    return jnp.matmul(a, b, precision='highest')
