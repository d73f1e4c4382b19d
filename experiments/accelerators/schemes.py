"""What is compiled: compressors on one leaf, exchanges on a transformer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

import gradzip as gz
from experiments.accelerators.chips import AXIS
from experiments.bench.schemes import SCHEMES as COMPRESSORS

EXACT = 'exact mean'
EXCHANGES: dict[str, gz.Compressor | gz.Reducer | None] = {
    EXACT: None,
    'Identity()': gz.Identity(),
    'ScaledSign()': gz.ScaledSign(),
    'QSGD(7)': gz.QSGD(7),
    'TwoShot(QSGD(7))': gz.TwoShot(gz.QSGD(7)),
    "Cast('bfloat16')": gz.Cast('bfloat16'),
    'TopK(0.01)': gz.TopK(0.01),
    'TopK(0.01) >> QSGD(7)': gz.TopK(0.01) >> gz.QSGD(7),
    'BlockTopK(32, 4096)': gz.BlockTopK(32, 4096),
    'ColumnMax(104)': gz.ColumnMax(104),
    'Bernoulli(0.01)': gz.Bernoulli(0.01),
    'Sum(RandBlock(0.01))': gz.Sum(gz.RandBlock(0.01)),
    'Sum(RandK(0.01))': gz.Sum(gz.RandK(0.01)),
    'PowerSGD(4)': gz.PowerSGD(4),
    'EDEN(1)': gz.EDEN(1),
}
LAYERS, WIDTH, WORDS, PLACES = 6, 512, 8192, 1024


def transformer() -> dict:
    """The shapes of a transformer of 27.8 million parameters in 76 leaves."""

    def leaf(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def layer() -> dict:
        biases = {'b_in': leaf(3 * WIDTH), 'b_up': leaf(4 * WIDTH)}
        vectors = {name: leaf(WIDTH) for name in ('b_out', 'b_down', 'n1', 'n2', 'b1', 'b2')}
        matrices = {'in': leaf(WIDTH, 3 * WIDTH), 'out': leaf(WIDTH, WIDTH)}
        wide = {'up': leaf(WIDTH, 4 * WIDTH), 'down': leaf(4 * WIDTH, WIDTH)}
        return {**matrices, **wide, **biases, **vectors}

    ends = {'embed': leaf(WORDS, WIDTH), 'places': leaf(PLACES, WIDTH)}
    ends |= {'norm': leaf(WIDTH), 'head': leaf(WIDTH, WORDS)}
    return {**ends, 'layers': [layer() for _ in range(LAYERS)]}


def exchange(name: str) -> optax.GradientTransformation:
    """The exact mean as plain JAX has it, or a scheme with a memory."""
    scheme = EXCHANGES[name]
    if scheme is None:
        return optax.stateless(lambda updates, _: jax.lax.pmean(updates, AXIS))
    return gz.error_feedback(scheme, AXIS, key=0)


def names(form: str) -> list[str]:
    """What a form is compiled for."""
    return list(EXCHANGES if form == 'step' else COMPRESSORS)
