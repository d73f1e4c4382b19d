"""Flax's `TrainState` and `nnx.Optimizer` hold a chain of gradzip as they hold one of optax."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import jax_utils, linen as nn, nnx
from flax.training.train_state import TrainState

import gradzip as gz
from tests.mappers import AXIS, P, adam, mesh_of, train

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS, STEPS = 4, 5
X = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
BATCH = X, X[:, :3] ** 2
STACKED = jax.tree.map(lambda a: a.reshape(WORKERS, -1, a.shape[1]), BATCH)
PARAMS = {'kernel': jnp.ones((5, 3)) / 4, 'bias': jnp.zeros(3)}


@pytest.fixture(autouse=True)
def as_users_configure_jax():
    """Flax's layers add a bias to a batch, and mix dtypes."""
    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        yield


def chain():
    return optax.chain(gz.error_feedback(gz.TopK(0.3), AXIS), adam(0.05))


def squares(predicted, y):
    return jnp.mean((predicted - y) ** 2)


@functools.cache
def simulated():
    """The losses and the params of the same steps without Flax, under vmap."""
    batches = jax.tree.map(lambda a: np.stack([a] * STEPS), STACKED)

    def loss(params, batch):
        return squares(batch[0] @ params['kernel'] + params['bias'], batch[1])

    params, _, losses = train(chain(), loss, PARAMS, batches, 'vmap')
    return losses, params


def assert_simulated(losses, params):
    expected_losses, expected = simulated()
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for name in PARAMS:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-5, atol=1e-6)


# -- Linen ---------------------------------------------------------------------------------------


def linen_state():
    return TrainState.create(apply_fn=nn.Dense(3).apply, params=PARAMS, tx=chain())


def linen_step(state, batch):
    """As in Flax's examples, but without an average of the gradients."""

    def loss(params):
        return squares(state.apply_fn({'params': params}, batch[0]), batch[1])

    value, grads = jax.value_and_grad(loss)(gz.localize(state.params, AXIS))
    return state.apply_gradients(grads=grads), jax.lax.pmean(value, AXIS)


def test_train_state_under_shard_map():
    state = gz.distribute(linen_state(), mesh_of(WORKERS))
    specs = gz.state_specs(state)
    step = jax.jit(
        jax.shard_map(
            linen_step, mesh=mesh_of(WORKERS), in_specs=(specs, P(AXIS)), out_specs=(specs, P())
        )
    )
    losses = []
    for _ in range(STEPS):
        state, value = jax.block_until_ready(step(state, BATCH))
        losses.append(value)
    assert_simulated(losses, state.params)
    assert state.step == STEPS
    assert state.opt_state[0].error.rows['kernel'].shape == (WORKERS, 5, 3)


@pytest.mark.parametrize('replicated', [False, True])
def test_train_state_under_pmap(replicated):
    """With everything on axis 0, or with all but the memories as one copy."""
    places: Any = {'axis_name': AXIS, 'devices': jax.devices()[:WORKERS]}
    if replicated:
        state = linen_state()
        specs = gz.state_specs(state, 0, None)
        spread = jax.pmap(lambda s, _: s, in_axes=(None, 0), out_axes=specs, **places)
        state = spread(state, jnp.arange(WORKERS))
        places |= {'in_axes': (specs, 0), 'out_axes': (specs, None)}
    else:
        state = jax_utils.replicate(linen_state(), places['devices'])
    step = jax.pmap(linen_step, **places)
    losses = []
    for _ in range(STEPS):
        state, value = jax.block_until_ready(step(state, STACKED))
        losses.append(np.ravel(value)[0])
    params = state.params if replicated else jax_utils.unreplicate(state.params)
    assert_simulated(losses, params)


# -- NNX -----------------------------------------------------------------------------------------


class Noted(nnx.Module):
    """A layer that notes the mean of its inputs, as batch normalisation does."""

    def __init__(self):
        self.linear = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
        nnx.update(self.linear, PARAMS)
        self.mean = nnx.BatchStat(jnp.zeros(5))

    def __call__(self, x):
        self.mean[...] = jnp.mean(x, 0)
        return self.linear(x)


def nnx_state():
    model = Noted()
    return gz.distribute((model, nnx.Optimizer(model, chain(), wrt=nnx.Param)), mesh_of(WORKERS))


