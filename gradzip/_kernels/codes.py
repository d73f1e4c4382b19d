"""The code of every entry, packed into words in the same pass over memory."""

from __future__ import annotations

from collections.abc import Callable

from gradzip._base import Array
from gradzip._kernels.pieces import in_pieces
from gradzip._kernels.platform import choose
from gradzip._kernels.words import pack, words_for

Code = Callable[[Array, int], Array]


def pack_codes(code: Code, flat: Array, bits: int, block: int = 1) -> Array:
    """The words of code(flat, 0): u32[words_for(flat.size, bits)].

    Args:
      code: computes one unsigned number below 2**bits for each of some consecutive entries, given
        the place of the first of them in the array. It may be called for parts of the array.
      flat: the entries.
      bits: of a code.
      block: entries that share something which `code` looks up by their place. A part begins at a
        multiple of it, unless one block holds the whole array.
    """

    def plain(flat: Array) -> Array:
        return pack(code(flat, 0), bits)

    def on_cpu(flat: Array) -> Array:
        words = in_pieces(lambda piece, start: pack(code(piece, start), bits), flat, block)
        return words[: words_for(flat.size, bits)]

    return choose(flat, cpu=on_cpu, default=plain)
