"""What users write, from one device to a hundred simulated workers, ends where it should."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradzip as gz
from tests.mappers import adam

pytestmark = pytest.mark.usefixtures('fast_compilation')

P = jax.P


@pytest.fixture(autouse=True)
def as_users_configure_jax():
    """These are programs of users, whose models add a bias to a batch."""
    with jax.numpy_rank_promotion('allow'):
        yield


@pytest.fixture(autouse=True)
def standard_promotion():
    """Users' programs run under JAX's default."""
    with jax.numpy_dtype_promotion('standard'):
        yield


def problem(n=64, d=20):
    k = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(k[0], (n, d))
    y = x @ jax.random.normal(k[1], (d, 3))
    return {'w': jnp.zeros((d, 3)), 'b': jnp.zeros(3)}, (x, y)


def loss(params, batch):
    x, y = batch
    return jnp.mean((x @ params['w'] + params['b'] - y) ** 2)


def test_one_device_with_metrics():
    params, batch = problem()
    tx = optax.chain(
        gz.error_feedback(gz.TopK(0.05), metrics={'lost': gz.metrics.lost}), optax.adam(1e-2)
    )
    state = tx.init(params)

    @jax.jit
    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    first = loss(params, batch)
    for _ in range(300):
        params, state, value = step(params, state, batch)
    assert value < 0.4 * first
    assert 0 < optax.tree.get(state, 'lost') < 0.95
    assert gz.payload_bytes(gz.TopK(0.05), params) == 512


def test_pmap_over_eight_devices():
    params, (x, y) = problem()
    batch = jax.tree.map(lambda a: a.reshape(8, -1, *a.shape[1:]), (x, y))
    tx = optax.chain(
        gz.error_feedback(gz.QSGD(levels=7), axis_name='data', key=0), optax.adam(1e-2)
    )

    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, jax.lax.pmean(value, 'data')

    step = jax.pmap(step, axis_name='data')
    params, state = jax.tree.map(
        lambda a: jnp.broadcast_to(a, (8, *a.shape)), (params, tx.init(params))
    )
    values = []
    for _ in range(60):
        params, state, value = jax.block_until_ready(step(params, state, batch))
        values.append(value[0])
    assert values[-1] < 0.6 * values[0]
    assert (params['w'] == params['w'][0]).all()
    assert jax.tree.map(jnp.shape, state[0].error.rows) == {'b': (8, 1, 3), 'w': (8, 1, 20, 3)}


def test_flax_nnx_under_shard_map():
    class MLP(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(20, 32, rngs=rngs)
            self.b = nnx.Linear(32, 3, rngs=rngs)

        def __call__(self, x):
            return self.b(nnx.relu(self.a(x)))

    _, batch = problem()
    mesh = jax.make_mesh((8,), ('data',))
    with jax.set_mesh(mesh):
        graph, params = nnx.split(MLP(nnx.Rngs(0)), nnx.Param)
        tx = optax.chain(
            gz.ef21(
                lambda p: gz.PowerSGD(rank=4) if p.ndim == 2 else gz.Identity(), axis_name='data'
            ),
            optax.adamw(3e-3),
        )
        specs = gz.state_specs(jax.eval_shape(tx.init, params), worker=P('data'), replicated=P())
        state = jax.jit(jax.shard_map(tx.init, in_specs=P(), out_specs=specs))(params)

        @jax.jit
        @jax.shard_map(in_specs=(P(), specs, P('data')), out_specs=(P(), specs, P()))
        def step(params, state, batch):
            def loss(params):
                return jnp.mean((nnx.merge(graph, params)(batch[0]) - batch[1]) ** 2)

            value, grads = jax.value_and_grad(loss)(gz.localize(params, 'data'))
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state, jax.lax.pmean(value, 'data')

        batch = jax.device_put(batch, P('data'))
        values = []
        for _ in range(100):
            params, state, value = jax.block_until_ready(step(params, state, batch))
            values.append(float(value))
    assert values[-1] < 0.2 * values[0]
    rows = jax.tree.leaves(state[0].estimate.rows)
    assert sorted(r.shape for r in rows) == [(8, 3), (8, 20, 32), (8, 32), (8, 32, 3)]


def test_late_and_compressed_in_a_scan():
    params, batch = problem()
    tx = optax.chain(gz.delay(4), gz.error_feedback(gz.TopK(0.1)), adam(1e-2))

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    _, values = jax.lax.scan(step, (params, tx.init(params)), length=600)
    assert values[-1] < 0.05 * values[0]


def test_a_hundred_workers_on_one_device():
    workers, d = 100, 30
    x = jax.random.normal(jax.random.key(0), (workers, 20, d))
    y = jnp.sign(x @ jax.random.normal(jax.random.key(1), (d,)))

    def loss(w, x, y):
        return jnp.mean(jax.nn.softplus(-y * (x @ w))) + 1e-3 * w @ w

    tx = optax.chain(
        gz.delay(4, axis_name='worker'),
        gz.error_feedback(gz.TopK(0.1), axis_name='worker'),
        optax.sgd(0.3),
    )
    specs = gz.state_specs(jax.eval_shape(tx.init, x[0, 0]), 0, None)

    def worker(w, state, x, y):
        value, grad = jax.value_and_grad(loss)(w, x, y)
        updates, state = tx.update(grad, state, w)
        return optax.apply_updates(w, updates), state, jax.lax.pmean(value, 'worker')

    def step(carry, _):
        mapped = jax.vmap(worker, (None, specs, 0, 0), (None, specs, None), axis_name='worker')
        w, state, value = mapped(*carry, x, y)
        return (w, state), value

    w = jnp.zeros(d)
    state = jax.vmap(lambda _: tx.init(w), axis_name='worker', out_axes=specs)(jnp.arange(workers))
    _, values = jax.lax.scan(step, (w, state), length=400)
    assert values[-1] < 0.5 * values[0]


def test_a_checkpoint_with_other_workers_keeps_what_is_owed():
    """Under shard_map the rows are the workers: law 3 needs only that their mean survives."""
    tx = gz.error_feedback(gz.TopK(0.25), 'data')
    grads = jax.random.normal(jax.random.key(0), (8, 16))

    def updates_of(workers, grads, state):
        mesh = jax.sharding.Mesh(jax.devices()[:workers], ('data',))
        specs = gz.state_specs(state)
        step = jax.shard_map(
            lambda g, s: tx.update(g[0], s),
            mesh=mesh,
            in_specs=(P('data'), specs),
            out_specs=(P(), specs),
        )
        return jax.jit(step)(np.asarray(grads), jax.tree.map(np.asarray, state))

    state = tx.init(grads[0])
    rows = np.zeros((8, 16), np.float32)
    state = state._replace(error=gz.PerWorker(rows, ('data',)))
    first, state = updates_of(8, grads, state)
    pairs = np.asarray(state.error.rows).reshape(4, 2, 16).mean(1)  # 8 workers become 4
    state = state._replace(error=gz.PerWorker(pairs, ('data',)))
    second, state = updates_of(4, grads[:4], state)
    total = np.asarray(first) + np.asarray(second) + np.asarray(state.error.rows).mean(0)
    expected = np.asarray(grads).mean(0) + np.asarray(grads[:4]).mean(0)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
