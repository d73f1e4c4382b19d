"""Powers of two."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _noise as noise
from gradzip._base import Array, Compressor, Key, Like
from gradzip._packing import pack, unpack, words_for


class Powers(NamedTuple):
    """Sign and exponent of every entry as IEEE 754 has them, packed; times one scale."""

    codes: Array  # u32[words]
    scale: Array  # f[], 1 unless a memory asked for another


@dataclasses.dataclass(frozen=True)
class Natural(Compressor):
    """Rounds every magnitude at random to one of the two powers of two beside it.

    v = (1 + m) 2^e becomes 2^(e+1) with probability m, else 2^e: a random number below one is added
    to the mantissa, and the mantissa is dropped.

    Payload: codes of 9 bits (12 for float64) and one scale; 9 n / 8 + 4 bytes for n float32
    entries.

    Guarantee: unbiased with omega = 1/8, whatever the leaf. Denormal entries count as zero; above
      2**127 an entry may become infinite; NaN decodes to infinity.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> natural, key = gz.Natural(), jax.random.key(0)
      >>> x = jnp.array([3.0, -0.3, 4.0, 0.0])
      >>> natural.decode(natural.encode(x, key), x, key)
      Array([ 4.  , -0.25,  4.  ,  0.  ], dtype=float32)

    Reference: Horvath et al., arXiv 1905.10988, definition 1 and theorem 1.
    """

    random: ClassVar[bool] = True

    def encode(self, x: Array, key: Key) -> Powers:
        flat = blocks.wide(x)
        layout = _Layout(flat.dtype)

        def words(piece: Array, start: int) -> Array:
            draws = noise.bits(key, piece.shape, start) >> jnp.uint32(layout.spare)
            return pack(layout.code(piece, draws), layout.bits)

        codes = blocks.in_pieces(words, flat, max(flat.size, 1))
        return Powers(codes[: words_for(x.size, layout.bits)], jnp.ones([], flat.dtype))

    def decode(self, payload: Powers, like: Like, key: Key) -> Array:
        del key
        layout = _Layout(payload.scale.dtype)
        powers = layout.value(unpack(payload.codes, layout.bits, like.size))
        return (powers * payload.scale).astype(like.dtype).reshape(like.shape)

    def omega(self, like: Like) -> float:
        del like
        return 1 / 8

    def scaled(self, payload: Powers, factor: Array | float) -> Powers:
        return blocks.rescaled(payload, factor)


class _Layout:
    """Where the bits of a float are: sign and exponent are the code, the mantissa is below."""

    def __init__(self, dtype: Any) -> None:
        info = jnp.finfo(dtype)
        self.word = jnp.dtype(f'uint{info.bits}')
        self.dtype = info.dtype
        self.mantissa = info.nmant
        self.bits = info.bits - info.nmant
        self.spare = max(
            0, 32 - info.nmant
        )  # bits of a random word that the mantissa has no use for
        self.missing = max(0, info.nmant - 32)  # low bits of the mantissa that get no random bit

    def code(self, x: Array, draws: Array) -> Array:
        """u32 codes of entries, given a random word for each."""
        word = lax.bitcast_convert_type(x, self.word)
        exponent = (word >> self.mantissa) & ((1 << self.bits - 1) - 1)
        normal = (exponent > 0) & (exponent < (1 << self.bits - 1) - 1)
        draws = draws.astype(self.word) << self.missing
        # A carry out of the mantissa is the next power. Infinity and NaN must not carry on.
        word = jnp.where(normal, word + draws, word)
        return (word >> self.mantissa).astype(jnp.uint32)

    def value(self, codes: Array) -> Array:
        """What codes stand for."""
        return lax.bitcast_convert_type(codes.astype(self.word) << self.mantissa, self.dtype)
