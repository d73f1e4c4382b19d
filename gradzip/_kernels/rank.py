"""The k largest of each of many short rows, by comparing every entry with every other."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.bits import select
from gradzip._kernels.words import WORD_BITS, pack

Test = Callable[[Array, Array, Array], Array]


def by_rank(u: Array, k: int) -> Array:
    """Where the k largest of each row are, ascending, ties by the lower index: i32[rows, k].

    They are the entries that fewer than k others precede.
    """
    rank = _count_others(
        u, lambda mine, other, earlier: (other > mine) | ((other == mine) & earlier)
    )
    flat = select(pack((rank < k).ravel(), 1), u.shape[0] * k)
    return flat.reshape(-1, k) % u.shape[1]


def kth_of_rows(u: Array, k: int) -> Array:
    """The k-th largest of every row of non-negative integers."""
    reached = _count_others(u, lambda mine, other, _: other >= mine) >= k
    return jnp.max(jnp.where(reached, u, 0), axis=1)


def _count_others(u: Array, test: Test) -> Array:
    """How many entries of its row pass a test with each entry: i32[rows, places]."""
    places = lax.iota(jnp.int32, u.shape[1])
    u = lax.optimization_barrier(u)  # stored, so that it is not computed for each comparison

    def count(first: int) -> Array:
        some = slice(first, first + WORD_BITS)
        earlier = places[None, some] < places[:, None]
        passed = test(u[:, :, None], u[:, None, some], earlier[None])
        return jnp.sum(passed, axis=2, dtype=jnp.int32)

    # On CPU, XLA fuses comparison and sum over a minor axis of 32. It would store a longer one.
    return sum(map(count, range(WORD_BITS, u.shape[1], WORD_BITS)), count(0))
