"""The constants of least squares and logistic regression on sparse data, which stay sparse.

Eigenvalues come from Lanczos' method and the optimum from Newton's method with conjugate gradients,
so that data are only multiplied by vectors: the time is that of some thousand such products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse import linalg as scipy_linalg

from gradzip._empirical import CURVATURE, descended, losses, slopes
from gradzip.theory._problem import Problem
from gradzip.theory._supports import graph_constants

linalg: Any = scipy_linalg  # what type checkers infer of it is too narrow
Matrix = Any  # scipy.sparse.csr_matrix, of whose shape they infer None
ACCURACY = 1e-10  # of the optimum: |grad F(x*)| against |grad F| with all labels' slopes one
_SMALL = 64  # a matrix of so many rows or columns is formed
_MOST_STEPS = 100


class Data(NamedTuple):
    """All rows below one another, and where each worker's begin."""

    kind: str
    x: Matrix  # f64[rows of all, features]
    y: np.ndarray  # f64[rows of all]
    weight: np.ndarray  # f64[rows of all], 1 / (n rows of its worker)
    starts: np.ndarray  # i64[workers + 1]
    lam: float


def measure_sparse(
    kind: str,
    xs: Sequence[Any],
    ys: Sequence[Any],
    lam: float,
    *,
    weight: Any = None,
    start: Any = None,
    split: bool = False,
) -> Problem:
    """Returns the constants. The arguments are those of `advice.measure`, the kind and lam checked.

    Raises:
      ValueError: as `advice.measure`; weights are given.
    """
    _check(kind, xs, ys, lam, weight, start, split)
    rows: list[Matrix] = [sp.csr_matrix(x, dtype=np.float64) for x in xs]
    counts = np.array([x.shape[0] for x in rows])
    weights = np.repeat(1 / (len(rows) * counts), counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    y = np.concatenate([np.asarray(y, np.float64) for y in ys])
    together: Matrix = sp.vstack(rows, format='csr')
    data = Data(kind, together, y, weights, starts, lam)
    n, d = len(rows), data.x.shape[1]
    touched = np.stack([np.bincount(x.indices[x.data != 0], minlength=d) > 0 for x in rows])
    on = touched if split or lam == 0 else np.ones_like(touched)
    shares = touched.sum(axis=0) if split else np.full(d, n)
    ridge = on * (lam * n / np.maximum(shares, 1))  # of each worker; its mean is lam
    c = CURVATURE[kind]
    each = np.array(
        [_largest(math.sqrt(c / x.shape[0]) * x, r) for x, r in zip(rows, ridge, strict=True)]
    )
    L = _largest(sp.diags(np.sqrt(c * weights)) @ data.x, np.full(d, lam))
    sigma, cov, wide, _ = graph_constants(on, each)
    w0 = np.zeros(d) if start is None else np.asarray(start, np.float64)
    optimum = _optimum(data, w0)
    gradients = _gradients(data, ridge, optimum)
    G = float(np.sum(gradients**2))
    if math.sqrt(G) <= n * ACCURACY * _scale(data):
        G = 0.0  # up to rounding, all workers have the same optimum
    V0 = float(np.sum((w0 - optimum) ** 2))
    F0 = min(max(_value(data, w0) - _value(data, optimum), lam * V0 / 2), L * V0 / 2)
    return Problem(
        n, L, min(lam, L), L_max=float(each.max()), L_mean=float(each.mean()),
        L_rms=float(np.sqrt(np.mean(each**2))), sigma=sigma, L_cov=cov, L_e=wide,
        G=G, V0=V0, F0=F0,
    )  # fmt: skip


def _check(kind: str, x: Any, y: Any, lam: float, weight: Any, start: Any, split: bool) -> None:
    """Checks shapes and values."""
    if weight is not None:
        raise ValueError('measure(weight=...) is for dense data: leave it out for sparse data.')
    shapes = [matrix.shape if sp.issparse(matrix) else None for matrix in x]
    labels = [np.shape(part) for part in y]
    if (
        None in shapes
        or len({shape[1] for shape in shapes if shape}) != 1
        or labels != [shape[:1] for shape in shapes if shape]
        or not all(shape[0] for shape in shapes if shape)
    ):
        raise ValueError(
            'measure needs one sparse matrix (rows, features) for each worker, with as many '
            'features for all and a row at least, and as many labels as rows; got shapes '
            f'{shapes} and {labels}.'
        )
    if not all(np.all(np.isfinite(a)) for a in (*(matrix.data for matrix in x), *y)):
        raise ValueError('measure needs finite x and y.')
    if kind == 'logistic' and not all(np.all(np.abs(part) == 1) for part in y):
        raise ValueError("measure('logistic') needs labels y of 1 and -1.")
    features = shapes[0][1] if shapes[0] else 0
    if start is not None and np.shape(start) != (features,):
        raise ValueError(
            f'measure(start=...) must be of shape {(features,)}; got {np.shape(start)}.'
        )
    if split and lam > 0 and not np.all(sum(np.diff(m.tocsc().indptr) for m in x) > 0):
        raise ValueError(
            'measure(split=True): no worker touches some coordinate, so no worker regularises it. '
            'Remove such columns of x, or pass split=False.'
        )


def _largest(rows: Matrix, ridge: np.ndarray) -> float:
    """Returns the largest eigenvalue of rows^T rows + diag(ridge)."""
    d = rows.shape[1]
    if d <= _SMALL:
        return float(np.linalg.eigvalsh((rows.T @ rows).toarray() + np.diag(ridge))[-1])
    apply = linalg.LinearOperator(
        (d, d), lambda v: rows.T @ (rows @ v) + ridge * v, dtype=np.float64
    )
    first = np.random.default_rng(0).normal(size=d)
    found = linalg.eigsh(apply, k=1, which='LA', v0=first, tol=1e-12, return_eigenvectors=False)
    return float(found[0])


def _slopes(data: Data, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return slopes(data.kind, data.x @ w, data.y, data.weight)


def _gradients(data: Data, ridge: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Each worker's own: f64[workers, features]."""
    slope, out = len(ridge) * _slopes(data, w)[0], ridge * w
    for i, (a, b) in enumerate(zip(data.starts, data.starts[1:], strict=False)):
        out[i] += data.x[a:b].T @ slope[a:b]
    return out


def _value(data: Data, w: np.ndarray) -> float:
    return float(data.weight @ losses(data.kind, data.x @ w, data.y) + data.lam / 2 * (w @ w))


def _scale(data: Data) -> float:
    """The size of the terms that cancel in a gradient of F."""
    slope = np.ones_like(data.y) if data.kind == 'logistic' else np.abs(data.y)
    return float(np.linalg.norm(abs(data.x).T @ (data.weight * slope)))


def _optimum(data: Data, w: np.ndarray) -> np.ndarray:
    """The minimum of F; of several, the one nearest to the start.

    Raises:
      RuntimeError: the gradient is not as small as ACCURACY asks after many steps.
    """
    limit = ACCURACY * _scale(data)
    for _ in range(_MOST_STEPS):
        slope, curvature = _slopes(data, w)
        gradient = data.x.T @ slope + data.lam * w
        if np.linalg.norm(gradient) <= limit:
            return w
        w = _step(data, w, gradient, _hessian(data, curvature), limit)
    raise RuntimeError(f'Newton found no optimum in {_MOST_STEPS} steps; is x badly scaled?')


def _hessian(data: Data, curvature: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda v: data.x.T @ (curvature * (data.x @ v)) + data.lam * v


def _step(
    data: Data, w: np.ndarray, gradient: np.ndarray, hessian: Callable, limit: float
) -> np.ndarray:
    """A step of Newton's method."""
    apply = linalg.LinearOperator((len(w), len(w)), hessian, dtype=np.float64)
    most = 20 * len(w) + 100
    direction, _ = linalg.cg(apply, -gradient, rtol=1e-6, atol=limit / 10, maxiter=most)
    return descended(lambda w: _value(data, w), w, gradient, direction)
