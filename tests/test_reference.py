"""The library against slow NumPy written from the papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given

import gradzip as gz
from gradzip import _noise as noise
from gradzip._base import like_of
from tests import reference
from tests.arrays import flushed, vectors
from tests.mappers import AXIS
from tests.zoo import half_of_gradients_as_previous

pytestmark = pytest.mark.usefixtures('fast_compilation')


@functools.partial(jax.jit, static_argnums=0)
def roundtrip(compressor, x, key):
    return compressor.decode(compressor.encode(x, key), like_of(x), key)


def decoded(compressor, x, key):
    return np.asarray(roundtrip(compressor, x, key))


@given(x=vectors())
@example(x=np.full(33, 1e-45, np.float32))  # subnormal, so an addition on CPU would give zeros
def test_top_k(x):
    expected = reference.top_k(x.ravel(), int(np.ceil(round(0.3 * x.size, 6)))).reshape(x.shape)
    np.testing.assert_array_equal(decoded(gz.TopK(0.3), x, jax.random.key(0)), expected)


@pytest.mark.parametrize(
    'x',
    [
        [np.nan, 1.0, np.inf, -np.inf, 2.0],
        [1.0, np.nan, np.nan, np.inf, -5.0],
        [0.0, -0.0, 0.0, 0.0, 0.0],
        [2.0, -2.0, 2.0, -2.0, 2.0],
    ],
)
def test_top_k_takes_nan_first_then_infinity_and_breaks_ties_by_index(x):
    x = np.array(x, np.float32)
    np.testing.assert_array_equal(
        decoded(gz.TopK(0.4), x, jax.random.key(0)), reference.top_k(x, 2)
    )


@given(x=vectors())
@example(x=np.full(33, 1e-45, np.float32))
def test_block_top_k(x):
    for k, block in ((1, 1), (3, 8), (8, 8), (5, 64)):
        expected = reference.block_top_k(x.ravel(), k, block).reshape(x.shape)
        got = decoded(gz.BlockTopK(k, block), x, jax.random.key(0))
        np.testing.assert_array_equal(got, expected)


def places(capacity, x):
    return int(np.ceil(round(capacity * x.size, 6)))


@given(x=vectors())
def test_threshold(x):
    x = np.float32(flushed(x))
    for relative, capacity in ((0.3, 0.2), (0.3, 1.0), (1.0, 0.5)):
        expected = reference.threshold(x.ravel(), relative, places(capacity, x)).reshape(x.shape)
        got = decoded(gz.Threshold(relative, capacity=capacity), x, jax.random.key(0))
        np.testing.assert_array_equal(got, expected)


@given(x=vectors())
def test_energy(x):
    """The same entries, but where the share is reached within the margin for rounding."""
    x = np.float32(flushed(x))
    for share, capacity in ((0.5, 0.2), (0.7, 1.0), (1.0, 1.0)):
        got = decoded(gz.Energy(share, capacity=capacity), x, jax.random.key(0))
        room = places(capacity, x)
        nearly = [
            reference.energy(x.ravel(), s, room) for s in (share * (1 - 1e-6), share * (1 + 3e-6))
        ]
        counts = [np.count_nonzero(e) for e in nearly]
        assert counts[0] <= np.count_nonzero(got) <= counts[1]
        expected = reference.top_k(x.ravel(), np.count_nonzero(got)).reshape(x.shape)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('name', ['threshold', 'energy'])
@pytest.mark.parametrize(
    ('x', 'expected'),
    [
        ([0.0, -0.0, 0.0, 0.0], [0, 0, 0, 0]),
        ([2.0, -2.0, 2.0, 2.0], [2, -2, 2, 0]),
        ([0.1, 1.0, np.inf, 0.0], [0, 0, np.inf, 0]),
        ([0.1, np.nan, np.inf, 0.0], [0.1, np.nan, np.inf, 0]),
        ([np.nan, np.nan, -np.inf, np.nan], [np.nan, np.nan, 0, np.nan]),
    ],
)
def test_what_counts_as_large(name, x, expected):
    """Three places for four entries: ties by index, zeros never, NaN first."""
    if name == 'energy' and np.inf in x and np.nan not in x:
        expected = x  # not finite: all there is room for
    compressor = {
        'threshold': gz.Threshold(0.9, capacity=0.75),
        'energy': gz.Energy(0.7, capacity=0.75),
    }[name]
    payload = compressor.encode(jnp.array(x), jax.random.key(0))
    assert payload.count == np.count_nonzero(np.array(expected))
    got = compressor.decode(payload, like_of(jnp.array(x)), jax.random.key(0))
    np.testing.assert_array_equal(got, np.float32(expected))


@pytest.mark.parametrize('n', [1, 5, 16, 40])
@pytest.mark.parametrize('block', [1, 7, 16])
def test_dct(n, block):
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    blocks = [x[i : i + block] for i in range(0, n, block)]
    expected = np.concatenate([reference.dct(b) for b in blocks])
    scheme, key = gz.DCT(gz.Identity(), block), jax.random.key(0)
    np.testing.assert_allclose(scheme.encode(x, key).values, expected, atol=1e-5)
    np.testing.assert_allclose(decoded(scheme, x, key), x, atol=1e-5)


def test_dct_hands_on_what_the_inner_one_states():
    like = jax.ShapeDtypeStruct((50, 21), jnp.float32)
    for inner in (gz.QSGD(7), gz.RandK(0.1), gz.BlockTopK(2, 32), gz.ScaledSign()):
        scheme = gz.DCT(inner, 32)
        flat = jax.ShapeDtypeStruct((1050,), jnp.float32)
        assert (scheme.omega(like), scheme.delta(like)) == (inner.omega(flat), inner.delta(flat))
        assert (scheme.linear, scheme.random) == (inner.linear, inner.random)


@pytest.mark.parametrize(
    'c', [gz.TopK(0.3), gz.ScaledSign(), gz.Energy(0.5, capacity=0.4)], ids=repr
)
def test_induced(c):
    """C(v) + Q(v - C(v)), with the draws that Q makes for itself."""
    x, key = np.random.default_rng(0).normal(size=20).astype(np.float32), jax.random.key(3)
    kept = decoded(c, x, key)
    rest = decoded(gz.QSGD(3), x - kept, jax.random.fold_in(key, 1))
    scheme = gz.Induced(c, gz.QSGD(3))
    np.testing.assert_allclose(decoded(scheme, x, key), kept + rest, atol=1e-6)
    half = decoded(scheme.contractive(x), x, key)  # the same, scaled
    assert np.linalg.norm(x - half) <= np.linalg.norm(x - kept - rest) * (1 + 1e-6)


@pytest.mark.parametrize('levels', [1, 3, 7, 127])
@pytest.mark.parametrize('norm', ['max', 'l2'])
@pytest.mark.parametrize('block', [None, 8])
def test_qsgd(levels, norm, block):
    x = np.random.default_rng(levels).normal(size=21).astype(np.float32)
    key, size = jax.random.key(5), block or 21
    draws = np.asarray(noise.uniform(key, (21,), jnp.float32))
    blocks = [slice(i, min(i + size, 21)) for i in range(0, 21, size)]
    expected = np.concatenate([reference.qsgd(x[b], levels, norm, draws[b]) for b in blocks])
    got = decoded(gz.QSGD(levels, block=block, norm=norm), x, key)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    if levels == 1 and block is None:
        np.testing.assert_allclose(decoded(gz.Ternary(norm), x, key), expected, rtol=1e-5)


@pytest.mark.parametrize('size', [1 << 17, (1 << 17) + 77])
def test_large_leaves_in_two_pieces(size):
    """The whole part and the rest meet where they should: codes, scales, draws and signs."""
    x, key = np.random.default_rng(0).normal(size=size).astype(np.float32), jax.random.key(5)
    rows = np.pad(x, (0, -size % 256)).reshape(-1, 256)
    scale = np.repeat(np.abs(rows).max(1) / 7, 256)[:size]
    draws = np.asarray(noise.uniform(key, (size,), jnp.float32))
    low = np.floor(np.abs(x) / scale)
    close = np.abs(np.abs(x) / scale - low - draws) < 1e-5
    expected = np.sign(x) * (low + (draws < np.abs(x) / scale - low)) * scale
    got = decoded(gz.QSGD(7), x, key)
    np.testing.assert_allclose(got[~close], expected[~close], rtol=1e-5, atol=1e-6)
    got = decoded(gz.ScaledSign(), x, key)
    np.testing.assert_allclose(got, np.sign(x) * np.abs(x.astype(np.float64)).mean(), rtol=1e-6)
    powers = np.asarray(noise.bits(key, (size,)) >> 9) / 2.0**23
    expected = reference.natural(x[-100:], powers[-100:])
    np.testing.assert_array_equal(decoded(gz.Natural(), x, key)[-100:], expected)


@pytest.mark.slow
@pytest.mark.usefixtures('full_compilation')
@pytest.mark.parametrize('scheme', [gz.QSGD(7), gz.Int(4), gz.ScaledSign(), gz.OneBit()], ids=repr)
@pytest.mark.parametrize('size', [10_000_000, 9_999_999])
def test_a_step_of_memory_stores_no_copy_of_a_large_leaf(scheme, size):
    """Above 32 MiB a temporary is new memory in every step, which costs as much as many passes."""
    tx = gz.error_feedback(scheme, key=0)
    leaf = jax.ShapeDtypeStruct((size,), jnp.float32)

    def step(params, state, gradient):
        update, state = tx.update(gradient, state, params)
        return params - 0.1 * update, state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(leaf, jax.eval_shape(tx.init, leaf), leaf)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 32 << 20


def test_rand_k():
    x, key = np.arange(1.0, 11.0, dtype=np.float32), jax.random.key(1)
    got = decoded(gz.RandK(0.3), x, key)
    assert np.count_nonzero(got) == 3
    np.testing.assert_allclose(got, reference.rand_k(x, np.flatnonzero(got)), rtol=1e-6)


def test_bernoulli():
    x, key = np.arange(1.0, 41.0, dtype=np.float32), jax.random.key(1)
    mask = np.asarray(noise.uniform(key, (40,), jnp.float32) < 0.3)
    got = decoded(gz.Bernoulli(0.3), x, key)
    np.testing.assert_allclose(got, reference.bernoulli(x, mask, 0.3), rtol=1e-6)


def test_bernoulli_never_needs_more_room_than_it_has():
    """The stated probability is 1e-9 a draw; the exact binomial tail says so too."""
    from scipy.stats import binom

    from gradzip._compressors.bernoulli import capacity

    for size in (1, 2, 10, 100, 10_000, 10_000_000):
        for p in (1e-6, 0.01, 0.3, 0.99, 1.0):
            room = capacity(size, p)
            assert room <= size
            assert binom.sf(room, size, p) < 1e-9


def test_what_exceeds_the_room_is_lost_not_misplaced():
    class Narrow(gz.Bernoulli):
        def positions(self, size, key):
            return super().positions(size, key)[:2]

    got = decoded(Narrow(1.0), np.arange(1.0, 6.0, dtype=np.float32), jax.random.key(0))
    np.testing.assert_array_equal(got, [1, 2, 0, 0, 0])


@given(x=vectors())
def test_scaled_sign(x):
    if x.size:
        expected = reference.scaled_sign(x.ravel()).reshape(x.shape)
        got = decoded(gz.ScaledSign(), x, jax.random.key(0))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-37)


def test_natural():
    x, key = np.random.default_rng(0).normal(size=70).astype(np.float32), jax.random.key(3)
    tiny = np.finfo(np.float32).smallest_normal
    x[3:6] = 0, 4, -0.5
    x[6:10] = np.nan, -np.nan, np.inf, -np.inf
    x[10:14] = -0.0, tiny / 2, -tiny / 2, -tiny
    draws = np.asarray(noise.bits(key, (70,)) >> 9) / 2.0**23
    got, expected = decoded(gz.Natural(), x, key), reference.natural(x, draws)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got[8:14]), [False, True, False, False, False, True])


@pytest.mark.parametrize('bits', [2, 4, 8])
@pytest.mark.parametrize(('size', 'block'), [(64, 64), (70, 70), (150, 25), (90, 64)])
def test_int_to_the_nearest(bits, size, block):
    x = np.random.default_rng(bits).normal(size=size).astype(np.float32)
    pieces = [x[i : i + block] for i in range(0, size, block)]
    levels = 2 ** (bits - 1) - 1
    expected = np.concatenate([reference.nearest_integers(p, levels) for p in pieces])
    got = decoded(gz.Int(bits, block=block, rounding='nearest'), x, jax.random.key(0))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_int_at_random_is_qsgd():
    x, key = np.random.default_rng(0).normal(size=300).astype(np.float32), jax.random.key(0)
    expected = decoded(gz.QSGD(7, block=64), x, key)
    np.testing.assert_array_equal(decoded(gz.Int(4), x, key), expected)


@pytest.mark.parametrize(('size', 'block'), [(1, None), (100, None), (100, 64), (70_000, 32)])
def test_one_bit(size, block):
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    x[: size // 2] = np.abs(x[: size // 2])  # a block of one sign
    length = block or size
    pieces = [x[i : i + length] for i in range(0, size, length)]
    expected = np.concatenate([reference.one_bit(p) for p in pieces])
    got = decoded(gz.OneBit(block=block), x, jax.random.key(0))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.usefixtures('full_compilation')  # the optimizer is what would take it for nothing
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float8_e4m3fn', 'float8_e5m2'])
@pytest.mark.parametrize('size', [1e-30, 1.0, 1e37])
def test_cast_rounds_to_the_nearest_and_something_is_lost(dtype, size):
    """A compiler that took x -> narrow -> x for nothing would leave a remainder of zero."""
    import ml_dtypes

    x = (np.random.default_rng(0).normal(size=1000) * size).astype(np.float32)
    narrow = np.dtype(getattr(ml_dtypes, dtype, dtype))
    top = 2 ** int(np.floor(np.log2(float(ml_dtypes.finfo(narrow).max))))
    exponent = np.ceil(np.log2(float(np.abs(x).max())) - np.log2(float(top)) + 1e-9)
    scale = 2.0 ** np.clip(exponent, -126, 126)
    expected = (x / scale).astype(narrow).astype(np.float64) * scale
    got = decoded(gz.Cast(dtype), x, jax.random.key(0))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7 * size)
    assert np.count_nonzero(got != x) > 900


@pytest.mark.parametrize('bits', [1, 2, 5])
def test_eden(bits):
    from gradzip._compressors import eden, rotated

    x, key = np.random.default_rng(0).normal(size=64).astype(np.float32), jax.random.key(1)
    words = np.asarray(noise.bits(key, (2,), rotated.SIGNS_START))
    signs = [-1.0 if words[i // 32] >> (i % 32) & 1 else 1.0 for i in range(64)]
    expected = reference.eden(x.astype(np.float64), np.array(signs), eden.centroids(bits))
    np.testing.assert_allclose(decoded(gz.EDEN(bits), x, key), expected, rtol=1e-3, atol=1e-4)


def test_eden_loses_as_little_as_the_paper_says():
    """Vargaftik et al., arXiv 2108.08842, section 4: the error of 1 to 5 bits for a large leaf."""
    x = np.random.default_rng(0).laplace(size=1 << 17).astype(np.float32)
    for bits, paper in enumerate((0.571, 0.133, 0.0358, 0.0096, 0.0025), 1):
        out = decoded(gz.EDEN(bits), x, jax.random.key(bits)).astype(np.float64)
        assert np.sum((out - x) ** 2) / np.sum(x.astype(np.float64) ** 2) == pytest.approx(
            paper, rel=0.02
        )


def test_rotations_are_orthogonal_and_inverted():
    x, key = np.random.default_rng(0).normal(size=5000).astype(np.float32), jax.random.key(0)
    np.testing.assert_allclose(decoded(gz.Rotated(gz.Identity()), x, key), x, atol=1e-5)


@pytest.mark.parametrize('x', ['gaussian', 'cauchy', 'equal', 'few', 'zeros'])
def test_weighted_bernoulli(x):
    """Where an entry is kept, and as what, for the reference's probabilities and the same draws."""
    rng, key = np.random.default_rng(0), jax.random.key(2)
    x = {
        'gaussian': rng.normal(size=1000),
        'cauchy': rng.standard_cauchy(1000),
        'equal': np.full(1000, -2.0),
        'few': np.where(np.arange(1000) % 100 == 0, rng.normal(size=1000), 0),
        'zeros': np.zeros(1000),
    }[x].astype(np.float32)
    draws = np.asarray(noise.uniform(key, (1000,), jnp.float32))
    p = reference.probabilities(x.astype(np.float64), 100)
    expected = np.where(draws < p, x / np.where(p > 0, p, 1), 0)
    close = np.abs(draws - p) < 1e-5
    got = decoded(gz.WeightedBernoulli(0.1), x, key)
    np.testing.assert_allclose(got[~close], expected[~close], rtol=1e-4)


