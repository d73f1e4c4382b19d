"""Codes to bits and back, and everything through one buffer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from gradzip._base import like_of
from gradzip._buffer import from_buffer, to_buffer
from gradzip._kernels.words import pack, unpack, words_for

pytestmark = pytest.mark.usefixtures('fast_compilation')


@pytest.mark.parametrize('bits', [1, 2, 3, 4, 5, 8, 12, 16, 31, 32])
@pytest.mark.parametrize('size', [0, 1, 7, 31, 32, 33, 100])
def test_codes_come_back(bits, size):
    codes = np.random.default_rng(bits).integers(0, 2**bits, size, dtype=np.uint64)
    words = pack(jnp.asarray(codes.astype(np.uint32)), bits)
    assert words.shape == (words_for(size, bits),)
    assert words.dtype == jnp.uint32
    np.testing.assert_array_equal(unpack(words, bits, size), codes)
    assert words.size * 32 <= size * bits + 32 * (bits if 32 % bits else 1)


def test_the_layout_is_as_documented():
    """Widths that divide 32: consecutive codes, lowest bits first. Others: bit planes."""
    np.testing.assert_array_equal(pack(jnp.arange(9, dtype=jnp.uint32), 4), [0x76543210, 0x8])
    codes = np.arange(32, dtype=np.uint32) % 8
    planes = [sum(((int(c) >> b) & 1) << i for i, c in enumerate(codes)) for b in range(3)]
    np.testing.assert_array_equal(pack(jnp.asarray(codes), 3), np.array(planes, np.uint32))


DTYPES = [
    jnp.float32,
    jnp.bfloat16,
    jnp.float16,
    jnp.uint8,
    jnp.int16,
    jnp.uint32,
    jnp.float8_e4m3fn,
]


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.sampled_from([(), (0,), (1,), (3,), (5, 7), (2, 0)])),
        max_size=5,
    )
)
def test_a_tree_comes_back_bit_for_bit(leaves):
    rng = np.random.default_rng(0)
    tree = [jnp.asarray(rng.normal(size=shape) * 3).astype(dtype) for dtype, shape in leaves]
    buffer = to_buffer(tree)
    assert buffer.dtype == jnp.uint32
    assert buffer.shape[1:] == (128,)
    for got, expected in zip(from_buffer(buffer, [like_of(x) for x in tree]), tree, strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


@pytest.mark.usefixtures('x64')
def test_sixty_four_bits_and_leading_axes():
    tree = {'a': jnp.linspace(0, 1, 130, dtype=jnp.float64), 'b': jnp.arange(3, dtype=jnp.int32)}
    buffers = jnp.stack([to_buffer(tree), to_buffer(jax.tree.map(lambda x: x * 2, tree))])
    got = from_buffer(buffers, jax.tree.map(like_of, tree))
    np.testing.assert_array_equal(got['a'][1], 2 * tree['a'])
    np.testing.assert_array_equal(got['b'], jnp.stack([tree['b'], 2 * tree['b']]))
