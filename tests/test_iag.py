"""Q-IAG against its definition: a message is compressed once and used until the next arrives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from tests import reference
from tests.mappers import AXIS
from tests.test_reference import decoded, workers_run
from tests.zoo import DELAYS

pytestmark = pytest.mark.usefixtures('fast_compilation')


def expected_messages(compressor, gradients, key):
    """Every worker's message of every step, with the key that the documentation gives it."""
    out = np.zeros(gradients.shape)
    for t in range(gradients.shape[0]):
        for w in range(gradients.shape[1]):
            message_key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, t), 0), w)
            out[t, w] = decoded(compressor, jnp.asarray(gradients[t, w], jnp.float32), message_key)
    return out


@pytest.mark.parametrize(
    ('model', 'compressor'),
    [(model, gz.QSGD(3)) for model in DELAYS.values()]
    + [(DELAYS['uniform'], gz.Identity()), (DELAYS['uniform'], gz.Bernoulli(0.5))],
    ids=repr,
)
def test_it_is_the_table_of_messages(model, compressor):
    gs = np.random.default_rng(0).normal(size=(11, 3, 20))
    key = jax.random.key(7)
    updates, _ = workers_run(gz.iag(compressor, AXIS, model, key=key), gs)
    ages = np.array(
        [[int(model.steps(key, jnp.int32(t), jnp.int32(w))) for w in range(3)] for t in range(11)]
    )
    messages = expected_messages(compressor, gs, key)
    np.testing.assert_allclose(updates, reference.iag(gs, messages, ages), rtol=1e-5, atol=1e-5)


def test_workers_take_turns_after_everyone_arrived_at_step_0():
    gs = np.arange(1.0, 7.0)[:, None, None] * np.array([1.0, 10.0, 100.0])[None, :, None]
    updates, _ = workers_run(gz.iag(gz.Identity(), AXIS, gz.Cyclic(3)), gs)
    totals = [111, 1 + 20 + 100, 1 + 20 + 300, 4 + 20 + 300, 4 + 50 + 300, 4 + 50 + 600]
    np.testing.assert_allclose(updates[:, 0] * 3, totals, rtol=1e-6)


def test_noise_is_reused_with_the_message():
    """At a gradient that stands still, the update changes only where a new message arrives."""
    gs = np.ones((8, 2, 40)) * np.linspace(0.1, 1, 40)
    tx = gz.iag(gz.QSGD(1), AXIS, gz.Cyclic(2), key=0)
    updates, _ = workers_run(tx, gs)
    fresh, _ = workers_run(gz.compress(gz.QSGD(1), AXIS, key=0), gs)
    moved = np.abs(np.diff(updates, axis=0)).max(1)
    assert (moved > 0).all()  # one of two workers sends each step
    both = np.abs(np.diff(fresh, axis=0)) > 0
    one = np.abs(np.diff(updates, axis=0)) > 0
    assert one.sum() < both.sum()


def test_one_scheme_a_leaf():
    params = {'w': jnp.zeros((6, 5)), 'b': jnp.zeros(3)}
    tx = gz.iag(lambda p: gz.QSGD(7) if p.ndim == 2 else gz.Identity(), None, gz.Constant(0), key=0)
    grads = jax.tree.map(lambda p: p + 0.5, params)
    updates, state = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates['b'], grads['b'])
    assert len(state.messages) == 2