def workers_run(tx, gradients):
    """Updates of simulated workers over (steps, workers, n), and the last state."""
    shape = gradients.shape[2:]
    specs = gz.state_specs(jax.eval_shape(tx.init, jnp.zeros(shape)), 0, None)
    state = jax.vmap(lambda _: tx.init(jnp.zeros(shape)), out_axes=specs, axis_name=AXIS)(
        jnp.arange(gradients.shape[1])
    )
    mapped = jax.jit(jax.vmap(tx.update, (0, specs), (None, specs), axis_name=AXIS))
    updates = []
    for g in gradients:
        update, state = mapped(jnp.asarray(g, jnp.float32), state)
        updates.append(update)
    return np.stack(updates), state


@pytest.mark.parametrize(('decay', 'drop'), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.05), (0.9, 0.4)])
def test_error_feedback(decay, drop):
    gs = np.random.default_rng(0).normal(size=(12, 3, 20))
    tx = gz.error_feedback(gz.TopK(0.2), AXIS, decay=decay, drop=drop)
    updates, state = workers_run(tx, gs)
    expected, errors = reference.error_feedback(gs, lambda x: reference.top_k(x, 4), decay, drop)
    np.testing.assert_allclose(updates, expected, atol=1e-5)
    np.testing.assert_allclose(state.error.rows[:, 0], errors, atol=1e-5)