def nnx_step(model, optimizer, batch):
    """As in Flax's examples; statistics that a model notes are averaged over the workers."""
    local = gz.localize(model, AXIS)
    value, grads = nnx.value_and_grad(lambda m: squares(m(batch[0]), batch[1]))(local)
    optimizer.update(model, grads)
    nnx.update(model, jax.lax.pmean(nnx.state(local, nnx.BatchStat), AXIS))
    return jax.lax.pmean(value, AXIS)


def assert_nnx_simulated(losses, model, optimizer):
    assert_simulated(losses, {name: getattr(model.linear, name)[...] for name in PARAMS})
    np.testing.assert_allclose(model.mean[...], X.mean(0), rtol=1e-5, atol=1e-6)
    assert optimizer.step[...] == STEPS
    assert optimizer.opt_state[0].error.rows['linear']['kernel'].shape == (WORKERS, 5, 3)


def test_nnx_optimizer_under_shard_map():
    state = nnx_state()
    specs = gz.state_specs(state)

    @jax.jit
    @jax.shard_map(mesh=mesh_of(WORKERS), in_specs=(specs, P(AXIS)), out_specs=(specs, P()))
    def step(state, batch):
        value = nnx_step(*state, batch)
        return state, value

    losses = []
    for _ in range(STEPS):
        state, value = jax.block_until_ready(step(state, BATCH))
        losses.append(value)
    assert_nnx_simulated(losses, *state)


def test_nnx_optimizer_under_the_shard_map_of_nnx():
    """Which updates the model and the optimizer in place."""
    model, optimizer = nnx_state()
    rows = nnx.Any(nnx.PathContains('rows'), nnx.PathContains('worker'))
    specs = nnx.StateSharding({rows: P(AXIS), ...: P()})
    step = nnx.jit(
        nnx.shard_map(
            nnx_step, mesh=mesh_of(WORKERS), in_specs=(P(), specs, P(AXIS)), out_specs=P()
        )
    )
    losses = [jax.block_until_ready(step(model, optimizer, BATCH)) for _ in range(STEPS)]
    assert_nnx_simulated(losses, model, optimizer)


def test_nnx_model_in_data_parallel():
    """The front door takes the params of `nnx.split`, and the other variables as aux."""
    graph, params, rest = nnx.split(Noted(), nnx.Param, ...)

    def loss(params, batch, aux):
        model = nnx.merge(graph, params, aux, copy=True)  # which it may change
        return squares(model(batch[0]), batch[1]), nnx.state(model, nnx.Not(nnx.Param))

    state, step = gz.data_parallel(
        loss, params, chain(), mesh_of(WORKERS), AXIS, aux=rest, printer=None
    )
    losses = []
    for _ in range(STEPS):
        state, value = jax.block_until_ready(step(state, BATCH))
        losses.append(value)
    model = nnx.merge(graph, state.params, state.aux)
    assert_simulated(losses, {name: getattr(model.linear, name)[...] for name in PARAMS})
    np.testing.assert_allclose(model.mean[...], X.mean(0), rtol=1e-5, atol=1e-6)


# -- distribute ----------------------------------------------------------------------------------


def test_what_is_distributed_are_copies():
    state = {'own': chain().init(PARAMS), 'key': jax.random.key(0)}
    placed = gz.distribute(state, mesh_of(WORKERS))
    again = jax.jit(lambda s: s, donate_argnums=0)(placed)
    assert not any(x.is_deleted() for x in jax.tree.leaves((state, PARAMS)))
    np.testing.assert_array_equal(again['own'][0].error.worker, [-1] * WORKERS)


BAD = {
    'another axis': (
        lambda s: gz.distribute(s, jax.make_mesh((2,), ('x',))),
        r"error.* of the workers of \('data',\), but the mesh has the axes \('x',\)",
    ),
    'a state of NNX': (
        lambda s: gz.distribute(nnx.state(nnx_state()[1]), mesh_of(2)),
        'pass the nnx.Optimizer itself',
    ),
    'twice': (
        lambda s: gz.distribute(gz.distribute(s, mesh_of(2)), mesh_of(2)),
        'has rows of 2 workers already.*gradzip.resize',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_refused(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make(chain().init(PARAMS))
