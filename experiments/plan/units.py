"""Quantities as people write them: 1Gbit, 20ms, 124M."""

from __future__ import annotations

import math
import re

QUANTITY = re.compile(r'(\d+(?:\.\d+)?|\.\d+)(?:e(\d+))?\s*([a-zA-Z]*)(/s)?')
THOUSANDS = {'': 1.0, 'k': 1e3, 'm': 1e6, 'g': 1e9, 'b': 1e9, 't': 1e12}
SECONDS = {'s': 1.0, 'ms': 1e-3, 'us': 1e-6, 'm': 60.0, 'min': 60.0}


def bits(option: str, text: str) -> float:
    """A link's speed in bits per second: 10M, 1Gbit, 2.5Gbit/s."""
    number, unit, _ = _parsed(option, text, '100Mbit, 1Gbit or 2.5Gbit/s')
    unit = re.sub('(bit|bits|bps)$', '', unit)
    if unit not in THOUSANDS or number == 0:
        raise ValueError(f'{option} must be a speed such as 100Mbit or 1Gbit; got {text!r}.')
    return number * THOUSANDS[unit]


def seconds(option: str, text: str) -> float:
    """A time: 300us, 20ms, 0.3s."""
    number, unit, per = _parsed(option, text, '300us, 20ms or 0.3s')
    if unit not in SECONDS or per:
        raise ValueError(f'{option} must be a time such as 300us, 20ms or 0.3s; got {text!r}.')
    return number * SECONDS[unit]


def count(text: str) -> int:
    """How many parameters: 25M, 1.3B, 4096."""
    number, unit, per = _parsed('--params', text, '25M or 1.3B')
    if unit not in THOUSANDS or per or number * THOUSANDS[unit] < 1:
        raise ValueError(f'--params must be a number such as 25M or 1.3B; got {text!r}.')
    return round(number * THOUSANDS[unit])


def _parsed(option: str, text: str, such: str) -> tuple[float, str, bool]:
    found = QUANTITY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{option} must be a quantity such as {such}; got {text!r}.')
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
