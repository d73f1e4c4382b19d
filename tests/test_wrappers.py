"""What wrappers do around an exchange, and what optax's own would do wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, MAPPERS, adam, map_step, start

pytestmark = pytest.mark.usefixtures('fast_compilation')

GRADS = jnp.arange(24.0).reshape(2, 12) - 7.0


def one_step(tx, mapper, grads=GRADS, state=None):
    """update over two workers: (updates, state)."""
    params = jnp.zeros(grads.shape[1])
    placed, fresh = start(tx, params, mapper, len(grads))
    state = fresh if state is None else state

    def step(params, state, batch):
        grads = gz.localize(params, AXIS) * 0 + batch.reshape(-1)
        updates, state = tx.update(grads, state, params)
        return updates, state, jnp.zeros([])

    mapped = map_step(step, jax.eval_shape(lambda s: s, state), mapper, len(grads))
    batch = grads.reshape(-1) if mapper.startswith('shard_map') else grads
    updates, state, _ = jax.block_until_ready(mapped(placed, state, batch))
    if mapper == 'pmap':
        np.testing.assert_array_equal(updates[0], updates[1])
    return (updates[0] if mapper == 'pmap' else updates), state


@pytest.mark.parametrize('mapper', MAPPERS)
def test_skip_nonfinite_skips_for_all_when_one_worker_has_nan(mapper):
    inner = optax.chain(gz.error_feedback(gz.TopK(0.2), AXIS), adam(1e-1))
    tx = gz.skip_nonfinite(inner, AXIS)
    _, state = one_step(tx, mapper)
    updates, skipped = one_step(tx, mapper, GRADS.at[1, 3].set(jnp.nan), state)
    np.testing.assert_array_equal(updates, jnp.zeros(12))
    for a, b in zip(jax.tree.leaves(skipped.inner), jax.tree.leaves(state.inner), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(np.ravel(optax.tree.get(skipped, 'skipped'))[0]) == 1
    updates, after = one_step(tx, mapper, GRADS, skipped)
    assert np.abs(updates).max() > 0
    assert int(np.ravel(after.skipped)[0]) == 1


@pytest.mark.parametrize('mapper', MAPPERS)
def test_every_moves_nothing_on_off_steps(mapper):
    inner = optax.chain(gz.error_feedback(gz.TopK(0.2), AXIS), adam(1e-1))
    tx, state = gz.every(inner, 4, AXIS), None
    for i in range(8):
        updates, after = one_step(tx, mapper, GRADS * (i + 1), state)
        if i % 4 < 3:
            np.testing.assert_array_equal(updates, jnp.zeros(12))
            before = start(tx, jnp.zeros(12), mapper, 2)[1] if state is None else state
            for a, b in zip(
                jax.tree.leaves(after.inner), jax.tree.leaves(before.inner), strict=True
            ):
                np.testing.assert_array_equal(a, b)
        else:
            assert np.abs(updates).max() > 0
            np.testing.assert_array_equal(after.sum.rows, jnp.zeros_like(after.sum.rows))
        state = after


def test_every_gives_inner_the_mean_gradient():
    tx = gz.every(gz.compress(gz.Identity(), AXIS), 2, AXIS)
    _, state = one_step(tx, 'vmap', GRADS)
    updates, _ = one_step(tx, 'vmap', 3 * GRADS, state)
    np.testing.assert_allclose(updates, 2 * GRADS.mean(0), rtol=1e-6)


@pytest.mark.usefixtures('full_compilation')
def test_every_sends_nothing_on_off_steps():
    """The collective is in one branch of a conditional, which the compiled program keeps."""
    tx = gz.every(gz.compress(gz.TopK(0.2), AXIS), 4, AXIS)
    params = jnp.zeros(12)
    placed, state = start(tx, params, 'shard_map', 2)

    def step(params, state, batch):
        updates, state = tx.update(batch, state, params)
        return updates, state, jnp.zeros([])

    mapped = map_step(step, jax.eval_shape(lambda s: s, state), 'shard_map', 2)
    text = mapped.lower(placed, state, GRADS.reshape(-1)).compile().as_text()
    entry = text[text.index('ENTRY') :]
    assert 'all-gather' in text
    assert ' all-gather(' not in entry
    assert ' conditional(' in entry


def test_participate_is_unbiased_and_takes_exactly_count():
    tx = gz.participate(2, AXIS, key=0)
    state = tx.init(jnp.zeros(2))

    def step(state, _):
        mapped = jax.vmap(tx.update, (0, None), (0, None), axis_name=AXIS)
        updates, state = mapped(jnp.ones((5, 1)), state)
        return state, updates[:, 0]

    _, drawn = jax.lax.scan(step, state, length=4000)
    np.testing.assert_array_equal((np.asarray(drawn) > 0).sum(1), 2)
    np.testing.assert_array_equal(np.unique(drawn), [0.0, 2.5])
    # each worker takes part in 2 of 5 steps: 5.2 standard errors, a false alarm of 1e-6
    error = 5.2 * np.sqrt(0.4 * 0.6 / 4000)
    np.testing.assert_allclose((np.asarray(drawn) > 0).mean(0), 0.4, atol=error)


@pytest.mark.parametrize('mapper', MAPPERS)
def test_per_worker_momentum_before_the_exchange(mapper):
    """Local momentum, then ef21: worker 1's trace never mixes with worker 0's."""
    tx = optax.chain(gz.per_worker(optax.trace(0.5), AXIS), gz.compress(gz.Identity(), AXIS))
    _, state = one_step(tx, mapper)
    updates, state = one_step(tx, mapper, GRADS, state)
    np.testing.assert_allclose(updates, 1.5 * GRADS.mean(0), rtol=1e-6)
    rows = np.asarray(jax.tree.leaves(state[0])[0]).reshape(2, 12)
    np.testing.assert_allclose(rows, 1.5 * GRADS, rtol=1e-6)


def test_optax_masked_around_an_exchange_is_refused_by_the_simulator():
    """It leaves the unmasked leaves local; wrappers.py says to use optax.partition."""
    tx = optax.masked(gz.compress(gz.Identity(), AXIS), {'a': True, 'b': False})
    params = {'a': jnp.zeros(3), 'b': jnp.zeros(3)}

    def worker(g):
        return tx.update(g, tx.init(params))[0]

    grads = jax.tree.map(lambda p: jnp.stack([p, p + 1]), params)
    with pytest.raises(ValueError, match='out_axes'):
        jax.eval_shape(jax.vmap(worker, out_axes=None, axis_name=AXIS), grads)
    parts = optax.partition(
        {'zip': gz.compress(gz.TopK(0.5), AXIS), 'exact': gz.compress(gz.Identity(), AXIS)},
        {'a': 'zip', 'b': 'exact'},
    )

    def partitioned(g):
        return parts.update(g, parts.init(params))[0]

    out = jax.jit(jax.vmap(partitioned, out_axes=None, axis_name=AXIS))(grads)
    np.testing.assert_allclose(out['b'], np.full(3, 0.5))


def test_optax_apply_if_finite_around_an_exchange_lets_workers_drift():
    """It asks each worker alone; wrappers.py says to use skip_nonfinite."""
    tx = optax.apply_if_finite(gz.compress(gz.Identity(), AXIS), 10)

    def worker(g):
        return tx.update(g, tx.init(jnp.zeros(12)))[0]

    grads = GRADS.at[1, 3].set(jnp.nan)
    with pytest.raises(ValueError, match='out_axes'):
        jax.eval_shape(jax.vmap(worker, out_axes=None, axis_name=AXIS), grads)


HIERARCHICAL = {
    'error_feedback': lambda: gz.error_feedback(gz.TopK(0.25), 'node'),
    'ef21': lambda: gz.ef21(gz.TopK(0.25), 'node'),
    'powersgd': lambda: gz.ef21(lambda p: gz.PowerSGD(1) if p.ndim == 2 else gz.Identity(), 'node'),
    'random': lambda: gz.error_feedback(gz.QSGD(7), 'node', key=0),
    'shared mask': lambda: gz.error_feedback(gz.RandK(0.5), 'node', key=0),
    'metrics': lambda: gz.error_feedback(gz.TopK(0.25), 'node', metrics={'lost': gz.metrics.lost}),
    'delayed': lambda: optax.chain(gz.delay(2, 'node'), gz.compress(gz.Identity(), 'node')),
}
HIER_PARAMS = {
    'w': jnp.zeros((9, 8)),
    'b': jnp.zeros(7),
    's': jnp.zeros([]),
    't': jnp.zeros((2, 3)),
}


def hierarchical_run(name, mapper, steps=3):
    """Updates of a 2 x 4 hierarchy over some steps, under nested vmap or a 2-D mesh."""
    tx = gz.hierarchical(HIERARCHICAL[name](), 'gpu', local_size=4)
    keys = jax.random.split(jax.random.key(0), 4)
    grads = {
        k: jax.random.normal(key, (2, 4, *p.shape))
        for key, (k, p) in zip(keys, HIER_PARAMS.items(), strict=True)
    }
    shapes = jax.eval_shape(tx.init, HIER_PARAMS)
    if mapper == 'vmap':
        over = {
            a: gz.state_specs(shapes, lambda axes, a=a: 0 if a in axes else None, None)
            for a in ('node', 'gpu')
        }
        inner = jax.vmap(tx.update, (0, over['gpu']), (None, over['gpu']), axis_name='gpu')
        step = jax.vmap(inner, (0, over['node']), (None, over['node']), axis_name='node')
        make = jax.vmap(lambda _: tx.init(HIER_PARAMS), out_axes=over['gpu'], axis_name='gpu')
        make = jax.vmap(make, out_axes=over['node'], axis_name='node')
        state = make(jnp.zeros((2, 4)))
        grads_ = grads
    else:
        mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ('node', 'gpu'))
        specs, both = gz.state_specs(shapes), jax.P(('node', 'gpu'))
        state = jax.jit(jax.shard_map(tx.init, mesh=mesh, in_specs=jax.P(), out_specs=specs))(
            HIER_PARAMS
        )
        grads_ = jax.tree.map(lambda g: g.reshape(8, *g.shape[2:]), grads)
        step = jax.shard_map(
            lambda g, s: tx.update(jax.tree.map(lambda x: x[0], g), s),
            mesh=mesh,
            in_specs=(both, specs),
            out_specs=(jax.P(), specs),
        )
    step, out = jax.jit(step), []
    for _ in range(steps):
        updates, state = jax.block_until_ready(step(grads_, state))
        out.append(updates)
    return grads, out, state


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in ('shared mask', 'ef21', 'metrics')))
        for n in HIERARCHICAL
    ],
)
def test_hierarchical_is_the_same_simulated_and_on_devices(name):
    _, simulated, _ = hierarchical_run(name, 'vmap')
    _, devices, _ = hierarchical_run(name, 'shard_map')
    for a, b in zip(jax.tree.leaves(simulated), jax.tree.leaves(devices), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_hierarchical_loses_nothing():
    """Law 3 through both levels: updates and memories add up to the gradients."""
    grads, updates, state = hierarchical_run('error_feedback', 'vmap')
    left = 0.0
    for rows in jax.tree.leaves(state.error.rows):  # (node, gpu, 1, *share)
        left += float(rows.mean(0).sum())
    sent = sum(float(u.sum()) for step in updates for u in jax.tree.leaves(step))
    given = sum(3 * float(g.mean((0, 1)).sum()) for g in jax.tree.leaves(grads))
    assert sent + left == pytest.approx(given, rel=1e-4, abs=1e-4)


def test_hierarchical_exact_is_the_mean_over_everyone():
    tx = gz.hierarchical(gz.compress(gz.Identity(), 'node'), 'gpu', local_size=4)
    grads = {
        k: jax.random.normal(jax.random.key(1), (2, 4, *p.shape)) for k, p in HIER_PARAMS.items()
    }

    def worker(g):
        return tx.update(g, tx.init(HIER_PARAMS), HIER_PARAMS)[0]

    inner = jax.vmap(worker, out_axes=None, axis_name='gpu')
    updates = jax.jit(jax.vmap(inner, out_axes=None, axis_name='node'))(grads)
    for k, g in grads.items():
        np.testing.assert_allclose(updates[k], g.mean((0, 1)), rtol=1e-5, atol=1e-6)


def test_one_flat_axis_given_as_a_tuple():
    """('node', 'gpu') as one axis of eight workers, simulated and on devices."""
    both = ('node', 'gpu')
    tx = gz.error_feedback(gz.QSGD(7), both, key=0)
    grads = jax.random.normal(jax.random.key(1), (2, 4, 30))
    one = gz.error_feedback(gz.QSGD(7), AXIS, key=0)
    flat = jax.jit(
        jax.vmap(lambda g: one.update(g, one.init(g))[0], out_axes=None, axis_name=AXIS)
    )(grads.reshape(8, 30))

    def worker(g):
        return tx.update(g, tx.init(g))[0]

    inner = jax.vmap(worker, out_axes=None, axis_name='gpu')
    simulated = jax.jit(jax.vmap(inner, out_axes=None, axis_name='node'))(grads)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), both)
    devices = jax.shard_map(
        lambda g: worker(g[0]), mesh=mesh, in_specs=jax.P(both), out_specs=jax.P()
    )
    mixed = jax.pmap(
        jax.vmap(worker, out_axes=None, axis_name='gpu'),
        axis_name='node',
        devices=jax.devices()[:2],
    )
    np.testing.assert_allclose(simulated, flat, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.jit(devices)(grads.reshape(8, 30)), flat, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(mixed(grads)[0], flat, rtol=1e-6, atol=1e-6)
