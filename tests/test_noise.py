"""The counter hash is uniform and independent wherever the library relies on it.

All keys are fixed. A z-test alarms at 5.5 standard errors, 4e-8 a look; under 2000 looks here make
a false alarm less likely than 1e-4, had the keys been drawn anew.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradzip import _noise as noise

pytestmark = pytest.mark.usefixtures('fast_compilation')

N = 1 << 18
ALARM = 5.5
LAGS = (1, 2, 3, 7, 31, 32, 127, 256, 1024, 4096, 65536)


def stream(key):
    return np.asarray(noise.uniform(key, (N,), jnp.float32), np.float64)


def z_of_correlation(a, b):
    return np.mean((a - 0.5) * (b - 0.5)) * 12 * np.sqrt(a.size)


def pairs():
    """Keys that the library uses side by side: seeds, steps, leaves, workers."""
    base = jax.random.key(0)
    step, other = jax.random.fold_in(base, 7), jax.random.fold_in(base, 8)
    leaf, next_leaf = jax.random.fold_in(step, 0), jax.random.fold_in(step, 1)
    yield 'seeds', base, jax.random.key(1)
    yield 'far seeds', jax.random.key(2), jax.random.key(2 + (1 << 31))
    yield 'high words', *(jax.random.wrap_key_data(jnp.uint32([w, 5])) for w in (3, 4))
    yield 'low words', *(jax.random.wrap_key_data(jnp.uint32([5, w])) for w in (3, 4))
    yield 'steps', step, other
    yield 'leaves', leaf, next_leaf
    yield 'workers', jax.random.fold_in(leaf, 0), jax.random.fold_in(leaf, 1)


@pytest.mark.parametrize(('a', 'b'), [pytest.param(a, b, id=n) for n, a, b in pairs()])
def test_streams_are_uniform_and_independent(a, b):
    a, b = stream(a), stream(b)
    for u in (a, b):
        assert abs(u.mean() - 0.5) * np.sqrt(12 * N) < ALARM
        counts = np.bincount((u * 64).astype(int), minlength=64)
        assert np.abs(counts - N / 64).max() < ALARM * np.sqrt(N / 64)
        for bit in range(24):  # each digit on its own, and beside the next entry's
            ones = ((u * 2.0 ** (bit + 1)).astype(np.int64) & 1) + 0.0
            assert abs(ones.mean() - 0.5) * 2 * np.sqrt(N) < ALARM
            both = (ones[1:] - 0.5) * (ones[:-1] - 0.5) * 4
            assert abs(both.mean()) * np.sqrt(N - 1) < ALARM
        for lag in LAGS:
            assert abs(z_of_correlation(u[lag:], u[:-lag])) < ALARM, lag
    for lag in (0, *LAGS):
        assert abs(z_of_correlation(a[lag:], b[: N - lag])) < ALARM, lag
        assert abs(z_of_correlation(b[lag:], a[: N - lag])) < ALARM, lag
    flipped = b.reshape(-1, 2)[:, ::-1].ravel()  # streams that differ by an xor of the counter
    assert abs(z_of_correlation(a, flipped)) < ALARM


@pytest.mark.parametrize('impl', ['threefry2x32', 'rbg'])
def test_parts_of_a_stream_are_the_stream(impl):
    key = jax.random.key(3, impl=impl)
    whole = np.asarray(noise.bits(key, (10, 7)))
    np.testing.assert_array_equal(noise.bits(key, (5, 7), start=35), whole[5:])
    assert len(np.unique(whole)) == 70
    other = np.asarray(noise.bits(jax.random.key(4, impl=impl), (10, 7)))
    assert np.count_nonzero(whole == other) == 0


def mixed(x: int) -> int:
    """Chris Wellons' lowbias32, in Python's integers."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


@pytest.mark.parametrize('words', [(0, 0), (0, 1), (3, 5), (1 << 31, 0xFFFFFFFF)])
def test_the_hash_is_the_published_one(words):
    """A multiplier that is even would lose bits, which the tests of uniformity are too weak for."""
    first, second = mixed(0x9E3779B9 ^ words[0]), words[1]
    expected = [mixed(mixed(i ^ first) ^ second) for i in range(100)]
    key = jax.random.wrap_key_data(jnp.uint32(words))
    np.testing.assert_array_equal(noise.bits(key, (100,)), np.uint32(expected))


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('dtype', 'digits'), noise.DIGITS.items())
def test_uniforms_are_below_one_and_as_fine_as_stated(dtype, digits):
    u = np.asarray(noise.uniform(jax.random.key(0), (N,), dtype)).astype(np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    scaled = u * 2.0**digits
    np.testing.assert_array_equal(scaled, np.floor(scaled))
    assert abs(u.mean() + 2.0 ** -(digits + 1) - 0.5) * np.sqrt(12 * N) < ALARM


@pytest.mark.parametrize(('size', 'count'), [(1, 1), (2, 1), (9, 4), (50, 50), (1000, 30)])
def test_positions_are_distinct_and_equally_likely_alone_and_in_pairs(size, count):
    draws = 4000
    draw = jax.jit(jax.vmap(lambda key: noise.positions(key, size, count)))
    positions = np.asarray(draw(jax.random.split(jax.random.key(1), draws)))
    assert positions.min() >= 0
    assert positions.max() < size
    kept = np.zeros((draws, size))
    kept[np.arange(draws)[:, None], positions] = 1
    assert (kept.sum(1) == count).all()  # distinct
    share = count / size
    slack = ALARM * np.sqrt(share * (1 - share) / draws)
    assert np.abs(kept.mean(0) - share).max() <= slack
    if 2 < size < 100:
        together = kept.T @ kept / draws
        expected = share * (count - 1) / (size - 1)
        slack = ALARM * np.sqrt(expected * (1 - expected) / draws)
        assert np.abs(together - expected)[np.triu_indices(size, 1)].max() <= slack


def test_positions_in_large_arrays():
    positions = np.asarray(noise.positions(jax.random.key(0), (1 << 31) - 1, 1000))
    assert len(np.unique(positions)) == 1000
    assert positions.min() >= 0
    assert noise.positions(jax.random.key(0), 0, 0).shape == (0,)
