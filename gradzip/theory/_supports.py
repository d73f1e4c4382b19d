"""The conflict graph of workers, from the coordinates on which their losses depend."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

EXACT = 1024  # workers up to which the largest eigenvalue of I + A is computed


def conflicts(supports: np.ndarray) -> sp.csr_matrix:
    """Returns I + A, where workers are neighbours if their supports b[workers, size] meet."""
    on = sp.csr_matrix(supports.astype(np.float32))
    together = (on @ on.T).tocsr()
    together.data[:] = 1.0
    return (together + sp.identity(len(supports), format='csr')).minimum(1.0).tocsr()


def graph_constants(supports: np.ndarray, each: np.ndarray) -> tuple[float, float, float, bool]:
    """Returns sigma, L_cov and L_e of L_i = each, and whether sigma is an eigenvalue or a bound.

    For many workers sigma is min(1 + largest degree, sqrt(n (1 + mean degree))), which bounds it.
    """
    n, matrix = len(each), conflicts(supports)
    rows = np.asarray(matrix.sum(axis=1)).ravel()  # 1 + degree
    exact = n <= EXACT
    if exact:
        sigma = float(np.linalg.eigvalsh(matrix.toarray())[-1])
    else:
        sigma = min(float(rows.max()), math.sqrt(n * float(rows.mean())))
    sigma = min(max(sigma, 1.0), float(n))
    cov = float(np.max(each @ supports)) / n
    widest = math.sqrt(sigma * float(np.max(each**2 @ supports))) / n
    return sigma, cov, min(float(each.mean()), widest), exact
