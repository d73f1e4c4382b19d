"""Recipes around an exchange: half precision, a dynamic loss scale, accumulation and clipping."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, P, mesh_of

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS = 4
X = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
BATCH = X[:, :5], X[:, 5:] + X[:, :3]
PARAMS = {'w': jnp.zeros((5, 3)), 'b': jnp.zeros(3)}


def loss(params, batch):
    """In the dtype of the params, except for the mean."""
    x, y = (a.astype(params['w'].dtype) for a in batch)
    return jnp.mean((x @ params['w'] + params['b'][None] - y).astype(jnp.float32) ** 2)


def narrow(params, dtype):
    return jax.tree.map(lambda p: p.astype(dtype), params)


def chain(scheme=None):
    """SGD with a momentum, which is exact about dtypes."""
    exchange = gz.error_feedback(scheme or gz.TopK(0.4), AXIS)
    return optax.chain(exchange, optax.trace(0.5), optax.scale(-0.05))


def trained(loss, params, tx, steps=10):
    state, step = gz.data_parallel(loss, params, tx, mesh_of(WORKERS), AXIS, printer=None)
    values = []
    for _ in range(steps):
        state, value = jax.block_until_ready(step(state, BATCH))
        values.append(float(value))
    return state, values


@pytest.mark.parametrize('stored', [jnp.float32, jnp.bfloat16])
def test_bfloat16(stored):
    """Computed in bfloat16, with params in float32 or in bfloat16; memories are float32."""
    params = narrow(PARAMS, stored)
    state, values = trained(lambda p, b: loss(narrow(p, jnp.bfloat16), b), params, chain())
    _, expected = trained(loss, PARAMS, chain())
    np.testing.assert_allclose(values, expected, rtol=0.05)
    assert values[-1] < 0.6 * values[0]
    error = state.state[0].error.rows
    assert {p.dtype for p in jax.tree.leaves(state.params)} == {jnp.dtype(stored)}
    assert {e.dtype for e in jax.tree.leaves(error)} == {jnp.dtype('float32')}
    assert any(np.abs(e).max() > 0 for e in jax.tree.leaves(error))


class Scaled(NamedTuple):
    """Training in float16, with a scale of the loss that keeps gradients within its range."""

    params: Any
    state: Any
    scale: jax.Array  # f32[]
    good: jax.Array  # i32[], the steps since the scale has changed


GROW = 4  # steps; in practice 2000


def scaled_step(tx):
    """Unscales before the exchange, so that memories do not depend on the scale."""

    def step(s, batch):
        def objective(params):
            return loss(narrow(params, jnp.float16), batch) * s.scale

        value, grads = jax.value_and_grad(objective)(gz.localize(s.params, AXIS))
        grads = jax.tree.map(lambda g: g / s.scale, grads)
        updates, state = tx.update(grads, s.state, s.params)
        skipped = state.skipped > s.state.skipped  # the same on every worker
        good = jnp.where(skipped, 0, (s.good + 1) % GROW)
        grown = jnp.where(good == 0, 2 * s.scale, s.scale)
        scale = jnp.where(skipped, s.scale / 2, grown)
        new = Scaled(optax.apply_updates(s.params, updates), state, scale, good)
        return new, jax.lax.pmean(value, AXIS) / s.scale

    return step


def test_a_dynamic_scale_of_the_loss():
    """The scale falls until float16 suffices. Then training is that in float32."""
    tx, mesh = gz.skip_nonfinite(chain(), AXIS), mesh_of(WORKERS)
    start = Scaled(PARAMS, tx.init(PARAMS), jnp.float32(2**20), jnp.int32(0))
    s = gz.distribute(start, mesh)
    specs = gz.state_specs(s)
    step = jax.jit(
        jax.shard_map(scaled_step(tx), mesh=mesh, in_specs=(specs, P(AXIS)), out_specs=(specs, P()))
    )
    values, scales = [], [float(s.scale)]
    for _ in range(20):
        before = jax.device_get(s.state.inner)
        s, value = jax.block_until_ready(step(s, BATCH))
        scales.append(float(s.scale))
        if scales[-1] < scales[-2]:  # an overflow: nothing else has changed
            for a, b in zip(*map(jax.tree.leaves, (before, s.state.inner)), strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            values.append(float(value))
    assert 2 <= s.state.skipped < 15
    assert any(b > a for a, b in itertools.pairwise(scales))
    state, expected = trained(loss, PARAMS, chain(), len(values))
    np.testing.assert_allclose(values, expected, rtol=0.01)
    for name, rows in s.state.inner[0].error.rows.items():
        np.testing.assert_allclose(rows, state.state[0].error.rows[name], atol=0.02)


def test_accumulation_inside_the_loss():
    """A loss that goes through its batch in parts exchanges once, as one over the whole batch."""

    def in_parts(params, batch):
        parts = jax.tree.map(lambda a: a.reshape(2, -1, a.shape[1]), batch)
        one = jax.checkpoint(lambda part: loss(params, part))
        return jnp.mean(jax.lax.map(one, parts))

    state, values = trained(in_parts, PARAMS, chain(), 3)
    whole, expected = trained(loss, PARAMS, chain(), 3)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    for name, param in state.params.items():
        np.testing.assert_allclose(param, whole.params[name], rtol=1e-5, atol=1e-6)


def test_clipping_before_and_after_the_exchange():
    """Before, each worker's gradient is clipped; after, their mean."""
    grads = jnp.array([[3.0, 4.0], [0.3, 0.4]])  # of norms 5 and 0.5
    clip, exchange = optax.clip_by_global_norm(1.0), gz.compress(gz.Identity(), AXIS)
    before = optax.chain(gz.per_worker(clip, AXIS), exchange)
    after = optax.chain(exchange, clip)

    def update(tx):
        state = tx.init(grads[0])
        return jax.vmap(lambda g: tx.update(g, state)[0], axis_name=AXIS)(grads)[0]

    np.testing.assert_allclose(update(before), [0.45, 0.6], rtol=1e-5)  # (0.6 + 0.3) / 2, ...
    np.testing.assert_allclose(update(after), [0.6, 0.8], rtol=1e-5)  # of the mean, norm 2.75
