"""The step along the mean message: against NumPy, its guarantee, mappers, and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests import reference
from tests.mappers import AXIS, mesh_of

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS, ROWS, SIZE, STEPS = 3, 5, 6, 12
KINDS = {'least squares': 0.0, 'logistic': 1.0}


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(WORKERS, ROWS, SIZE)) * 2.0 ** -np.arange(SIZE)
    return x, np.sign(rng.normal(size=(WORKERS, ROWS))), rng.normal(size=SIZE) * 8


def loss(w, x, y, logistic, xp=jnp):
    """Of one worker: the mean over its rows, and a small square of the weights."""
    z = x @ w
    each = logistic * xp.logaddexp(0, -y * z) + (1 - logistic) * (z - y) ** 2 / 2
    return each.mean(-1) + 0.005 * (w * w).sum()


def derivatives(w, x, y, logistic):
    """The gradient of every worker, f64[workers, size], and the Hessian of the mean loss."""
    z = x @ w
    wrong = 1 / (1 + np.exp(y * z))
    slope = logistic * -y * wrong + (1 - logistic) * (z - y)
    curvature = logistic * wrong * (1 - wrong) + 1 - logistic
    hessian = np.einsum('nr,nri,nrj->ij', curvature, x, x) / x.shape[1] / len(x)
    gradients = np.einsum('nr,nri->ni', slope, x) / x.shape[1] + 0.01 * w
    return gradients, hessian + 0.01 * np.eye(len(w))


def expected_run(x, y, start, logistic):
    """Error feedback with the two largest entries, and the line search: params and halvings."""
    w, error, ws, counts = start.copy(), np.zeros((WORKERS, SIZE)), [start], []
    for _ in range(STEPS):
        gradients, hessian = derivatives(w, x, y, logistic)
        target = gradients + error
        sent = np.stack([reference.top_k(v, 2) for v in target])
        error, u = target - sent, sent.mean(0)

        def along(t, w=w, u=u):
            return np.mean(loss(w + t * u, x, y, logistic, np))

        slope, curvature = gradients.mean(0) @ u, u @ hessian @ u
        step, halvings = reference.newton_linesearch(along, slope, curvature)
        w = w + step * u
        ws.append(w)
        counts.append(halvings)
    return np.array(ws), counts


def chain():
    return optax.chain(gz.error_feedback(gz.TopK(1 / 3), AXIS), gz.scale_by_newton_linesearch(AXIS))


def run(x, y, start, logistic):
    """The same by gradzip, on one worker of several."""
    tx = chain()

    def step(carry, _):
        w, state = carry
        gradient = jax.grad(loss)(gz.localize(w, AXIS), x, y, logistic)
        update, state = tx.update(gradient, state, w, value_fn=lambda w: loss(w, x, y, logistic))
        w = optax.apply_updates(w, update)
        return (w, state), (w, state[1].halvings)

    return jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[1]


def test_steps_are_those_of_the_reference_and_fall_as_promised():
    """Also behind a memory, whose messages need not be descent, and where Newton overshoots."""
    x, y, start = data()
    mapped = jax.vmap(run, (0, 0, None, None), None, axis_name=AXIS)
    each = jax.jit(jax.vmap(mapped, (None, None, None, 0)))
    f32 = [jnp.asarray(a, jnp.float32) for a in (x, y, start)]
    ws, counts = each(*f32, jnp.array(list(KINDS.values())))
    for i, (kind, logistic) in enumerate(KINDS.items()):
        expected, halvings = expected_run(x, y, start, logistic)
        np.testing.assert_allclose(ws[i], expected[1:], rtol=2e-3, atol=2e-3, err_msg=kind)
        assert counts[i].tolist() == halvings
        assert (max(halvings) > 0) == (kind == 'logistic')
        rows = x.reshape(-1, SIZE)
        smooth = (0.25 if logistic else 1) * np.linalg.norm(rows, 2) ** 2 / len(rows) + 0.01
        for w, after in itertools.pairwise(expected):
            gradients, hessian = derivatives(w, x, y, logistic)
            u = after - w
            slope = gradients.mean(0) @ u
            fall = np.mean(loss(w, x, y, logistic, np)) - np.mean(loss(after, x, y, logistic, np))
            assert fall >= 3 / 16 * slope**2 / (smooth * u @ u) * (1 - 1e-9)
            if not logistic:
                np.testing.assert_allclose(fall, slope**2 / (2 * u @ hessian @ u), rtol=1e-9)
    rows = {'x': f32[0].reshape(-1, SIZE), 'y': f32[1].ravel()}
    state, step = gz.data_parallel(
        lambda w, rows: loss(w, rows['x'], rows['y'], 1.0), f32[2], chain(), mesh_of(WORKERS), AXIS,
        printer=None,
    )  # fmt: skip
    np.testing.assert_allclose(step(state, rows)[0].params, ws[1][0], rtol=1e-5)


def test_independent_messages_have_the_descent_of_the_best_step_and_no_floor():
    """In the mean over draws, near the minimum of workers that do not agree there."""
    x, y, _ = data(1)
    rng = np.random.default_rng(0)
    _, hessian = derivatives(np.zeros(SIZE), x, y, 0.0)
    g0, _ = derivatives(np.zeros(SIZE), x, y, 0.0)
    optimum = -np.linalg.solve(hessian, g0.mean(0))
    largest = np.linalg.eigvalsh(hessian)[-1]
    for apart in (1.0, 1e-2):
        w = optimum + apart * rng.normal(size=SIZE)
        gradients, _ = derivatives(w, x, y, 0.0)
        g, falls, squares, rises = gradients.mean(0), [], [], []
        for _ in range(500):
            chosen = [rng.permutation(SIZE)[:2] for _ in range(WORKERS)]
            u = np.mean([reference.rand_k(v, i) for v, i in zip(gradients, chosen, strict=True)], 0)
            slope, curvature = g @ u, u @ hessian @ u

            def along(t, slope=slope, curvature=curvature):
                return t * slope + t**2 * curvature / 2

            falls.append(-along(reference.newton_linesearch(along, slope, curvature)[0]))
            squares.append(u @ u)
            rises.append(along(-1 / largest))
        assert min(falls) >= 0
        assert np.mean(falls) >= (g @ g) ** 2 / (2 * largest * np.mean(squares))
    assert np.mean(rises) > 0  # near the minimum, the step 1 / L goes up


def test_where_the_curvature_is_negative_or_zero():
    """Down the slope, not to the maximum of w - w^2; and nowhere on a line."""
    tx, w = gz.scale_by_newton_linesearch(), jnp.zeros([])

    def update(bend):
        return tx.update(jnp.ones([]), tx.init(w), w, value_fn=lambda w: w - bend * w * w)[0]

    assert jax.jit(jax.vmap(update))(jnp.array([1.0, 0.0])).tolist() == [-0.5, 0]


def test_what_it_refuses():
    tx, w = gz.scale_by_newton_linesearch(), jnp.zeros(3)
    state = tx.init(w)
    for call, error, message in (
        (lambda: tx.update(w, state, w), ValueError, 'received no value_fn: call tx.update'),
        (lambda: tx.update(w, state, value_fn=jnp.sum), ValueError, 'received no params'),
        (lambda: tx.update(w, state, w, value_fn=1.0), TypeError, 'must be a function of the par'),
        (lambda: tx.update(w[:2], state, w, value_fn=jnp.sum), ValueError, r'shape \(2,\)'),
        (lambda: gz.scale_by_newton_linesearch(3), TypeError, 'axis_name must be a string'),
    ):
        with pytest.raises(error, match=message):
            call()
    mapped = gz.scale_by_newton_linesearch(AXIS)
    with pytest.raises(ValueError, match=f'No axis named {AXIS!r}'):
        mapped.update(w, mapped.init(w), w, value_fn=jnp.sum)
