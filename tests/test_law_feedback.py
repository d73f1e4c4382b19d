"""Law 3: sum of updates + pmean(error) == sum of mean gradients, and the memory stays bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS
from tests.zoo import COMPRESSORS, REDUCER_ROWS, REDUCERS, slow_unless_representative

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS, STEPS, SIZE = 8, 1000, (20, 10)


def gradients(step: jax.Array, worker: jax.Array) -> jax.Array:
    """Differ between workers: a mean of their own, plus noise."""
    own = jax.random.fold_in(jax.random.key(0), worker)
    noise = jax.random.normal(jax.random.fold_in(own, step), SIZE)
    return jax.random.normal(own, SIZE) + 0.3 + noise


def run(tx) -> dict[str, np.ndarray]:
    """1000 steps of 8 simulated workers, everything summed up in float64 outside."""
    specs = gz.state_specs(jax.eval_shape(tx.init, jnp.zeros(SIZE)), 0, None)

    def worker(state, step, index):
        gradient = gradients(step, index)
        update, state = tx.update(gradient, state)
        error = state.error.rows[0]
        norms = (jnp.sum(gradient**2), jnp.sum((gradient + error) ** 2), jnp.sum(error**2))
        return state, update, jax.lax.pmean(gradient, AXIS), jnp.stack(norms)

    mapped = jax.vmap(worker, (specs, None, 0), (specs, None, None, 0), axis_name=AXIS)

    def body(state, step):
        state, update, gradient, norms = mapped(state, step, jnp.arange(WORKERS))
        return state, (update, gradient, norms)

    init = jax.vmap(lambda _: tx.init(jnp.zeros(SIZE)), out_axes=specs, axis_name=AXIS)
    state = init(jnp.arange(WORKERS))
    state, (updates, means, norms) = jax.jit(lambda s: jax.lax.scan(body, s, jnp.arange(STEPS)))(
        state
    )
    return {
        'updates': np.asarray(updates, np.float64).sum(0),
        'gradients': np.asarray(means, np.float64).sum(0),
        'error': np.asarray(state.error.rows, np.float64)[:, 0].mean(0),
        'gradient norms': np.sqrt(np.asarray(norms, np.float64)[..., 0]),
        'error norms': np.sqrt(np.asarray(norms, np.float64)[..., 2]),
    }


@pytest.mark.parametrize('name', slow_unless_representative(REDUCER_ROWS))
def test_nothing_is_lost_and_the_memory_is_bounded(name):
    """sqrt(E|e|^2) <= r / (1 - r) max|g| with r = sqrt(1 - delta).

    For |e'| <= r |e + g| gives |e| <= r (|e| + G) in the limit: step by step if the compressor does
    not draw, in the mean square (Minkowski) over steps and workers if it does.
    """
    reducer = REDUCERS[name]
    out = run(gz.error_feedback(reducer, AXIS, key=0))
    total = np.linalg.norm(out['gradients'])
    assert np.linalg.norm(out['updates'] + out['error'] - out['gradients']) <= 2e-6 * total
    errors = out['error norms']
    if not isinstance(reducer, gz.Gather | gz.Sum):
        # PowerSGD keeps a projection of what it wanted to send, never longer than that. TwoShot
        # keeps W times what an owner lost, which must shrink on its way through A again.
        assert errors[-200:].max() <= 1.2 * errors[200:400].max()
        return
    compressor = reducer.compressor
    like = jax.ShapeDtypeStruct(SIZE, jnp.float32)
    rate = np.sqrt(1 - compressor.contractive(like).delta(like))
    bound = rate / (1 - rate) * out['gradient norms'].max() if rate < 1 else np.inf
    worst = np.sqrt((errors**2).mean()) if compressor.random else errors.max()
    assert worst <= bound * (1 + 1e-5) + 1e-4


@pytest.mark.parametrize('name', ['gather topk', 'sum bernoulli', 'powersgd'])
def test_ef21_steps_along_the_mean_estimate(name):
    """mean == pmean(estimate) after every step, in float32 accuracy."""
    tx = gz.ef21(REDUCERS[name], AXIS, key=0)
    specs = gz.state_specs(jax.eval_shape(tx.init, jnp.zeros(SIZE)), 0, None)

    def worker(state, step, index):
        update, state = tx.update(gradients(step, index), state)
        return state, update, state.estimate.rows[0]

    mapped = jax.jit(jax.vmap(worker, (specs, None, 0), (specs, None, 0), axis_name=AXIS))
    state = jax.vmap(lambda _: tx.init(jnp.zeros(SIZE)), out_axes=specs, axis_name=AXIS)(
        jnp.arange(WORKERS)
    )
    for step in range(20):
        state, update, estimates = mapped(state, step, jnp.arange(WORKERS))
        np.testing.assert_allclose(update, estimates.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.mean, update, rtol=0, atol=0)


@pytest.mark.parametrize('name', ['topk', 'qsgd 4 bits', 'bernoulli'])
def test_one_worker_loses_nothing_either(name):
    tx = gz.error_feedback(COMPRESSORS[name], key=0)
    gs = jax.random.normal(jax.random.key(3), (200, 50)) + 0.2

    def body(state, g):
        update, state = tx.update(g, state)
        return state, update

    state, updates = jax.lax.scan(body, tx.init(gs[0]), gs)
    left = np.asarray(updates, np.float64).sum(0) + np.asarray(state.error, np.float64)
    np.testing.assert_allclose(left, np.asarray(gs, np.float64).sum(0), rtol=1e-4, atol=1e-4)


def test_what_stays_of_a_message_is_not_lost_either():
    """With drop below 1, the sum of drop * updates plus the mean memory is the sum of gradients."""
    out = run(gz.error_feedback(gz.TopK(0.1), AXIS, drop=0.3))
    difference = 0.3 * out['updates'] + out['error'] - out['gradients']
    assert np.linalg.norm(difference) <= 2e-6 * np.linalg.norm(out['gradients'])
    assert out['error norms'][-200:].max() <= 1.2 * out['error norms'][200:400].max()


def test_a_memory_of_what_was_sent_is_momentum():
    """Dion's rule at full rank is M = mu (M + G), and an array for drop may be traced."""
    tx = gz.error_feedback(gz.Identity(), drop=0.25)
    scheduled = optax.inject_hyperparams(lambda drop: gz.error_feedback(gz.Identity(), drop=drop))(
        drop=0.25
    )
    g, memory = jnp.array([1.0, -2.0]), np.zeros(2)
    states = [tx.init(g), scheduled.init(g)]
    for _ in range(3):
        update, states[0] = tx.update(g, states[0])
        again, states[1] = scheduled.update(g, states[1])
        np.testing.assert_allclose(update, memory + g, rtol=1e-6)
        np.testing.assert_allclose(again, update, rtol=1e-6)
        memory = 0.75 * (memory + g)
        np.testing.assert_allclose(states[0].error, memory, rtol=1e-6)


