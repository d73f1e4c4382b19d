"""The code of every entry, packed into words in the same pass over memory."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from gradzip._base import Array
from gradzip._kernels.pieces import in_one_piece, in_pieces
from gradzip._kernels.platform import choose
from gradzip._kernels.words import WORD_BITS, pack, words_for

Code = Callable[[Array, int], Array]


def pack_codes(code: Code, flat: Array, bits: int, block: int = 1) -> Array:
    """The words of the codes of all entries, and of zeros after them: u32[words_for(size, bits)].

    Args:
      code: computes one unsigned number below 2**bits for each of some consecutive entries, given
        the place of the first of them in the array. It may be called for parts of the array.
      flat: the entries.
      bits: of a code.
      block: entries that share something which `code` looks up by their place. A part begins at a
        multiple of it, unless one block holds the whole array.
    """

    def plain(flat: Array) -> Array:
        # Entries are padded, not codes: then the last word is the same in both forms.
        padded = jnp.pad(flat, (0, -flat.size % WORD_BITS))
        return pack(code(padded, 0), bits)[: words_for(flat.size, bits)]

    def on_cpu(flat: Array) -> Array:
        words = in_pieces(lambda piece, start: pack(code(piece, start), bits), flat, block)
        return words[: words_for(flat.size, bits)]

    if in_one_piece(flat.size, block):  # then the forms are the same, and one is traced faster
        return plain(flat)
    return choose(flat, cpu=on_cpu, default=plain)
