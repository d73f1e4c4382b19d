"""Law 1: decode(encode(x)) has x's shape and dtype, and every declared constant holds."""

import functools

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradzip as gz
from gradzip._base import like_of
from gradzip._compose import Contracted
from gradzip._compressors.sparse import Indexed
from tests.arrays import FLOATS, HARD, SHAPES, flushed
from tests.zoo import COMPRESSORS, ROWS

pytestmark = pytest.mark.usefixtures('fast_compilation')

DRAWS = 4000
FEW = 16  # rows in one call of a compressor that does not draw
ALARM = 5.2  # standard errors; two-sided 2e-7 a check, under 1e-3 over all checks of this file
SHAPE = (10, 10)  # of all arrays here whose values matter, so that one program serves them all
LIKE = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
LEAF = jax.ShapeDtypeStruct((1000,), jnp.float32)  # for which the table holds the constants
NAMES = list(COMPRESSORS)
UNBIASED = [name for name, c in COMPRESSORS.items() if c.omega(LEAF) is not None]
MEMORIES = [name for name in NAMES if name in UNBIASED or COMPRESSORS[name].delta(LEAF) is not None]
# These keep some entries as they are and say where, without rounding or scaling anything.
VERBATIM = [
    name
    for name, c in COMPRESSORS.items()
    if isinstance(c, gz.Identity | Indexed) and c.omega(LEAF) in (None, 0.0)
]
RANDOM_CHOICES = [
    name for name in NAMES if any(w in name for w in ('randk', 'randblock', 'bernoulli'))
]
NOT_EXACT_ALONE = [n for n in NAMES if 'bernoulli' in n or n == 'natural']


def roundtrip(compressor: gz.Compressor, x: jax.Array, key: jax.Array) -> jax.Array:
    """What the receiver sees of x."""
    return compressor.decode(compressor.encode(x, key), like_of(x), key)


@functools.partial(jax.jit, static_argnums=0)
def compiled(compressor: gz.Compressor, xs: jax.Array, keys: jax.Array):
    """For every row: the payload, what the receiver sees, and what is lost."""

    def one(x, key):
        payload = compressor.encode(x, key)
        sent = compressor.decode(payload, like_of(x), key)
        return payload, sent, compressor.remainder(x, payload, key)

    rows = jax.tree.map(lambda a: a.reshape(-1, min(len(xs), 100), *a.shape[1:]), (xs, keys))
    out = jax.lax.map(lambda row: jax.vmap(one)(*row), rows)
    return jax.tree.map(lambda a: a.reshape(len(xs), *a.shape[2:]), out)


def run(compressor: gz.Compressor, xs: np.ndarray, seeds: list[int]):
    """`compiled` for a few arrays of SHAPE: (payloads, sents, remainders), a row each."""
    rows = DRAWS if compressor.random else FEW
    assert len(xs) == len(seeds) <= rows
    xs = np.resize(np.float32(xs), (rows, *SHAPE))
    keys = jax.vmap(jax.random.key)(np.resize(np.array(seeds, np.uint32), rows))
    out = compiled(compressor, jnp.asarray(xs), keys)
    return jax.tree.map(lambda a: np.asarray(a)[: len(seeds)], out)


def many(compressor: gz.Compressor, x: np.ndarray) -> np.ndarray:
    """Independent round trips of one array: (draws, 100), in float64."""
    rows = DRAWS if compressor.random else FEW
    xs = np.broadcast_to(np.float32(x).reshape(SHAPE), (rows, *SHAPE))
    keys = jax.random.split(jax.random.key(7), rows)
    return flushed(compiled(compressor, xs, keys)[1]).reshape(rows, x.size)


def energy(x: np.ndarray) -> np.ndarray:
    """|x|^2 in float64, over the last axis."""
    return np.sum(np.square(np.asarray(x, np.float64)), axis=-1)


@pytest.mark.parametrize('name', NAMES)
def test_shape_and_dtype_survive(name):
    cases = [(shape, jnp.float32) for shape in [*SHAPES, (3, 0, 2), (2, 3, 5, 7)]]
    cases += [(shape, dtype) for shape in [(), (33, 4)] for dtype in (jnp.bfloat16, jnp.float16)]
    for shape, dtype in cases:
        like = jax.ShapeDtypeStruct(shape, dtype)
        out = jax.eval_shape(functools.partial(roundtrip, COMPRESSORS[name]), like, KEY)
        assert (out.shape, out.dtype) == (shape, dtype)


