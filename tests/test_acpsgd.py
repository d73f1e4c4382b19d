"""The two factors in turn, compared with the algorithm written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import gradzip as gz
from gradzip._base import like_of
from tests.mappers import AXIS

WORKERS, SHAPE, RANK = 3, (9, 7), 2


def orthonormal(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.qr(matrix)[0]


def test_it_is_the_algorithm_of_the_paper():
    xs = np.float32(np.random.default_rng(0).normal(size=(4, WORKERS, *SHAPE)))
    reducer = gz.ACPSGD(RANK, min_rate=1)
    state = reducer.init(like_of(xs[0, 0]))
    q, p = np.asarray(state.q, np.float64), None

    def worker(x, state):
        [out] = reducer.reduce([x], [state], [jax.random.key(0)], AXIS)
        return out.mean, out.sent, out.lost, out.state

    step = jax.jit(jax.vmap(worker, (0, None), (None, 0, 0, None), axis_name=AXIS))
    for i, x in enumerate(xs):
        mean, sent, lost, state = step(x, state)
        if i % 2 == 0:
            basis = orthonormal(q)
            own = x @ basis
            p = own.mean(0)
            expected, contributions = p @ basis.T, own @ basis.T
        else:
            basis = orthonormal(p)
            own = x.swapaxes(1, 2) @ basis
            q = own.mean(0)
            expected, contributions = basis @ q.T, basis @ own.swapaxes(1, 2)
        np.testing.assert_allclose(mean, expected, atol=2e-5)
        np.testing.assert_allclose(sent, contributions, atol=2e-5)
        np.testing.assert_allclose(lost, x - contributions, atol=2e-5)


def test_it_finds_a_constant_matrix_of_its_rank():
    x = jnp.float32(np.outer(np.arange(1, 10), np.arange(3, 10)))
    tx = gz.compress(gz.ACPSGD(1))
    state = tx.init(x)
    for _ in range(2):
        update, state = tx.update(x, state)
    np.testing.assert_allclose(update, x, rtol=1e-4, atol=1e-4)


def test_one_all_reduce_of_the_larger_factor():
    params = jnp.zeros((64, 32))
    assert gz.payload_bytes(gz.ACPSGD(2), params) == 4 * 2 * 64
