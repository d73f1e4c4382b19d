"""Speeds of links and times as people write them: 1Gbit, 20ms."""

from __future__ import annotations

import math
import re
from typing import Any

from gradzip import _checks as checks

_QUANTITY = re.compile(r'(\d+(?:\.\d+)?|\.\d+)(?:e(\d+))?\s*([a-zA-Z]*)(/s)?')
THOUSANDS = {'': 1.0, 'k': 1e3, 'm': 1e6, 'g': 1e9, 'b': 1e9, 't': 1e12}
_SECONDS = {'s': 1.0, 'ms': 1e-3, 'us': 1e-6, 'm': 60.0, 'min': 60.0}
_SPEEDS = '100Mbit, 1Gbit or 2.5Gbit/s'
_TIMES = '300us, 20ms or 0.3s'


def bits_per_second(what: str, value: Any) -> float:
    """The speed of a link in bits per second.

    Args:
      what: how error messages call the value, such as 'plan(link=...)'.
      value: a number of bits per second, text such as '10M', '1Gbit' or '2.5Gbit/s', or
        'unlimited'.

    Raises:
      TypeError: value is neither text nor a number.
      ValueError: it is no speed, or not above 0.
    """
    if value == 'unlimited' or value == math.inf:
        return math.inf
    if not isinstance(value, str):
        bits = _number(what, value, _SPEEDS)
    else:
        number, unit, _ = parsed(what, value, _SPEEDS)
        unit = re.sub('(bit|bits|bps)$', '', unit)
        bits = number * THOUSANDS.get(unit, math.nan)
    if not bits > 0:
        raise ValueError(
            f'{what} must be a speed above 0 such as {_SPEEDS}, or unlimited; got {value!r}.'
        )
    return bits


def seconds(what: str, value: Any) -> float:
    """A time in seconds.

    Args:
      what: how error messages call the value, such as 'plan(latency=...)'.
      value: a number of seconds, or text such as '300us', '20ms' or '0.3s'.

    Raises:
      TypeError: value is neither text nor a number.
      ValueError: it is no time, or negative.
    """
    if not isinstance(value, str):
        found = _number(what, value, _TIMES)
    else:
        number, unit, per = parsed(what, value, _TIMES)
        found = math.nan if per else number * _SECONDS.get(unit, math.nan)
    if not found >= 0:
        raise ValueError(f'{what} must be a time of at least 0 such as {_TIMES}; got {value!r}.')
    return found


def parsed(what: str, text: str, such: str) -> tuple[float, str, bool]:
    """The number, its unit in small letters, and whether '/s' follows.

    Raises:
      ValueError: the text is not a number with a unit behind it.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{what} must be a quantity such as {such}; got {text!r}.')
    number = float(found[1]) * 10 ** int(found[2] or 0)
    return number, found[3].lower(), found[4] is not None


def speed(bits: float) -> str:
    """A speed for people: 2.5 Gbit/s."""
    if math.isinf(bits):
        return 'no limit'
    for size, name in ((1e9, 'Gbit/s'), (1e6, 'Mbit/s'), (1e3, 'kbit/s')):
        if bits >= size:
            return f'{bits / size:.3g} {name}'
    return f'{bits:.3g} bit/s'


def duration(seconds: float) -> str:
    """A time for people: 12 ms."""
    if seconds >= 120:
        return f'{seconds / 60:.3g} min'
    return f'{seconds:.3g} s' if seconds >= 1 else f'{seconds * 1e3:.3g} ms'


def _number(what: str, value: Any, such: str) -> float:
    try:
        return checks.real('', '', value)
    except TypeError:
        raise TypeError(
            f'{what} must be a number, or text such as {such}; got {value!r}.'
        ) from None
