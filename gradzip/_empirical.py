"""Regularised least squares and logistic regression in float64: gradients, values, the optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CURVATURE = {'logistic': 0.25, 'least_squares': 1.0}  # largest second derivative of a loss
ACCURACY = 1e-12  # of the optimum: |grad F(x*)| against the size of the terms that cancel in it
_MOST_STEPS = 200


class Risk(NamedTuple):
    """Data dealt out to workers, with the weight of every example in its worker's loss."""

    kind: str
    x: np.ndarray  # f64[workers, rows, features]
    y: np.ndarray  # f64[workers, rows]
    weight: np.ndarray  # f64[workers, rows]
    lam: float


def losses(kind: str, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss of every example, where its features times the weights are z."""
    return np.logaddexp(0, -y * z) if kind == 'logistic' else (z - y) ** 2 / 2


def slopes(
    kind: str, z: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative of `losses` by z, times the weight of each example."""
    if kind == 'least_squares':
        return weight * (z - y), weight
    chance = np.exp(-np.logaddexp(0, y * z))  # of the wrong label
    return -weight * y * chance, weight * chance * (1 - chance)


def gradients(data: Risk, ridge: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Each worker's own: f64[workers, features]."""
    slope, _ = slopes(data.kind, data.x @ w, data.y, data.weight)
    return np.einsum('nr,nrd->nd', slope, data.x) + ridge * w


def value(data: Risk, w: np.ndarray) -> float:
    """F at w."""
    weighted = data.weight * losses(data.kind, data.x @ w, data.y)
    return float(np.sum(weighted) / len(data.x) + data.lam / 2 * (w @ w))


def gap(data: Risk, w0: np.ndarray, optimum: np.ndarray) -> float:
    """F(w0) - F*. For least squares without cancellation: half the Hessian's norm of w0 - w*."""
    if data.kind == 'logistic':
        return value(data, w0) - value(data, optimum)
    z = data.x @ (w0 - optimum)
    square = np.sum(data.weight * z**2) / len(data.x)
    return float(square / 2 + data.lam / 2 * np.sum((w0 - optimum) ** 2))


def optimum_of(data: Risk, start: np.ndarray) -> np.ndarray:
    """The minimum of F; of several, the one nearest to the start.

    Least squares are solved directly, logistic regression by Newton's method with halved steps. The
    minimisers of SciPy judge a step by values, which near the optimum differ by less than their
    rounding: they miss ACCURACY on badly scaled data.

    Raises:
      RuntimeError: the gradient is not as small as ACCURACY asks after many steps.
    """
    w, n = start, len(data.x)
    if data.kind == 'least_squares':
        root = np.sqrt(data.weight / n)
        ridge = math.sqrt(data.lam) * np.eye(len(w))
        rows = np.concatenate([(root[..., None] * data.x).reshape(-1, len(w)), ridge])
        target = np.concatenate([(root * data.y).ravel(), np.zeros(len(w))])
        return w + np.linalg.lstsq(rows, target - rows @ w, rcond=None)[0]
    for _ in range(_MOST_STEPS):
        slope, curvature = slopes(data.kind, data.x @ w, data.y, data.weight)
        gradient = np.tensordot(slope, data.x, 2) / n + data.lam * w
        if np.linalg.norm(gradient) <= ACCURACY * gradient_scale(data, w):
            return w
        rows = (np.sqrt(curvature / n)[..., None] * data.x).reshape(-1, len(w))
        hessian = rows.T @ rows + data.lam * np.eye(len(w))
        direction = np.linalg.solve(hessian, -gradient)
        w = descended(lambda w: value(data, w), w, gradient, direction)
    raise RuntimeError(f'Newton found no optimum in {_MOST_STEPS} steps; is x badly scaled?')


def gradient_scale(data: Risk, w: np.ndarray) -> float:
    """What cancels in a gradient at w: its rounding is about 1e-16 of this."""
    least_squares = data.kind == 'least_squares'
    slope = np.abs(data.x) @ np.abs(w) + np.abs(data.y) if least_squares else np.ones(data.y.shape)
    terms = np.einsum('nr,nrd->d', data.weight * slope, np.abs(data.x)) / len(data.x)
    return float(np.linalg.norm(terms + data.lam * np.abs(w)))


def descended(
    value_at: Callable[[np.ndarray], float],
    w: np.ndarray,
    gradient: np.ndarray,
    direction: np.ndarray,
) -> np.ndarray:
    """A step from w along a direction, halved until the value falls as Armijo's rule asks."""
    here, slope, length = value_at(w), float(gradient @ direction), 1.0
    rounding = 1e-14 * (1 + abs(here))
    while value_at(w + length * direction) > here + 1e-4 * length * slope + rounding:
        length /= 2
    return w + length * direction
