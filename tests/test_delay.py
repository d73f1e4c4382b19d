"""Delays against their definition, and what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from tests import reference
from tests.mappers import AXIS
from tests.test_reference import workers_run
from tests.zoo import DELAYS

pytestmark = pytest.mark.usefixtures('fast_compilation')


def alone(tx, gradients):
    state, out = tx.init(jnp.asarray(gradients[0])), []
    for g in gradients:
        update, state = tx.update(jnp.asarray(g), state)
        out.append(update)
    return np.stack(out), state


@pytest.mark.parametrize('tau', [0, 1, 4])
@pytest.mark.parametrize('model', [int, gz.Constant])
def test_constant(tau, model):
    gs = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    updates, state = alone(gz.delay(model(tau)), gs)
    np.testing.assert_array_equal(updates, reference.constant_delay(gs, tau))
    kept = np.asarray(state.past, np.float64).sum(0) if tau else 0
    np.testing.assert_allclose(updates.astype(np.float64).sum(0) + kept, gs.sum(0), rtol=1e-5)


@pytest.mark.parametrize('model', [*DELAYS.values(), gz.Uniform(0), gz.Uniform(1)], ids=repr)
def test_every_model_uses_the_delays_that_it_tells(model):
    gs = np.random.default_rng(0).normal(size=(14, 3, 2)).astype(np.float32)
    key = jax.random.key(4)
    tx = gz.delay(model, AXIS, key=key)
    specs = gz.state_specs(jax.eval_shape(tx.init, jnp.zeros(2)), 0, None)
    state = jax.vmap(lambda _: tx.init(jnp.zeros(2)), out_axes=specs, axis_name=AXIS)(jnp.arange(3))
    mapped = jax.jit(jax.vmap(tx.update, (0, specs), (0, specs), axis_name=AXIS))
    out = []
    for g in gs:
        update, state = mapped(jnp.asarray(g), state)
        out.append(update)
    steps = jax.vmap(jax.vmap(model.steps, (None, None, 0)), (None, 0, None))
    delays = np.asarray(steps(key, jnp.arange(14), jnp.arange(3)))
    assert delays.max() == model.bound
    assert delays.min() >= 0
    if model.starts_from_zero:  # zeros until the first gradient arrives
        expected = np.stack([reference.constant_delay(gs[:, w], model.bound) for w in range(3)], 1)
    else:
        expected = reference.drawn_delay(gs, delays)
    np.testing.assert_array_equal(np.stack(out), expected)


def test_workers_draw_delays_of_their_own():
    steps = jax.vmap(gz.Uniform(5).steps, (None, None, 0))
    delays = np.asarray(steps(jax.random.key(4), jnp.int32(3), jnp.arange(20)))
    assert len(np.unique(delays)) > 1


def test_the_tail_of_geometric_delays_and_the_share_of_stragglers():
    """Within five standard deviations of 4000 draws."""
    steps, workers = jnp.arange(500), jnp.arange(8)
    for model, tail in (
        (gz.Geometric(0.25, bound=6), 0.75 ** np.arange(7)),
        (gz.Straggler(0.25, 6), np.array([1] + 6 * [0.25])),
        (gz.Uniform(2, 6), np.array([1, 1, 1, 0.8, 0.6, 0.4, 0.2])),
    ):
        each = jax.vmap(jax.vmap(model.steps, (None, None, 0)), (None, 0, None))
        delays = np.asarray(each(jax.random.key(2), steps, workers))
        share = np.array([(delays >= k).mean() for k in range(8)])
        assert share[7] == 0
        assert (abs(share[:7] - tail) <= 5 * np.sqrt(tail * (1 - tail) / 4000)).all(), model


def test_a_trace_reads_the_array_to_which_it_is_bound():
    model = gz.Trace(np.zeros((2, 3), int))
    other = jnp.asarray([[0, 1, 2], [3, 4, 5]])
    key, step, worker = jax.random.key(0), jnp.int32(5), jnp.int32(2)
    read = jax.jit(lambda arrays: model.bind(arrays).steps(key, step, worker))
    assert int(read(other)) == 5  # row 5 is row 1 again
    assert int(read(model.arrays())) == 0
    assert model != gz.Trace(other)
    assert repr(model) != repr(gz.Trace(np.zeros((2, 3), int) + [0, 0, 1]))


def test_delayed_gradients_are_compressed_when_they_are_used():
    """delay before an exchange: the memory of step t goes with the gradient of step t - tau."""
    gs = np.random.default_rng(0).normal(size=(9, 2, 10))
    from optax import chain

    tx = chain(gz.delay(2, AXIS), gz.error_feedback(gz.TopK(0.2), AXIS))
    updates, _ = workers_run(tx, gs)
    late = reference.constant_delay(gs, 2)
    expected, _ = reference.error_feedback(late, lambda x: reference.top_k(x, 2))
    np.testing.assert_allclose(updates, expected, atol=1e-5)


def test_a_constant_delay_does_not_touch_the_present_gradient():
    """What makes delay(1) hide an exchange: the update does not depend on this step's gradient."""
    tx = gz.delay(1)
    state = tx.init(jnp.zeros(3))
    jacobian = jax.jacobian(lambda g: tx.update(g, state)[0])(jnp.ones(3))
    np.testing.assert_array_equal(jacobian, np.zeros((3, 3)))


