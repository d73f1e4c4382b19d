"""The selection is what a stable sort would select, whatever the input, the dtype or the mapper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from gradzip._kernels import bracket, radix, selection as select
from gradzip._kernels.bits import select as select_bits

pytestmark = pytest.mark.usefixtures('fast_compilation')

top_k = jax.jit(select.top_k, static_argnums=1)
sampled = jax.jit(select._sampled_top_k, static_argnums=1)
FRACTIONS = (0.001, 0.01, 0.1, 0.5, 1.0)


def reference(x, k):
    """The indices by a stable sort: NaN first, then magnitude, then index."""
    with np.errstate(invalid='ignore'):  # signalling NaN
        wide = np.abs(x.astype(np.float64))
    nan = np.isnan(wide)
    wide[nan] = 0
    return np.sort(np.lexsort((-wide, ~nan))[:k])  # lexsort is stable


def check(x, k, function=top_k):
    x = np.asarray(x)
    values, indices = jax.block_until_ready(function(jnp.asarray(x), k))
    expected = reference(x, k)
    np.testing.assert_array_equal(indices, expected)
    assert indices.dtype == jnp.int32
    assert values.dtype == x.dtype
    assert np.asarray(values).tobytes() == x[expected].tobytes()


def normal(rng, n):
    return rng.standard_normal(n, np.float32)


def mostly_zero(rng, n):
    return np.where(rng.random(n) < 0.003, normal(rng, n), np.float32(0))


def embedding(rng, n):
    rows = np.repeat(rng.random(n // 64 + 1) < 0.02, 64)[:n]
    return np.where(rows, normal(rng, n), np.float32(0))


def single(rng, n):
    x = np.zeros(n, np.float32)
    x[n // 2] = -1
    return x


def bfloat16_ties(rng, n):
    return normal(rng, n).astype(jnp.bfloat16).astype(np.float32)


def coarse(rng, n):
    return np.round(3 * normal(rng, n)) * np.float32(0.1)


def not_finite(rng, n):
    x = normal(rng, n)
    x[rng.random(n) < 0.004] = np.inf
    x[rng.random(n) < 0.004] = -np.inf
    nan = rng.random(n) < 0.004
    x[nan] = rng.integers(0x7F800001, 0x80000000, n).astype(np.uint32).view(np.float32)[nan]
    return x


def denormal(rng, n):
    return normal(rng, n) * np.float32(1e-41)


def cauchy(rng, n):
    return rng.standard_cauchy(n).astype(np.float32)


def misleading(rng, n):
    """Large exactly where the sample looks, so that every bracket misses."""
    x = normal(rng, n)
    x[:: bracket.plan(n, max(1, n // 100)).stride] *= 100
    return x


INPUTS = {
    'normal': normal,
    'all equal': lambda rng, n: np.full(n, 0.7, np.float32),
    'signs': lambda rng, n: rng.choice(np.array([-1, 1], np.float32), n),
    'all zero': lambda rng, n: np.zeros(n, np.float32),
    'signed zeros': lambda rng, n: rng.choice(np.array([-0.0, 0.0], np.float32), n),
    'single': single,
    'mostly zero': mostly_zero,
    'embedding': embedding,
    'cauchy': cauchy,
    'ascending': lambda rng, n: np.sort(normal(rng, n)),
    'descending': lambda rng, n: np.sort(np.abs(normal(rng, n)))[::-1].copy(),
    'denormal': denormal,
    'bfloat16 ties': bfloat16_ties,
    'coarse': coarse,
    'not finite': not_finite,
    'all nan': lambda rng, n: np.full(n, np.nan, np.float32),
    'misleading': misleading,
}


def sizes():
    """Sizes around a word, a block and the thresholds of `top_k`, each with its fractions."""
    for n in (1, 2, 31, 32, 33, 1000):
        yield from ((n, k) for k in sorted({max(1, round(f * n)) for f in (0.001, 0.1, 0.5, 1.0)}))
    for n in (65_535, 65_537, 300_001):
        yield from ((n, round(f * n)) for f in FRACTIONS[:-1])
    yield 65_536, 6_554


@pytest.mark.parametrize(('n', 'k'), list(sizes()))
def test_equals_a_stable_sort(n, k):
    """By `top_k`, and by the sampled selection where `top_k` would take the plain one."""
    plain = n <= select.SORT_UP_TO or (n <= select.SORT_FEW_UP_TO and k <= select.FEW)
    for make in INPUTS.values():
        x = make(np.random.default_rng(0), n)
        check(x, k)
        if plain and k < n:
            check(x, k, sampled)


@pytest.mark.parametrize('n', [0, 1, 33, 70_000])
def test_nothing(n):
    check(np.ones(n, np.float32), 0)


@pytest.mark.parametrize('k', [1, 2, 99_998, 99_999])
def test_extreme_counts(k):
    for make in INPUTS.values():
        check(make(np.random.default_rng(2), 100_000), k, sampled)


@pytest.mark.parametrize(
    ('n', 'k', 'function'),
    [(33, 3, top_k), (3000, 300, top_k), (3000, 300, sampled), (100_003, 10_000, top_k)],
    ids=['tiny', 'plain', 'small sampled', 'sampled'],
)
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float64'])
def test_dtypes(dtype, n, k, function):
    with jax.enable_x64(True):
        for make in INPUTS.values():
            with np.errstate(over='ignore', under='ignore', invalid='ignore'):
                x = make(np.random.default_rng(3), n).astype(jnp.dtype(dtype))
            check(x, k, function)
            if dtype == 'float64':
                check(x * (1 + 1e-12 * np.arange(n)), k, function)


@pytest.mark.slow
@pytest.mark.parametrize('fraction', [0.01, 0.5])
def test_a_million(fraction):
    for make in INPUTS.values():
        check(make(np.random.default_rng(1), 1_000_000), round(fraction * 1_000_000))


def test_doubles_that_are_equal_as_floats():
    with jax.enable_x64(True):
        x = 1 + 1e-13 * np.random.default_rng(4).permutation(200_000)
        check(x, 2000)


@pytest.fixture
def counted(monkeypatch):
    """Counts how often the exhaustive count runs."""
    runs = []
    plain = radix._histogram

    def histogram(u, prefix, shift):
        if u.size == radix.COUNTED_AT_ONCE:
            jax.debug.callback(lambda: runs.append(1))
        return plain(u, prefix, shift)

    monkeypatch.setattr(radix, '_histogram', histogram)
    return runs


def test_only_the_misleading_is_counted_in_full(counted):
    n = 2 * radix.COUNTED_AT_ONCE + 17
    function = jax.jit(lambda x: select.top_k(x, n // 100))
    for name, make in INPUTS.items():
        counted.clear()
        jax.block_until_ready(function(make(np.random.default_rng(5), n)))
        jax.effects_barrier()
        assert bool(counted) == (name == 'misleading'), name


def batch(n):
    rng = np.random.default_rng(6)
    makes = [normal, mostly_zero, single, misleading, not_finite, coarse, cauchy, embedding]
    return np.stack([make(rng, n) for make in makes])


def map_with(mapper, function, xs):
    if mapper == 'vmap':
        return jax.jit(jax.vmap(function))(xs)
    if mapper == 'pmap':
        return jax.pmap(function)(xs)
    if mapper == 'scan':
        return jax.jit(lambda xs: jax.lax.scan(lambda c, x: (c, function(x)), 0, xs)[1])(xs)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
    one = lambda x: jax.tree.map(lambda a: a[None], function(x[0]))  # noqa: E731
    spec = jax.P('data')
    return jax.jit(
        jax.shard_map(
            one, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=mapper == 'shard_map'
        )
    )(xs)


@pytest.mark.parametrize('n', [33, 140_001])
@pytest.mark.parametrize('mapper', ['vmap', 'pmap', 'scan', 'shard_map', 'shard_map unchecked'])
def test_mappers(mapper, n):
    k = max(1, n // 100)
    xs = batch(n)

    def step(x):
        values, indices = select.top_k(x, k)
        return values, indices, select.remove(x, indices)

    values, indices, rest = jax.block_until_ready(map_with(mapper, step, xs))
    for x, value, index, left in zip(xs, values, indices, rest, strict=True):
        expected = reference(x, k)
        np.testing.assert_array_equal(index, expected)
        np.testing.assert_array_equal(value, x[expected])
        x[expected] = 0
        np.testing.assert_array_equal(left, x)


def test_replicated_input_under_shard_map():
    x = np.random.default_rng(7).standard_normal(300_001, np.float32)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
    function = jax.shard_map(
        lambda x: select.top_k(x, 3000)[1], mesh=mesh, in_specs=jax.P(), out_specs=jax.P()
    )
    np.testing.assert_array_equal(jax.jit(function)(x), reference(x, 3000))


def test_outside_jit():
    x = np.random.default_rng(8).standard_normal(100_000, np.float32)
    check(x, 1000, select.top_k)


# Words that are all looked at, and those of which the empty ones are left out first, twice.
@pytest.mark.parametrize(
    ('size', 'count'),
    [(1, 1), (1, 100), (31, 100), (32, 1), (320, 100), (10_016, 1), (10_016, 5000)],
)
def test_select(size, count):
    rng = np.random.default_rng(9)
    for density in (0.001, 0.1, 0.9):
        bits = rng.random(32 * size) < density
        words = np.packbits(bits, bitorder='little').view(np.uint32)
        expected = np.flatnonzero(bits)[:count]
        got = jax.jit(select_bits, static_argnums=1)(jnp.asarray(words), count)
        assert got.shape == (count,)
        np.testing.assert_array_equal(got[: expected.size], expected)
        assert ((got >= 0) & (got < 32 * size)).all()


@pytest.mark.slow
@pytest.mark.usefixtures('full_compilation')
@pytest.mark.parametrize(('n', 'fraction'), [(10_000_019, 0.01), (10_000_000, 0.1)])
def test_the_temporaries_of_ten_million_entries_are_small(n, fraction):
    x = jax.ShapeDtypeStruct((n,), jnp.float32)
    k = round(fraction * n)

    def step(g, e):
        y = g + e
        values, indices = select.top_k(y, k)
        return (values, indices), select.remove(y, indices)

    compiled = jax.jit(step, donate_argnums=1).lower(x, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 32 << 20
    alone = jax.jit(select.top_k, static_argnums=1).lower(x, k).compile()
    assert alone.memory_analysis().temp_size_in_bytes < 32 << 20


@pytest.mark.slow
@pytest.mark.usefixtures('full_compilation')
@pytest.mark.parametrize('scheme', ['topk', 'topk >> qsgd', 'blocktopk'])
def test_a_memory_step_makes_no_dense_copy_of_what_is_sent(scheme):
    """Update and memory take the place of the last ones, and no temporary is as large."""
    compressor = {
        'topk': gz.TopK(0.01),
        'topk >> qsgd': gz.TopK(0.01) >> gz.QSGD(7),
        'blocktopk': gz.BlockTopK(10, 1024),
    }[scheme]
    x = jax.ShapeDtypeStruct((10_000_000,), jnp.float32)
    tx = gz.error_feedback(compressor, key=0)

    def step(g, update, state):
        return tx.update(g, state)

    jitted = jax.jit(step, donate_argnums=(1, 2), keep_unused=True)
    compiled = jitted.lower(x, x, jax.eval_shape(tx.init, x)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 32 << 20


def test_topk_uses_it_for_large_leaves():
    """The same entries as lax.top_k, and the decoded array is x with the rest left out."""
    x = normal(np.random.default_rng(3), 200_001)
    compressor, key = gz.TopK(0.01, indices='plain'), jax.random.key(0)
    payload = jax.jit(lambda x: compressor.encode(x, key))(x)
    expected = reference(x, 2001)
    np.testing.assert_array_equal(payload.indices, expected)
    kept = np.zeros_like(x)
    kept[expected] = x[expected]
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    np.testing.assert_array_equal(compressor.decode(payload, like, key), kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'normal',
        'all equal',
        'mostly zero',
        'not finite',
        'single',
    ],
)
def test_threshold_and_energy_of_large_leaves(name):
    """What is kept is the `count` largest, and holds what was promised."""
    x = INPUTS[name](np.random.default_rng(0), 200_001)
    with np.errstate(invalid='ignore'):  # signalling NaN
        energy = np.square(x.astype(np.float64)).sum()
    for compressor in (
        gz.Threshold(0.3, capacity=0.02),
        gz.Energy(0.2, capacity=0.02),
        gz.Energy(1.0, capacity=1.0),
    ):
        payload = jax.jit(compressor.encode)(x, jax.random.key(0))
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        sent = np.asarray(compressor.decode(payload, like, jax.random.key(0)))
        largest = reference(x, int(payload.count))
        np.testing.assert_array_equal(np.flatnonzero(sent), largest[x[largest] != 0])
        if np.isfinite(x).all():
            lost = np.square((x - sent).astype(np.float64)).sum()
            assert lost <= (1 - compressor.delta(like)) * energy
