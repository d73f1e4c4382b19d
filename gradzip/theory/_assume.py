"""Checks of what the theorems assume. An error names the alternative where an assumption fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

TOLERANCE = 1e-12  # relative; a step size that a theorem returned must be accepted as its argument
LARGEST = 1e50  # products of the constants in a proof then stay within the range of floats
LONGEST = 2**53  # integers up to here are exact as floats
_HALVINGS = 64  # of an interval whose upper end is at most a few times the result
_OVERFLOW = 700.0  # exp of more is infinite


def real(
    owner: str,
    name: str,
    value: Any,
    low: float,
    high: float = LARGEST,
    *,
    above: bool = False,
) -> float:
    """Returns a number in [low, high] as a float, or in [1 / LARGEST, high] if `above` is True."""
    constant = getattr(value, name, None)
    if callable(constant):
        raise TypeError(
            f'{owner}({name}=...) must be a number; got {value!r}, whose {name} depends on the '
            f'shape of the leaf. Pass {value!r}.{name}(like), where like is the leaf, or its shape '
            'and dtype as a jax.ShapeDtypeStruct.'
        )
    if isinstance(value, bool | str | None):
        raise TypeError(f'{owner}({name}=...) must be a number; got {value!r}.')
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f'{owner}({name}=...) must be a number; got {value!r}.') from None
    smallest = low + 1 / LARGEST if above else low
    if not smallest <= number <= high:  # NaN fails every comparison
        limit = f'above {low} (at least {smallest:g})' if above else f'at least {low}'
        raise ValueError(
            f'{owner}({name}=...) must be finite, {limit} and at most {high:g}; got {value!r}.'
        )
    return number


def integer(owner: str, name: str, value: Any, low: int, high: int = LONGEST) -> int:
    """Returns an integer in [low, high]; integers of NumPy are accepted."""
    if isinstance(value, bool) or not hasattr(value, '__index__'):
        raise TypeError(f'{owner}({name}=...) must be an integer; got {value!r}.')
    number = value.__index__()
    if not low <= number <= high:
        limits = f'at least {low}' if number < low else f'from {low} to {high}'
        raise ValueError(f'{owner}({name}=...) must be {limits}; got {value!r}.')
    return number


def flag(owner: str, name: str, value: Any) -> bool:
    """Returns True or False. Other values are refused, since 'no' would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f'{owner}({name}=...) must be True or False; got {value!r}.')
    return bool(value)


def unbiased(owner: str, omega: Any) -> float:
    """Returns the constant omega of an unbiased compressor."""
    if omega is None:
        raise ValueError(
            f'{owner} needs an unbiased compressor, E Q(x) = x, and omega=None says that this one '
            'is biased. Use theory.ef14 with its delta (error feedback), theory.gd(delta=...) on '
            'one node, or an unbiased compressor such as RandK, Bernoulli, QSGD or Ternary.'
        )
    return real(owner, 'omega', omega, 0)


def contractive(owner: str, delta: Any) -> float:
    """Returns the constant delta of a contractive compressor."""
    if delta is None:
        raise ValueError(
            f'{owner} needs a contractive compressor, E|C(x) - x|^2 <= (1 - delta) |x|^2, and '
            'delta=None says that this compressor states none. Error feedback applies the '
            'compressor in a contractive form: pass scheme.contractive().delta(like).'
        )
    number = real(owner, 'delta', delta, 0, above=True)
    if number > 1:
        raise ValueError(f'{owner}(delta=...) must be in (0, 1]; got {delta!r}.')
    return number


def strongly_convex(owner: str, mu: float, instead: str) -> None:
    """Raises ValueError unless mu > 0."""
    if mu == 0:
        raise ValueError(
            f'{owner} needs strong convexity, mu > 0, and this problem has mu=0. {instead}'
        )


def independent(owner: str, shared: Any, instead: str) -> None:
    """Raises ValueError if the workers share their randomness."""
    if flag(owner, 'shared', shared):
        raise ValueError(
            f'{owner} needs workers with independent randomness, and shared=True says that they '
            f'share it (as under gradzip.Sum). {instead}'
        )


def one_node(owner: str, n: int, shared: bool) -> None:
    """Raises ValueError unless one compressor sees the whole gradient, or the effect is the same.

    Many workers that share a linear compressor have the effect of one.
    """
    if n > 1 and not shared:
        raise ValueError(
            f'{owner} is about one node that compresses the whole gradient, and this problem has '
            f'n={n} workers. If each worker compresses its own gradient, use theory.dcgd, '
            'theory.stale or theory.ef14. If a linear compressor draws the same numbers on all '
            'workers, pass shared=True. If the mean of the gradients is compressed, pass '
            'problem.as_one().'
        )


def step_size(owner: str, given: Any, best: float, largest: float, *, below: bool = False) -> float:
    """Returns the step size to evaluate a theorem at: the one given, or by default its best.

    With `below`, the theorem holds for step sizes below `largest`, where its rate vanishes. Step
    sizes within rounding of `largest` are then refused too.
    """
    if given is None:
        return best
    step = real(owner, 'step_size', given, 0, above=True)
    if step > largest * (1 - TOLERANCE if below else 1 + TOLERANCE):
        limit = 'below' if below else 'at most'
        margin = f', by more than a relative {TOLERANCE:g} for rounding' if below else ''
        raise ValueError(
            f'{owner}(step_size=...) must be {limit} {largest:.6g}{margin}, or the theorem says '
            f'nothing; got {given!r}. Without step_size= it is {best:.6g}.'
        )
    return step


def positive_root(a: float, b: float) -> float:
    """Returns the largest g with a g^2 + b g <= 1, for a >= 0 and b > 0.

    This form is stable where a is small or zero.
    """
    return 2 / (b + math.hypot(b, 2 * math.sqrt(a)))


def largest(inequality: Callable[[float], float], high: float) -> float:
    """Returns the largest g in (0, high] at which an increasing function is at most 1.

    The result is rounded down, so that the function is at most 1 there also in floating point.
    """
    if inequality(high) <= 1:
        return high
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if inequality(middle) <= 1 else (low, middle)
    return low


def power_sum(x: float, count: int) -> float:
    """Returns sum_{j=1}^{count} (1 - x)^-j, the sum of lemma S2, for 0 <= x.

    It is at least `count`, and infinite for x >= 1 (if count > 0) or where it overflows.
    """
    if count == 0 or x == 0:
        return float(count)
    if x >= 1:
        return math.inf
    exponent = -count * math.log1p(-x)
    return math.inf if exponent > _OVERFLOW else max(float(count), math.expm1(exponent) / x)
