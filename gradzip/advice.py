"""What a problem is like: its constants, for `gradzip.theory`, from the data that define it.

    f_i(w) = sum_r weight_ir loss(<x_ir, w>, y_ir) + (lam/2) |w|^2,     F = (1/n) sum_i f_i

for the two families whose constants are known exactly: logistic regression, loss = softplus(-y z),
and least squares, loss = (z - y)^2 / 2. Everything is NumPy in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradzip import _checks as checks
from gradzip._empirical import ACCURACY, Risk, gap, gradient_scale, gradients, optimum_of
from gradzip.theory import Problem

_CURVATURE = {'logistic': 0.25, 'least_squares': 1.0}  # largest second derivative of the loss


def measure(
    kind: str,
    x: Any,
    y: Any,
    regularisation: float = 0.0,
    *,
    weight: Any = None,
    start: Any = None,
    split: bool = False,
) -> Problem:
    """The exact constants of logistic regression or least squares, dealt out to workers.

    Args:
      kind: 'logistic' (y is 1 or -1) or 'least_squares'.
      x: f[workers, rows, features], each worker's examples, dense: time grows with features^3.
      y: f[workers, rows], labels or targets.
      regularisation: lam, at least 0; above 0 for logistic regression, which without it need not
        have an optimum.
      weight: f[workers, rows], what an example counts in its worker's loss, 0 for padding; by
        default 1 / rows.
      start: x_0, f[features]; zeros by default.
      split: False: every worker holds (lam/2) |w|^2. True: a worker regularises only coordinates
        that its own rows touch, with n lam / c_j instead of lam where c_j workers touch j. F is the
        same, but sparse data then keep the conflict graph sparse: a worker that regularises
        everything is in conflict with all. Without regularisation nothing is to be split.

    Returns:
      A `theory.Problem` with every field set. L is attained at some w, and so are the L_i; mu is
      the smallest curvature of F anywhere: for logistic regression lam, which it approaches far
      away. Of several optima the one nearest to `start` is taken.

    Raises:
      ValueError: an unknown kind, wrong shapes, values that are not finite, labels other than 1
        and -1, negative weights, a worker without examples; split where no worker touches a
        coordinate; logistic regression without regularisation.
      TypeError: regularisation is not a number.

    Example:
      >>> import numpy as np, gradzip as gz
      >>> from gradzip import advice, theory
      >>> x, y = np.array([[[1.0, 0.0]], [[0.0, 2.0]]]), np.array([[1.0], [-1.0]])
      >>> problem = advice.measure('least_squares', x, y, 0.5, split=True)
      >>> [round(c, 6) for c in (problem.L, problem.mu, problem.L_max)]
      [2.5, 1.0, 5.0]
      >>> problem.sigma, problem.L_cov  # the workers touch nothing in common
      (1.0, 2.5)
      >>> omega = gz.RandK(0.5).omega(np.zeros(2))
      >>> round(theory.stale(problem, omega, tau=3).step_size, 4)
      0.05

    Reference: the quantities of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573, and of their
      CDC 2017 paper on data sparsity.
    """
    checks.one_of('measure', 'kind', kind, tuple(_CURVATURE))
    data = _data(kind, x, y, regularisation, weight)
    touched = np.any((data.x != 0) & (data.weight > 0)[..., None], axis=1)  # b[workers, features]
    ridge, support = _regulariser(data, touched, split)
    w0 = np.zeros(data.x.shape[2]) if start is None else np.asarray(start, np.float64)
    if w0.shape != data.x.shape[2:] or not np.all(np.isfinite(w0)):
        raise ValueError(f'measure(start=...) must be finite, {data.x.shape[2:]}; got {w0.shape}.')
    optimum = optimum_of(data, w0)
    G = float(np.sum(gradients(data, ridge, optimum) ** 2))
    if math.sqrt(G) <= len(data.x) * ACCURACY * gradient_scale(data, optimum):
        G = 0.0  # the workers agree on the optimum, but for rounding
    return Problem(
        len(data.x),
        **_curvatures(data, ridge, support),
        G=G,
        V0=float(np.sum((w0 - optimum) ** 2)),
        F0=max(0.0, gap(data, w0, optimum)),
    )


def _data(kind: str, x: Any, y: Any, lam: Any, weight: Any) -> Risk:
    """Arrays in float64, of shapes and values that make sense."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    lam = checks.real('measure', 'regularisation', lam)
    if not (math.isfinite(lam) and lam >= 0):
        raise ValueError(f'measure(regularisation=...) must be at least 0; got {lam}.')
    if kind == 'logistic' and lam == 0:
        raise ValueError(
            'measure(regularisation=...) must be above 0 for logistic regression, which need not '
            'have an optimum without it. Pass a small one, such as 1e-3.'
        )
    if x.ndim != 3 or y.shape != x.shape[:2] or x.size == 0:
        raise ValueError(
            'measure needs x of shape (workers, rows, features) and y of shape (workers, rows), '
            f'not empty; got {x.shape} and {y.shape}. One worker is x[None], y[None].'
        )
    weight = np.full(y.shape, 1 / y.shape[1]) if weight is None else np.asarray(weight, np.float64)
    if weight.shape != y.shape or not np.all(weight >= 0) or not np.all(weight.sum(axis=1) > 0):
        raise ValueError(
            f'measure(weight=...) must have the shape of y, {y.shape}, be at least 0, and above 0 '
            f'for some row of every worker; got shape {weight.shape}.'
        )
    used = weight > 0
    if not (np.all(np.isfinite(x[used])) and np.all(np.isfinite(y[used] * weight[used]))):
        raise ValueError('measure needs finite x, y and weight wherever weight is not 0.')
    if kind == 'logistic' and not np.all(np.abs(y[used]) == 1):
        raise ValueError("measure('logistic') needs labels y of 1 and -1.")
    return Risk(kind, np.where(used[..., None], x, 0), np.where(used, y, 0), weight, lam)


