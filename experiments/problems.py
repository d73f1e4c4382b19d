"""l2-regularised linear models split over workers, and their optimum, in NumPy and float64.

    F(w) = (1/n) sum_i f_i(w),   f_i(w) = (1/m_i) sum_j loss(<x_ij, w>, y_ij) + (lam/2) |w|^2

with loss softplus(-y z) for two classes, y = -1 or +1, and (z - y)^2 / 2 for least squares.

Worker i holds m_i shuffled examples; m_i differ by at most one, and every example is held. So an
example of worker i weighs 1 / (n m_i): F is exactly what the workers optimise, uneven splits too.
Nothing here knows JAX: it is the independent judge of what the simulation finds.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import scipy.sparse.linalg as spl
from scipy.special import expit

from experiments.data import Data, Kind, Matrix

# lam as a share of the data term's smoothness: a condition number of 101 for every data set, so
# that they are comparable and gradient descent with step 1/L needs hundreds of iterations.
REGULARISATION = 0.01
CURVATURE = {'logistic': 0.25, 'least_squares': 1.0}  # largest second derivative of the loss
ACCURACY = 1e-13  # of F*, proven by |grad F|^2 / (2 lam); float64 itself ends near 1e-16
MOST_NEWTON_STEPS = 100  # about ten are taken
LinearOperator: Any = spl.LinearOperator  # its type omits the arguments by which one is made


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The examples as workers hold them, worker by worker.

    For two classes the rows of `a` are y x, and `y` is 1: the loss asks for no more than y x.
    """

    name: str
    kind: Kind
    a: Matrix  # f64[examples, features]
    y: np.ndarray  # f64[examples]
    sizes: tuple[int, ...]  # examples of each worker
    regularisation: float = REGULARISATION  # lam as a share of the data term's smoothness

    @property
    def workers(self) -> int:
        return len(self.sizes)

    @property
    def features(self) -> int:
        return self.a.shape[1]

    def by_worker(self, rows: Any) -> list[Any]:
        """What each worker holds of an array with a row an example."""
        ends = np.cumsum(self.sizes)
        return [rows[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]

    @functools.cached_property
    def weight(self) -> np.ndarray:
        """1 / (n m_i), one for each example: f64[examples]."""
        return np.repeat([1 / (self.workers * size) for size in self.sizes], self.sizes)

    @functools.cached_property
    def lam(self) -> float:
        return self.regularisation * self._data_smoothness

    @functools.cached_property
    def smoothness(self) -> float:
        """L of F: the Hessian is at most A^T diag(weight) A loss'' + lam."""
        return self._data_smoothness + self.lam

    @functools.cached_property
    def _data_smoothness(self) -> float:
        root = np.sqrt(CURVATURE[self.kind] * self.weight)[:, None]
        if isinstance(self.a, np.ndarray):
            return float(np.linalg.norm(root * self.a, 2) ** 2)
        rows = self.a.multiply(root).tocsr()
        start = np.ones(min(self.a.shape))  # ARPACK draws one at random otherwise
        largest = spl.svds(rows, k=1, v0=start, return_singular_vectors=False)
        return float(np.asarray(largest)[0] ** 2)

    def value(self, ws: np.ndarray) -> np.ndarray:
        """F at each row of ws: f64[..., features] -> f64[...]."""
        margins = (self.a @ ws.reshape(-1, self.features).T).T.reshape(*ws.shape[:-1], -1)
        squares = self.kind == 'least_squares'
        losses = (margins - self.y) ** 2 / 2 if squares else np.logaddexp(0, -margins)
        return losses @ self.weight + self.lam / 2 * np.sum(ws**2, axis=-1)

    def gradient(self, w: np.ndarray) -> np.ndarray:
        return self.lam * w + self.a.T @ (self.weight * self._slopes(w)[0])

    def _slopes(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second derivative of every example's loss: f64[examples]."""
        margins = self.a @ w
        if self.kind == 'least_squares':
            return margins - self.y, np.ones_like(margins)
        chance = expit(-margins)
        return -chance, chance * (1 - chance)

    @functools.cached_property
    def optimum(self) -> np.ndarray:
        """w* by Newton's method with conjugate gradients inside and halved steps."""
        w = np.zeros(self.features)
        for _ in range(MOST_NEWTON_STEPS):
            gradient = self.gradient(w)
            if gradient @ gradient <= 2 * self.lam * ACCURACY:
                return w
            w = self._descend(w, gradient, self._newton_direction(w, gradient))
        raise RuntimeError(f'Newton found no optimum of {self.name} in {MOST_NEWTON_STEPS} steps.')

    def _newton_direction(self, w: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        curvature = self.weight * self._slopes(w)[1]

        def hessian(v: np.ndarray) -> np.ndarray:
            return self.a.T @ (curvature * (self.a @ v)) + self.lam * v

        size = self.features
        operator = LinearOperator((size, size), matvec=hessian, dtype=np.float64)
        return spl.cg(operator, -gradient, rtol=1e-8)[0]

    def _descend(self, w: np.ndarray, gradient: np.ndarray, direction: np.ndarray) -> np.ndarray:
        here, slope, length = self.value(w), gradient @ direction, 1.0
        rounding = 1e-15  # F is of order one, and at the end differs by less than it is rounded
        while self.value(w + length * direction) > here + 1e-4 * length * slope + rounding:
            length /= 2
        return w + length * direction

    @functools.cached_property
    def initial_gap(self) -> float:
        """F(0) - F*."""
        return float(self.value(np.zeros(self.features)) - self.value(self.optimum))

    def relative_gap(self, ws: np.ndarray) -> np.ndarray:
        """(F(w) - F*) / (F(0) - F*) at each row of ws; what rounding makes negative is zero."""
        with np.errstate(over='ignore', invalid='ignore'):  # a run that diverged shows in its gap
            gap = self.value(ws.astype(np.float64)) - self.value(self.optimum)
        return np.maximum(gap / self.initial_gap, 0)  # keeps NaN


def split(data: Data, workers: int, seed: int, regularisation: float = REGULARISATION) -> Problem:
    """Shuffles the examples and deals them out evenly; the first workers hold one more."""
    examples = len(data.y)
    if workers < 1:
        raise ValueError(f'--workers must be at least 1; got {workers}.')
    if workers > examples:
        raise ValueError(
            f'{workers} workers cannot share the {examples} examples of {data.name!r}: each needs '
            f'one at least. Pass --workers {examples} or fewer.'
        )
    order = np.random.default_rng(seed).permutation(examples)
    x, y = data.x[order], data.y[order]
    if data.kind == 'logistic':
        x = x * y[:, None] if isinstance(x, np.ndarray) else x.multiply(y[:, None]).tocsr()
        y = np.ones(examples)
    sizes = tuple(len(part) for part in np.array_split(order, workers))
    return Problem(data.name, data.kind, x, y, sizes, regularisation)
