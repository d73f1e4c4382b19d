"""What theorems assume, and what is said where it does not hold: what to use instead."""

from __future__ import annotations

import math
from typing import Any

TOLERANCE = 1e-12  # relative; a step that a theorem itself returned is within its range


def real(owner: str, name: str, value: Any, low: float, *, above: bool = False) -> float:
    """A finite number, at least `low`, or above it."""
    if isinstance(value, bool | str | None):
        raise TypeError(f'{owner}({name}=...) must be a number; got {value!r}.')
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f'{owner}({name}=...) must be a number; got {value!r}.') from None
    if not math.isfinite(number) or number < low or (above and number == low):
        limit = f'above {low}' if above else f'at least {low}'
        raise ValueError(f'{owner}({name}=...) must be finite and {limit}; got {value!r}.')
    return number


def integer(owner: str, name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer in [low, high]; NumPy's are integers too."""
    if isinstance(value, bool) or not hasattr(value, '__index__'):
        raise TypeError(f'{owner}({name}=...) must be an integer; got {value!r}.')
    number = value.__index__()
    if number < low or (high is not None and number > high):
        limits = f'at least {low}' if high is None else f'from {low} to {high}'
        raise ValueError(f'{owner}({name}=...) must be {limits}; got {value!r}.')
    return number


def unbiased(owner: str, omega: Any) -> float:
    """The omega of an unbiased compressor."""
    if omega is None:
        raise ValueError(
            f'{owner} needs an unbiased compressor, E Q(x) = x, and omega=None says that this one '
            'is biased. Use theory.ef14 with its delta (error feedback), theory.gd(delta=...) on '
            'one node, or an unbiased compressor such as RandK, Bernoulli, QSGD or Ternary.'
        )
    return real(owner, 'omega', omega, 0)


def contractive(owner: str, delta: Any) -> float:
    """The delta of a contractive compressor."""
    if delta is None:
        raise ValueError(
            f'{owner} needs a contractive compressor, E|C(x) - x|^2 <= (1 - delta) |x|^2, and '
            'delta=None says that this one states none. The form that a memory applies has one: '
            'scheme.contractive().delta(like).'
        )
    number = real(owner, 'delta', delta, 0, above=True)
    if number > 1:
        raise ValueError(f'{owner}(delta=...) must be in (0, 1]; got {delta!r}.')
    return number


def strongly_convex(owner: str, mu: float, instead: str) -> None:
    """Mu > 0."""
    if mu == 0:
        raise ValueError(
            f'{owner} needs strong convexity, mu > 0, and this problem has mu=0. {instead}'
        )


def independent(owner: str, shared: bool, instead: str) -> None:
    """Workers that draw on their own."""
    if shared:
        raise ValueError(
            f'{owner} needs workers with independent randomness, and shared=True says that they '
            f'share it (as under gradzip.Sum). {instead}'
        )


def one_node(owner: str, n: int, shared: bool) -> None:
    """One compressor that sees the whole gradient, or many that amount to it."""
    if n > 1 and not shared:
        raise ValueError(
            f'{owner} is on one node that compresses the whole gradient, and this problem has '
            f'n={n} workers. If each compresses its own, use theory.dcgd, theory.stale or '
            'theory.ef14; if a linear compressor draws the same on all of them, pass shared=True; '
            'if their mean is what is compressed, pass problem.as_one().'
        )


def step_size(owner: str, given: Any, best: float, largest: float, *, below: bool = False) -> float:
    """The step asked for, if the theorem covers it; by default its best one."""
    if given is None:
        return best
    step = real(owner, 'step_size', given, 0, above=True)
    if step > largest * (1 + TOLERANCE) or (below and step >= largest):
        limit = 'below' if below else 'at most'
        raise ValueError(
            f'{owner}(step_size=...) must be {limit} {largest:.6g}, or the theorem says nothing; '
            f'got {given!r}. Without step_size= it is {best:.6g}.'
        )
    return step


def positive_root(a: float, b: float) -> float:
    """The largest g with a g^2 + b g <= 1, for a >= 0, b > 0: stable where a is small or zero."""
    return 2 / (b + math.sqrt(b * b + 4 * a))
