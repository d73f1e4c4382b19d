"""PowerSGD: what its laws do not say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from gradzip._base import like_of
from gradzip._reducers.low_rank import orthonormal
from tests.mappers import AXIS

pytestmark = pytest.mark.usefixtures('fast_compilation')

DRAW = np.random.default_rng(0)
GAUSSIAN = DRAW.normal(size=(12, 3))
MATRICES = {
    'gaussian': GAUSSIAN,
    'zero': np.zeros((12, 3)),
    'rank one': GAUSSIAN[:, :1] @ np.ones((1, 3)),
    'a zero column': GAUSSIAN * [1, 0, 1],
    'columns of all sizes': GAUSSIAN * [1e-30, 1, 1e30],
    'huge': GAUSSIAN * 1e37,
    'tiny': GAUSSIAN * 1e-34,
    'square': DRAW.normal(size=(3, 3)),
}


@pytest.mark.parametrize('name', MATRICES)
def test_columns_are_orthonormal_whatever_the_matrix(name):
    p = jnp.asarray(MATRICES[name], jnp.float32)
    q = np.asarray(orthonormal(p), np.float64)
    np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-6)
    scale = np.maximum(np.abs(p).max(axis=0), np.finfo(np.float32).tiny)
    unit = np.asarray(p, np.float64) / scale
    np.testing.assert_allclose(q @ (q.T @ unit), unit, atol=1e-5)


def reduce(xs, states, reducer=gz.PowerSGD(2)):  # noqa: B008 - it is immutable
    return reducer.reduce(xs, states, [None] * len(xs), None)


def test_repeated_steps_find_the_best_approximation():
    """On a constant matrix the warm start is a power iteration: Eckart and Young's optimum."""
    u, _, vt = np.linalg.svd(DRAW.normal(size=(20, 15)), full_matrices=False)
    spectrum = np.array([9.0, 5.0] + [1.0] * 13)
    x = jnp.asarray(u * spectrum @ vt, jnp.float32)
    state = gz.PowerSGD(2).init(like_of(x))
    for _ in range(12):
        [out] = reduce([x], [state])
        state = out.state
    np.testing.assert_allclose(out.mean, (u[:, :2] * spectrum[:2]) @ vt[:2], atol=1e-4)


def test_leaves_of_one_shape_are_what_they_are_alone():
    shapes = [(20, 15), (15, 20), (20, 15), (20, 3, 5), (7,), (20, 15)]
    xs = [jnp.asarray(DRAW.normal(size=s), jnp.float32) for s in shapes]
    states = [gz.PowerSGD(2).init(like_of(x)) for x in xs]
    together = reduce(xs, states)
    for x, state, out in zip(xs, states, together, strict=True):
        [alone] = reduce([x], [state])
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(out), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    text = str(jax.make_jaxpr(reduce)(xs, states))
    assert text.count(' qr[') == 2  # (20, 15) and (15, 20); the flat (7,) is exact
    np.testing.assert_array_equal(together[4].mean, xs[4])


def test_kernels_are_split_where_they_send_least():
    """A convolution's (3, 3, 64, 128) is a matrix of 576 x 128, not 3 x 24576."""
    size = gz.payload_bytes(gz.PowerSGD(4), jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32))
    assert size == 4 * 4 * (576 + 128)


@pytest.mark.parametrize(('min_rate', 'size'), [(1, 4 * 2 * 30), (4, 4 * 200)])
def test_leaves_that_shrink_too_little_are_exact(min_rate, size):
    assert gz.payload_bytes(gz.PowerSGD(2, min_rate=min_rate), jnp.zeros((20, 10))) == size


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_one_bad_step_is_seen_and_then_forgotten(bad):
    """NaN is not hidden, but the basis is not lost to it, nor to a step of zeros."""
    x = jnp.asarray(DRAW.normal(size=(20, 15)), jnp.float32)
    first = gz.PowerSGD(2).init(like_of(x))
    [out] = reduce([x.at[3, 4].set(bad)], [first])
    assert np.isnan(out.mean).any()
    [zero] = reduce([jnp.zeros_like(x)], [out.state])
    np.testing.assert_array_equal(zero.mean, 0)
    [after], [expected] = reduce([x], [zero.state]), reduce([x], [first])
    np.testing.assert_allclose(after.mean, expected.mean, atol=1e-6)


@pytest.mark.parametrize(
    ('dtype', 'decay', 'drop'),
    [(jnp.float32, 1.0, 1.0), (jnp.bfloat16, 1.0, 1.0), (jnp.float32, 0.99, 0.05)],
)
def test_the_memory_is_bounded_over_2000_steps_of_workers_that_disagree(dtype, decay, drop):
    """Every worker pulls its own way, so that no basis fits all; the memory in the same dtype.

    It is some forty gradients by then, as two of twelve directions a step allow, and stays there.
    The last row is Dion's memory with a decay; without one it grows by the part of a worker's
    gradient that lies outside of the common basis.
    """
    workers, steps, shape = 4, 2000, (16, 12)
    rule = {'decay': decay, 'drop': drop}
    tx = gz.error_feedback(gz.PowerSGD(2), AXIS, memory_dtype=dtype, key=0, **rule)
    specs = gz.state_specs(jax.eval_shape(tx.init, jnp.zeros(shape, dtype)), 0, None)

    def worker(state, step, index):
        own = jax.random.fold_in(jax.random.key(0), index)
        noise = jax.random.normal(jax.random.fold_in(own, step), shape)
        gradient = (3 * jax.random.normal(own, shape) + noise).astype(dtype)
        _, state = tx.update(gradient, state)
        return state, jnp.linalg.norm(state.error.rows[0].astype(jnp.float32))

    mapped = jax.vmap(worker, (specs, None, 0), (specs, 0), axis_name=AXIS)
    init = jax.vmap(lambda _: tx.init(jnp.zeros(shape, dtype)), out_axes=specs, axis_name=AXIS)(
        jnp.arange(workers)
    )
    norms = jax.lax.scan(lambda s, i: mapped(s, i, jnp.arange(workers)), init, jnp.arange(steps))[1]
    assert np.isfinite(norms).all()
    assert norms[-500:].max() <= 1.3 * norms[200:700].max()


@pytest.mark.parametrize(('refresh', 'largest'), [(None, 60), (10, 10)])
def test_a_direction_outside_of_the_basis_is_found_by_a_refresh(refresh, largest):
    """The first gradient turns the basis to one entry. Later ones are orthogonal to it."""
    tx = gz.error_feedback(gz.PowerSGD(1, min_rate=1, refresh=refresh))
    first, later = (jnp.zeros((8, 6)).at[at].set(1.0) for at in ((0, 0), (3, 4)))
    _, state = tx.update(first, tx.init(first))

    def step(state, _):
        _, state = tx.update(later, state)
        return state, jnp.linalg.norm(state.error)

    norms = jax.lax.scan(step, state, length=60)[1]
    np.testing.assert_allclose(norms.max(), largest, atol=1)


def test_every_refresh_starts_from_another_basis():
    """Where nothing is exchanged, the basis stays what the step began with."""
    reducer, x = gz.PowerSGD(2, refresh=3), jnp.zeros((20, 15))
    state, bases = reducer.init(like_of(x)), []
    for _ in range(9):
        [out] = reduce([x], [state], reducer)
        state = out.state
        bases.append(np.asarray(state.basis))
    for start in (0, 3, 6):
        np.testing.assert_array_equal(bases[start], bases[start + 2])
    assert np.linalg.matrix_rank(np.concatenate(bases[::3], axis=1)) == 6