def test_a_server_with_a_memory():
    """The same transformation without an axis, behind the exchange."""
    gs = np.random.default_rng(0).normal(size=(12, 3, 20))
    tx = optax.chain(gz.error_feedback(gz.TopK(0.2), AXIS), gz.error_feedback(gz.TopK(0.2)))
    updates, (workers, server) = workers_run(tx, gs)
    expected, errors, kept = reference.double_squeeze(gs, lambda x: reference.top_k(x, 4))
    np.testing.assert_allclose(updates, expected, atol=1e-5)
    np.testing.assert_allclose(workers.error.rows[:, 0], errors, atol=1e-5)
    np.testing.assert_allclose(server.error, kept, atol=1e-5)
    left = updates.sum(0) + np.mean(workers.error.rows[:, 0], 0) + server.error
    np.testing.assert_allclose(left, gs.mean(1).sum(0), atol=1e-4)


def test_ef21():
    gs = np.random.default_rng(0).normal(size=(12, 3, 20))
    updates, state = workers_run(gz.ef21(gz.TopK(0.2), AXIS), gs)
    expected, estimates = reference.ef21(gs, lambda x: reference.top_k(x, 4))
    np.testing.assert_allclose(updates, expected, atol=1e-5)
    np.testing.assert_allclose(state.estimate.rows[:, 0], estimates, atol=1e-5)


