"""The selection in blocks is what a stable sort of each block selects, whatever the input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradzip._kernels import rows
from gradzip._kernels.fused import Flat
from tests.test_selection import INPUTS, map_with, reference

pytestmark = pytest.mark.usefixtures('fast_compilation')

top_k = jax.jit(rows.top_k, static_argnums=(1, 2))
CASES = [(1024, 10), (1024, 40), (4096, 60), (96, 3), (64, 4), (33, 5), (32, 32), (16, 1)]


def expected(x, block, k):
    whole = x[: x.size // block * block].reshape(-1, block)
    return np.stack([reference(row, k) for row in whole])


def ragged(rng, n):
    """Some blocks nearly empty, some full, the large ones side by side."""
    x = rng.standard_normal(n, np.float32) * (rng.random(n) < 0.01)
    x[: n // 2 : 1000] = 7
    x[5000:5012] = 100
    return x


@pytest.mark.parametrize(('block', 'k'), CASES)
def test_equals_a_stable_sort_of_every_block(block, k):
    n = rows.SORT_ROWS_UP_TO + 12_345
    for name, make in {**INPUTS, 'ragged': ragged}.items():
        if name != 'misleading':  # that one misleads a sample; there is none here
            x = make(np.random.default_rng(0), n)
            np.testing.assert_array_equal(top_k(x, block, k), expected(x, block, k), name)


@pytest.mark.parametrize(('block', 'k', 'n'), [(64, 5, 17_001), (256, 40, 1300)])
def test_the_kernel_takes_the_same_entries(block, k, n, monkeypatch):
    """A row of 128 lanes has several blocks, or a block several rows; the last one is short."""
    pl = pytest.importorskip('jax.experimental.pallas', reason='gradzip works without Pallas')
    monkeypatch.setattr(pl, 'pallas_call', functools.partial(pl.pallas_call, interpret=True))
    kernel = jax.jit(lambda x, y: rows.take_on_tpu(Flat(x, y), block, k))
    for name, make in {**INPUTS, 'ragged': ragged}.items():
        x = make(np.random.default_rng(0), n)
        y = np.roll(x, 1) if block == 256 else None  # a memory, which the kernel adds
        values, offsets, rest = kernel(x, y)
        x = np.asarray(Flat(jnp.asarray(x), y).total)
        where = expected(x, block, k)
        np.testing.assert_array_equal(offsets, where.ravel(), name)
        kept = (np.arange(where.shape[0])[:, None] * block + where).ravel()
        assert np.asarray(values).tobytes() == x[kept].tobytes(), name
        left = x.copy()
        left[kept] = 0
        assert np.asarray(rest).tobytes() == left.tobytes(), name


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float64'])
@pytest.mark.parametrize(('block', 'k'), [(1024, 10), (48, 2)])
def test_dtypes(dtype, block, k):
    with jax.enable_x64(True):
        size = rows.SORT_ROWS_UP_TO + 5
        x = np.random.default_rng(1).standard_normal(size).astype(jnp.dtype(dtype))
        got = top_k(jnp.asarray(x), block, k)
        assert got.dtype == jnp.int32
        np.testing.assert_array_equal(got, expected(x, block, k))


def test_small_and_empty():
    x = np.random.default_rng(2).standard_normal(70).astype(np.float32)
    np.testing.assert_array_equal(top_k(x, 32, 3), expected(x, 32, 3))
    assert top_k(x, 71, 3).shape == (0, 3)
    assert top_k(x[:0], 32, 3).shape == (0, 3)


def test_lax_decides_only_where_candidates_are_too_many(monkeypatch):
    runs = []
    plain = rows._in_batches

    def counted(x, block, k):
        jax.debug.callback(lambda: runs.append(1))
        return plain(x, block, k)

    monkeypatch.setattr(rows, '_in_batches', counted)
    function = jax.jit(lambda x: rows.top_k(x, 1024, 10))
    for name, make in INPUTS.items():
        runs.clear()
        jax.block_until_ready(function(make(np.random.default_rng(5), 1 << 18)))
        jax.effects_barrier()
        assert bool(runs) == (name in ('all equal', 'signs', 'coarse', 'all nan')), name


@pytest.mark.parametrize('mapper', ['vmap', 'scan', 'shard_map', 'shard_map unchecked'])
@pytest.mark.parametrize('block', [64, 1024])
def test_mappers(mapper, block):
    xs = np.random.default_rng(3).standard_normal((8, rows.SORT_ROWS_UP_TO + 7), np.float32)
    got = map_with(mapper, lambda x: rows.top_k(x, block, 4), xs)
    for x, one in zip(xs, got, strict=True):
        np.testing.assert_array_equal(one, expected(x, block, 4))


@pytest.mark.slow
@pytest.mark.usefixtures('full_compilation')
@pytest.mark.parametrize(('block', 'k'), [(1024, 10), (4096, 64), (64, 4), (1000, 10)])
def test_the_temporaries_of_ten_million_entries_are_small(block, k):
    x = jax.ShapeDtypeStruct((10_000_000,), jnp.float32)
    compiled = jax.jit(rows.top_k, static_argnums=(1, 2)).lower(x, block, k).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 32 << 20
