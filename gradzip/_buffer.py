"""The one buffer that a collective carries.

Collectives may widen narrow types (bf16, int4 and fp8 on CPU), and TPU turns an all-gather whose
last dimension is not a multiple of 128 into a padded all-reduce. So all payloads of a step travel,
bit for bit, in one buffer of (rows, 128) words of 32 bits. The padding is counted as traffic.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array, Compressor, Like, PyTree
from gradzip._kernels.join import join
from gradzip._kernels.parts import parts

LANES = 128


def payload_bits(compressor: Compressor, like: Like) -> int:
    """Returns the bits of the arrays of one payload, without the padding of a buffer."""
    payload = jax.eval_shape(lambda x: compressor.encode(x, jax.random.key(0)), like)
    return 8 * sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(payload))


def to_buffer(payloads: PyTree) -> Array:
    """All arrays of a tree, bit for bit, in one buffer: u32[rows, 128]."""
    flat = [_to_words(a) for a in jax.tree.leaves(payloads)]
    # The padding is one more part. To pad the whole would copy it.
    padding = jnp.zeros(-sum(part.size for part in flat) % LANES, jnp.uint32)
    return join(*flat, padding).reshape(-1, LANES)


def from_buffer(buffer: Array, like: PyTree) -> PyTree:
    """The tree that `to_buffer` wrote into u32[..., rows, 128]; leading axes stay in front.

    Args:
      buffer: made by `to_buffer`, or several such buffers stacked.
      like: a tree with the shapes and dtypes of the arrays.
    """
    words = buffer.reshape(*buffer.shape[:-2], -1)
    leaves, treedef = jax.tree.flatten(like)
    each = parts(words, tuple(_word_count(leaf) for leaf in leaves))
    arrays = [_from_words(part, leaf) for part, leaf in zip(each, leaves, strict=True)]
    return treedef.unflatten(arrays)


def _padded(flat: Array, multiple: int) -> Array:
    return jnp.pad(flat, (0, -flat.size % multiple))


def _word_count(like: Like) -> int:
    return -(-math.prod(like.shape) * like.dtype.itemsize // 4)


def _to_words(array: Array) -> Array:
    """Any array as flat u32: narrow types share a word, 64-bit types take two."""
    per_word = max(1, 4 // array.dtype.itemsize)
    flat = _padded(array.ravel(), per_word)
    if per_word > 1:
        flat = flat.reshape(-1, per_word)
    return lax.bitcast_convert_type(flat, jnp.uint32).ravel()


def _from_words(words: Array, like: Like) -> Array:
    lead = words.shape[:-1]
    if like.dtype.itemsize == 8:
        words = words.reshape(*lead, -1, 2)
    array = lax.bitcast_convert_type(words, like.dtype).reshape(*lead, -1)
    return array[..., : math.prod(like.shape)].reshape(*lead, *like.shape)
