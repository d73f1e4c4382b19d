"""Codes to bits to words, and the one buffer that a collective carries.

Collectives may widen narrow types (bf16, int4 and fp8 on CPU) and TPU turns a gather whose last
dimension is no multiple of 128 into a padded all-reduce. So whatever travels is first laid into
uint32 words, and all payloads of a step into one buffer of (rows, 128) words, the padding counted.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array, Like, PyTree
from gradzip._blocks import WORD_BITS, add_each

LANES = 128


def words_for(size: int, bits: int) -> int:
    """How many 32-bit words hold `size` codes of `bits` bits."""
    return -(-size // WORD_BITS) * bits if _planar(bits) else -(-size * bits // WORD_BITS)


def pack(codes: Array, bits: int) -> Array:
    """Unsigned codes below 2**bits, flat, to words: u32[words_for(size, bits)].

    Widths that divide 32 put consecutive codes into one word, lowest bits first. Others (3, 5, 12)
    go by bit planes: bit b of 32 consecutive codes is one word, so no bit is wasted.

    Example:
      >>> import jax.numpy as jnp
      >>> pack(jnp.array([1, 2, 3], jnp.uint32), 4)
      Array([801], dtype=uint32)
    """
    codes = codes.astype(jnp.uint32)
    if _planar(bits):
        groups = _padded(codes, WORD_BITS).reshape(-1, WORD_BITS)
        planes = [((groups >> jnp.uint32(b)) & jnp.uint32(1)) << _iota(32) for b in range(bits)]
        # One reduction with an operand a plane is one pass over the codes; several are as many.
        words = lax.reduce(tuple(planes), (jnp.uint32(0),) * bits, add_each, (1,))
        return jnp.stack(words, axis=1).ravel()
    per_word = WORD_BITS // bits
    groups = _padded(codes, per_word).reshape(-1, per_word)
    shifts = _iota(per_word) * jnp.uint32(bits)
    return jnp.sum(groups << shifts, axis=1, dtype=jnp.uint32)


def unpack(words: Array, bits: int, size: int) -> Array:
    """The first `size` codes in words made by `pack`: u32[size]."""
    if _planar(bits):
        planes = words.reshape(-1, bits)
        ones = [((planes[:, b, None] >> _iota(32)) & jnp.uint32(1)) << b for b in range(bits)]
        return functools.reduce(jnp.bitwise_or, ones).ravel()[:size]
    shifts = _iota(WORD_BITS // bits) * jnp.uint32(bits)
    mask = jnp.uint32((1 << bits) - 1)
    return ((words[:, None] >> shifts) & mask).ravel()[:size]


def to_buffer(payloads: PyTree) -> Array:
    """All arrays of a tree, bit for bit, in one buffer: u32[rows, 128]."""
    flat = [_to_words(a) for a in jax.tree.leaves(payloads)]
    words = _joined([*flat, jnp.zeros(0, jnp.uint32)])
    return _padded(words, LANES).reshape(-1, LANES)


def from_buffer(buffer: Array, like: PyTree) -> PyTree:
    """The tree that `to_buffer` laid into u32[..., rows, 128]; leading axes stay in front."""
    words = buffer.reshape(*buffer.shape[:-2], -1)
    leaves, treedef = jax.tree.flatten(like)
    arrays, start = [], 0
    for leaf in leaves:
        count = _word_count(leaf)
        arrays.append(_from_words(words[..., start : start + count], leaf))
        start += count
    return treedef.unflatten(arrays)


def _joined(flat: list[Array]) -> Array:
    # As rows: XLA on CPU fuses what computes a part into a concatenation of flat arrays and then
    # takes 15 ns a word, 32 ms for 4-bit codes of 16.8 million entries; of rows it copies each.
    return jnp.concatenate([part[None] for part in flat], axis=1)[0]


def _planar(bits: int) -> bool:
    return WORD_BITS % bits != 0


def _iota(size: int) -> Array:
    return lax.iota(jnp.uint32, size)


def _padded(flat: Array, multiple: int) -> Array:
    return jnp.pad(flat, (0, -flat.size % multiple))


def _word_count(like: Like) -> int:
    return -(-math.prod(like.shape) * like.dtype.itemsize // 4)


def _to_words(array: Array) -> Array:
    """Any array as flat u32: narrow types side by side in a word, 64-bit types as two."""
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
