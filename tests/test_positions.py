"""Packed positions come back, are laid out as described, and cost what information theory asks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from gradzip import _positions as positions

pytestmark = pytest.mark.usefixtures('fast_compilation')

encode = jax.jit(positions.encode, static_argnums=1)
decode = jax.jit(positions.decode, static_argnums=(1, 2))


def reference(indices, count, size):
    """Elias, J. ACM 21 (1974), and Fano (1971), bit by bit: the two parts as integers."""
    bits = 0
    while size > 4 * count > 0 and (2 << bits) <= size // count:
        bits += 1
    low, high = [], 0
    for rank, index in enumerate(indices):
        low.append(index % 2**bits)
        high |= 1 << (index // 2**bits + rank if bits else index)
    return bits, low, high


def draw(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(size, count, replace=False)).astype(np.int32)


def entropy(count, size):
    """Bits a position: log2 of the number of ways to choose, over how many are chosen."""
    ways = math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
    return ways / math.log(2) / count


def check(indices, size):
    packed = encode(jnp.asarray(indices, jnp.int32), size)
    assert packed.low.dtype == packed.high.dtype == jnp.uint32
    got = decode(packed, len(indices), size)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, indices)
    return packed


SIZES = [(0, 0), (0, 9), (1, 1), (1, 2), (1, 1000), (1, 2**31 - 1), (7, 7), (6, 7), (33, 100)]
SIZES += [(25, 100), (24, 100), (1000, 4000), (999, 4000), (64, 2**20), (100, 12_345)]


@pytest.mark.parametrize(('count', 'size'), SIZES)
def test_they_come_back_wherever_they_are(count, size):
    rest = np.arange(count)
    check(rest, size)  # the first
    check(size - count + rest, size)  # the last
    if size < 2**24:
        for seed in range(3):
            check(draw(count, size, seed), size)


@given(
    st.sampled_from([1, 2, 5, 31, 32, 33, 97]).flatmap(
        lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))
    )
)
def test_any_set_comes_back_and_is_laid_out_as_described(drawn):
    size, chosen = drawn
    indices = sorted(chosen)
    packed = check(indices, size)
    bits, low, high = reference(indices, len(indices), size)
    assert sum(int(word) << (32 * i) for i, word in enumerate(packed.high)) == high
    if bits:
        np.testing.assert_array_equal(positions.unpack(packed.low, bits, len(indices)), low)
    else:
        assert packed.low.size == 0


@pytest.mark.parametrize('fraction', [0.0001, 0.001, 0.01, 0.1])
@pytest.mark.parametrize('clustered', [False, True])
def test_near_the_entropy_of_the_positions(fraction, clustered):
    size = 3_000_017
    count = round(fraction * size)
    packed = check(np.arange(count) * 3 if clustered else draw(count, size), size)
    bits = 32 * sum(words.size for words in packed) / count
    assert bits <= 1.15 * entropy(count, size)


@pytest.mark.parametrize('size', [40, 1000])
def test_fewer_than_there_is_room_for(size):
    indices = np.array([2, 5, 39, *[size] * 9], np.int32)
    packed = encode(indices, size)
    np.testing.assert_array_equal(decode(packed, 12, size)[:3], indices[:3])
    assert sum(int(word).bit_count() for word in packed.high) == 3
    empty = encode(np.full(12, size, np.int32), size)
    assert not np.asarray(empty.high).any()


@pytest.mark.parametrize('size', [300, 5000])
def test_many_at_a_time(size):
    rows = np.stack([draw(100, size, seed) for seed in range(5)])
    packed = jax.vmap(lambda row: positions.encode(row, size))(rows)
    back = jax.vmap(lambda one: positions.decode(one, 100, size))(packed)
    np.testing.assert_array_equal(back, rows)
