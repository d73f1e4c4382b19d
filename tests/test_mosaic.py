"""The kernels for TPU compute what the plain forms compute; here they are interpreted on CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl

import gradzip as gz
from gradzip import _compose
from gradzip._compressors import cast, counted, induced, quantizer, rotated, weighted
from gradzip._kernels import layout, rows
from gradzip._kernels.mosaic import decoders, matrices, sweep
from tests.test_kernels import inputs

pytestmark = pytest.mark.usefixtures('fast_compilation')

KEY = jax.random.key(3)
WORKERS = 3
TILES = 2  # in a step of a kernel, instead of eight
MATRICES = {  # steps of 192 or 256 rows, and a part of a third
    **dict.fromkeys(('one bit', 'cast', 'qsgd', 'eden'), (392, 384)),
    'blocks': (520, 256),
}
STEPS = 2 * TILES * 256 * 128 + 37  # entries for two steps, a part of a third, and a tail
QUANTIZERS = {
    'sign': gz.ScaledSign(),
    'one bit': gz.OneBit(),
    'natural': gz.Natural(),
    'ternary': gz.Ternary('l2'),
    'one scale': gz.QSGD(3, block=None),
    'qsgd': gz.QSGD(7, block=1024),
    'qsgd, l2': gz.QSGD(1, block=128, norm='l2'),
    'wide': gz.QSGD(20_000, block=512),
    'int': gz.Int(8, block=256),
    'nearest': gz.Int(4, block=32, rounding='nearest'),
}

ROTATED = {
    'eden': gz.EDEN(2),
    'eden, biased': gz.EDEN(1, scale='nearest'),
    'rotated': gz.Rotated(gz.QSGD(7)),
}
IN_TURN = {
    'composed': gz.BlockTopK(9, 128) >> gz.QSGD(3, block=32),
    'induced': gz.Induced(gz.TopK(0.1), gz.QSGD(7, block=32)),
    'energy': gz.Energy(0.3, capacity=0.2),
    'weighted': gz.WeightedBernoulli(0.1),
}


@pytest.fixture
def kernels(monkeypatch):
    """Every leaf gets the form for TPU, whatever its size, and kernels are interpreted."""

    def on_tpu(*args, default, tpu=None, **_):
        return (tpu or default)(*args)

    for module in (_compose, cast, counted, induced, quantizer, rotated, weighted, rows):
        monkeypatch.setattr(module, 'fused', lambda size, dtype: size > 0)
    for module in (layout, matrices):
        monkeypatch.setattr(module, 'tiled', lambda shape: len(shape) > 1)
    monkeypatch.setattr(lax, 'platform_dependent', on_tpu)
    monkeypatch.setattr(sweep, 'TILES', TILES)
    monkeypatch.setattr(decoders, 'MOST_ROWS', TILES * sweep.ROWS)
    monkeypatch.setattr(pl, 'pallas_call', functools.partial(pl.pallas_call, interpret=True))


def under_a_memory(compressor, x, keys):
    """What one worker sends and loses, and the mean over three that send the same."""
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    own = compressor.contractive(like)
    sent, lost = own.message(x, keys[0])
    same = jax.tree.map(lambda a: jnp.stack([a] * WORKERS), sent)
    return sent, lost, own.decode_mean(same, like, keys)


def there_and_left(compressor, x, keys):
    """What one worker sends under a memory and loses."""
    own = compressor.contractive(jax.ShapeDtypeStruct(x.shape, x.dtype))
    return own.message(x, keys[0])


def numbers(compressor, x):
    """What a worker loses, and the mean."""
    return under_a_memory(compressor, x, jax.random.split(KEY, WORKERS))[1:]


def there_and_back(compressor, x, keys):
    """What is sent without a memory, and what that stands for."""
    sent = compressor.encode(x, keys[0])
    return sent, compressor.decode(sent, jax.ShapeDtypeStruct(x.shape, x.dtype), keys[0])


def check(function, compressor, cases, request, error=1e-6):
    """Words are equal in both forms, and numbers but for the order of sums."""
    keys = jax.random.split(KEY, WORKERS)
    plain = jax.jit(functools.partial(function, compressor))
    expected = {name: plain(x, keys) for name, x in cases.items()}
    request.getfixturevalue('kernels')
    swept = jax.jit(lambda x, keys: function(compressor, x, keys))  # not the same function again
    for name, x in cases.items():
        unit = np.max(np.abs(x), initial=0, where=np.isfinite(x))
        got = swept(x, keys)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected[name]), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            a, b = np.asarray(a), np.asarray(b)
            finite = np.isfinite(a)
            np.testing.assert_array_equal(finite, np.isfinite(b), name)
            if a.dtype == np.uint32:
                np.testing.assert_array_equal(a, b, name)
            else:
                near = {'rtol': 10 * error, 'atol': error * unit, 'err_msg': name}
                np.testing.assert_allclose(a[finite], b[finite], **near)


@pytest.mark.parametrize('name', QUANTIZERS)
def test_kernels_equal_the_plain_forms(name, request):
    check(under_a_memory, QUANTIZERS[name], inputs(1057, 'float32'), request)


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.slow] * (n != 'eden')) for n in ROTATED]
)
def test_rotations_equal_the_plain_forms(name, request):
    """Where a block is not finite, its codes are arbitrary, and nothing that is decoded is."""
    cases = inputs((2 << 14) - 5, 'float32')
    finite = {case: cases[case] for case in ('normal', 'zero', 'denormal')}
    check(under_a_memory, ROTATED[name], finite, request, error=1e-5)
    assert rotated.swept(cases['normal'])
    for case in ('NaN', 'infinity'):
        lost, mean = jax.jit(functools.partial(numbers, ROTATED[name]))(cases[case])
        assert not np.isfinite(lost).any()
        assert not np.isfinite(mean).any()


@pytest.mark.parametrize('name', IN_TURN)
def test_messages_of_several_kernels_equal_the_plain_ones(name, request):
    """Where Induced lost all to NaN, the codes of the rest are arbitrary."""
    cases = inputs(257, 'float32')
    finite = {case: cases[case] for case in cases if case not in ('NaN', 'infinity')}
    check(
        there_and_left, IN_TURN[name], finite if name == 'induced' else cases, request, error=2e-6
    )


@pytest.mark.parametrize('name', MATRICES)
def test_a_matrix_and_a_memory_are_read_as_they_lie(name, kernels):
    """The kernels put rows in order and add what would else be copied and added before them."""
    more = {'cast': gz.Cast('float8_e4m3fn'), 'blocks': gz.BlockTopK(9, 512)}
    matrix = jax.ShapeDtypeStruct(MATRICES[name], jnp.float32)
    own = {**QUANTIZERS, **ROTATED, **more}[name].contractive(matrix)
    x = inputs(matrix.size, 'float32')['normal']
    memory = jnp.roll(x, 1) / 2

    def of_matrix(x, memory):
        payload, lost = own.message(x, KEY, memory)
        return payload, lost, own.decode(payload, matrix, KEY)

    def of_flat(x):
        payload, lost = own.message(x, KEY)
        return payload, lost, own.decode(payload, x, KEY)

    got = jax.jit(of_matrix)(x.reshape(matrix.shape), memory.reshape(matrix.shape))

    def near(a, b):  # sums over an array are added up in another order
        np.testing.assert_allclose(a.ravel(), b.ravel(), rtol=1e-6, atol=1e-6)

    jax.tree.map(near, got, jax.jit(of_flat)(x + memory))


@pytest.mark.parametrize('name', ['one bit', 'natural', 'qsgd', 'eden', 'weighted'])
def test_the_steps_of_a_kernel_meet(name, request):
    x = inputs(STEPS, 'float32')['normal']
    scheme = {**QUANTIZERS, **ROTATED, **IN_TURN}[name]
    check(there_and_back, scheme, {'normal': x}, request)