def test_normalised_ef21_with_momentum_needs_no_constant_of_the_problem():
    """The chain of `ef21`'s docstring, noisy gradients, losses whose scales differ by 1e6."""
    workers, size = 4, 20
    tx = optax.chain(
        gz.ef21(gz.TopK(0.2), AXIS, momentum=lambda t: (2 / (t + 2)) ** 0.5),
        optax.normalize_by_update_norm(),
        optax.scale_by_learning_rate(lambda t: (2 / (t + 2)) ** 0.75),
    )
    x = jnp.zeros(size)
    minima = jax.random.normal(jax.random.key(0), (workers, size))  # of the workers' quadratics
    specs = gz.state_specs(jax.eval_shape(tx.init, x), 0, None)

    def worker(x, state, minimum, index, step, scale):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), index), step)
        gradient = (1 + jnp.arange(20.0) / 4) * (x - minimum) + jax.random.normal(key, (size,))
        updates, state = tx.update(scale * gradient, state, x)
        return optax.apply_updates(x, updates), state

    axes = (None, specs, 0, 0, None, None)
    mapped = jax.vmap(worker, axes, (None, specs), axis_name=AXIS)

    @jax.jit
    def run(scale):
        def body(carry, step):
            x, state = mapped(*carry, minima, jnp.arange(workers), step, scale)
            return (x, state), jnp.linalg.norm(x - minima.mean(0))

        init = jax.vmap(lambda _: tx.init(x), out_axes=specs, axis_name=AXIS)
        return jax.lax.scan(body, (x, init(jnp.arange(workers))), jnp.arange(3000))[1]

    small, large = run(1e-3), run(1e3)
    np.testing.assert_allclose(small[:5], large[:5], rtol=0.02)  # of the same path
    for distances in (small, large):
        assert distances[-100:].mean() < 0.1 * distances[0]
        assert distances[-100:].mean() < 0.75 * distances[250:350].mean()


def test_momentum_that_waits_is_momentum_without_masking():
    """Law 3 of `dgc`: the updates plus the mean memory are what SGD with momentum would move."""
    tx = gz.dgc(gz.TopK(0.2), momentum=0.9, masking=False)
    gs = jax.random.normal(jax.random.key(3), (100, 20)) + 0.2
    state, updates = jax.lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(gs[0]), gs)
    exact = optax.trace(0.9)
    _, steps = jax.lax.scan(lambda s, g: exact.update(g, s)[::-1], exact.init(gs[0]), gs)
    np.testing.assert_allclose(updates.sum(0) + state.error, steps.sum(0), rtol=1e-4)


def test_decay_forgets_on_purpose():
    """With decay below 1, what is forgotten is exactly (1 - decay) times each step's memory."""
    tx = gz.error_feedback(gz.TopK(0.1), decay=0.5)
    state = tx.init(jnp.zeros(10))
    _, state = tx.update(jnp.arange(1.0, 11.0), state)
    update, state = tx.update(jnp.zeros(10), state)
    np.testing.assert_allclose(update, jnp.zeros(10).at[8].set(4.5))