@pytest.mark.parametrize('momentum', [0.3, lambda t: (2 / (t + 2)) ** 0.5], ids=['0.3', 'falling'])
def test_ef21_with_momentum(momentum):
    gs = np.random.default_rng(0).normal(size=(12, 3, 20))
    updates, state = workers_run(gz.ef21(gz.TopK(0.2), AXIS, momentum=momentum), gs)
    etas = [momentum(t) if callable(momentum) else momentum for t in range(12)]
    expected, momenta = reference.ef21_momentum(gs, lambda x: reference.top_k(x, 4), etas)
    np.testing.assert_allclose(updates, expected, atol=1e-5)
    np.testing.assert_allclose(state.momentum.rows[:, 0], momenta, atol=1e-5)


@pytest.mark.parametrize(('nesterov', 'masking'), [(False, True), (True, True), (False, False)])
def test_dgc(nesterov, masking):
    gs = np.random.default_rng(0).normal(size=(12, 3, 20))
    clip = 7.0  # each worker's limit is 4.04; the norms are around 4.5
    options = {'momentum': 0.8, 'nesterov': nesterov, 'masking': masking, 'clip': clip}
    updates, state = workers_run(gz.dgc(gz.TopK(0.2), AXIS, **options), gs)
    norms = np.linalg.norm(gs, axis=-1)
    assert norms.min() < clip / 3**0.5 < norms.max()
    expected, velocity, error = reference.dgc(gs, lambda x: reference.top_k(x, 4), **options)
    np.testing.assert_allclose(updates, expected, atol=1e-5)
    np.testing.assert_allclose(state.velocity.rows[:, 0], velocity, atol=1e-5)
    np.testing.assert_allclose(state.error.rows[:, 0], error, atol=1e-5)