KEY = jax.eval_shape(lambda: jax.random.key(0))


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('name', NAMES)
def test_float64_stays_float64(name):
    like = jax.ShapeDtypeStruct((50,), jnp.float64)
    out = jax.eval_shape(functools.partial(roundtrip, COMPRESSORS[name]), like, KEY)
    assert out.dtype == jnp.float64


@pytest.mark.parametrize('name', NAMES)
def test_constants_are_those_of_the_papers(name):
    compressor, row = COMPRESSORS[name], ROWS[name]
    stated = (compressor.omega(LEAF), compressor.delta(LEAF))
    assert stated == pytest.approx((row.omega, row.delta))


@pytest.mark.parametrize(
    'name', [n for n in NAMES if isinstance(COMPRESSORS[n].contractive(LEAF), Contracted)]
)
def test_a_scaled_one_contracts_by_what_omega_says(name):
    """1 / (1 + omega), which a linear one is also multiplied by."""
    assert COMPRESSORS[name].contractive(LEAF).delta(LEAF) == pytest.approx(
        1 / (1 + ROWS[name].omega)
    )


@pytest.mark.parametrize('name', NAMES)
def test_the_form_for_memories_contracts(name):
    compressor = COMPRESSORS[name].contractive(LIKE)
    delta = compressor.delta(LIKE)
    assert 0 < delta <= 1
    for case, x in HARD.items():
        outs, x = many(compressor, x), flushed(x)
        losses = energy(x - outs)
        slack = ALARM * losses.std() / np.sqrt(len(outs))
        assert losses.mean() <= (1 - delta) * energy(x) + slack + 1e-6 * energy(x), case


@pytest.mark.parametrize('name', [n for n in NAMES if n not in NOT_EXACT_ALONE])
def test_one_entry_is_sent_exactly_and_none_is_no_error(name):
    for shape in ((), (1,), (2, 0)):
        x = jnp.full(shape, -2.5)
        out = jax.jit(functools.partial(roundtrip, COMPRESSORS[name]))(x, jax.random.key(0))
        np.testing.assert_allclose(out, x, rtol=1e-6)


@pytest.mark.parametrize(
    'name', [n for n in NAMES if not COMPRESSORS[n].random and COMPRESSORS[n].delta(LEAF)]
)
@given(xs=hnp.arrays(np.float32, (FEW, *SHAPE), elements=FLOATS))
def test_one_that_does_not_draw_always_contracts(name, xs):
    compressor = COMPRESSORS[name]
    _, sents, _ = run(compressor, xs, [0] * FEW)
    xs, sents = (np.float64(a).reshape(FEW, -1) for a in (xs, sents))
    rounding = 1e-12 * energy(xs) + 1e-37 * LIKE.size
    bound = (1 - compressor.delta(LIKE)) * energy(xs) * (1 + 1e-5) + rounding
    assert (energy(xs - sents) <= bound).all()


@pytest.mark.parametrize('name', UNBIASED)
def test_omega_bounds_the_variance_and_the_mean_is_right(name):
    compressor = COMPRESSORS[name]
    omega = compressor.omega(LIKE)
    signs = np.where(np.random.default_rng(5).random(100) < 0.5, -1.0, 1.0)
    for case, x in HARD.items():
        outs, x = many(compressor, x), flushed(x)
        losses = energy(x - outs)
        slack = ALARM * losses.std() / np.sqrt(len(outs))
        assert losses.mean() <= omega * energy(x) + slack + 1e-10 * energy(x), case
        if x.any():
            for direction in (x / np.abs(x).max(), np.ones(100), signs, np.sign(x)):
                check_mean(outs, x, direction)


def check_mean(outs: np.ndarray, x: np.ndarray, direction: np.ndarray) -> None:
    """A z-test of <Q(x), direction> having the mean <x, direction>."""
    unit = np.abs(x).max()
    seen, expected = outs @ direction / unit, x @ direction / unit
    rounding = 1e-6 * np.abs(direction).sum()
    assert abs(seen.mean() - expected) <= ALARM * seen.std() / np.sqrt(len(outs)) + rounding


@pytest.mark.parametrize('name', ['ternary max', 'ternary l2', 'randk', 'qsgd 8 bits'])
def test_tight_constants_are_reached(name):
    """On the vector that the proof names, the measured omega is within 5 % of the stated one."""
    n = 100
    worst = {
        'ternary max': np.concatenate([[1.0], np.full(n - 1, 1 / (1 + n**0.5))]),
        'ternary l2': np.ones(n),
        'randk': np.ones(n),
        'qsgd 8 bits': np.concatenate([[1.0], np.full(63, 0.5 / 127), np.zeros(n - 64)]),
    }[name]
    compressor = COMPRESSORS[name]
    measured = energy(worst - many(compressor, worst)).mean() / energy(worst)
    # The entries after the first block of 64 are zero: the constant is that of the block.
    assert measured == pytest.approx(compressor.omega(LIKE), rel=0.05)


