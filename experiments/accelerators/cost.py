"""What a compiled program costs, read from its scheduled HLO: bytes, kernels, random accesses.

Every instruction of the entry reads its operands from memory and writes its result, except that

- an instruction that only renames memory, or waits, costs nothing;
- the body of a loop costs as much for each trip, and of a conditional one branch is taken;
- a slice, also in a fusion, reads what it returns; an update in place writes what is new;
- TPU arrays are padded to whole tiles, and those in memory on the chip (`S(1)`) cost nothing;
- the result of an asynchronous collective holds its operands, and that of a product by cuBLAS a
  scratch array, which is as large for the smallest product. Neither is counted as written.

A random access is one index of a gather or a scatter, or one entry of a sort. Such an access costs
more than its bytes, so the accesses are counted separately.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gradzip._hlo import CALLED, computations, instructions

ARRAY = re.compile(r'\b(pred|bf16|[suf]\d+|f8\w+|c\d+)\[([\d,]*)\](?:\{([^}]*)\})?')
OPERANDS = re.compile(r'%([\w.\-]+)')
FREE = {
    'parameter', 'tuple', 'get-tuple-element', 'bitcast', 'constant', 'after-all', 'opt-barrier',
    'partition-id', 'replica-id', 'iota', 'copy-done', 'slice-done', 'async-done', 'async-update',
    'all-gather-done', 'all-reduce-done', 'collective-permute-done', 'reduce-scatter-done',
    'send-done', 'recv-done',
}  # fmt: skip
RENAMES = ('AllocateBuffer', 'ConcatBitcast', 'AssumeGatherIndicesInBound')
SORTS = ('TopK', 'PartialReduce', '__cub$DeviceRadixSort')
READ_IN_PART = ('dynamic-slice', 'slice', 'gather')
WRITTEN_IN_PART = {'dynamic-update-slice': 1, 'scatter': 2}  # the operand that holds what is new


class Cost(NamedTuple):
    """Of a program, or of a part of it."""

    bytes: float = 0.0  # read from and written to memory
    kernels: int = 0  # instructions that are launched
    random: float = 0.0  # random accesses
    largest: float = 0.0  # random accesses of the instruction that has the most

    def __add__(self, other: Cost) -> Cost:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Cost(
            self.bytes + other.bytes,
            self.kernels + other.kernels,
            self.random + other.random,
            max(self.largest, other.largest),
        )

    def times(self, trips: int) -> Cost:
        """That of a loop."""
        return Cost(trips * self.bytes, trips * self.kernels, trips * self.random, self.largest)


class Operation(NamedTuple):
    """One instruction."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    rest: str  # operands and attributes
    called: tuple[str, ...]
    root: bool


@dataclasses.dataclass(frozen=True)
class Program:
    """Scheduled HLO."""

    entry: str
    bodies: dict[str, list[Operation]]
    types: dict[str, str]

    def cost(self, branch: Callable = min) -> Cost:
        """Of the program; `branch` chooses among the branches of a conditional, by their bytes."""
        return _cost(self, self.entry, branch)


def read(text: str) -> Program:
    """A program from its HLO text."""
    entry, lines = computations(text)
    bodies = {name: _operations(body) for name, body in lines.items()}
    return Program(entry, bodies, {o.name: o.type for body in bodies.values() for o in body})


def _operations(text: str) -> list[Operation]:
    found = []
    for m in instructions(text):
        called = ' '.join(a or b for a, b in CALLED.findall(m['args']))
        operands = OPERANDS.findall(re.split(r'\)(?:, |$)', m['args'], maxsplit=1)[0])
        root = m.string.lstrip().startswith('ROOT')
        names = tuple(re.findall(r'[\w.\-]+', called))
        found.append(
            Operation(m['name'], m['type'], m['op'], tuple(operands), m['args'], names, root)
        )
    return found


def memory_bytes(type_: str) -> float:
    """The bytes that a value of an HLO type has in the chip's large memory."""
    return sum(_bytes(*array) for array in ARRAY.findall(type_))


def _bytes(dtype: str, shape: str, layout: str) -> float:
    return 0.0 if 'S(' in layout else _physical(shape, layout) * _bits(dtype) / 8


def _bits(dtype: str) -> int:
    return 8 if dtype == 'pred' or dtype.startswith('f8') else int(dtype.lstrip('bfsuc'))