def test_econtrol():
    gs = np.random.default_rng(0).normal(size=(12, 3, 20))
    updates, state = workers_run(gz.econtrol(gz.TopK(0.2), AXIS, eta=0.3), gs)
    expected, errors, estimates = reference.econtrol(gs, lambda x: reference.top_k(x, 4), 0.3)
    np.testing.assert_allclose(updates, expected, atol=1e-5)
    np.testing.assert_allclose(state.error.rows[:, 0], errors, atol=1e-5)
    np.testing.assert_allclose(state.estimate.rows[:, 0], estimates, atol=1e-5)
    left = updates.sum(0) + np.mean(state.error.rows[:, 0], 0)  # law 3
    np.testing.assert_allclose(left, gs.mean(1).sum(0), atol=1e-4)


def gathered_bernoulli(p):
    """What `Gather(Bernoulli(p))` sends at a step from a worker, for the only leaf and key 0."""

    def quantize(t, w, x):
        key = jax.random.key(0)
        for number in (t, 0, w):  # the step, the leaf, the worker
            key = jax.random.fold_in(key, number)
        return reference.bernoulli(x, np.asarray(noise.uniform(key, x.shape, jnp.float32) < p), p)

    return quantize


@pytest.mark.parametrize('alpha', [None, 0.1])
def test_diana(alpha):
    gs = np.random.default_rng(0).normal(size=(6, 3, 20))
    tx = gz.diana(gz.Gather(gz.Bernoulli(0.25)), AXIS, alpha=alpha, key=0)
    updates, state = workers_run(tx, gs)
    # omega = 1 / p - 1, so that 1 / (1 + omega) = p
    expected, shifts = reference.diana(gs, gathered_bernoulli(0.25), alpha or 0.25)
    np.testing.assert_allclose(updates, expected, atol=1e-4)
    np.testing.assert_allclose(state.shift.rows[:, 0], shifts, atol=1e-4)
    np.testing.assert_allclose(state.mean, shifts.mean(0), atol=1e-4)


