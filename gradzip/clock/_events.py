"""What an engine finds out: every message in the order of arrival, and what workers did."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Events(NamedTuple):
    """Messages in the order in which the server received them."""

    worker: np.ndarray  # i32[events]
    born: np.ndarray  # i32[events], the version at which it was computed
    applied: np.ndarray  # i32[events], the version when it arrived, or that used it
    seconds: np.ndarray  # f64[events], of its arrival
    used: np.ndarray  # bool[events]
    step_seconds: np.ndarray  # f64[steps], when each step was taken
    computing: np.ndarray  # f64[workers], seconds spent on gradients, also on those that were lost
    useful: np.ndarray  # f64[workers], seconds spent on gradients that were used


def sum_by_worker(worker: np.ndarray, values: np.ndarray, workers: int) -> np.ndarray:
    """Returns the sum of the values of each worker: f64[workers]."""
    return np.bincount(worker, weights=values, minlength=workers)
