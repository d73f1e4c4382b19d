"""What one compressor costs in time, in bits and in error."""

from __future__ import annotations

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments.models import Model, Size
from experiments.simulate import message_bits
from gradzip._plan.timing import Case, jitted

KEY = 0  # of the schemes' draws
RATE = 0.1  # of the descent in a memory step
DRAWS = 3  # over which the error of a random scheme is averaged
LENGTH = 1 << 20  # of the Gaussian vector on which errors are measured
ENTRIES = ('encode', 'decode', 'remainder', 'step')  # what is timed


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Bits and errors on a Gaussian vector."""

    bits: float  # an entry, of the arrays that are sent
    error: float  # E|C(x) - x|^2 / |x|^2 of the form that a memory applies
    omega: float | None  # measured, of an unbiased compressor as it is
    declared_omega: float | None
    declared_delta: float | None


def accuracy(compressor: gz.Compressor) -> Accuracy:
    """Measured beside declared."""
    like = jax.ShapeDtypeStruct((LENGTH,), jnp.float32)
    x = jax.random.normal(jax.random.key(1), like.shape, like.dtype)
    remembered = under_memory(compressor, like)
    omega = compressor.omega(like)
    return Accuracy(
        message_bits(compressor, like) / LENGTH,
        error(remembered, x),
        None if omega is None else error(compressor, x),
        omega,
        remembered.delta(like),
    )


def under_memory(compressor: gz.Compressor, like: jax.ShapeDtypeStruct) -> gz.Compressor:
    """The form that a memory applies: scaled where the compressor alone does not contract."""
    del like
    return compressor.contractive()


def error(compressor: gz.Compressor, x: jax.Array) -> float:
    """E|C(x) - x|^2 / |x|^2."""

    @jax.jit
    def once(x: jax.Array, key: jax.Array) -> jax.Array:
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        lost = compressor.decode(compressor.encode(x, key), like, key) - x
        return jnp.sum(lost * lost) / jnp.sum(x * x)

    draws = DRAWS if compressor.random else 1
    return float(np.mean([once(x, key) for key in jax.random.split(jax.random.key(KEY), draws)]))


def limit(bits: np.ndarray) -> np.ndarray:
    """The least error of any code for a Gaussian source: Shannon's D(R) = 2^(-2 R)."""
    return 2.0 ** (-2 * bits)


def gradient(size: int) -> jax.Array:
    """A Gaussian one: f32[size]."""
    return jax.random.normal(jax.random.key(2), (size,), jnp.float32)


def memory_pass(size: int) -> Case:
    """The unit: one donated g + e, which reads two arrays and writes one."""
    return jitted(lambda e, g: ((), g + e), jnp.zeros(size), gradient(size))


def cases(compressor: gz.Compressor, size: int) -> dict[str, Case]:
    """Encoding alone; decoding onto an array; encoding with what is lost left; a whole step."""
    g, key = gradient(size), jax.random.key(KEY)
    like = jax.ShapeDtypeStruct(g.shape, g.dtype)
    remembered = under_memory(compressor, like)
    payload = jax.jit(remembered.encode)(g, key)

    def encode(e: jax.Array, g: jax.Array) -> tuple:
        return compressor.encode(g, key), e

    def decode(p: jax.Array, payload: tuple) -> tuple:
        return (), p - remembered.decode(payload, like, key)

    def remainder(e: jax.Array, g: jax.Array) -> tuple:
        target = g + e
        sent = remembered.encode(target, key)
        return sent, remembered.remainder(target, sent, key)

    return {
        'encode': jitted(encode, jnp.zeros(size), g),
        'decode': jitted(decode, jnp.zeros(size), payload),
        'remainder': jitted(remainder, jnp.zeros(size), g),
        'step': memory_step(gz.error_feedback(compressor, key=KEY), size),
    }


def memory_step(exchange: optax.GradientTransformation, size: int) -> Case:
    """`p, state = p - rate * u, ...`, everything donated."""
    tx = optax.chain(exchange, optax.sgd(RATE))

    def step(carry: tuple, g: jax.Array) -> tuple:
        p, state = carry
        updates, state = tx.update(g, state)
        return (), (optax.apply_updates(p, updates), state)

    p = jnp.zeros(size)
    start = jax.jit(tx.init)(p)
    return jitted(step, (p, start), gradient(size))


def decode_two(compressor: gz.Compressor, size: int) -> Case:
    """The mean of two workers' payloads, in the place of an array that is given up."""
    keys = jax.random.split(jax.random.key(KEY), 2)
    like = jax.ShapeDtypeStruct((size,), jnp.float32)
    gradients = jax.random.normal(jax.random.key(3), (2, size), jnp.float32)
    payloads = jax.jit(jax.vmap(compressor.encode))(gradients, keys)

    def decode(given: jax.Array, payloads: tuple) -> tuple:
        del given
        return (), compressor.decode_mean(payloads, like, keys)

    return jitted(decode, jnp.zeros(size), payloads)


