"""delay(1) takes the exchange off the critical path: seen in compiled programs for CPU and TPU.

A program is read as a graph of the instructions of its entry; what an instruction calls (fusions,
loops, branches) is part of it. Products of floats are the model's: selection has none, and the
ones that TPU counts with are of integers.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

import gradzip as gz
from gradzip._hlo import CALLED, COLLECTIVES, computations, instructions
from tests.mappers import AXIS, P, mesh_of

LAYERS, WIDTH, ROWS = 3, 128, 2048  # rows a worker: the products must be worth hiding behind
TOP = gz.TopK(0.01)
PRODUCTS = 3 * LAYERS - 1  # forward, by weights, and by inputs of all layers but the first


class Node(NamedTuple):
    """One instruction of the entry, in the order in which they are scheduled."""

    operands: list[str]
    products: int  # of floats, in it and in what it calls
    communicates: bool


def graph(text: str) -> dict[str, Node]:
    """The entry's instructions, in scheduled order."""
    assert 'is_scheduled=true' in text
    entry, bodies = computations(text)

    def inside(line: str) -> list[re.Match]:
        """What a line does, and all that it calls."""
        names = re.findall(r'[\w.\-]+', ' '.join(a or b for a, b in CALLED.findall(line)))
        called = [line for name in names for line in bodies.get(name, '').splitlines()]
        return instructions(line) + [m for line in called for m in inside(line)]

    nodes = {}
    for line in bodies[entry].splitlines():
        for m in instructions(line):
            parts = inside(line)
            nodes[m['name']] = Node(
                re.findall(r'%([\w.\-]+)', m['args'].split('), ')[0]),
                sum(is_product(p) for p in parts),
                any(re.sub('-(start|done)$', '', p['op']) in COLLECTIVES for p in parts),
            )
    return nodes


def is_product(instruction: re.Match) -> bool:
    """Whether an instruction is a product of floats; those of a GPU may be calls of cuBLAS."""
    kind = instruction['op'] in ('dot', 'convolution') or '"__cublas' in instruction['args']
    return kind and instruction['type'].lstrip('(')[0] in 'fb'


def ancestors(nodes: dict[str, Node], name: str) -> set[str]:
    """All that an instruction needs."""
    found, left = set(), list(nodes[name].operands)
    while left:
        if (one := left.pop()) in nodes and one not in found:
            found.add(one)
            left += nodes[one].operands
    return found


def products_before_and_beside(text: str) -> tuple[int, int]:
    """Products that the exchange waits for, and those scheduled while it is on its way."""
    nodes = graph(text)
    order = list(nodes)
    exchange = [name for name, node in nodes.items() if node.communicates]
    before = sum(nodes[name].products for name in ancestors(nodes, exchange[0]))
    way = order[order.index(exchange[0]) : order.index(exchange[-1])]
    assert sum(node.products for node in nodes.values()) == PRODUCTS, 'the model is all there'
    return before, sum(nodes[name].products for name in way)


def compile_step(late, mesh, options=None, scheme=TOP):
    """The text of a step of a small network, with its exchange a step late or not."""
    exchange = gz.error_feedback(scheme, AXIS, key=0)
    tx = optax.chain(*([gz.delay(1, AXIS)] if late else []), exchange, optax.sgd(0.1))
    params = [jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)] * LAYERS
    specs = gz.state_specs(jax.eval_shape(tx.init, params))

    def loss(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return jnp.mean(x**2)

    def step(params, state, x):
        grads = jax.grad(loss)(gz.localize(params, AXIS), x)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    start = jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=specs)
    state = jax.eval_shape(start, params)
    x = jax.ShapeDtypeStruct((ROWS * mesh.size, WIDTH), jnp.float32)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), specs, P(AXIS)), out_specs=(P(), specs))
    compiled = jax.jit(mapped).lower(params, state, x).compile(compiler_options=options)
    sent = gz.step_bytes(tx, params, {AXIS: mesh.size})
    assert gz.wire_bytes(compiled) == sent, 'in how many pieces it may come'
    return compiled.as_text()


@pytest.mark.parametrize('late', [False, True])
@pytest.mark.parametrize('platform', ['cpu', pytest.param('tpu', marks=pytest.mark.slow)])
def test_the_exchange_of_a_late_gradient_waits_for_no_product(platform, late, request):
    mesh = mesh_of(8) if platform == 'cpu' else request.getfixturevalue('tpu_mesh')
    before, beside = products_before_and_beside(compile_step(late, mesh))
    assert before == (0 if late else PRODUCTS)
    if platform == 'tpu':  # CPU's collectives are one instruction: nothing to see in the schedule
        assert beside == (PRODUCTS if late else 0)


@pytest.mark.slow
@pytest.mark.parametrize('scheme', [gz.Identity(), gz.TwoShot(gz.QSGD(7))], ids=repr)
def test_other_collectives_are_free_too(scheme, tpu_mesh):
    """Whether they are overlapped is the compiler's choice; a gather, also the second one, is."""
    before, beside = products_before_and_beside(compile_step(True, tpu_mesh, scheme=scheme))
    assert before == 0
    assert beside == PRODUCTS or isinstance(scheme, gz.Identity)


@pytest.mark.slow
def test_without_its_pass_the_exchange_is_one_instruction(tpu_mesh):
    """What TPU does by default has a name: free to overlap, but not overlapped."""
    options = {'xla_tpu_enable_async_collective_fusion': 'false'}
    assert products_before_and_beside(compile_step(True, tpu_mesh, options)) == (0, 0)
