"""What crosses the wire: predicted from traced shapes, and read from a compiled program.

Both count the operands of collectives, in bytes a worker and a step: what a worker hands to an
all-gather, an all-reduce, a reduce-scatter or an all-to-all. How often a link carries these bytes
is the collective algorithm's affair.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import jax

from gradzip import leaves
from gradzip.base import PyTree, Scheme, memory_like

COLLECTIVES = ('psum', 'pmin', 'pmax', 'all_gather', 'reduce_scatter', 'all_to_all', 'ppermute')
HLO_COLLECTIVES = (
    'all-reduce',
    'all-gather',
    'reduce-scatter',
    'all-to-all',
    'ragged-all-to-all',
    'collective-permute',
    'collective-broadcast',
)
INSTRUCTION = re.compile(r'%?(?P<name>[\w.\-]+) = (?P<type>.+?) (?P<op>[a-z][\w\-]*)\((?P<args>.*)')
ARRAY = re.compile(r'(pred|bf16|[suf]\d+|f8\w+|c\d+)\[([\d,]*)\]')


def payload_bytes(scheme: Scheme, params: PyTree, workers: int = 2) -> int:
    """Bytes that one worker hands to the collectives in one step, padding included.

    Counted on the shapes of the traced exchange, never by formula. Equal to `wire_bytes` of the
    compiled step of `compress`, `error_feedback` or `ef21`, on CPU, GPU and TPU.

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      params: tree of arrays, or of their shapes and dtypes.
      workers: how many; only reducers that cut arrays into chunks depend on it.

    Returns:
      Bytes, a Python int.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> params = jnp.zeros(100_000)
      >>> gz.payload_bytes(gz.Identity(), params), gz.payload_bytes(gz.TopK(0.01), params)
      (400000, 8192)
    """
    axis = 'workers'
    likes = jax.tree.map(memory_like, params)

    def step(tree: PyTree) -> PyTree:
        state = leaves.init(scheme, tree, jax.random.key(0), memory=False)
        return leaves.exchange(scheme, tree, state, axis, memory=False).mean

    jaxpr = jax.make_jaxpr(step, axis_env=[(axis, workers)])(likes)
    return sum(_operand_bytes(equation) for equation in _collectives(jaxpr.jaxpr))


def wire_bytes(compiled: Any) -> int:
    """Bytes that one device hands to the collectives of a compiled program, read from its HLO.

    A collective inside a loop counts once; one in the untaken branch of a conditional counts too.

    Args:
      compiled: what `jax.jit(f).lower(...).compile()` returns, or its text.

    Returns:
      Bytes, a Python int.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.wire_bytes(jax.jit(jnp.sin).lower(1.0).compile())
      0
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    return sum(size for _, size in collectives(text))


def collectives(text: str) -> list[tuple[str, int]]:
    """The collectives in a program's HLO text: (opcode, operand bytes) in order of appearance."""
    instructions = [m for line in text.splitlines() if (m := INSTRUCTION.search(line))]
    types = {m['name']: m['type'] for m in instructions}
    found = []
    for m in instructions:
        op = m['op'].removesuffix('-start')
        if op in HLO_COLLECTIVES:
            operands = m['args'].split('), ')[0].rstrip(')')
            names = re.findall(r'%([\w.\-]+)', operands)
            found.append((op, sum(_type_bytes(types[name]) for name in names)))
    return found


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


def _collectives(jaxpr: Any) -> Iterator[Any]:
    """Every collective in a jaxpr, inner jaxprs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.removesuffix('_invariant') in COLLECTIVES:
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, 'jaxpr', inner)
                if hasattr(inner, 'eqns'):
                    yield from _collectives(inner)


def _operand_bytes(equation: Any) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in equation.invars)
