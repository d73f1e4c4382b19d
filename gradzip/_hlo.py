"""What a compiled program sends: collectives and their bytes, read from its HLO text."""

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
    """Bytes that one device hands to the collectives of a compiled program, read from its HLO.

    Of a conditional the branch with the most bytes counts; the body of a loop counts once.

    Args:
      compiled: what `jax.jit(f).lower(...).compile()` returns, or its text.

    Returns:
      Bytes, a Python int.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.wire_bytes(jax.jit(jnp.sin).lower(1.0).compile())
      0
    """
    text = _once(compiled if isinstance(compiled, str) else compiled.as_text())
    types, (entry, bodies) = _types(text), computations(text)

    def total(name: str) -> int:
        own = sum(size for _, size in collectives(bodies.get(name, ''), types))
        return own + sum(_called_bytes(line, total) for line in bodies.get(name, '').splitlines())

    return total(entry)


def collectives(text: str, types: dict[str, str] | None = None) -> list[tuple[str, int]]:
    """The collectives in HLO text: (opcode, operand bytes) in order of appearance.

    Those in which every device is a group of its own send nothing and are left out. `types` are
    those of the whole program where text is a part of it.
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
    """A program in which a collective that TPU runs beside products stands only where it starts.

    Every fusion of a product with a piece of it names the whole, with one channel and one chain.
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
    """The type of every value of a program."""
    return {m['name']: m['type'] for m in instructions(text)}


def instructions(text: str) -> list[re.Match]:
    """All instructions in HLO text, with the groups of `INSTRUCTION`."""
    return [m for line in text.splitlines() if (m := INSTRUCTION.search(line))]


def computations(text: str) -> tuple[str, dict[str, str]]:
    """The entry's name, and the lines of every computation of a program."""
    entry, name, bodies = '', '', {'': []}
    for line in text.splitlines():
        if m := HEADER.match(line):
            name, bodies[m['name']] = m['name'], []
            entry = name if m['entry'] else entry
        else:
            bodies[name].append(line)
    return entry, {name: '\n'.join(lines) for name, lines in bodies.items()}


def _called_bytes(line: str, total: Callable[[str], int]) -> int:
    """Of the computations that an instruction calls: all of them, or the largest branch."""
    found = ' '.join(a or b for a, b in CALLED.findall(line))
    sizes = [total(name) for name in re.findall(r'[\w.\-]+', found)]
    return max(sizes, default=0) if ' conditional(' in line else sum(sizes)


def _type_bytes(text: str) -> int:
    """Of an HLO type, or of a tuple of them."""
    sizes = (
        (math.prod(map(int, filter(None, shape.split(',')))), t) for t, shape in ARRAY.findall(text)
    )
    return sum(size * _item_bits(dtype) // 8 for size, dtype in sizes)


def _item_bits(dtype: str) -> int:
    if dtype == 'pred' or dtype.startswith('f8'):
        return 8
    return int(dtype.lstrip('bfsuc'))
