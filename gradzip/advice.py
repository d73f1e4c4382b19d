"""Computes the constants of a problem from its data, and ranks what to run on it.

`measure` returns what `gradzip.theory` needs, and `rank` asks its theorems about every scheme.

    f_i(w) = sum_r weight_ir loss(<x_ir, w>, y_ir) + (lam/2) |w|^2,     F = (1/n) sum_i f_i

The constants are known exactly for two losses: logistic regression, loss = softplus(-y z), and
least squares, loss = (z - y)^2 / 2. All computations are NumPy in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from gradzip import _checks as checks
from gradzip._empirical import (
    ACCURACY,
    CURVATURE,
    Risk,
    gap,
    gradient_scale,
    gradients,
    optimum_of,
    slopes,
)
from gradzip._ranking.rank import rank as rank
from gradzip._ranking.table import Choice as Choice, Ranking as Ranking
from gradzip._sparse_measure import measure_sparse
from gradzip.theory import Problem


def measure(
    kind: str,
    x: Any,
    y: Any,
    regularisation: float = 0.0,
    *,
    weight: Any = None,
    start: Any = None,
    split: bool = False,
    within: float | None = None,
) -> Problem:
    """Computes the exact constants of logistic regression or least squares over several workers.

    Args:
      kind: 'logistic' (y is 1 or -1) or 'least_squares'.
      x: f[workers, rows, features], the examples of each worker, as a dense array. The time grows
        with features^3. Or a list with one matrix of scipy.sparse for each worker, of any number of
        rows, which stay sparse: mu is then the l2 term alone.
      y: f[workers, rows], labels or targets; for sparse data, a list of one array for each worker.
      regularisation: lam, at least 0. It must be above 0 for logistic regression, which need not
        have an optimum without it.
      weight: f[workers, rows], the weight of each example in the loss of its worker, 0 for
        padding. The default is 1 / rows, which sparse data always have.
      start: x_0, f[features]. The default is zeros.
      split: if False, each worker holds (lam/2) |w|^2. If True, a worker regularises only the
        coordinates that its own rows touch, with n lam / c_j in place of lam, where c_j workers
        touch coordinate j. F is the same, but the conflict graph of sparse data stays sparse: a
        worker that regularises every coordinate is in conflict with all others. Without
        regularisation it changes nothing.
      within: a distance from x*, at least |x_0 - x*|, that no x_k of the run exceeds. mu is then
        the smallest curvature in that ball, to which the logistic loss adds where the features have
        full rank. The theorems use mu between x_k and x* only. Exact gradient descent with a step
        up to 2 / L never moves away from x*, so that |x_0 - x*| is enough. Of random or late
        gradients it is an assumption, which a run can be checked for. Least squares have the same
        curvature everywhere.

    Returns:
      A `theory.Problem` with every field set. L and the L_i are attained at some w. mu is the
      smallest curvature of F anywhere, which is lam for logistic regression, whose curvature
      approaches lam far from the optimum. If there are several optima, x* is the one nearest to
      `start`.

    Raises:
      ValueError: the kind is unknown, a shape is wrong, a value is not finite, a label is neither
        1 nor -1, a weight is negative, a worker has no examples, split is True and no worker
        touches some coordinate, logistic regression has no regularisation, or within is below
        |x_0 - x*| or given for sparse data.
      TypeError: regularisation is not a number, or split is not True or False.

    Example:
      >>> import numpy as np, gradzip as gz
      >>> from gradzip import advice, theory
      >>> x, y = np.array([[[1.0, 0.0]], [[0.0, 2.0]]]), np.array([[1.0], [-1.0]])
      >>> problem = advice.measure('least_squares', x, y, 0.5, split=True)
      >>> [round(c, 6) for c in (problem.L, problem.mu, problem.L_max)]
      [2.5, 1.0, 5.0]
      >>> problem.sigma, problem.L_cov  # the workers touch different coordinates
      (1.0, 2.5)
      >>> omega = gz.RandK(0.5).omega(np.zeros(2))
      >>> round(theory.stale(problem, omega, tau=3).step_size, 4)
      0.0649

    Reference: the quantities of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573, and of their
      CDC 2017 paper on data sparsity.
    """
    checks.one_of('measure', 'kind', kind, tuple(CURVATURE))
    if not isinstance(split, bool | np.bool_):
        raise TypeError(f'measure(split=...) must be True or False; got {split!r}.')
    lam = _regularisation(kind, regularisation)
    if isinstance(x, list | tuple) and any(map(sp.issparse, x)):
        if within is not None:
            raise ValueError('measure(within=...) is for dense data: leave it out for sparse data.')
        return measure_sparse(kind, x, y, lam, weight=weight, start=start, split=split)
    data = _data(kind, x, y, lam, weight)
    touched = np.any((data.x != 0) & (data.weight > 0)[..., None], axis=1)  # b[workers, features]
    ridge, support = _regulariser(data, touched, split)
    w0 = np.zeros(data.x.shape[2]) if start is None else np.asarray(start, np.float64)
    if w0.shape != data.x.shape[2:] or not np.all(np.isfinite(w0)):
        raise ValueError(
            f'measure(start=...) must be finite and of shape {data.x.shape[2:]}, one number for '
            f'each feature; got shape {w0.shape}.'
        )
    optimum = optimum_of(data, w0)
    G = float(np.sum(gradients(data, ridge, optimum) ** 2))
    if math.sqrt(G) <= len(data.x) * ACCURACY * gradient_scale(data, optimum):
        G = 0.0  # up to rounding, all workers have the same optimum
    curvatures = _curvatures(data, ridge, support)
    V0 = float(np.sum((w0 - optimum) ** 2))
    if within is not None:
        added = _curvature_within(data, optimum, _radius(within, math.sqrt(V0)))
        curvatures['mu'] = min(max(curvatures['mu'], data.lam + added), curvatures['L'])
    # Close to the optimum, rounding can move F0 out of the range that curvature allows.
    F0 = min(max(gap(data, w0, optimum), curvatures['mu'] * V0 / 2), curvatures['L'] * V0 / 2)
    return Problem(len(data.x), **curvatures, G=G, V0=V0, F0=F0)


def _data(kind: str, x: Any, y: Any, lam: float, weight: Any) -> Risk:
    """Returns the arrays in float64, after checking their shapes and values."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 3 or y.shape != x.shape[:2] or x.size == 0:
        raise ValueError(
            'measure needs x of shape (workers, rows, features) and y of shape (workers, rows), '
            f'not empty; got {x.shape} and {y.shape}. For one worker pass x[None] and y[None].'
        )
    weight = np.full(y.shape, 1 / y.shape[1]) if weight is None else np.asarray(weight, np.float64)
    if weight.shape != y.shape or not np.all(weight >= 0) or not np.all(weight.sum(axis=1) > 0):
        raise ValueError(
            f'measure(weight=...) must have the shape of y, {y.shape}, and be at least 0, and each '
            f'worker needs a row whose weight is above 0; got shape {weight.shape}.'
        )
    used = weight > 0
    if not (np.all(np.isfinite(x[used])) and np.all(np.isfinite(y[used] * weight[used]))):
        raise ValueError('measure needs finite x, y and weight wherever weight is not 0.')
    if kind == 'logistic' and not np.all(np.abs(y[used]) == 1):
        raise ValueError("measure('logistic') needs labels y of 1 and -1.")
    return Risk(kind, np.where(used[..., None], x, 0), np.where(used, y, 0), weight, lam)


