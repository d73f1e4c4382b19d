"""The chains against workers and a server that pass messages, step for step."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from gradzip import _noise as noise
from tests import messages, reference
from tests.mappers import AXIS
from tests.zoo import DELAYS

pytestmark = pytest.mark.usefixtures('fast_compilation')

STEPS, WORKERS, D, RATE = 14, 4, 12, 2.0
KEY = jax.random.key(7)
ROWS = np.random.default_rng(0).normal(size=(WORKERS, D))
MODELS = {name: model for name, model in DELAYS.items() if not model.starts_from_zero}


class Table(gz.Delay):
    """The ages of all steps and workers as an array, so that one program serves all models."""

    bound = max(model.bound for model in MODELS.values())

    def __init__(self, ages):
        self.ages = ages

    def __repr__(self):
        return 'Table'

    def steps(self, key, step, worker):
        del key
        return self.ages[step, worker]


def ages_of(model):
    """By the model's own word: i32[steps, workers]."""
    steps = jax.vmap(jax.vmap(model.steps, (None, None, 0)), (None, 0, None))
    return np.asarray(steps(KEY, jnp.arange(STEPS), jnp.arange(WORKERS)))


@functools.cache
def tables():
    """The ages of every model."""
    return {name: ages_of(model) for name, model in MODELS.items()}


def gradient(w, row):
    return jax.grad(lambda w: jax.nn.softplus(-row @ w))(w)


def path_of(tx):
    """The weights of a chain after every step, from gradients at the weights of the moment."""
    w = jnp.zeros(D)
    specs = gz.state_specs(jax.eval_shape(tx.init, w), 0, None)
    init = jax.vmap(lambda _: tx.init(w), out_axes=specs, axis_name=AXIS)

    def worker(w, state, row):
        updates, state = tx.update(gradient(w, row), state, w)
        return optax.apply_updates(w, updates), state

    step: Callable = jax.vmap(worker, (None, specs, 0), (None, specs), axis_name=AXIS)

    def body(carry, _):
        carry = step(*carry, jnp.asarray(ROWS, jnp.float32))
        return carry, carry[0]

    return jax.lax.scan(body, (w, init(jnp.arange(WORKERS))), length=STEPS)[1]


def paths_of(make):
    """The weights for every model, from one program."""
    run = jax.jit(jax.vmap(lambda ages: path_of(make(Table(ages)))))
    return dict(zip(tables(), np.asarray(run(jnp.stack(list(tables().values())))), strict=True))


def everyone(compress=lambda v, step: v, memory=False):
    return [messages.Worker(row, compress, np.zeros(D) if memory else None) for row in ROWS]


def top(v, step):
    del step
    return reference.top_k(v, 3)


FRESH = {
    'not compressed': (gz.compress(gz.Identity(), AXIS), {}),
    'compressed, with a memory': (
        gz.error_feedback(gz.TopK(0.25), AXIS),
        {'compress': top, 'memory': True},
    ),
}


@pytest.mark.parametrize('name', FRESH)
def test_late_gradients_of_every_model(name):
    exchange, options = FRESH[name]
    paths = paths_of(lambda model: optax.chain(gz.delay(model, AXIS), exchange, optax.sgd(RATE)))
    for model, ages in tables().items():
        clamped = np.minimum(ages, np.arange(STEPS)[:, None])
        expected = messages.fresh(everyone(**options), clamped, RATE)
        np.testing.assert_allclose(paths[model], expected, rtol=1e-4, atol=1e-5, err_msg=model)


@pytest.mark.parametrize('name', FRESH)
def test_a_constant_delay_waits_for_the_first_gradient(name):
    exchange, options = FRESH[name]
    tx = optax.chain(gz.delay(4, AXIS), exchange, optax.sgd(RATE))
    expected = messages.fresh(everyone(**options), np.full((STEPS, WORKERS), 4), RATE)
    np.testing.assert_allclose(jax.jit(lambda: path_of(tx))(), expected, rtol=1e-4, atol=1e-5)


def quantizers():
    """The workers of Q-IAG, who draw as the documentation says."""

    def draws(step, worker):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, step), 0), worker)
        return noise.uniform(key, (D,), jnp.float32)

    drawn = np.asarray(
        jax.vmap(jax.vmap(draws, (None, 0)), (0, None))(jnp.arange(STEPS), jnp.arange(WORKERS))
    )
    return [
        messages.Worker(row, lambda v, step, i=i: reference.qsgd(v, 3, 'max', drawn[step, i]), None)
        for i, row in enumerate(ROWS)
    ]


@pytest.mark.parametrize('scheme', [gz.Identity(), gz.QSGD(3)], ids=repr)
def test_reused_messages_of_every_model(scheme):
    paths = paths_of(
        lambda model: optax.chain(gz.iag(scheme, AXIS, model, key=KEY), optax.sgd(RATE))
    )
    for model, ages in tables().items():
        workers = quantizers() if scheme.random else everyone()
        expected = messages.reused(workers, ages, RATE)
        np.testing.assert_allclose(paths[model], expected, rtol=1e-4, atol=1e-4, err_msg=model)