def _regulariser(data: Risk, touched: np.ndarray, split: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each worker's own l2 weights, f64[workers, features], and what its loss depends on."""
    if data.lam == 0:
        return np.zeros(touched.shape), touched
    if not split:
        return np.full(touched.shape, data.lam), np.ones_like(touched)
    workers_on = touched.sum(axis=0)  # c_j
    if not np.all(workers_on):
        raise ValueError(
            f'measure(split=True): no worker touches coordinate {int(np.argmin(workers_on))}, so '
            'none regularises it and F is not strongly convex. Drop such columns of x, or pass '
            'split=False.'
        )
    return touched * data.lam * len(touched) / workers_on, touched


def _curvatures(data: Risk, ridge: np.ndarray, support: np.ndarray) -> dict[str, float]:
    """L, mu, L_max, L_mean, L_rms and what the conflict graph makes of them."""
    n, d = ridge.shape
    rows = np.sqrt(_CURVATURE[data.kind] * data.weight)[..., None] * data.x
    each = np.array([_largest(a, own) for a, own in zip(rows, ridge, strict=True)])
    spectrum = np.linalg.svd(rows.reshape(-1, d) / math.sqrt(n), compute_uv=False) ** 2
    smallest = spectrum[d - 1] if len(spectrum) >= d else 0.0
    if smallest < 1e-14 * d * spectrum[0] or data.kind == 'logistic':
        smallest = 0.0  # rounding; or curvature that vanishes far from the optimum
    conflict = (support.astype(np.float64) @ support.T > 0) | np.eye(n, dtype=bool)  # I + A
    sigma = float(np.linalg.eigvalsh(conflict.astype(np.float64))[-1])
    mean = float(each.mean())
    L = float(spectrum[0]) + data.lam  # the shares of the regulariser add up to lam everywhere
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


def _largest(rows: np.ndarray, ridge: np.ndarray) -> float:
    """Largest eigenvalue of rows^T rows + diag(ridge), from the smaller of two matrices."""
    if np.ptp(ridge) == 0:
        return float(np.linalg.norm(rows, 2) ** 2 + ridge[0])
    on = ridge > 0  # all that the rows touch
    return float(np.linalg.eigvalsh(rows[:, on].T @ rows[:, on] + np.diag(ridge[on]))[-1])