@pytest.mark.parametrize('dtype', ['bfloat16', 'int8'])
def test_a_narrow_memory_is_right_on_average(dtype):
    """Rounded at random: within five standard deviations, and never further than one step."""
    g = jnp.linspace(-1, 1, 300)
    step = 2.0**-8 if dtype == 'bfloat16' else 1 / 127  # at most, of the entries and of the scale

    def late(key):
        tx = gz.delay(1, memory_dtype=dtype, key=key)
        _, state = tx.update(g, tx.init(g))
        return tx.update(g, state)[0]

    found = jax.jit(jax.vmap(late))(jax.random.split(jax.random.key(0), 200))
    assert jnp.max(jnp.abs(found - g[None])) <= step
    assert jnp.max(jnp.abs(found.mean(0) - g)) <= 5 * step / 2 / 200**0.5
    assert jnp.max(jnp.std(found, 0)) > 0
    exact = gz.delay(1, memory_dtype='float32')
    assert exact.init(g).past.dtype == jnp.float32
    _, state = exact.update(g, exact.init(g))
    np.testing.assert_array_equal(exact.update(g, state)[0], g)


def test_a_late_gradient_can_be_differentiated():
    """What a gradient does is seen when it is used, in both modes and under vmap."""

    def third(g, tx):
        _, state = tx.update(g, tx.init(g))
        _, state = tx.update(2 * g, state)
        return tx.update(4 * g, state)[0]

    g = jnp.arange(3.0)
    for tx, factor in ((gz.delay(2), 1), (gz.delay(gz.Cyclic(2)), 4), (gz.delay(gz.Cyclic(3)), 1)):
        assert jnp.array_equal(jax.jvp(lambda g, tx=tx: third(g, tx), (g,), (g,))[1], factor * g)
        grads = jax.vmap(jax.grad(lambda g, tx=tx: jnp.sum(third(g, tx))))(jnp.stack([g, -g]))
        assert jnp.array_equal(grads, jnp.full((2, 3), factor))
    messages = gz.iag(gz.Identity(), None, gz.Cyclic(2))
    assert jax.grad(lambda g: jnp.sum(third(g, messages)))(g).shape == (3,)


def test_half_precision_gradients_come_back_as_they_were():
    gs = [jnp.full(3, x, jnp.bfloat16) for x in (1.5, 2.5, 3.5)]
    tx = gz.delay(1)
    state, out = tx.init(jnp.zeros(3, jnp.float16)), []
    for g in gs:
        update, state = tx.update(g, state)
        out.append(update)
    assert all(u.dtype == jnp.bfloat16 for u in out)
    np.testing.assert_array_equal(np.asarray(out[2], np.float32), np.full(3, 2.5))