def _regularisation(kind: str, lam: Any) -> float:
    lam = checks.real('measure', 'regularisation', lam)
    if not (math.isfinite(lam) and lam >= 0):
        raise ValueError(f'measure(regularisation=...) must be at least 0; got {lam}.')
    if kind == 'logistic' and lam == 0:
        raise ValueError(
            'measure(regularisation=...) must be above 0 for logistic regression, which need not '
            'have an optimum without it. Pass a small number, such as 1e-3.'
        )
    return lam


def _regulariser(data: Risk, touched: np.ndarray, split: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the l2 weights of each worker and the coordinates on which its loss depends.

    Both have shape [workers, features].
    """
    if data.lam == 0:
        return np.zeros(touched.shape), touched
    if not split:
        return np.full(touched.shape, data.lam), np.ones_like(touched)
    workers_on = touched.sum(axis=0)  # c_j
    if not np.all(workers_on):
        raise ValueError(
            f'measure(split=True): no worker touches coordinate {int(np.argmin(workers_on))}, so '
            'no worker regularises it, and F is not strongly convex. Remove such columns of x, or '
            'pass split=False.'
        )
    return touched * data.lam * len(touched) / workers_on, touched


def _curvatures(data: Risk, ridge: np.ndarray, support: np.ndarray) -> dict[str, float]:
    """Returns L, mu, L_max, L_mean and L_rms, and the constants of the conflict graph."""
    n, d = ridge.shape
    rows = np.sqrt(CURVATURE[data.kind] * data.weight)[..., None] * data.x
    each = np.array([_largest(a, own) for a, own in zip(rows, ridge, strict=True)])
    spectrum = np.linalg.svd(rows.reshape(-1, d) / math.sqrt(n), compute_uv=False) ** 2
    smallest = spectrum[d - 1] if len(spectrum) >= d else 0.0
    if smallest < 1e-14 * d * spectrum[0] or data.kind == 'logistic':
        smallest = 0.0  # it is rounding, or curvature that vanishes far from the optimum
    conflict = (support.astype(np.float64) @ support.T > 0) | np.eye(n, dtype=bool)  # I + A
    sigma = float(np.linalg.eigvalsh(conflict.astype(np.float64))[-1])
    mean = float(each.mean())
    L = float(spectrum[0]) + data.lam  # with split=True too, the mean of the l2 terms is lam
    widest = math.sqrt(sigma * np.max(each**2 @ support)) / n
    return {
        'L': L,
        'mu': min(float(smallest) + data.lam, L),
        'L_max': float(each.max()),
        'L_mean': mean,
        'L_rms': math.sqrt(float(np.mean(each**2))),
        'sigma': min(max(round(sigma, 12), 1.0), float(n)),
        'L_cov': float(np.max(each @ support)) / n,
        'L_e': min(mean, widest),
    }


def _radius(within: Any, distance: float) -> float:
    radius = checks.real('measure', 'within', within)
    if not distance * (1 - 1e-9) <= radius < math.inf:
        raise ValueError(
            f'measure(within=...) must be at least |x_0 - x*| = {distance:.6g}; got {within!r}.'
        )
    return radius


def _curvature_within(data: Risk, optimum: np.ndarray, radius: float) -> float:
    """Returns a lower bound on the curvature of the mean loss, without l2 term, in the ball."""
    n, _, d = data.x.shape
    reach = np.abs(data.x @ optimum) + radius * np.linalg.norm(data.x, axis=2)  # of |<x, w>|
    _, least = slopes(data.kind, reach, np.ones_like(reach), data.weight)  # it falls with |z|
    rows = (np.sqrt(least / n)[..., None] * data.x).reshape(-1, d)
    spectrum = np.linalg.svd(rows, compute_uv=False)
    smallest = spectrum[d - 1] ** 2 if len(spectrum) >= d else 0.0
    return 0.0 if smallest < 1e-14 * d * spectrum[0] ** 2 else float(smallest)


def _largest(rows: np.ndarray, ridge: np.ndarray) -> float:
    """Returns the largest eigenvalue of rows^T rows + diag(ridge), by the cheaper of two ways."""
    if np.ptp(ridge) == 0:
        return float(np.linalg.norm(rows, 2) ** 2 + ridge[0])
    on = ridge > 0  # the coordinates that the rows touch
    return float(np.linalg.eigvalsh(rows[:, on].T @ rows[:, on] + np.diag(ridge[on]))[-1])
