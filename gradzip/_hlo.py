"""Reads the collectives of a compiled program, and the bytes that they send, from its HLO text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from gradzip._groups import communicates

COLLECTIVES = (
    'all-reduce',
    'all-gather',
    'reduce-scatter',
    'all-to-all',
    'ragged-all-to-all',
    'collective-permute',
    'collective-broadcast',
)
INSTRUCTION = re.compile(r'%?(?P<name>[\w.\-]+) = (?P<type>.+?) (?P<op>[a-z][\w\-]*)\((?P<args>.*)')
PIECE = re.compile(r'channel_id=(\d+),.*frontend_attributes=\{[^}]*chain_id="(\d+)"')
CALLED = re.compile(
    r'\b(?:calls|to_apply|body|condition|\w+_computations?)=(?:%([\w.\-]+)|\{([^}]*)\})'
)
HEADER = re.compile(r'^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{$')
ARRAY = re.compile(r'(pred|bf16|[suf]\d+|f8\w+|c\d+)\[([\d,]*)\]')


def wire_bytes(compiled: Any) -> int:
    """Counts the bytes that one device passes to the collectives of a compiled program.

    Of a conditional, only the branch with the most bytes is counted. The body of a loop is counted
    once. A collective in which each device is a group of its own sends nothing.

    Args:
      compiled: the result of `jax.jit(f).lower(...).compile()`, or its HLO text.

    Returns:
      The bytes as a Python int.

    Raises:
      TypeError: compiled is neither a compiled program nor text.
      ValueError: the HLO has groups of devices in a form that gradzip does not know.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.wire_bytes(jax.jit(jnp.sin).lower(1.0).compile())
      0
    """
    if not isinstance(compiled, str) and not hasattr(compiled, 'as_text'):
        raise TypeError(
            'wire_bytes needs a compiled program, as jax.jit(f).lower(...).compile() is, or its '
            f'text; got {compiled!r}.'
        )
    text = _once(compiled if isinstance(compiled, str) else compiled.as_text())
    types, (entry, bodies) = _types(text), computations(text)

    def total(name: str) -> int:
        own = sum(size for _, size in collectives(bodies.get(name, ''), types))
        return own + sum(_called_bytes(line, total) for line in bodies.get(name, '').splitlines())

    return total(entry)


def collectives(text: str, types: dict[str, str] | None = None) -> list[tuple[str, int]]:
    """Returns the collectives in HLO text as (opcode, operand bytes), in order of appearance.

    Collectives that send nothing, because each device is a group of its own, are left out.

    Args:
      text: HLO of a program or of a part of one.
      types: the types of all values of the program, needed if text is only a part of it.

    Raises:
      TypeError: compiled is neither a compiled program nor text.
      ValueError: the HLO has groups of devices in a form that gradzip does not know.
    """
    if types is None:
        text, types = _once(text), _types(text)
    found = []
    for m in instructions(text):
        op = m['op'].removesuffix('-start')
        if op not in COLLECTIVES:
            continue
        operands, _, attributes = m['args'].partition(')')
        if communicates(op, attributes):
            names = re.findall(r'%([\w.\-]+)', operands)
            found.append((op, sum(_type_bytes(types[name]) for name in names)))
    return found


def _once(text: str) -> str:
    """Returns the program with each collective that TPU overlaps with products written only once.

    XLA splits such a collective into pieces and fuses each piece with a product. The text of each
    fusion repeats the whole collective, with the same channel and the same chain.
    """
    lines, seen = [], set()
    for line in text.splitlines():
        piece = PIECE.search(line)
        if piece is None or piece.groups() not in seen:
            lines.append(line)
        if piece is not None:
            seen.add(piece.groups())
    return '\n'.join(lines)


def _types(text: str) -> dict[str, str]:
    """Returns the HLO type of every value of a program, by name."""
    return {m['name']: m['type'] for m in instructions(text)}


def instructions(text: str) -> list[re.Match]:
    """Returns a match of `INSTRUCTION` for each instruction in HLO text."""
    return [m for line in text.splitlines() if (m := INSTRUCTION.search(line))]


def computations(text: str) -> tuple[str, dict[str, str]]:
    """Returns the name of the entry computation, and the lines of every computation by name."""
    entry, name, bodies = '', '', {'': []}
    for line in text.splitlines():
        if m := HEADER.match(line):
            name, bodies[m['name']] = m['name'], []
            entry = name if m['entry'] else entry
        else:
            bodies[name].append(line)
    return entry, {name: '\n'.join(lines) for name, lines in bodies.items()}


def _called_bytes(line: str, total: Callable[[str], int]) -> int:
    """Returns the bytes of all computations that an instruction calls, or of the largest branch."""
    found = ' '.join(a or b for a, b in CALLED.findall(line))
    sizes = [total(name) for name in re.findall(r'[\w.\-]+', found)]
    return max(sizes, default=0) if ' conditional(' in line else sum(sizes)


def _type_bytes(text: str) -> int:
    """Returns the bytes of a value of an HLO type, or of a tuple of them."""
    sizes = (
        (math.prod(map(int, filter(None, shape.split(',')))), t) for t, shape in ARRAY.findall(text)
    )
    return sum(size * _item_bits(dtype) // 8 for size, dtype in sizes)


def _item_bits(dtype: str) -> int:
    if dtype == 'pred' or dtype.startswith('f8'):
        return 8
    return int(dtype.lstrip('bfsuc'))
