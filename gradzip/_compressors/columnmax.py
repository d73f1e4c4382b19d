"""The largest entry of every column of a tile: the selection that accelerators like."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, Key, Like
from gradzip._compressors import sparse
from gradzip._compressors.sparse import Indexed
from gradzip._kernels import columns
from gradzip._kernels.bits import take
from gradzip._kernels.columns import LANES
from gradzip._kernels.fused import Flat, added
from gradzip._kernels.in_turn import add_in_turn
from gradzip._kernels.magnitude import magnitude
from gradzip._kernels.platform import choose
from gradzip._kernels.selection import read, remove
from gradzip._kernels.words import pack, unpack


class ColumnSparse(NamedTuple):
    """The kept entry of each block, tile by tile."""

    values: Array  # f[blocks]
    places: Array  # u32[words], positions within the blocks, packed


Parts = tuple[Array, Array]  # f[tiles, rows, 128] and f[entries after them]


@dataclasses.dataclass(frozen=True)
class ColumnMax(Indexed):
    """Keeps the entry of largest magnitude of every block of some entries that stand 128 apart.

    Consecutive entries make rows of 128, and `rows` rows a tile; a block is a column of a tile. On
    TPU and GPU the largest entries are found in one reading of the array, without a sort, so that
    this is the cheapest biased selection there. In what is left after the last whole tile, blocks
    are `rows` consecutive entries, the last one shorter. Of equal magnitudes, the one with the
    lower index is kept. NaN counts as larger than infinity.

    Args:
      rows: entries of a block, of which one is kept. Multiples of 8 are fastest on TPU.

    Payload: `values`, and their `places` in ceil(log2(rows)) bits each. With 104 rows these are
      n / 104 (4 + 7 / 8) bytes for n float32 entries.

    Guarantee: contractive with delta = 1 / min(rows, n), reached when all magnitudes are equal. It
      is biased: use it under `error_feedback` or `ef21`.

    Raises:
      ValueError: rows is below 1; at trace time, the array has 2**31 entries or more.
      TypeError: rows is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> x = jnp.array([1.0, 0, 3, 0, 0, 2])
      >>> gz.ColumnMax(4).encode(x, jax.random.key(0)).values
      Array([3., 2.], dtype=float32)

    Reference: Stich, Cordonnier, Jaggi, arXiv 1809.07599, lemma A.1, applied to each block.
    """

    rows: int

    def __post_init__(self) -> None:
        checks.integer('ColumnMax', 'rows', self.rows, 1, (1 << 31) - 1)

    @property
    def bits(self) -> int:
        """How many bits one place has."""
        return (self.rows - 1).bit_length()

    def _tiled(self, size: int) -> int:
        """How many entries are in whole tiles."""
        return size // (self.rows * LANES) * self.rows * LANES

    def _payload(self, places: Array, last: Array, values: Array) -> ColumnSparse:
        """From the places in tiles [tiles, 128] and after them [blocks]."""
        both = jnp.concatenate([places.ravel(), last])
        words = pack(both, self.bits) if self.bits else jnp.zeros(0, jnp.uint32)
        return ColumnSparse(values, words)

    def encode(self, x: Array, key: Key) -> ColumnSparse:
        del key
        sparse.check_size(self, x)
        flat, tiled = x.ravel(), self._tiled(x.size)
        places, last = columns.largest_places(flat, self.rows), self._last(flat[tiled:])
        values = take(flat, self._indices(places, last, x.size))
        return self._payload(places, last, values)

    def message(
        self, x: Array, key: Key, memory: Array | None = None
    ) -> tuple[ColumnSparse, Array]:
        del key
        sparse.check_size(self, x)
        tiled = self._tiled(x.size)
        parts = (x,) if memory is None else (memory, x)
        # One after the other, so that XLA can write what is left in the place of the first.
        places, values, rest = columns.take_largest(
            Flat(*(part.ravel() for part in parts)), self.rows
        )
        last = self._last(rest[tiled:])
        ends, after = read(rest, tiled + _starts(last.size, self.rows) + last)
        payload = self._payload(places, last, jnp.concatenate([values.ravel(), ends]))
        return payload, remove(rest, after).reshape(x.shape)

    def adds(self, like: Like) -> bool:
        kernel = columns.has_kernel(like.size, like.dtype, self.rows)
        return kernel and added(like.size, like.dtype)

    def _last(self, flat: Array) -> Array:
        """Where the largest entry of each block of consecutive entries is: i32[blocks]."""
        u = jnp.pad(magnitude(flat), (0, -flat.size % self.rows), constant_values=-1)
        if not u.size:
            return jnp.zeros(0, jnp.int32)
        return jax.vmap(jnp.argmax)(u.reshape(-1, self.rows)).astype(jnp.int32)

    def _indices(self, places: Array, last: Array, size: int) -> Array:
        after = self._tiled(size) + _starts(last.size, self.rows) + last
        return jnp.concatenate([columns.indices_of(places, self.rows).ravel(), after])

    def _places(self, payload: ColumnSparse, like: Like) -> tuple[Array, Array]:
        """The places in tiles [tiles, 128] and after them [blocks]."""
        tiled = self._tiled(like.size)
        first, count = tiled // self.rows, tiled // self.rows + -(-(like.size - tiled) // self.rows)
        places = jnp.zeros(count, jnp.int32)
        if self.bits:
            places = unpack(payload.places, self.bits, count).astype(jnp.int32)
        return places[:first].reshape(-1, LANES), places[first:]

    def indices_of(self, payload: ColumnSparse, like: Like) -> Array:
        return self._indices(*self._places(payload, like), like.size)

    def decode(self, payload: ColumnSparse, like: Like, key: Key) -> Array:
        return choose(
            payload,
            cpu=lambda payload: Indexed.decode(self, payload, like, key),
            default=lambda payload: _joined(self._spread(payload, like), like),
        )

    def decode_mean(self, payloads: ColumnSparse, like: Like, keys: Key) -> Array:
        """Adds entries to one array on CPU, and on accelerators, in one pass, dense arrays."""

        workers = keys.shape[0]

        def receive(worker: Array | int, parts: Parts) -> Parts:
            own = self._spread(jax.tree.map(lambda a: a[worker], payloads), like)
            return parts[0] + own[0] / workers, parts[1] + own[1] / workers

        def dense(payloads: ColumnSparse) -> Array:
            first = self._spread(jax.tree.map(lambda a: a[0], payloads), like)
            start = first[0] / workers, first[1] / workers
            parts = add_in_turn(lambda i, parts: receive(i + 1, parts), start, workers - 1)
            return _joined(parts, like)

        return choose(
            payloads,
            cpu=lambda payloads: Indexed.decode_mean(self, payloads, like, keys),
            default=dense,
        )

    def _spread(self, payload: ColumnSparse, like: Like) -> Parts:
        """The decoded tiles, and what comes after them, without a scatter into the tiles."""
        places, last = self._places(payload, like)
        values = payload.values[: places.size].reshape(places.shape)
        tail = jnp.zeros(like.size - self._tiled(like.size), like.dtype)
        after = _starts(last.size, self.rows) + last
        tail = tail.at[after].set(payload.values[places.size :], unique_indices=True)
        return columns.spread(values, places, self.rows), tail

    def delta(self, like: Like) -> float:
        return 1 / min(self.rows, like.size) if like.size else 1.0


def _joined(parts: Parts, like: Like) -> Array:
    return jnp.concatenate([parts[0].ravel(), parts[1]]).reshape(like.shape)


def _starts(blocks: int, rows: int) -> Array:
    return lax.iota(jnp.int32, blocks) * rows
