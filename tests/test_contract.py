"""Every transformation keeps optax's contract, and a few of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, MAPPERS, map_step, start
from tests.zoo import TEN, TRANSFORMATIONS, representatives

pytestmark = pytest.mark.usefixtures('fast_compilation')

PARAMS = {'w': jnp.ones((5, 4)), 'b': [jnp.ones(6), jnp.ones([])], 'none': jnp.zeros((0, 2))}
GRADS = jax.tree.map(lambda p: p * 0.5, PARAMS)


def shown_by_memory(name: str) -> bool:
    """`compress` goes through the same exchange as `error_feedback`: one reducer is enough."""
    return not name.startswith('compress') or name == 'compress gather topk'


ALONE = {n: r for n, r in TRANSFORMATIONS.items() if not r.needs_axis and shown_by_memory(n)}
MAPPED = {n: r for n, r in TRANSFORMATIONS.items() if shown_by_memory(n)}


def alone(name: str) -> optax.GradientTransformation:
    return TRANSFORMATIONS[name].scheme(None)


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, 'weak_type', False)), tree)


@pytest.mark.parametrize('name', ALONE)
def test_state_types_are_the_same_before_and_after_and_extra_arguments_are_accepted(name):
    tx = optax.with_extra_args_support(alone(name))
    state = jax.eval_shape(tx.init, PARAMS)

    def update(grads, state, params):
        return tx.update(grads, state, params, value=1.0, nonsense=2)

    updates, after = jax.eval_shape(update, GRADS, state, PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert types(state) == types(after)
    assert types(updates) == types(GRADS)


@pytest.mark.parametrize('name', ALONE)
def test_init_takes_shapes_alone(name):
    tx = alone(name)
    likes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), PARAMS)
    assert types(jax.eval_shape(lambda: tx.init(likes))) == types(tx.init(PARAMS))


@pytest.mark.parametrize('name', representatives(ALONE))
def test_scan_donation_and_no_second_compilation(name):
    """A scan of three steps equals three donated, jitted steps, compiled once."""
    tx = alone(name)
    step = jax.jit(lambda state, g: tx.update(g, state, PARAMS)[::-1], donate_argnums=0)
    gs = jax.tree.map(lambda g: np.stack([g, 2 * g, -g]), GRADS)
    scanned, expected = jax.lax.scan(
        lambda state, g: tx.update(g, state, PARAMS)[::-1], tx.init(PARAMS), gs
    )
    state = tx.init(PARAMS)
    for i in range(3):
        state, updates = step(state, jax.tree.map(lambda g, i=i: g[i], gs))
        for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-5, atol=1e-5)
    assert step._cache_size() == 1
    assert types(state) == types(scanned)


@pytest.mark.parametrize('mapper', ['pmap', 'shard_map'])
@pytest.mark.parametrize('name', representatives(MAPPED))
def test_donated_states_under_mappers(name, mapper):
    """No buffer stands twice in a fresh state, so all of it can be given away."""
    tx = TRANSFORMATIONS[name].scheme(AXIS)
    _, state = start(tx, PARAMS, mapper, 2)
    donated = jax.jit(lambda s: jax.tree.map(lambda x: x, s), donate_argnums=0)
    jax.block_until_ready(donated(state))
    jax.block_until_ready(donated(tx.init(PARAMS)))


def test_donating_a_state_leaves_the_key_that_it_was_made_with():
    key = jax.random.key(0)
    state = gz.compress(gz.QSGD(7), key=key).init(PARAMS)
    jax.block_until_ready(jax.jit(lambda s: jax.tree.map(lambda x: x, s), donate_argnums=0)(state))
    assert not key.is_deleted()


@pytest.mark.parametrize('name', MAPPED)
def test_only_marked_parts_differ_between_workers(name):
    """Tracing vmap proves it: an unmarked part that differed would be refused by out_axes=None."""
    tx = TRANSFORMATIONS[name].scheme(AXIS)
    state = jax.eval_shape(tx.init, PARAMS)
    state_all = jax.eval_shape(lambda: start(tx, PARAMS, 'vmap', 3)[1])

    def step(params, state, scale):
        grads = jax.tree.map(lambda p: p * scale, params)
        _, state = tx.update(grads, state, params)
        return params, state, jnp.zeros([])

    step = map_step(step, state, 'vmap', 3)
    _, after, _ = jax.eval_shape(step, PARAMS, state_all, jnp.arange(1.0, 4.0))
    assert types(after) == types(state_all)
    for node in jax.tree.leaves(after, is_leaf=lambda x: isinstance(x, gz.PerWorker)):
        if isinstance(node, gz.PerWorker):
            assert node.axes == (AXIS,)
            assert all(row.shape[:2] == (3, 1) for row in jax.tree.leaves(node.rows))


@pytest.mark.parametrize('name', representatives(ALONE))
def test_a_state_survives_a_checkpoint(name, tmp_path):
    import orbax.checkpoint as ocp

    tx = alone(name)
    params = {k: v for k, v in PARAMS.items() if k != 'none'}  # orbax saves no empty arrays
    grads = {k: v for k, v in GRADS.items() if k != 'none'}
    update = jax.jit(tx.update)
    _, state = update(grads, tx.init(params), params)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / 'state', state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / 'state', jax.eval_shape(lambda s: s, state))
    assert types(restored) == types(state)
    for a, b in zip(
        *(jax.tree.leaves(update(grads, s, params)) for s in (state, restored)), strict=True
    ):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('name', ALONE)
def test_partition_and_flatten(name):
    tx = alone(name)
    parts = optax.partition(
        {'small': optax.identity(), 'large': tx},
        {'w': 'large', 'b': ['large', 'small'], 'none': 'small'},
    )
    for wrapped in (parts, optax.flatten(tx)):
        state = jax.eval_shape(wrapped.init, PARAMS)
        updates, _ = jax.eval_shape(wrapped.update, GRADS, state, PARAMS)
        assert types(updates) == types(GRADS)


@pytest.mark.parametrize(
    'name', ['error_feedback gather topk', 'ef21 gather topk', 'delay constant']
)
def test_tree_map_params_reaches_the_memories(name):
    tx = alone(name)
    params = {'w': jnp.ones((5, 4)), 'b': jnp.ones(6)}
    marked = optax.tree.map_params(
        tx, lambda x: 'param', tx.init(params), transform_non_params=lambda x: 'other'
    )
    assert 'param' in jax.tree.leaves(marked)


@pytest.mark.parametrize(
    ('name', 'dtype'),
    [(name, jnp.bfloat16) for name in ALONE]
    + [(name, jnp.float16) for name in representatives(ALONE)],
)
def test_half_precision_params_have_float32_memories(name, dtype):
    tx, params = alone(name), jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    for grads in (params, PARAMS):  # gradients in the params' dtype, and in float32
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(tx.update, grads, state, params)
        assert types(updates) == types(grads)
        assert types(after) == types(state)
        floats = [x.dtype for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)]
        # compensate keeps params as they are, and not sums of gradients
        known = {jnp.dtype('float32'), jnp.dtype(dtype if name == 'compensated' else 'float32')}
        assert set(floats) <= known


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('name', ALONE)
def test_float64_params_have_float64_memories(name):
    tx, params = alone(name), jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert types(updates) == types(params)
    assert types(after) == types(state)
    floats = [x.dtype for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)]
    measured = jax.tree.leaves(getattr(after, 'metrics', {}))
    # factors of step sizes and sums of learning rates are float32
    scalars = name in ('scaled by delay', 'line search', 'zero_one_adam')
    numbers = len(measured) + scalars
    assert floats.count(jnp.float64) >= len(floats) - numbers


def test_ef21_with_float64_memory_reaches_float64_accuracy():
    """With float32 memory it stalls near 6e-12 (relative gap 1e-7)."""
    with jax.enable_x64(True):
        tx = optax.chain(gz.ef21(gz.TopK(0.25)), optax.sgd(0.05))
        w, state = jnp.ones(8, jnp.float64), tx.init(jnp.ones(8, jnp.float64))
        curvature = jnp.linspace(1.0, 3.0, 8, dtype=jnp.float64)
        step = jax.jit(lambda w, s: tx.update(curvature * w, s, w))
        for _ in range(1500):
            updates, state = step(w, state)
            w = optax.apply_updates(w, updates)
        assert jnp.abs(w).max() < 1e-12


@pytest.mark.parametrize('mapper', MAPPERS)
def test_metrics_are_the_same_on_every_worker_and_read_by_name(mapper):
    tx = TRANSFORMATIONS['measured'].scheme(AXIS)
    params, state = start(tx, jnp.zeros(10), mapper, 2)

    def step(params, state, batch):
        _, state = tx.update(gz.localize(params, AXIS) + batch.reshape(10), state)
        return params, state, jnp.zeros([])

    batch = jnp.arange(20.0).reshape(2, 10)
    mapped = map_step(step, jax.eval_shape(lambda s: s, state), mapper, 2)
    _, state, _ = mapped(params, state, batch.reshape(20) if 'shard' in mapper else batch)
    lost = np.asarray(optax.tree.get(state, 'lost')).ravel()[0]
    kept = [1 - (b[-2:] ** 2).sum() / (b**2).sum() for b in np.asarray(batch)]
    np.testing.assert_allclose(lost, np.mean(kept), rtol=1e-5)
    nonzeros = np.asarray(optax.tree.get(state, 'nonzeros')).ravel()[0]
    np.testing.assert_allclose(nonzeros, 0.2, rtol=1e-6)
    left = [np.linalg.norm(b[:-2]) for b in np.asarray(batch)]
    norm = np.asarray(optax.tree.get(state, 'error_norm')).ravel()[0]
    np.testing.assert_allclose(norm, np.mean(left), rtol=1e-5)
    sent = np.asarray(optax.tree.get(state, 'bits')).ravel()[0]
    assert sent == 8 * gz.payload_bytes(gz.TopK(0.2), TEN)