def _physical(shape: str, layout: str) -> int:
    """How many entries an array takes, with the padding of its tiles."""
    sizes = [int(size) for size in shape.split(',') if size]
    order = [int(axis) for axis in layout.partition(':')[0].split(',') if axis]
    tile = re.search(r'T\(([\d,]+)\)', layout)
    if tile and order:
        minor_first = zip(order, map(int, reversed(tile[1].split(','))), strict=False)
        for axis, length in minor_first:
            sizes[axis] = -(-sizes[axis] // length) * length
    return math.prod(sizes)


def entries(type_: str) -> int:
    """The entries of the first array of a type, without padding."""
    first = ARRAY.search(type_)
    return math.prod(int(size) for size in first[2].split(',') if size) if first else 0


def _cost(program: Program, body: str, branch: Callable) -> Cost:
    one = functools.partial(_operation_cost, program, branch=branch)
    return sum(map(one, program.bodies.get(body, ())), Cost())


def _operation_cost(program: Program, operation: Operation, branch: Callable) -> Cost:
    op, inner = operation.op, functools.partial(_cost, program, branch=branch)
    if op in FREE or any(f'"{name}"' in operation.rest for name in RENAMES):
        return Cost()
    if op == 'while':
        return inner(_named(operation, 'body')).times(_trips(program, operation))
    if op == 'conditional':
        return branch(map(inner, operation.called))
    if op in ('call', 'async-start'):
        return sum(map(inner, operation.called), Cost())
    random = list(_random(program, operation))
    size = (
        _moved(operation) if op in ('copy-start', 'slice-start') else _touched(program, operation)
    )
    return Cost(size, 1, sum(random), max(random, default=0))


def _named(operation: Operation, attribute: str) -> str:
    found = re.search(rf'\b{attribute}=%?([\w.\-]+)', operation.rest)
    assert found, f'{operation.name} has no {attribute}'
    return found[1]


def _trips(program: Program, loop: Operation) -> int:
    """As the compiler knows it, or from a condition `counter < constant`; 1 if neither says."""
    known = re.search(r'known_trip_count"?:?\s*\{"?n"?:\s*"?(\d+)', loop.rest)
    if known:
        return int(known[1])
    condition = program.bodies.get(_named(loop, 'condition'), [])
    limits = [o.rest.partition(')')[0] for o in condition if o.op == 'constant']
    less = any('direction=LT' in o.rest for o in condition)
    return int(limits[0]) if less and len(limits) == 1 and limits[0].isdecimal() else 1


def _moved(operation: Operation) -> float:
    """Of an asynchronous copy, whose type holds both its ends, of one size."""
    ends = ARRAY.findall(operation.type)[:2]
    least = min(_physical(shape, layout) * _bits(dtype) / 8 for dtype, shape, layout in ends)
    return least * sum('S(' not in layout for _, _, layout in ends)


def _touched(program: Program, operation: Operation) -> float:
    """The bytes that an instruction reads and writes."""
    wholes = (memory_bytes(program.types.get(name, '')) for name in operation.operands)
    parts = (_read(program, operation, i, whole) for i, whole in enumerate(wholes))
    return sum(parts) + _written(program, operation)


def _read(program: Program, operation: Operation, index: int, whole: float) -> float:
    """The bytes of an operand that are read."""
    op = operation.op
    if op in READ_IN_PART and index == 0:
        return min(whole, _plain_bytes(operation.type))
    if op in WRITTEN_IN_PART and index == 0:
        return 0.0
    if op != 'fusion' or not whole:
        return whole
    body = program.bodies[operation.called[0]]
    own = next((o.name for o in body if o.op == 'parameter' and o.rest.startswith(f'{index})')), '')
    return min(whole, _read_inside(program, body, own, whole))


def _read_inside(program: Program, body: list[Operation], name: str, whole: float) -> float:
    """The same of a value in the body of a fusion."""
    total = 0.0
    for user in body:
        for index in [i for i, operand in enumerate(user.operands) if operand == name]:
            if user.op == 'bitcast':
                total += _read_inside(program, body, user.name, whole)
            else:
                total += _read(program, user, index, whole)
    return total


def _written(program: Program, operation: Operation) -> float:
    """The bytes of the result that are written."""
    if operation.op in WRITTEN_IN_PART:
        new = operation.operands[WRITTEN_IN_PART[operation.op]]
        return min(_plain_bytes(program.types[new]), _plain_bytes(operation.type))
    if '"__cublas' in operation.rest:
        return _bytes(*ARRAY.findall(operation.type)[0])
    if operation.op.endswith('-start'):
        own = sum(memory_bytes(program.types.get(name, '')) for name in operation.operands)
        whole = memory_bytes(operation.type)
        return whole - own if whole > own else whole
    if operation.op != 'fusion':
        return memory_bytes(operation.type)
    body = program.bodies[operation.called[0]]
    root = next(o for o in body if o.root)
    named = {o.name: o for o in body}
    roots = [named[name] for name in root.operands] if root.op == 'tuple' else [root]
    arrays = [memory_bytes(m[0]) for m in ARRAY.finditer(operation.type)]
    if len(arrays) != len(roots):
        return sum(arrays)
    return sum(
        min(whole, _written(program, _origin(one, named)))
        for whole, one in zip(arrays, roots, strict=True)
    )


def _origin(operation: Operation, named: dict[str, Operation]) -> Operation:
    """What a chain of bitcasts renames."""
    while operation.op == 'bitcast' and operation.operands[0] in named:
        operation = named[operation.operands[0]]
    return operation


def _plain_bytes(type_: str) -> float:
    found = ARRAY.findall(type_)
    return sum(_physical(shape, '') * _bits(dtype) / 8 for dtype, shape, _ in found)


def _random(program: Program, operation: Operation) -> Iterable[float]:
    """The random accesses of an instruction and of all that is fused into it."""
    if operation.op == 'gather':
        sizes = re.search(r'slice_sizes=\{([\d,]*)\}', operation.rest)
        each = math.prod(int(n) for n in sizes[1].split(',') if n) if sizes else 1
        yield entries(operation.type) / max(each, 1)
    elif operation.op == 'scatter':
        update = program.types[operation.operands[-1]]
        shape = [int(n) for n in ARRAY.findall(update)[0][1].split(',') if n]
        window = re.search(r'update_window_dims=\{([\d,]*)\}', operation.rest)
        inside = [int(n) for n in window[1].split(',') if n] if window else []
        yield math.prod(n for axis, n in enumerate(shape) if axis not in inside)
    elif operation.op == 'sort' or any(f'"{name}' in operation.rest for name in SORTS):
        yield entries(program.types[operation.operands[0]])
    elif operation.op == 'fusion':
        for inner in program.bodies[operation.called[0]]:
            yield from _random(program, inner)
