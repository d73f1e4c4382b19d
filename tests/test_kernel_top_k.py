"""The kernels that select on TPU, run by Pallas' interpreter, find what the plain form finds."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from gradzip._kernels import fused, selection
from gradzip._kernels.fused import Flat
from tests.mappers import AXIS, P, mesh_of

pytest.importorskip('jax.experimental.pallas.tpu', reason='gradzip works without Pallas')
from gradzip._kernels import mosaic

pytestmark = pytest.mark.usefixtures('fast_compilation')

# Two steps and one, of whose last tile a part is outside the array; 105 000 entries leave on-chip
# memory in two copies.
SIZES = [
    pytest.param(263_001, 0.01, marks=pytest.mark.slow),
    (70_001, 0.01),
    pytest.param(520 * 512, 0.4, marks=pytest.mark.slow),
]
LANES = 128


def inputs(n):
    """Arrays that are hard to select from: ties, special numbers, one crowded place."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal(n).astype(np.float32)
    place, few = np.arange(n), rng.random(n) < 0.004
    stride = max(1, min(128, n // LANES // 512))  # of the rows that are sampled
    return {
        'gaussian': x,
        'ties': np.round(x * 4) / 4,
        'all equal': np.full(n, -2.0),
        'zeros': np.zeros(n),
        'mostly zero': np.where(few, x, -0.0),
        'NaN and infinities': np.where(few, np.where(x > 0, np.nan, -np.inf), x),
        'more NaN than places': np.where(x > -1, -np.nan, x),
        'denormal': x * 1e-40,
        'huge': np.clip(x, -3, 3) * 1e38,
        'one place': np.where(place // 40_000 == 1, 100, 1) * x,
        'one column of a matrix': np.where(place % LANES == 5, 1, 0.001) * x,
        'what is sampled is small': np.where(place // LANES % stride == stride // 2, 0.01, 1) * x,
    }


@pytest.mark.parametrize(('n', 'fraction'), SIZES)
def test_the_same_entries_as_the_plain_form(n, fraction, monkeypatch):
    monkeypatch.setattr(mosaic.matrices, 'tiled', lambda shape: len(shape) > 1)
    k = math.ceil(n * fraction)

    def parts(x):
        """The array, or two matrices that the kernel adds."""
        x = x.reshape(-1, 512) if n % 512 == 0 else x
        return Flat(x) if fraction < 0.1 else Flat(jnp.roll(x, 1), x)

    kernel = jax.jit(lambda x: mosaic.top_k.top_k(parts(x), k, interpret=True))
    plain = jax.jit(lambda x: selection._take_top_k(parts(x).total.ravel(), k))
    hard = inputs(n)
    # Where much is kept the interpreter takes seconds for one array.
    names = hard if fraction < 0.1 else ('gaussian', 'ties', 'more NaN than places')
    for name in names:
        x = jnp.asarray(hard[name].astype(np.float32))
        for got, expected in zip(kernel(x), plain(x), strict=True):
            got, expected = (np.asarray(a).view(np.int32).ravel() for a in (got, expected))
            np.testing.assert_array_equal(got, expected, name)


@pytest.mark.parametrize('k', [1, 700, 70_000])
def test_the_threshold_without_a_sample(k):
    """What serves where the sample misled."""
    n = 70_001
    find = jax.jit(functools.partial(mosaic.top_k._by_digits, size=n, k=k))
    for name, x in inputs(n).items():
        padded = np.pad(x.astype(np.float32), (0, -n % LANES)).reshape(-1, LANES)
        u = np.sort(np.minimum(x.astype(np.float32).view(np.int32) & 0x7FFFFFFF, 0x7F800001))
        t, larger = find([jnp.asarray(padded)])
        assert (t, larger) == (u[-k], np.sum(u > u[-k])), name


def has_kernels(mesh, *likes):
    """Whether the program of a selection in each leaf, over a mesh, calls a kernel."""

    def message(x):
        payload, rest = gz.TopK(0.01).message(x[0], jax.random.key(0))
        return jax.tree.map(lambda a: a[None], (payload, rest))

    mapped = jax.shard_map(message, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS))
    return ['tpu_custom_call' in jax.jit(mapped).lower(like).as_text() for like in likes]


def large(mesh, size=70_001, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((mesh.size, size), dtype)


def test_programs_for_tpu_have_kernels(tpu_mesh):
    """Not for small arrays or other dtypes, and not for other platforms."""
    likes = large(tpu_mesh), large(tpu_mesh, 1000), large(tpu_mesh, dtype=jnp.bfloat16)
    assert has_kernels(tpu_mesh, *likes) == [True, False, False]
    assert has_kernels(mesh_of(2), large(mesh_of(2))) == [False]


def test_gradzip_works_without_pallas(monkeypatch, tpu_mesh):
    monkeypatch.setattr(fused, '_pallas', lambda: False)
    assert has_kernels(tpu_mesh, large(tpu_mesh)) == [False]