def unpacked(size: int, block: int = 64) -> Case:
    """A memory step with stochastic integers of four bits in eight, as one would first write it."""

    def step(carry: tuple, g: jax.Array) -> tuple:
        p, e, count = carry
        target = (g + e).reshape(-1, block)
        scale = jnp.max(jnp.abs(target), axis=1, keepdims=True) / 7
        noise = jax.random.uniform(jax.random.fold_in(jax.random.key(KEY), count), target.shape)
        codes = jnp.floor(target / scale + noise).astype(jnp.int8)
        sent = (codes.astype(jnp.float32) * scale).ravel()
        return (), (p - RATE * sent, target.ravel() - sent, count + 1)

    start = jnp.zeros(size), jnp.zeros(size), jnp.zeros([], jnp.int32)
    return jitted(step, start, gradient(size))


def hard(compressor: gz.Compressor, size: int) -> dict[str, Case]:
    """Encoding gradients that a selection tuned for Gaussian ones may be slow on."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(size, np.float32)
    rows = np.repeat(rng.random(size // 64 + 1) < 0.02, 64)[:size]
    zero, few = np.zeros(size, np.float32), rng.random(size) < 0.003
    bad = np.where(few, np.float32(np.nan), x)
    bad[::1000] = np.inf
    one = zero.copy()
    one[size // 3] = 1
    inputs = {
        'all zero': zero,
        'all equal': np.ones(size, np.float32),
        'one not zero': one,
        '0.3 % not zero': np.where(few, x, zero),
        '2 % of rows not zero, as of embeddings': np.where(rows, x, zero),
        'bfloat16 ties': x.astype(jnp.bfloat16).astype(np.float32),
        'six levels': np.round(3 * x) * np.float32(0.1),
        'Cauchy': rng.standard_cauchy(size).astype(np.float32),
        'sorted': np.sort(x),
        'denormal': x * np.float32(1e-40),
        'NaN and infinities': bad,
    }

    def encode(e: jax.Array, g: jax.Array) -> tuple:
        return compressor.encode(g, jax.random.key(KEY)), e

    return {name: jitted(encode, jnp.zeros(size), jnp.asarray(x)) for name, x in inputs.items()}


def naive_top_k(fraction: float, size: int) -> dict[str, Case]:
    """The same selection as one would write it without this library, by `lax.top_k`."""
    count, slow = math.ceil(fraction * size), size > 1_000_000

    def select(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        indices = jax.lax.top_k(jnp.abs(x), count)[1]
        return x[indices], indices

    def encode(e: jax.Array, g: jax.Array) -> tuple:
        return select(g), e

    def step(carry: tuple, g: jax.Array) -> tuple:
        p, e = carry
        target = g + e
        values, indices = select(target)
        return (), (p.at[indices].add(-RATE * values), target.at[indices].set(0))

    g = gradient(size)
    return {
        'encode': jitted(encode, jnp.zeros(size), g, slow=slow),
        'step': jitted(step, (jnp.zeros(size), jnp.zeros(size)), g, slow=slow),
    }


def torch_top_k(fraction: float, size: int) -> dict[str, Case]:
    """The same in torch, where it is installed and JAX runs on the CPU; else nothing."""
    if jax.default_backend() != 'cpu':
        return {}
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    count, slow = math.ceil(fraction * size), size > 1_000_000
    g = torch.from_numpy(np.array(gradient(size)))
    p, e = torch.zeros(size), torch.zeros(size)

    def encode(state: tuple) -> tuple:
        indices = torch.topk(g.abs(), count).indices
        return (g[indices],), state

    def step(state: tuple) -> tuple:
        e.add_(g)
        indices = torch.topk(e.abs(), count).indices
        values = e.gather(0, indices)
        p.index_add_(0, indices, values, alpha=-RATE)
        e.scatter_(0, indices, 0.0)
        return (), state

    return {'encode': Case(encode, (), slow=slow), 'step': Case(step, (), slow=slow)}


def compile_seconds(tx: optax.GradientTransformation) -> float:
    """How long an update of a transformer takes to compile, from nothing."""
    params = Model(Size(layers=12, width=192)).params
    state = jax.eval_shape(tx.init, params)
    jax.clear_caches()
    start = time.perf_counter()
    jax.jit(tx.update).lower(params, state, params).compile()
    return time.perf_counter() - start
