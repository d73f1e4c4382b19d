"""Checks of hyperparameters, whose errors say what was given and what is allowed."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np


def real(owner: str, name: str, value: Any) -> float:
    """Returns value as a float, and raises TypeError if it is not a real number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f'{owner}({name}=...) must be a number; got {value!r}.')
    return float(value)


def unit_interval(owner: str, name: str, value: Any) -> None:
    """Raises unless value is a number in (0, 1]."""
    if not 0 < real(owner, name, value) <= 1:  # NaN fails every comparison
        raise ValueError(f'{owner}({name}=...) must be in (0, 1]; got {value!r}.')


def below_one(owner: str, name: str, value: Any) -> None:
    """Raises unless value is a number in [0, 1)."""
    if not 0 <= real(owner, name, value) < 1:
        raise ValueError(f'{owner}({name}=...) must be in [0, 1); got {value!r}.')


def unit_interval_or_array(owner: str, name: str, value: Any) -> None:
    """Raises unless value is a number in (0, 1], or an array.

    An array may be traced, as under `optax.inject_hyperparams`, so that its value is not known.
    """
    if not isinstance(value, jax.Array):
        unit_interval(owner, name, value)


def positive_or_array(owner: str, name: str, value: Any) -> None:
    """Raises unless value is a finite number above 0, or an array."""
    if not isinstance(value, jax.Array) and not 0 < real(owner, name, value) < math.inf:
        raise ValueError(f'{owner}({name}=...) must be finite and above 0; got {value!r}.')


def integer(owner: str, name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raises unless value is an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f'{owner}({name}=...) must be an integer; got {value!r}.')
    if value < low or (high is not None and value > high):
        limits = f'at least {low}' if high is None else f'from {low} to {high}'
        raise ValueError(f'{owner}({name}=...) must be {limits}; got {value!r}.')


def one_of(owner: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises unless value is one of the allowed words."""
    if value not in allowed:
        words = ' or '.join(repr(word) for word in allowed)
        raise ValueError(f'{owner}({name}=...) must be {words}; got {value!r}.')
