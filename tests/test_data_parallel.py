"""The front door does what the steps by hand do, and says what it sends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, mesh_of, train

pytestmark = pytest.mark.usefixtures('fast_compilation')

PARAMS = {'w': jnp.zeros((5, 3)), 'b': jnp.zeros(3)}
X = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
BATCH = X[:, :5], X[:, 5:]


def loss(params, batch):
    x, y = batch
    return jnp.mean((x @ params['w'] + params['b'][None] - y) ** 2)


TOP = gz.TopK(0.3)


def chain(scheme=TOP, axis=AXIS):
    return optax.chain(gz.error_feedback(scheme, axis, key=0), optax.sgd(0.1))


def quiet(params, tx, mesh, axis=AXIS):
    return gz.data_parallel(loss, params, tx, mesh, axis, printer=None)


@pytest.mark.parametrize(
    'scheme', [gz.TopK(0.3), gz.TwoShot(gz.QSGD(7)), gz.PowerSGD(1, min_rate=1)]
)
def test_it_trains_as_the_simulator_does(scheme):
    state, step = quiet(PARAMS, chain(scheme), mesh_of(4))
    values = []
    for _ in range(5):
        given = state
        state, value = step(state, BATCH)
        values.append(float(value))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params))  # donated
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(PARAMS))  # but not the caller's
    batches = jax.tree.map(lambda a: np.stack([a.reshape(4, 4, -1)] * 5), BATCH)
    params, _, expected = train(chain(scheme), loss, PARAMS, batches, 'vmap')
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    for name, leaf in params.items():
        np.testing.assert_allclose(state.params[name], leaf, rtol=1e-5, atol=1e-6)


def test_two_axes_of_workers():
    mesh = jax.make_mesh((2, 4), ('node', 'gpu'))
    state, step = quiet(PARAMS, chain(axis=('node', 'gpu')), mesh, ('node', 'gpu'))
    state, value = step(state, BATCH)
    assert state.state[0].error.rows['w'].shape == (8, 5, 3)
    assert np.isfinite(value)


def test_what_is_printed():
    said = []
    params = jnp.zeros(1_000_000)
    gz.data_parallel(loss, params, chain(gz.TopK(0.01)), mesh_of(4), AXIS, printer=said.append)
    [text] = said
    size = gz.payload_bytes(gz.TopK(0.01), params)
    saved = 2 * 3 * 4_000_000 // 4 - 3 * size
    assert f'4 workers, 1,000,000 entries; {size:,} bytes per worker' in text
    assert f'{4_000_000 / size:.3g} times fewer than float32' in text
    assert f'{saved:,} bytes less per step. Compression pays on links slower than 4' in text
    assert f'slower than {8e-6 * saved / 0.1:.3g} Mbit/s if it costs 100 ms' in text
    assert f'{8e-9 * saved / 0.001:.3g} Gbit/s if it costs 1 ms.' in text


def test_it_says_where_nothing_is_won():
    """Eight payloads of a quarter of the entries are more than an all-reduce of all."""
    said = []
    params = jnp.zeros(100_000)
    gz.data_parallel(loss, params, chain(gz.TopK(0.25)), mesh_of(8), AXIS, printer=said.append)
    assert 'It never pays' in said[0]
    gz.data_parallel(loss, params, chain(), mesh_of(1), AXIS, printer=said.append)
    assert said[1] == 'gradzip: with one worker, nothing is sent.'


BAD = {
    'no such axis': (lambda: quiet(PARAMS, chain(axis='x'), mesh_of(2), 'x'), r"axes \('data',\)"),
    'no axis': (lambda: quiet(PARAMS, chain(), mesh_of(2), None), r"axes \('data',\)"),
    'another axis': (
        lambda: quiet(PARAMS, chain(), jax.make_mesh((2, 4), (AXIS, 'model'))),
        r"leaves out \['model'\] of the axes",
    ),
    'uneven batch': (
        lambda: step_once(chain(), jax.tree.map(lambda a: a[:7], BATCH)),
        r"at '\[0\]' has shape \(7, 5\): its leading axis must be a multiple of the 2 workers",
    ),
    'no batch axis': (lambda: step_once(chain(), (np.ones(4), np.float32(1))), r'has shape \(\)'),
    'no exchange': (lambda: step_once(optax.sgd(0.1), BATCH), 'sends nothing over'),
    'chain without its axis': (lambda: step_once(chain(axis=None), BATCH), 'sends nothing over'),
    'two exchanges': (
        lambda: step_once(optax.chain(chain(), gz.compress(TOP, AXIS)), BATCH),
        'averaged or exchanged before: a chain may hold one exchange',
    ),
    'MultiSteps': (
        lambda: step_once(optax.MultiSteps(chain(), 2).gradient_transformation(), BATCH),
        'optax.MultiSteps must not be around it',
    ),
    'a momentum before the exchange': (
        lambda: step_once(optax.chain(optax.trace(0.9), chain()), BATCH),
        r'state at .*\[0\].trace.* differs .* gradzip.per_worker',
    ),
    'masked': (
        lambda: step_once(
            optax.chain(optax.masked(chain(), {'w': True, 'b': False}), optax.scale(0.5)), BATCH
        ),
        r"update at \"\['b'\]\" that differs .* optax.partition",
    ),
    'mechanize': (
        lambda: step_once(optax.contrib.mechanize(chain()), BATCH),
        'comes before the exchange',
    ),
}


def step_once(tx, batch):
    state, step = quiet(PARAMS, tx, mesh_of(2))
    return step(state, batch)


@pytest.mark.parametrize('name', BAD)
def test_refused(name):
    make, message = BAD[name]
    with jax.numpy_dtype_promotion('standard'), pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    'wrap',
    [
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.conditionally_transform(tx, lambda step, **_: step < 3),
    ],
)
def test_conditional_wrappers_of_optax_are_refused(wrap):
    with pytest.raises(TypeError, match=r'runs it conditionally.*skip_nonfinite'):
        step_once(wrap(chain()), BATCH)


def test_frozen_parameters_stay_as_they_are():
    """Their updates are zeros, which JAX types as varying although nothing varies."""
    tx = optax.partition(
        {'train': chain(), 'frozen': optax.set_to_zero()}, {'w': 'train', 'b': 'frozen'}
    )
    state, step = quiet({'w': PARAMS['w'], 'b': jnp.ones(3)}, tx, mesh_of(4))
    assert gz.wire_bytes(step.lower(state, BATCH).compile()) > 0
    for _ in range(3):
        state, value = step(state, BATCH)
    np.testing.assert_array_equal(state.params['b'], 1)
    assert np.abs(state.params['w']).max() > 0
    assert np.isfinite(value)


def test_selective_transform_freezes_as_partition_does():
    tx = optax.transforms.selective_transform(chain(), freeze_mask={'w': False, 'b': True})
    state, step = quiet(PARAMS, tx, mesh_of(4))
    step.lower(state, BATCH)


def test_a_donated_state_is_not_used_again():
    state, step = quiet(PARAMS, chain(), mesh_of(2))
    step(state, BATCH)
    with pytest.raises(ValueError, match='given to an earlier step'):
        step(state, BATCH)


def test_a_state_that_is_not_donated_can_be_used_again():
    state, step = gz.data_parallel(
        loss, PARAMS, chain(), mesh_of(2), AXIS, donate=False, printer=None
    )
    (_, first), (_, second) = step(state, BATCH), step(state, BATCH)
    assert first == second


def test_the_lowered_step_sends_what_the_chain_sends():
    """Besides the loss, a scalar."""
    state, step = quiet(PARAMS, chain(), mesh_of(4))
    sent = gz.wire_bytes(step.lower(state, BATCH).compile())
    assert sent == gz.step_bytes(chain(), PARAMS, {AXIS: 4}) + 4


def test_auxiliary_state_keys_and_metrics():
    """Statistics are averaged, keys differ by step and worker, and metrics are averaged."""

    def noisy(params, batch, *, aux, key):
        x, y = batch
        noise = jax.random.uniform(key)
        aux = {'mean': 0.5 * aux['mean'] + 0.5 * x.mean(0), 'steps': aux['steps'] + 1}
        value = jnp.mean((x @ params['w'] + params['b'][None] - y) ** 2)
        return value, aux, {'noise': noise, 'twice': 2 * value}

    aux = {'mean': jnp.zeros(5), 'steps': jnp.zeros([], jnp.int32)}
    state, step = gz.data_parallel(
        noisy, PARAMS, chain(), mesh_of(4), AXIS, aux=aux, key=0, printer=None
    )
    seen = []
    for _ in range(3):
        state, value, metrics = step(state, BATCH)
        np.testing.assert_allclose(metrics['twice'], 2 * value, rtol=1e-6)
        seen.append(float(metrics['noise']))
    np.testing.assert_allclose(state.aux['mean'], 0.875 * BATCH[0].mean(0), rtol=1e-5)
    assert state.aux['steps'] == 3
    assert state.count == 3
    base, own = jax.random.key(0), []
    for step_number in range(3):
        keys = [jax.random.fold_in(jax.random.fold_in(base, step_number), w) for w in range(4)]
        own.append(np.mean([jax.random.uniform(k) for k in keys]))
    np.testing.assert_allclose(seen, own, rtol=1e-6)


def test_the_loss_reaches_the_optimizer():
    """A plateau needs the loss, the same on every worker."""
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=0, cooldown=0)
    tx = optax.chain(chain(), plateau)
    with jax.numpy_dtype_promotion('standard'):
        state, step = quiet(PARAMS, tx, mesh_of(2))
        for _ in range(3):
            state, value = step(state, BATCH)
    assert state.state[1].best_value >= value


WRONG_LOSSES = {
    'no metrics dict': (lambda p, b: (loss(p, b), 3.0), TypeError, r'loss or \(loss, metrics\)'),
    'no scalar': (lambda p, b: p['b'], ValueError, r'must be a scalar.*\(3,\)'),
}


@pytest.mark.parametrize('name', WRONG_LOSSES)
def test_a_loss_of_another_form_is_refused(name):
    function, error, message = WRONG_LOSSES[name]
    state, step = gz.data_parallel(function, PARAMS, chain(), mesh_of(2), AXIS, printer=None)
    with pytest.raises(error, match=message):
        step(state, BATCH)


WRONG_KINDS = {
    'a mesh': (lambda: quiet(PARAMS, chain(), 4), 'must be a jax.sharding.Mesh; got 4'),
    'a transformation': (
        lambda: quiet(PARAMS, 'adam', mesh_of(2)),
        "must be an optax transformation.*got 'adam'",
    ),
    'arrays': (lambda: quiet({'w': 1.0}, chain(), mesh_of(2)), 'is 1.0; it must be an array'),
}


@pytest.mark.parametrize('name', WRONG_KINDS)
def test_arguments_of_another_kind_are_refused(name):
    make, message = WRONG_KINDS[name]
    with pytest.raises(TypeError, match=message):
        make()


def test_a_model_without_params_is_evaluated():
    tx, said = chain(), []
    state, step = gz.data_parallel(
        lambda params, x: jnp.mean(x), {}, tx, mesh_of(4), AXIS, printer=said.append
    )
    state, value = step(state, jnp.ones((4, 2)))
    assert (state.params, float(value)) == ({}, 1.0)
