"""One transformer on text, of any size, for all experiments that train a network.

The text is Python's reference manual as `help()` shows it (`pydoc_data.topics`), character by
character: nothing to download, and half a megabyte of it.
"""

from __future__ import annotations

import dataclasses
import functools
from pydoc_data.topics import topics as PAGES
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

HELD_OUT = 0.1  # of the text, its end
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a decoder-only transformer; the default has 3.2 million parameters."""

    layers: int = 4
    width: int = 256
    heads: int = 8
    context: int = 64  # characters that a prediction may look back at

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f'Size({name}=...) must be at least 1; got {value}.')
        if self.width % self.heads:
            raise ValueError(
                f'Size(width={self.width}, heads={self.heads}): the width must be a multiple of '
                'the heads.'
            )


MODEL_AXIS = 'model'
# Tensor parallelism: the heads and the hidden units are shared out, so that the two products that
# combine them yield a part of every sum on each device. All other params are replicated.
SHARDED = {
    'query/kernel': jax.P(None, MODEL_AXIS),
    'key/kernel': jax.P(None, MODEL_AXIS),
    'value/kernel': jax.P(None, MODEL_AXIS),
    'attention/out/kernel': jax.P(MODEL_AXIS),
    'widen/kernel': jax.P(None, MODEL_AXIS),
    'widen/bias': jax.P(MODEL_AXIS),
    'narrow/kernel': jax.P(MODEL_AXIS),
}


def summed_over_shards(*args: Any, **options: Any) -> jax.Array:
    """The product of matrices whose inner axis is shared out over the devices of a model."""
    return jax.lax.psum(jax.lax.dot_general(*args, **options), MODEL_AXIS)


class Block(nnx.Module):
    """Attention to what came before, then a hidden layer, each added to its input."""

    def __init__(self, size: Size, rngs: nnx.Rngs, sharded: bool) -> None:
        combine = summed_over_shards if sharded else jax.lax.dot_general
        self.before_attention = nnx.LayerNorm(size.width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            size.heads,
            size.width,
            use_bias=False,
            decode=False,
            out_dot_general=combine,
            rngs=rngs,
        )
        self.before_hidden = nnx.LayerNorm(size.width, rngs=rngs)
        self.widen = nnx.Linear(size.width, 4 * size.width, rngs=rngs)
        self.narrow = nnx.Linear(4 * size.width, size.width, dot_general=combine, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        x = x + self.attention(self.before_attention(x), mask=mask)
        return x + self.narrow(nnx.gelu(self.widen(self.before_hidden(x))))


class Transformer(nnx.Module):
    """Characters in, logits of the next ones out: i32[batch, time] to f32[batch, time, letters]."""

    def __init__(self, size: Size, letters: int, rngs: nnx.Rngs, sharded: bool = False) -> None:
        self.letters = nnx.Embed(letters, size.width, rngs=rngs)
        self.places = nnx.Embed(size.context, size.width, rngs=rngs)
        self.blocks = nnx.List([Block(size, rngs, sharded) for _ in range(size.layers)])
        self.last = nnx.LayerNorm(size.width, rngs=rngs)
        self.out = nnx.Linear(size.width, letters, use_bias=False, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.letters(tokens) + self.places(jnp.arange(tokens.shape[1]))[None]
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.out(self.last(x))


class Model:
    """A transformer as optax wants it: parameters in a tree, and a loss of them.

    Where it is sharded, the loss runs under `shard_map` over an axis of the mesh named 'model', on
    shards of the parameters; `specs` says how these lie on the mesh.
    """

    def __init__(self, size: Size, seed: int = 0, sharded: bool = False) -> None:
        made = Transformer(size, len(text().letters), nnx.Rngs(seed), sharded)
        self.size = size
        self.structure, self.params = nnx.split(made, nnx.Param)

    @property
    def entries(self) -> int:
        """How many parameters there are."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def specs(self) -> PyTree:
        """A `jax.P` for every parameter of a model that is sharded."""

        def spec(path: tuple, leaf: jax.Array) -> Any:
            del leaf
            where = jax.tree_util.keystr(path, simple=True, separator='/')
            return next((spec for name, spec in SHARDED.items() if f'/{name}/' in where), jax.P())

        return jax.tree_util.tree_map_with_path(spec, self.params)

    def loss(self, params: PyTree, windows: jax.Array) -> jax.Array:
        """Mean cross-entropy in nats a character; windows i32[batch, context + 1]."""
        logits = nnx.merge(self.structure, params)(windows[:, :-1])
        each = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])
        return jnp.mean(each)


@dataclasses.dataclass(frozen=True)
class Text:
    """Characters as numbers."""

    letters: str
    train: np.ndarray  # i32[characters]
    held_out: np.ndarray

    def batch(self, examples: int, size: Size, seed: int) -> np.ndarray:
        """Random windows of the text to train on: i32[examples, context + 1]."""
        rng = np.random.default_rng(seed)
        return _windows(
            self.train, rng.integers(len(self.train) - size.context, size=examples), size
        )

    def unseen(self, examples: int, size: Size) -> np.ndarray:
        """Windows of the text held out, evenly spread."""
        starts = np.linspace(0, len(self.held_out) - size.context - 1, examples).astype(int)
        return _windows(self.held_out, starts, size)


@functools.cache
def text() -> Text:
    """All pages, in the order of their names."""
    whole = ''.join(PAGES[name] for name in sorted(PAGES))
    letters = ''.join(sorted(set(whole)))
    number = {letter: i for i, letter in enumerate(letters)}
    codes = np.array([number[letter] for letter in whole], np.int32)
    end = round(len(codes) * (1 - HELD_OUT))
    return Text(letters, codes[:end], codes[end:])


def _windows(codes: np.ndarray, starts: np.ndarray, size: Size) -> np.ndarray:
    return codes[starts[:, None] + np.arange(size.context + 1)]
