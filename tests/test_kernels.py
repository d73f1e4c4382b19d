"""The form of a kernel that is tuned for the CPU computes what its plain form computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradzip as gz
from gradzip._kernels import join, parts, radix, reductions, rows, signs, sum_below, sums, words
from gradzip._kernels.bits import count_ones, first_bits, position, select
from gradzip._kernels.codes import pack_codes
from gradzip._kernels.pieces import PAD_WHOLE_UP_TO
from gradzip._kernels.platform import choose
from tests.mappers import AXIS, P, mesh_of

LARGE = PAD_WHOLE_UP_TO + 37
SIZES = (0, 1, 33, LARGE)
CASES = [*((size, 'float32') for size in SIZES), (33, 'float64'), (LARGE, 'float64')]
KEY = jax.random.key(0)


def default_form(function):
    """The function as it is in a program for another platform than the CPU."""

    @functools.wraps(function)
    def plain(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lax, 'platform_dependent', lambda *args, default, **_: default(*args))
            return function(*args)

    return plain


def inputs(size, dtype):
    """Ordinary entries, and those that float arithmetic treats differently."""
    rng = np.random.default_rng(size)
    x = rng.standard_normal(size).astype(dtype)
    info = jnp.finfo(dtype)
    some = rng.random(size) < 0.1
    special = {
        'normal': x,
        'zero': x * 0,
        'negative zero and one': np.where(some, 1, -0.0).astype(dtype),
        'NaN': np.where(some, np.nan, x).astype(dtype),
        'infinity': np.where(some, -np.inf, x).astype(dtype),
        'denormal': x * np.asarray(info.smallest_normal, dtype) / 8,
        'huge': np.where(some, info.max, x).astype(dtype),
    }
    return {name: jnp.asarray(x) for name, x in special.items()}


def qsgd_codes(x, block):
    return gz.QSGD(7, block=block).encode(x, KEY).codes


def magnitude_codes(x):
    """Codes that are written as bit planes."""
    code = lambda piece, start: (start + jnp.arange(piece.size)) % 8 + 9 * (piece < 0).astype(int)  # noqa: E731
    return pack_codes(code, x, 5)


def swapped(x, start):
    return jnp.concatenate(parts.parts(x, (start, x.size - start))[::-1])


def sum_and_count(x):
    return sum_below.sum_below(x, jnp.asarray(0.5, x.dtype), jnp.asarray(0.4, x.dtype))


def block_inner_products(x):
    x = jnp.where(jnp.isfinite(x), jnp.clip(x, -9, 9), x)  # or sums overflow in some orders
    return reductions.inner_products(x, jnp.roll(x, 1), 32)


# Functions whose results are equal bit by bit, and those that sum in another order.
EXACT = {
    'QSGD, block 32': lambda x: qsgd_codes(x, 32),
    'QSGD, block 5': lambda x: qsgd_codes(x, 5),
    'QSGD, one block': lambda x: qsgd_codes(x, max(x.size, 1)),
    'planes': magnitude_codes,
    'natural, low': lambda x: gz.Natural().encode(x, KEY).low,
    'natural, high': lambda x: gz.Natural().encode(x, KEY).high,
    'largest, block 64': lambda x: reductions.largest(x, 64),
    'largest, block 5': lambda x: reductions.largest(x, 5),
    'largest, one block': lambda x: reductions.largest(x, max(x.size, 1)),
    'sign bits': lambda x: signs.signs_and_mean(x)[0],
    'negative bits': lambda x: signs.signs_and_two_means(x, 64)[0],
    'count': lambda x: sum_and_count(x)[1],
    'parts': lambda x: swapped(x, x.size // 3),
    'join': lambda x: join.join(x, x[:1], x * 2),
}
ROUNDED = {
    'norm, block 32': lambda x: reductions.norm(x, 32),
    'norm, one block': lambda x: reductions.norm(x, max(x.size, 1)),
    'inner products': block_inner_products,
    'mean': lambda x: signs.signs_and_mean(x)[1],
    'two means': lambda x: signs.signs_and_two_means(x, 64)[1],
    'two means, one block': lambda x: signs.signs_and_two_means(x, max(x.size, 1))[1],
    'sum': lambda x: sum_and_count(x)[0],
    'sums': lambda x: sums.sums(x[None], x[None] / 2),
}


def all_exact(x):
    return {name: function(x) for name, function in EXACT.items()}


def all_rounded(x):
    return {name: function(x) for name, function in ROUNDED.items()}


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('size', 'dtype'), CASES)
def test_both_forms_write_the_same_bits(size, dtype):
    tuned, plain = jax.jit(all_exact), jax.jit(default_form(all_exact))
    for name, x in inputs(size, dtype).items():
        got, expected = tuned(x), plain(x)
        for kernel in EXACT:
            assert got[kernel].dtype == expected[kernel].dtype
            np.testing.assert_array_equal(got[kernel], expected[kernel], f'{kernel}: {name}')


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('size', 'dtype'), CASES)
def test_sums_are_equal_up_to_rounding(size, dtype):
    tuned, plain = jax.jit(all_rounded), jax.jit(default_form(all_rounded))
    tolerance = (
        {'rtol': 1e-5, 'atol': 1e-5} if dtype == 'float32' else {'rtol': 1e-12, 'atol': 1e-12}
    )
    for name, x in inputs(size, dtype).items():
        got, expected = tuned(x), plain(x)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            a, b = np.asarray(a), np.asarray(b)
            np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b), name)
            finite = np.isfinite(a)
            np.testing.assert_allclose(a[finite], b[finite], **tolerance, err_msg=name)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize(('block', 'k'), [(8, 3), (256, 4)])
def test_the_same_entries_of_every_row(block, k, dtype):
    def function(x):
        return rows.top_k(x, block, k)

    tuned, plain = jax.jit(function), jax.jit(lambda x: rows._plain(x, block, k))
    for name, x in inputs(rows.SORT_ROWS_UP_TO + 300, 'float32').items():
        narrow = x.astype(dtype)
        np.testing.assert_array_equal(tuned(narrow), plain(narrow), name)


@pytest.mark.parametrize('size', [1, 1056])
def test_set_bits_are_those_of_the_mask(size):
    mask = np.random.default_rng(0).random(32 * size) < 0.02
    mask[-1] = True
    packed = words.pack(jnp.asarray(mask), 1)
    places = np.flatnonzero(mask)
    np.testing.assert_array_equal(select(packed, places.size), places)
    for count in {1, places.size // 2 + 1, places.size}:
        assert position(packed, jnp.int32(count)) == places[count - 1]
        kept = words.unpack(first_bits(packed, jnp.int32(count)), 1, mask.size)
        np.testing.assert_array_equal(np.flatnonzero(kept), places[:count])
    if size % 32 == 0:
        assert count_ones(packed) == places.size


@pytest.mark.parametrize('rank', [1, 100, 999])
def test_the_kth_is_that_of_a_sort(rank):
    u = np.random.default_rng(0).integers(0, 1 << 31, 999).astype(np.int32)
    u[:50] = u[100:150]
    assert radix.kth_of(jnp.asarray(u), rank) == np.sort(u)[-rank]
    x = u.view(np.float32)[np.isfinite(u.view(np.float32))]
    rank = min(rank, x.size)
    assert radix.kth_magnitude(jnp.asarray(x), rank) == np.sort(x.view(np.int32))[-rank]


@pytest.mark.parametrize('size', SIZES)
def test_both_forms_vary_over_the_same_axes(size):
    """Inside shard_map, JAX refuses forms whose results have different types."""

    def kernels(x):
        return jax.tree.map(lambda a: a[None], (all_exact(x[0]), all_rounded(x[0])))

    mapped = jax.shard_map(kernels, mesh=mesh_of(2), in_specs=P(AXIS), out_specs=P(AXIS))
    jax.eval_shape(mapped, jax.ShapeDtypeStruct((2, size), jnp.float32))


def test_many_at_a_time():
    x = jnp.stack([x for name, x in inputs(1000, 'float32').items() if name != 'NaN'])
    together = jax.jit(jax.vmap(all_exact))(x)
    for i, row in enumerate(x):
        for name, one in jax.jit(all_exact)(row).items():
            np.testing.assert_array_equal(together[name][i], one, name)


@pytest.mark.parametrize(('platform', 'expected'), [('cpu', 71), ('tpu', 72), ('cuda', 72)])
def test_the_platform_of_the_program_decides(platform, expected):
    def one_or_two(x):
        return choose(x, cpu=lambda x: x + 71, default=lambda x: x + 72)

    traced = jax.jit(one_or_two).trace(jax.ShapeDtypeStruct((), jnp.int32))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert (f'dense<{expected}>' in text, f'dense<{143 - expected}>' in text) == (True, False)


def test_equal_entries_are_read_by_equal_kernels():
    """Every entry is read at a place that is an argument, and not a constant of a kernel."""
    compiled = jax.jit(lambda x: [jnp.sin(a) for a in parts.entries(x)]).lower(jnp.zeros((6, 40)))
    text = compiled.compile().as_text()
    assert text.count(' dynamic-slice(') == 6
    assert ' slice={[1:2], [0:40]}' not in text