@pytest.mark.parametrize('probability', [None, 0.6])
def test_marina(probability):
    gs = np.random.default_rng(0).normal(size=(12, 3, 20))
    tx = gz.marina(gz.Gather(gz.Bernoulli(0.25)), AXIS, probability=probability, key=0)
    updates, _ = workers_run(half_of_gradients_as_previous(tx), gs)
    coins = []
    for t in range(12):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), t), 0x7FFFFFFF)
        coins.append(t == 0 or bool(jax.random.bernoulli(key, probability or 0.25)))
    assert 2 <= sum(coins) <= 10  # both branches are taken
    expected = reference.marina(gs, 0.5 * gs, gathered_bernoulli(0.25), coins)
    np.testing.assert_allclose(updates, expected, atol=1e-4)


def test_power_sgd():
    """Two warm steps; the basis is unique up to signs, its projection is unique."""
    gs = np.random.default_rng(0).normal(size=(2, 3, 12, 9))
    reducer = gz.PowerSGD(2)
    q = np.asarray(reducer.init(jax.ShapeDtypeStruct((12, 9), jnp.float32)), np.float64)
    updates, state = workers_run(gz.error_feedback(reducer, AXIS), gs)
    errors = np.zeros((3, 12, 9))
    for t in range(2):
        mean, sent, q = reference.power_sgd(gs[t] + errors, q)
        errors = gs[t] + errors - sent
        np.testing.assert_allclose(updates[t], mean, atol=1e-4)
    np.testing.assert_allclose(state.error.rows[:, 0], errors, atol=1e-4)


@pytest.mark.parametrize('kind', ['zeros', 'rank one', 'nan'])
def test_power_sgd_survives_degenerate_matrices(kind):
    base = np.outer(np.arange(12.0), np.ones(9))
    matrix = {'zeros': base * 0, 'rank one': base, 'nan': base * np.nan}[kind]
    gs = np.stack([np.stack([matrix] * 2)] * 3)
    updates, _ = workers_run(gz.error_feedback(gz.PowerSGD(3), AXIS), gs)
    if kind == 'nan':
        assert np.isnan(updates).all()
    else:
        np.testing.assert_allclose(updates[-1], matrix, atol=1e-4)


def test_randomised_power_sgd_leaves_small_and_flat_leaves_exact():
    tx = gz.compress(gz.PowerSGD(4))
    tree = {'v': jnp.arange(5.0), 'small': jnp.arange(12.0).reshape(3, 4), 's': jnp.float32(2)}
    updates, _ = tx.update(tree, tx.init(tree))
    jax.tree.map(np.testing.assert_array_equal, updates, tree)