@pytest.mark.parametrize('model', ['table', gz.Constant(3)], ids=repr)
def test_old_parameters_in_place_of_old_gradients(model):
    """Gradients at old parameters, when they are used, are the old gradients."""
    tail = optax.chain(gz.error_feedback(gz.TopK(0.25), AXIS), optax.sgd(RATE, momentum=0.5))

    def by_params(model):
        stale = gz.stale_params(model, AXIS)
        w = jnp.zeros(D)
        specs = gz.state_specs(jax.eval_shape(tail.init, w), 0, None)
        init = jax.vmap(lambda _: tail.init(w), out_axes=specs, axis_name=AXIS)

        def worker(w, past, state, row):
            late, born = stale.read(past, w)
            grads = jnp.where(born >= 0, gradient(late, row), 0)
            updates, state = tail.update(grads, state, w)
            return optax.apply_updates(w, updates), stale.update(w, past), state

        axes = (None, None, specs, 0), (None, None, specs)
        step: Callable = jax.vmap(worker, *axes, axis_name=AXIS)

        def body(carry, _):
            carry = step(*carry, jnp.asarray(ROWS, jnp.float32))
            return carry, carry[0]

        start = w, stale.init(w), init(jnp.arange(WORKERS))
        return jax.lax.scan(body, start, length=STEPS)[1]

    def both(ages):
        used = Table(ages) if model == 'table' else model
        return path_of(optax.chain(gz.delay(used, AXIS), tail)), by_params(used)

    by_gradients, by_parameters = jax.jit(jax.vmap(both))(jnp.stack(list(tables().values())))
    np.testing.assert_allclose(by_parameters, by_gradients, rtol=1e-5, atol=1e-6)


ARRIVALS = [(0, 0), (1, 0), (2, 0), (0, 1), (0, 4), (3, 0), (1, 2), (2, 3), (0, 5), (3, 6)]
AGES = [step - born for step, (_, born) in enumerate(ARRIVALS)]


@pytest.mark.parametrize('share', [0.7, None])
def test_one_gradient_a_step(share):
    """A server with adaptive steps: each worker's gradient at the parameters that it had read."""
    rule = gz.delay_rules.Adaptive2() if share is None else gz.delay_rules.Adaptive1(share)
    bound = max(AGES)
    stale = gz.stale_params(bound)
    tx = optax.chain(
        gz.take_turns(gz.error_feedback(gz.TopK(0.25)), WORKERS),
        gz.scale_by_delay(rule, bound),
        optax.sgd(RATE),
    )
    w, rows = jnp.zeros(D), jnp.asarray(ROWS, jnp.float32)

    def body(carry, arrival):
        w, past, state = carry
        worker, age = arrival
        late, _ = stale.read(past, w, delay=age)
        grads = gradient(late, rows[worker])
        updates, state = tx.update(grads, state, w, worker=worker, delay=age)
        moved = optax.apply_updates(w, updates)
        return (moved, stale.update(w, past), state), moved

    numbers = jnp.array([number for number, _ in ARRIVALS]), jnp.array(AGES)
    path = jax.jit(lambda: jax.lax.scan(body, (w, stale.init(w), tx.init(w)), numbers)[1])()
    factors = messages.within_budget(AGES, share)
    assert min(factors) < max(factors)
    workers = everyone(top, memory=True)
    expected = messages.events(workers, ARRIVALS, iter(RATE * f for f in factors))
    np.testing.assert_allclose(path, expected, rtol=1e-4, atol=1e-5)


def test_batches_of_gradients_at_the_current_parameters():
    """A server that drops what was computed at other parameters, around momentum."""
    size, bound = 2, max(AGES)
    stale = gz.stale_params(bound)
    tx = gz.fresh_batches(optax.sgd(RATE, momentum=0.5), size)
    w, rows = jnp.zeros(D), jnp.asarray(ROWS, jnp.float32)

    def body(carry, arrival):
        w, past, state = carry
        worker, age = arrival
        late, _ = stale.read(past, w, delay=age)
        updates, state = tx.update(gradient(late, rows[worker]), state, w, delay=age)
        moved = optax.apply_updates(w, updates)
        return (moved, stale.update(w, past), state), moved

    numbers = jnp.array([number for number, _ in ARRIVALS]), jnp.array(AGES)
    path = jax.jit(lambda: jax.lax.scan(body, (w, stale.init(w), tx.init(w)), numbers)[1])()
    workers, w, changed, batch, momentum, dropped = everyone(), np.zeros(D), 0, [], 0, 0
    for step, (number, born) in enumerate(ARRIVALS):
        if born >= changed:
            batch.append(workers[number].gradient(w))
        dropped += born < changed
        if len(batch) == size:
            momentum = 0.5 * momentum + np.mean(batch, axis=0)
            w, changed, batch = w - RATE * momentum, step + 1, []
        np.testing.assert_allclose(path[step], w, rtol=1e-4, atol=1e-5)
    assert 0 < dropped < len(ARRIVALS)
    assert changed > 2  # more than one batch


@pytest.mark.parametrize('decay', [None, 0.8])
def test_compensation(decay):
    strength = 0.5
    squares = np.zeros((WORKERS, D))

    def correct(number, g, now, then):
        weight = strength
        if decay is not None:
            squares[number] = decay * squares[number] + (1 - decay) * g**2
            weight = strength / np.sqrt(squares[number] + 1e-7)
        return g + weight * g * g * (now - then)

    paths = paths_of(
        lambda model: optax.chain(
            gz.delay(model, AXIS),
            gz.compensate(model, AXIS, strength=strength, decay=decay),
            gz.compress(gz.Identity(), AXIS),
            optax.sgd(RATE),
        )
    )
    for model, ages in tables().items():
        squares[:] = 0
        clamped = np.minimum(ages, np.arange(STEPS)[:, None])
        expected = messages.fresh(everyone(), clamped, RATE, correct)
        np.testing.assert_allclose(paths[model], expected, rtol=1e-4, atol=1e-5, err_msg=model)