@pytest.mark.parametrize('name', [n for n in NAMES if COMPRESSORS[n].linear])
def test_linear_ones_decode_the_mean_of_payloads_to_the_mean(name):
    compressor, key = COMPRESSORS[name], jax.random.key(2)
    xs = np.random.default_rng(1).normal(size=(4, *SHAPE))
    payloads, sents, _ = run(compressor, xs, [2] * 4)
    mean = jax.tree.map(lambda a: jnp.asarray(a.mean(0)), payloads)
    decoded = jax.jit(lambda p: compressor.decode(p, LIKE, key))(mean)
    np.testing.assert_allclose(decoded, sents.mean(0), atol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_decode_mean_is_the_mean_of_decodes(name):
    compressor, seeds = COMPRESSORS[name], [3, 4, 5, 6, 7]
    xs = np.random.default_rng(1).normal(size=(5, *SHAPE))
    payloads, sents, _ = run(compressor, xs, seeds)
    keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))
    mean = jax.jit(lambda p, k: compressor.decode_mean(p, LIKE, k))(payloads, keys)
    np.testing.assert_allclose(mean, sents.mean(0), atol=2e-6)


@pytest.mark.parametrize('name', NAMES)
def test_the_remainder_is_what_was_not_decoded(name):
    xs = np.float32(np.random.default_rng(1).normal(size=(3, *SHAPE)))
    _, sents, rests = run(COMPRESSORS[name], xs, [0, 1, 2])
    assert (rests.shape, rests.dtype) == (xs.shape, xs.dtype)
    np.testing.assert_allclose(rests, xs - sents, atol=1e-6)


@pytest.mark.parametrize('name', VERBATIM)
def test_subnormal_entries_are_sent_or_remain(name):
    """None is lost where entries travel as they are: sent and remainder add up to the array."""
    rng = np.random.default_rng(0)
    tiny = np.float32(rng.integers(-90, 90, SHAPE)) * np.float32(1.4e-45)
    xs = np.stack(
        [tiny, np.where(rng.random(SHAPE) < 0.1, np.float32(rng.normal(size=SHAPE)), tiny)]
    )
    _, sents, rests = run(COMPRESSORS[name], xs, [0, 1])
    np.testing.assert_array_equal(np.where(sents == 0, rests, sents), xs)
    np.testing.assert_array_equal(rests[sents != 0], 0)


@pytest.mark.parametrize('name', NAMES)
def test_of_a_subnormal_entry_less_than_the_smallest_normal_number_is_lost(name):
    """Arithmetic counts it as zero on CPU and TPU, and nothing larger is sent in its place."""
    xs = np.full((1, *SHAPE), 1e-39, np.float32)
    _, sents, rests = run(COMPRESSORS[name], xs, [0])
    assert np.abs(sents).max() <= 2.0**-126
    assert np.abs(np.float64(sents) + np.float64(rests) - xs).max() <= 2.0**-126


@pytest.mark.parametrize('name', NAMES)
def test_what_is_not_finite_is_seen(name):
    """NaN and infinity are never sent as a finite number; a random choice may leave them out."""
    bad = np.array([np.nan, np.inf, -np.inf], np.float32)
    xs = np.ones((3, *SHAPE), np.float32)
    xs[:, 0, 3] = bad
    seen = run(COMPRESSORS[name], xs, [0, 0, 0])[1][:, 0, 3]
    dropped = (seen == 0) if name in RANDOM_CHOICES else np.zeros(3, bool)
    assert (~np.isfinite(seen) | dropped).all()


@pytest.mark.parametrize('name', NAMES)
def test_the_same_key_gives_the_same_payload_and_another_another(name):
    x = np.random.default_rng(1).normal(size=SHAPE)
    payloads = run(COMPRESSORS[name], [x, x, x], [3, 3, 4])[0]
    for leaf in jax.tree.leaves(payloads):
        np.testing.assert_array_equal(leaf[0], leaf[1])
    differs = any((leaf[0] != leaf[2]).any() for leaf in jax.tree.leaves(payloads))
    assert differs == COMPRESSORS[name].random
