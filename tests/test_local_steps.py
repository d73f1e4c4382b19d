"""Local steps do what their papers and an explicit simulation of the workers do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS, adam, mesh_of

pytestmark = pytest.mark.usefixtures('fast_compilation')

EXACT = gz.compress(gz.Identity(), AXIS)


def worker_step(tx, loss):
    def step(params, state, batch):
        own = gz.local_params(params, state, AXIS)
        value, grads = jax.value_and_grad(loss)(own, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def simulate(tx, loss, params, batches, workers):
    """Params after every step, and the losses of every worker, under vmap."""
    specs = gz.state_specs(jax.eval_shape(tx.init, params), 0, None)
    rows = jnp.arange(workers)
    state = jax.vmap(lambda _: tx.init(params), out_axes=specs, axis_name=AXIS)(rows)
    step = jax.vmap(worker_step(tx, loss), (None, specs, 0), (None, specs, 0), axis_name=AXIS)

    def body(carry, batch):
        *carry, values = step(*carry, batch)
        return tuple(carry), (carry[0], values)

    _, out = jax.jit(lambda c, b: jax.lax.scan(body, c, b))((params, state), batches)
    return out


def test_the_toy_of_maxtext():
    """The numbers of `tests/integration/diloco_test.py` of MaxText, one outer step of DiLoCo."""
    x = jnp.array([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    y = jnp.array([[1.0, 2.0], [2.0, 3.0]])
    params = {'w': jnp.array([2.0, 1.0]), 'b': jnp.float32(1.0)}
    outer = optax.sgd(1.0, momentum=0.9, nesterov=True)
    tx = gz.local_steps(optax.sgd(0.1), EXACT, outer, AXIS, sync_every=3)

    def loss(params, batch):
        x, y = batch
        return jnp.mean((x @ params['w'] + params['b'] - y) ** 2)

    batches = jax.tree.map(lambda a: jnp.stack([a] * 4), (x, y))
    params, values = simulate(tx, loss, params, batches, 2)
    np.testing.assert_allclose(values[:, 0], [1.0, 0.49, 0.2401, 0.20754], atol=2e-5)
    np.testing.assert_allclose(params['w'][2], [1.5345, 1.0494], atol=1e-4)
    np.testing.assert_allclose(params['b'][2], 0.5839, atol=1e-4)


WORKERS, STEPS, RATE = 3, 20, 0.1
LEAVES = {'a': (4,), 'b': (3,), 'c': (2,)}  # with two fragments: a, and b with c
TARGETS = {
    name: np.random.default_rng(i).normal(size=(STEPS, WORKERS, *shape))
    for i, (name, shape) in enumerate(LEAVES.items())
}
OUTER = 0.7


def reference(sync_every, fragments, delay, blend):
    """Every worker with params of its own, and the common ones, leaf by leaf in NumPy."""
    common = {name: np.zeros(shape) for name, shape in LEAVES.items()}
    own = {name: np.zeros((WORKERS, *shape)) for name, shape in LEAVES.items()}
    turns = [['a', 'b', 'c']] if fragments == 1 else [['a'], ['b', 'c']]
    spacing, waiting, curve = sync_every // fragments, [], []
    for step in range(1, STEPS + 1):
        for name in LEAVES:
            own[name] -= RATE * (own[name] - TARGETS[name][step - 1])
        if step % spacing == 0:
            names = turns[(step // spacing - 1) % fragments]
            moves = {n: OUTER * (own[n].mean(0) - common[n]) for n in names}
            waiting.append((step + delay, moves))
        while waiting and waiting[0][0] == step:
            for name, move in waiting.pop(0)[1].items():
                common[name] = common[name] + move
                own[name] = blend * own[name] + (1 - blend) * common[name]
        curve.append(np.concatenate([common[name] for name in LEAVES]))
    return np.array(curve)


@pytest.mark.parametrize(
    ('sync_every', 'fragments', 'delay', 'blend'),
    [(1, 1, 0, 0.0), (4, 1, 0, 0.0), (4, 1, 3, 0.5), (4, 2, 0, 0.25), (6, 2, 2, 0.5)],
)
def test_they_are_workers_with_params_of_their_own(sync_every, fragments, delay, blend):
    tx = gz.local_steps(
        optax.sgd(RATE), EXACT, optax.sgd(OUTER), AXIS, sync_every=sync_every,
        fragments=fragments, delay=delay, blend=blend,
    )  # fmt: skip
    loss = lambda own, y: sum(jnp.sum((own[n] - y[n]) ** 2) / 2 for n in LEAVES)  # noqa: E731
    batches = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), TARGETS)
    params = {name: jnp.zeros(shape) for name, shape in LEAVES.items()}
    params, _ = simulate(tx, loss, params, batches, WORKERS)
    curve = np.concatenate([params[name] for name in LEAVES], axis=1)
    np.testing.assert_allclose(curve, reference(sync_every, fragments, delay, blend), atol=1e-6)


def test_one_step_with_an_outer_rate_of_one_is_plain_averaging():
    """Post-local SGD that exchanges in every step is data-parallel SGD."""
    tx = gz.local_steps(optax.sgd(RATE), EXACT, optax.sgd(1.0), AXIS, sync_every=1)
    loss = lambda w, y: jnp.sum((w - y) ** 2) / 2  # noqa: E731
    targets = jnp.asarray(TARGETS['a'], jnp.float32)
    params, _ = simulate(tx, loss, jnp.zeros(4), targets, WORKERS)
    w = np.zeros(4)
    for step in range(STEPS):
        w -= RATE * (w - TARGETS['a'][step].mean(0))
        np.testing.assert_allclose(params[step], w, atol=1e-6)


def chain(**settings):
    memory = gz.error_feedback(gz.TopK(0.5), AXIS, decay=0.95)
    return gz.local_steps(adam(0.05), memory, optax.sgd(0.7), AXIS, sync_every=4, **settings)


def test_data_parallel_takes_gradients_at_the_local_params():
    """The step over a mesh does what the simulator does, and sends what the exchange sends."""
    params = {'w': jnp.zeros((6, 4)), 'b': jnp.zeros(4)}
    x = np.random.default_rng(0).normal(size=(8, 10)).astype(np.float32)

    def loss(params, x):
        return jnp.mean((x[:, :6] @ params['w'] + params['b'][None] - x[:, 6:]) ** 2)

    tx = chain(fragments=2, delay=1, blend=0.5)
    said = []
    state, step = gz.data_parallel(loss, params, tx, mesh_of(4), AXIS, printer=said.append)
    values = []
    for _ in range(9):
        state, value = step(state, x)
        values.append(float(value))
    batches = jnp.stack([x.reshape(4, 2, 10)] * 9)
    curve, losses = simulate(tx, loss, params, batches, 4)
    np.testing.assert_allclose(values, losses.mean(1), rtol=1e-5)
    np.testing.assert_allclose(state.params['w'], curve['w'][-1], rtol=1e-5, atol=1e-7)
    sent = gz.payload_bytes(gz.TopK(0.5), params['w'])  # the larger of the two fragments
    assert f'{sent:,} bytes per worker' in said[0]
    assert gz.wire_bytes(step.lower(state, x).compile()) == sent + 4  # and the loss


def test_the_state_keeps_its_shape_and_its_count_for_ever():
    tx = gz.local_steps(optax.sgd(1.0), optax.identity(), optax.sgd(1.0), sync_every=3)
    state = tx.init(jnp.zeros(2))
    counts, moves = [], []
    for _ in range(14):
        update, state = tx.update(jnp.ones(2), state, jnp.zeros(2))
        counts.append(int(state.count))
        moves.append(float(update[0]))
    assert counts == [1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 3, 4, 5]
    assert moves == [0, 0, -3] * 4 + [0, 0]


def test_params_in_low_precision_keep_their_offset_in_float32():
    tx = gz.local_steps(optax.sgd(1e-3), optax.identity(), optax.sgd(1.0), sync_every=10)
    params = jnp.ones(3, jnp.bfloat16)
    state = tx.init(params)
    for _ in range(9):
        update, state = tx.update(jnp.ones(3, jnp.bfloat16), state, params)
        assert update.dtype == jnp.bfloat16
    np.testing.assert_allclose(state.offset, -9e-3, rtol=5e-3)


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        ({'sync_every': 0}, 'sync_every'),
        ({'sync_every': 4, 'fragments': 3}, 'multiple'),
        ({'sync_every': 4, 'fragments': 2, 'delay': 2}, 'delay'),
        ({'sync_every': 4, 'blend': 1.0}, 'blend'),
        ({'sync_every': 4, 'blend': -0.1}, 'blend'),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        gz.local_steps(optax.sgd(1.0), EXACT, optax.sgd(1.0), AXIS, **settings)


def test_what_else_is_refused():
    one = lambda **more: gz.local_steps(  # noqa: E731
        optax.sgd(1.0), optax.identity(), optax.sgd(1.0), **{'sync_every': 2, **more}
    )
    with pytest.raises(TypeError, match='exchange'):
        gz.local_steps(optax.sgd(1.0), gz.TopK(0.1), optax.sgd(1.0), sync_every=2)
    with pytest.raises(ValueError, match='only 1 leaves'):
        one(fragments=2).init(jnp.zeros(3))
    state = one().init(jnp.zeros(3))
    with pytest.raises(ValueError, match='needs the params'):
        one().update(jnp.zeros(3), state)
    with pytest.raises(ValueError, match=r'sync_every=3.* received it'):
        one(sync_every=3).update(jnp.zeros(3), state, jnp.zeros(3))
    with pytest.raises(ValueError, match='holds 2 local_steps'):
        gz.local_params(jnp.zeros(3), (state, state))
    with pytest.raises(ValueError, match='made for no axis'):
        jax.vmap(lambda x: gz.local_params(x, state, AXIS), axis_name=AXIS)(jnp.zeros((2, 3)))
