"""The programs that are compiled, with the least that each must read and write."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradzip as gz
from experiments.accelerators import chips, cost
from experiments.accelerators.chips import AXIS, CHIPS, WORKERS
from experiments.accelerators.schemes import COMPRESSORS, EXACT, exchange, transformer
from gradzip._kernels.fused import LANES

P = jax.P


class Form(enum.StrEnum):
    """A part of a step, or all of it.

    encode: g to a payload.
    memory: a gradient and a memory to a payload and the next memory.
    decode: parameters and eight payloads to the parameters less the mean.
    step: error feedback and adamw on a transformer over eight workers.
    """

    ENCODE = 'encode'
    MEMORY = 'memory'
    DECODE = 'decode'
    STEP = 'step'


class Job(NamedTuple):
    """One program."""

    chip: str
    form: Form
    scheme: str
    entries: int  # of the leaf; those of the transformer for a step


class Lowered(NamedTuple):
    """A program that can be compiled, and the bytes that it must move."""

    lower: Callable[[], Any]
    entries: int
    floor: float  # bytes: its arguments read and its results written once


class Measured(NamedTuple):
    """What the compiled program costs. A pass is the size of the leaf, or of all parameters."""

    passes: float  # over memory, read or written
    floor: float  # the same where every argument is read and every result written once
    worst: float  # passes where conditionals take their dearer branch
    temporaries: float  # in leaves
    kernels: int
    random: float  # random accesses an entry
    largest: int  # random accesses of one instruction
    milliseconds: float  # that the memory of the chip needs for the passes
    seconds: float  # to trace and compile


def compiled(job: Job) -> Any:
    """The program, compiled for its chip."""
    chip = CHIPS[job.chip]
    return _lowered(job).lower().compile(compiler_options=chip.options)


def measure(job: Job) -> Measured:
    """Compiles one program and reads what it costs."""
    chip, lowered = CHIPS[job.chip], _lowered(job)
    begin = time.perf_counter()
    program = lowered.lower().compile(compiler_options=chip.options)
    seconds = time.perf_counter() - begin
    found = cost.read(program.as_text())
    low, high, leaf = found.cost(min), found.cost(max), 4 * lowered.entries
    return Measured(
        low.bytes / leaf,
        lowered.floor / leaf,
        high.bytes / leaf,
        program.memory_analysis().temp_size_in_bytes / leaf,
        low.kernels,
        low.random / lowered.entries,
        math.ceil(low.largest),
        low.bytes / chip.bandwidth * 1e3,
        seconds,
    )


def _lowered(job: Job) -> Lowered:
    return _step(job) if job.form == Form.STEP else _leaf(job)


def _leaf(job: Job) -> Lowered:
    compressor, mesh = COMPRESSORS[job.scheme], chips.mesh(CHIPS[job.chip], 1)
    x = jax.ShapeDtypeStruct((job.entries,), jnp.float32)
    function, arguments, donated = leaf_program(compressor, job.form, x)
    results = jax.eval_shape(function, *arguments)
    here = jax.NamedSharding(mesh, P())
    placed = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), arguments
    )
    # As in training. Elsewhere gradzip cannot know that the program is for one chip.
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P())
    jitted = jax.jit(mapped, donate_argnums=donated)
    floor = _size(arguments) + _size(results)
    return Lowered(lambda: jitted.lower(*placed), job.entries, floor)


def leaf_program(
    compressor: gz.Compressor, form: Form, x: jax.ShapeDtypeStruct
) -> tuple[Callable, tuple, tuple[int, ...]]:
    """A function on one leaf, its arguments, and which of them it may overwrite."""
    own, key = compressor.contractive(x), jax.random.key(0)

    def memory(e: jax.Array, g: jax.Array) -> tuple:
        return own.message(g, key, e) if own.adds(x) else own.message(g + e, key)

    keys = jax.random.split(key, WORKERS)

    many = jax.ShapeDtypeStruct((WORKERS, *x.shape), x.dtype)
    payloads = jax.eval_shape(jax.vmap(own.encode), many, keys)

    def decode(p: jax.Array, arrays: Any) -> jax.Array:
        stacked = jax.tree.map(lambda a, like: a.reshape(like.shape), arrays, payloads)
        return p - own.decode_mean(stacked, x, keys)

    if form == Form.ENCODE:
        return lambda g: compressor.encode(g, key), (x,), ()
    if form == Form.MEMORY:
        return memory, (x, x), (0,)
    return decode, (x, jax.tree.map(_as_gathered, payloads)), (0,)


def _as_gathered(like: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What a collective returns of a flat array of each worker: whole rows of lanes."""
    if like.ndim != 2 or like.shape[1] % LANES:
        return like
    return jax.ShapeDtypeStruct((like.shape[0], like.shape[1] // LANES, LANES), like.dtype)


def _step(job: Job) -> Lowered:
    mesh, params = chips.mesh(CHIPS[job.chip]), transformer()
    tx = optax.chain(exchange(job.scheme), optax.adamw(1e-3))
    specs = gz.state_specs(jax.eval_shape(tx.init, params))

    def step(params: Any, state: Any, grads: Any) -> tuple:
        updates, state = tx.update(jax.tree.map(lambda g: g[0], grads), state, params)
        return optax.apply_updates(params, updates), state

    init = jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=specs)
    state = jax.eval_shape(init, params)
    grads = jax.tree.map(lambda p: jax.ShapeDtypeStruct((WORKERS, *p.shape), p.dtype), params)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), specs, P(AXIS)), out_specs=(P(), specs))
    jitted = jax.jit(mapped, donate_argnums=(0, 1))
    # adamw reads g, p and two moments and writes three of them; the memory is read and written.
    own = _size(params)
    floor = (7 if job.scheme == EXACT else 9) * own
    return Lowered(lambda: jitted.lower(params, state, grads), own // 4, floor)


def _size(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
