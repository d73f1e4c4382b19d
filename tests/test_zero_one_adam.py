"""0/1 Adam: Adam where nothing is lost or left out, and else the algorithm of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from gradzip._zero_one_adam import refresh_due, spacing
from tests import reference
from tests.mappers import AXIS, train
from tests.test_one_bit_adam import SIZE, gradients
from tests.test_reference import workers_run

pytestmark = pytest.mark.usefixtures('fast_compilation')

RHYTHM = {'warmup': 9, 'refresh': 2, 'double_every': 6, 'longest': 4}


def sign_adam(rate=0.1):
    return gz.zero_one_adam(rate, gz.error_feedback(gz.ScaledSign(), AXIS), AXIS, **RHYTHM)


def test_it_is_adam_where_everything_is_sent_and_measured():
    gs = gradients(8)
    rate = optax.linear_schedule(0.0, 0.3, 4)  # zero in the first step
    tx = gz.zero_one_adam(rate, gz.compress(gz.Identity(), AXIS), AXIS, warmup=8)
    updates, _ = workers_run(tx, gs)
    adam = optax.adam(rate)
    state = adam.init(jnp.zeros(SIZE))
    for t, (g, update) in enumerate(zip(gs.mean(1), updates, strict=True)):
        with jax.numpy_dtype_promotion('standard'):  # on which optax counts
            expected, state = adam.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-5, err_msg=str(t))


def test_it_is_the_algorithm_of_the_paper():
    gs = gradients(40)
    rates = np.float32(0.1 / (1 + np.arange(40)))
    tx = sign_adam(lambda count: 0.1 / (1 + count.astype(jnp.float32)))
    updates, state = workers_run(tx, gs)
    expected, offsets, refreshes, exchanges = reference.zero_one_adam(
        gs, reference.scaled_sign, rates, **RHYTHM, b1=0.9, b2=0.999, eps=1e-8
    )
    np.testing.assert_allclose(updates, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.offset.rows[:, 0], offsets[-1], rtol=1e-3, atol=1e-5)
    assert np.abs(offsets[-1]).max() > 0
    assert [t for t in range(40) if np.any(updates[t])] == exchanges
    steps = jnp.arange(40)
    found = jax.vmap(lambda t: refresh_due(t, RHYTHM['warmup'], RHYTHM['refresh']))(steps)
    assert np.flatnonzero(found).tolist() == refreshes
    found = jax.vmap(lambda t: spacing(t, 9, 6, 4))(steps)
    assert found.tolist() == [1] * 15 + [2] * 6 + [4] * 19
    np.testing.assert_array_equal(updates[:, :2], 0)  # entries without a scale


def test_own_params_are_those_that_the_momentum_moves():
    """Between two exchanges with one worker, nothing is lost: it is Adam at frozen squares."""
    tx = gz.zero_one_adam(0.1, gz.compress(gz.Identity()), warmup=1, double_every=1, longest=4)
    frozen = optax.chain(
        gz.shared_momentum(gz.compress(gz.Identity()), 0.9),
        gz.scale_by_frozen_adam(1),
        optax.scale(-0.1),
    )
    params = expected = jnp.array([1.0, -2.0])
    state, other = tx.init(params), frozen.init(params)
    for _ in range(7):  # then the momentum is the mean over four steps
        own = gz.local_params(params, state)
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)
        update, state = tx.update(own, state, params)
        params = optax.apply_updates(params, update)
        update, other = frozen.update(expected, other, expected)
        expected = optax.apply_updates(expected, update)
    assert int(state.since) > 0


def test_devices_and_the_simulator_agree():
    batches = np.float32(gradients(24))

    def loss(params, batch):
        return jnp.sum((params - batch.reshape(-1)) ** 2)

    results = {
        m: train(sign_adam(), loss, jnp.zeros(SIZE), batches, m)[0] for m in ('vmap', 'shard_map')
    }
    np.testing.assert_allclose(results['shard_map'], results['vmap'], rtol=1e-5, atol=1e-6)
    assert np.abs(results['vmap']).max() > 0.1


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'warmup': 0}, ValueError, r'warmup=...\) must be at least 1; got 0'),
        ({'warmup': 5, 'longest': 1.5}, TypeError, 'must be an integer'),
        ({'warmup': 5, 'b1': 1.0}, ValueError, r'b1=...\) must be in \[0, 1\)'),
        ({'warmup': 5, 'eps': 0}, ValueError, r'eps=...\) must be above 0'),
    ],
)
def test_refused(options, error, message):
    with pytest.raises(error, match=message):
        gz.zero_one_adam(0.1, gz.compress(gz.Identity()), **options)
    with pytest.raises(ValueError, match='learning_rate'):
        gz.zero_one_adam(0, gz.compress(gz.Identity()), warmup=1)
