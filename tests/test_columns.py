"""The largest entry of each column of tiles: NumPy, the plain form and the kernel agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from gradzip._kernels import columns
from gradzip._kernels.fused import Flat
from tests.test_kernel_top_k import inputs

pytestmark = pytest.mark.usefixtures('fast_compilation')
LANES = 128


def expected(x, rows):
    """Indices of the entries that are kept, tile by tile and then block by block."""
    u = np.minimum(x.view(np.int32) & 0x7FFFFFFF, 0x7F800001)
    tiled = x.size // (rows * LANES) * rows * LANES
    places = u[:tiled].reshape(-1, rows, LANES).argmax(1)
    tile, lane = np.indices(places.shape)
    starts = np.arange(tiled, x.size, rows)
    last = [start + u[start : start + rows].argmax() for start in starts]
    return np.concatenate([((tile * rows + places) * LANES + lane).ravel(), last]).astype(int)


@pytest.mark.parametrize(('n', 'rows'), [(5000, 16), (5000, 7), (100, 16), (4096, 32), (1, 4)])
def test_the_largest_of_every_block(n, rows):
    scheme, key = gz.ColumnMax(rows), jax.random.key(0)
    message = jax.jit(lambda x: scheme.message(x, key))
    for name, x in inputs(4096).items():
        x = np.resize(x, n).astype(np.float32)
        payload, rest = message(jnp.asarray(x))
        where = expected(x, rows)
        found = scheme.indices_of(payload, jax.ShapeDtypeStruct(x.shape, x.dtype))
        np.testing.assert_array_equal(found, where, name)
        np.testing.assert_array_equal(payload.values, x[where], name)
        left = x.copy()
        left[where] = 0
        np.testing.assert_array_equal(rest, left, name)


@pytest.mark.parametrize('n', [100, 5000])
def test_dense_and_sparse_means_are_equal(n):
    """The forms for accelerators and for the CPU."""
    scheme, key = gz.ColumnMax(16), jax.random.key(0)
    xs = np.random.default_rng(0).standard_normal((3, n)).astype(np.float32)
    like = jax.ShapeDtypeStruct((n,), jnp.float32)
    payloads = jax.vmap(lambda x: scheme.encode(x, key))(xs)
    each = [jax.tree.map(lambda a, i=i: a[i], payloads) for i in range(3)]
    sparse = [scheme.decode(payload, like, key) for payload in each]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, 'platform_dependent', lambda *args, cpu, default: default(*args))
        dense = scheme.decode_mean(payloads, like, jax.random.split(key, 3))
        one = scheme.decode(each[0], like, key)
    np.testing.assert_array_equal(one, sparse[0])
    np.testing.assert_allclose(dense, np.mean(sparse, axis=0), atol=1e-6)
    np.testing.assert_allclose(
        scheme.decode_mean(payloads, like, jax.random.split(key, 3)), dense, atol=1e-6
    )


@pytest.mark.parametrize('rows', [8, 104])
def test_the_kernel_and_the_plain_form(rows):
    pytest.importorskip('jax.experimental.pallas.tpu', reason='gradzip works without Pallas')
    from gradzip._kernels import mosaic

    def parts(x):
        """The array, or two that the kernel adds."""
        return Flat(x) if rows == 8 else Flat(jnp.roll(x, 1), x)

    kernel = jax.jit(lambda x: mosaic.columns.take_largest(parts(x), rows, interpret=True))
    plain = jax.jit(lambda x: columns._take_plain(parts(x), rows))
    for name, x in inputs(70_001).items():
        x = jnp.asarray(x.astype(np.float32))
        for got, other in zip(kernel(x), plain(x), strict=True):
            got, other = (np.asarray(a).view(np.int32) for a in (got, other))
            np.testing.assert_array_equal(got, other, name)
