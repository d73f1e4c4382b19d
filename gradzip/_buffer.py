"""The one buffer that a collective carries.

Collectives may widen narrow types (bf16, int4 and fp8 on CPU), and TPU turns an all-gather whose
last dimension is not a multiple of 128 into a padded all-reduce. So all payloads of a step travel,
bit for bit, in one buffer of (rows, 128) words of 32 bits. The padding is counted as traffic.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array, Compressor, Like, PyTree, like_of
from gradzip._compat import one_chip_of_tpu
from gradzip._kernels.fused import LANES, WHOLE, tiled
from gradzip._kernels.join import join
from gradzip._kernels.parts import parts
from gradzip._kernels.platform import choose
from gradzip._kernels.words import WORD_BITS

ALONE_FROM = 1 << 17  # bytes; a TPU sends these in some microseconds, the latency of a collective


def payload_bits(compressor: Compressor, like: Like) -> int:
    """Returns the bits of the arrays of one payload, without the padding of a buffer."""
    payload = jax.eval_shape(lambda x: compressor.encode(x, jax.random.key(0)), like)
    return 8 * sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(payload))


def travels_alone(array: Array) -> bool:
    """Whether an array has a collective of its own in the place where this is traced.

    That is so on TPU for large arrays of whole tiles, which would be copied into the buffer and out
    of what comes back. They take as many bytes as in the buffer, because nothing is padded.
    """
    whole = tiled(array.shape) or (array.ndim == 1 and array.size % WHOLE == 0)
    large = array.size * array.dtype.itemsize >= ALONE_FROM
    return large and whole and one_chip_of_tpu()


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


def _word_count(like: Like) -> int:
    return -(-math.prod(like.shape) * like.dtype.itemsize // 4)


def _to_words(array: Array) -> Array:
    """Any array as flat u32. Narrow types share a word, and 64-bit types take two.

    The entries of a word come from as many consecutive parts of the array, the first in the lowest
    bits. Consecutive entries in a word would be an array whose last axis is 2 or 4, which TPU pads
    to 128 lanes.
    """
    width = 8 * array.dtype.itemsize
    flat = array.ravel()
    if width >= WORD_BITS:
        return lax.bitcast_convert_type(flat, jnp.uint32).ravel()
    count = _word_count(like_of(array))
    flat = lax.bitcast_convert_type(flat, f'uint{width}').astype(jnp.uint32)
    flat = jnp.pad(flat, (0, count * WORD_BITS // width - flat.size))
    entries = [flat[i * count : (i + 1) * count] for i in range(WORD_BITS // width)]
    return functools.reduce(jnp.bitwise_or, [part << i * width for i, part in enumerate(entries)])


def _from_words(words: Array, like: Like) -> Array:
    lead, width = words.shape[:-1], 8 * like.dtype.itemsize
    if width < WORD_BITS:
        words = choose(words, cpu=_split_on_cpu, default=_split, width=width)
        words = words[..., : math.prod(like.shape)]
    elif width > WORD_BITS:
        words = words.reshape(*lead, -1, width // WORD_BITS)
    return lax.bitcast_convert_type(words, like.dtype).reshape(*lead, *like.shape)


def _split(words: Array, width: int) -> Array:
    """The entries that share words, along the last axis."""
    shifts = range(0, WORD_BITS, width)
    return jnp.concatenate([(words >> i).astype(f'uint{width}') for i in shifts], axis=-1)


def _split_on_cpu(words: Array, width: int) -> Array:
    """The same as one loop. XLA:CPU stores the parts of a concatenation and copies them."""
    shifts = lax.iota(jnp.uint32, WORD_BITS // width) * jnp.uint32(width)
    shape = *words.shape[:-1], shifts.size, words.shape[-1]
    each = lax.broadcast_in_dim(words, shape, (*range(words.ndim - 1), words.ndim))
    entries = each >> lax.broadcast_in_dim(shifts, shape, (words.ndim - 1,))
    return entries.astype(f'uint{width}').reshape(*words.shape[:-1], -1)
