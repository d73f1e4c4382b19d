"""Params are sharded over one axis of a mesh, and their gradients are exchanged over another."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from gradzip._groups import _largest_group
from gradzip._hlo import _types, collectives
from tests.mappers import AXIS, P, adam

pytestmark = pytest.mark.usefixtures('fast_compilation')

AUTO = (jax.sharding.AxisType.Auto,) * 2
WORKERS, SHARDS, WIDTH, HIDDEN = 2, 4, 8, 32
SPECS = {
    'gain': P(),
    'in': P(None, 'model'),
    'hidden': P('model'),
    'out': P('model', None),
    'bias': P(),
}
ALL_MANUAL = {'axis_names': {AXIS, 'model'}}


def make_params():
    draw = np.random.default_rng(0).normal
    return {
        'gain': jnp.ones(WIDTH),
        'in': jnp.asarray(draw(size=(WIDTH, HIDDEN)) / 3, jnp.float32),
        'hidden': jnp.zeros(HIDDEN),
        'out': jnp.asarray(draw(size=(HIDDEN, WIDTH)) / 6, jnp.float32),
        'bias': jnp.zeros(WIDTH),
    }


PARAMS = make_params()
X = np.random.default_rng(1).normal(size=(16, WIDTH)).astype(np.float32)
BATCH = X, np.roll(X, 1, axis=1) ** 2


def forward(p, x, reduce):
    """The MLP of a transformer, with its normalization and its residual."""
    x = x * p['gain'][None] / jnp.sqrt(jnp.mean(x * x, axis=1, keepdims=True))
    h = jax.nn.gelu(x @ p['in'] + p['hidden'][None])
    return x + reduce(h @ p['out']) + p['bias'][None]


def loss(p, batch):
    """On one device, or distributed by the compiler."""
    return jnp.mean((forward(p, batch[0], lambda y: y) - batch[1]) ** 2)


def sharded_loss(p, batch):
    """With tensor parallelism by hand: a product whose inner axis is sharded is summed."""
    y = forward(p, batch[0], lambda y: jax.lax.psum(y, 'model'))
    return jnp.mean((y - batch[1]) ** 2)


def pieces_of(params):
    """Every shard as a leaf of its own, for data parallelism alone."""

    def cut(p, spec):
        axis = next((i for i, name in enumerate(spec) if name), None)
        return [p] if axis is None else jnp.split(p, SHARDS, axis)

    return {name: cut(p, SPECS[name]) for name, p in params.items()}


def joined(pieces):
    return {
        name: jnp.concatenate(part, axis=max(0, len(SPECS[name]) - 1) if name == 'in' else 0)
        for name, part in pieces.items()
    }


def mesh_2x4(axis_types=None, devices=None):
    devices = np.array(devices or jax.devices()).reshape(WORKERS, SHARDS)
    return jax.sharding.Mesh(devices, (AXIS, 'model'), axis_types=axis_types)


def trained(tx, steps=4, loss=sharded_loss, params=PARAMS, specs=SPECS, mesh=None):
    mesh = mesh or mesh_2x4()
    state, step = gz.data_parallel(loss, params, tx, mesh, AXIS, specs=specs, printer=None)
    values = []
    for _ in range(steps):
        state, value = jax.block_until_ready(step(state, BATCH))
        values.append(float(value))
    return state, values


def trained_in_pieces(tx, steps=4):
    mesh = jax.sharding.Mesh(jax.devices()[:WORKERS], (AXIS,))
    return trained(
        tx, steps, lambda p, batch: loss(joined(p), batch), pieces_of(PARAMS), None, mesh
    )


def assert_same_params(params, expected, tolerance=1e-5):
    for name in PARAMS:
        np.testing.assert_allclose(params[name], expected[name], rtol=tolerance, atol=tolerance)


def chain(scheme=gz.TopK(0.2), exchange=gz.error_feedback, **options):
    return optax.chain(exchange(scheme, AXIS, **options), adam(0.01))


SAME = {
    'identity': chain(gz.Identity()),
    'topk': chain(),
    'topk, ef21': chain(exchange=gz.ef21),
    'sign, exact for vectors': chain(lambda p: gz.ScaledSign() if p.ndim > 1 else gz.Identity()),
    'powersgd': chain(gz.PowerSGD(1, min_rate=1)),
    'delay': optax.chain(gz.delay(2, AXIS), chain()),
    'every': gz.every(chain(), 2, AXIS),
    'momentum of the worker': optax.chain(gz.per_worker(optax.ema(0.9), AXIS), chain()),
    'skip_nonfinite': gz.skip_nonfinite(chain(), (AXIS, 'model')),
}


@pytest.mark.parametrize('name', SAME)
def test_each_shard_is_a_leaf_of_its_own(name):
    """The same as data parallelism alone, on a tree in which every shard is a leaf."""
    tx = SAME[name]
    if name == 'skip_nonfinite':
        reference = gz.skip_nonfinite(chain(), AXIS)
    else:
        reference = tx
    state, values = trained(tx)
    expected, expected_values = trained_in_pieces(reference)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    assert_same_params(state.params, joined(expected.params))
    for name, leaf in state.params.items():
        assert leaf.sharding.shard_shape(leaf.shape) == shapes()[name].shape


def shapes():
    return gz.shard_shapes(PARAMS, SPECS, mesh_2x4())


def test_identity_equals_data_parallelism():
    mesh = jax.sharding.Mesh(jax.devices()[:WORKERS], (AXIS,))
    tx = optax.chain(gz.compress(gz.Identity(), AXIS), optax.sgd(0.1))
    state, _ = trained(tx, 3)
    expected, _ = trained(tx, 3, loss, specs=None, mesh=mesh)
    assert_same_params(state.params, expected.params, 1e-6)


RANDOM = {
    'shared mask': chain(gz.RandK(0.3), key=0),
    'quantized': chain(gz.QSGD(7), key=0),
    'two shots': chain(gz.TwoShot(gz.QSGD(7)), key=0),
    'schedule': chain(gz.Schedule((gz.Identity(), gz.PowerSGD(1, min_rate=1)), (2,))),
}


@pytest.mark.parametrize('name', RANDOM)
def test_replicated_params_stay_the_same_on_all_shards(name):
    state, values = trained(RANDOM[name], 5)
    assert values[-1] < values[0]
    for name in ('gain', 'bias'):
        first, *rest = (np.asarray(shard.data) for shard in state.params[name].addressable_shards)
        for other in rest:
            np.testing.assert_array_equal(first, other)


def test_iag_where_all_params_are_sharded():
    """Its messages hold all leaves at once."""
    params = {name: PARAMS[name] for name in ('in', 'hidden', 'out')}
    specs = {name: SPECS[name] for name in params}
    rest = {name: PARAMS[name] for name in ('gain', 'bias')}
    tx = optax.chain(gz.iag(gz.QSGD(7), AXIS, gz.Cyclic(2), key=0), optax.sgd(0.1))
    state, values = trained(tx, 5, lambda p, b: sharded_loss({**p, **rest}, b), params, specs)
    assert values[-1] < values[0]
    [ring] = state.state[0].messages
    assert ring.rows.sharding.spec == P((AXIS,), ('model',))


@pytest.mark.slow
def test_topk_reaches_the_loss_of_data_parallelism():
    """Selection by shard instead of by leaf changes the loss after 300 steps by at most 5 %."""
    mesh = jax.sharding.Mesh(jax.devices()[:WORKERS], (AXIS,))
    tx = chain(gz.TopK(0.1))
    _, values = trained(tx, 300)
    _, expected = trained(tx, 300, loss, specs=None, mesh=mesh)
    assert values[-1] < 0.2 * values[0]
    assert abs(values[-1] - expected[-1]) < 0.05 * expected[0]


# -- specs of a state ----------------------------------------------------------------------------

SMALL = {'w': P(None, 'model'), 'b': P()}
LIKE = {'w': jnp.zeros((6, 4)), 'b': jnp.zeros(4)}


def specs_of(tx, params=LIKE, specs=SMALL):
    state = jax.eval_shape(tx.init, params)
    found = gz.state_specs(state, params=specs)
    jax.tree.map(lambda spec, part: None, found, state, is_leaf=lambda x: isinstance(x, P))
    return found


def test_specs_of_memories_and_moments():
    specs = specs_of(chain())
    error = specs[0].error
    assert error.rows == {'w': P(AXIS, None, 'model'), 'b': P(AXIS)}
    assert error.worker == P(AXIS)
    assert specs[0].exchange.count == P()
    assert specs[1][0].mu == specs[1][0].nu == SMALL
    assert specs[1][0].count == P()


def test_specs_of_ef21_and_powersgd():
    specs = specs_of(chain(gz.PowerSGD(1, min_rate=1), gz.ef21))[0]
    assert specs.mean == SMALL
    assert specs.estimate.rows['w'] == P(AXIS, None, 'model')
    assert specs.exchange.reducers == {'w': P('model'), 'b': ()}
    schedule = gz.Schedule((gz.Identity(), gz.PowerSGD(1, min_rate=1)), (2,))
    own = specs_of(chain(schedule))[0].exchange.reducers['w']
    assert own.count == P()
    assert own.states == ((), P('model'))


def test_specs_of_other_states():
    assert specs_of(gz.delay(2, AXIS)).past.rows == {
        'w': P(AXIS, None, None, 'model'),
        'b': P(AXIS, None),
    }
    assert specs_of(gz.per_worker(optax.trace(0.9), AXIS)).rows.trace['w'] == P(AXIS, None, 'model')
    assert specs_of(gz.every(optax.sgd(0.1), 2, AXIS)).sum.rows['w'] == P(AXIS, None, 'model')
    assert specs_of(gz.delay(2)).past['w'] == P(None, None, 'model')
    drawing = specs_of(gz.compress(gz.RandK(0.5), AXIS, key=0))
    assert drawing.exchange.key == P()
    local = gz.hierarchical(chain(gz.PowerSGD(1, min_rate=1))[:1] and chain_only(), 'gpu', 2)
    assert specs_of(local).error.rows['w'] == P((AXIS, 'gpu'), None, 'model')
    assert specs_of(local).error.axes == (AXIS, 'gpu')


def chain_only():
    return gz.error_feedback(gz.TopK(0.5), AXIS)


def test_specs_of_factored_moments_and_of_partitions():
    """Of a matrix, adafactor keeps one vector for the rows and one for the columns."""
    tx = optax.scale_by_factored_rms(min_dim_size_to_factor=2)
    with jax.numpy_dtype_promotion('standard'):
        specs = specs_of(tx)
    assert specs.v_row['w'] == specs.v_col['w'] == P('model')
    tx = optax.partition({'a': chain(), 'b': optax.sgd(0.1)}, {'w': 'a', 'b': 'b'})
    inner = specs_of(tx).inner_states['a'].inner_state
    assert inner[0].error.rows['w'] == P(AXIS, None, 'model')


def test_params_may_be_one_array_or_a_tuple():
    specs = specs_of(chain(), LIKE['w'], SMALL['w'])
    assert specs[0].error.rows == P(AXIS, None, 'model')
    assert specs[1][0].count == P()
    specs = specs_of(chain(), (LIKE['w'], LIKE['b']), (SMALL['w'], SMALL['b']))
    assert specs[0].error.rows == (P(AXIS, None, 'model'), P(AXIS))
    assert specs[1][0].mu == (P(None, 'model'), P())


# -- bytes ---------------------------------------------------------------------------------------

PLATFORMS = ['cpu', pytest.param('tpu', marks=pytest.mark.slow)]


def compiled_step(tx, mesh, *, by_hand):
    """A training step, with the model's collectives by hand or from the compiler."""
    on_data = {name: P() for name in SPECS}
    if not by_hand:
        tx = gz.per_shard(tx, SPECS)
    state = jax.eval_shape(tx.init if by_hand else lambda p: in_mesh(tx, p, mesh), PARAMS)
    inner = gz.state_specs(state, params=SPECS) if by_hand else gz.state_specs(state)
    outer = gz.state_specs(state, params=SPECS)
    objective = sharded_loss if by_hand else loss

    def step(params, state, batch):
        grads = jax.grad(objective)(gz.localize(params, AXIS), batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    places = SPECS if by_hand else on_data
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(places, inner, P(AXIS)),
        out_specs=(places, inner),
        axis_names={AXIS, 'model'} if by_hand else {AXIS},
    )

    def placed(tree, specs):
        def one(x, spec):
            rows = WORKERS if AXIS in jax.tree.leaves(tuple(spec)) else 1
            shape = (x.shape[0] * rows, *x.shape[1:]) if rows > 1 else x.shape
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=jax.NamedSharding(mesh, spec))

        return jax.tree.map(
            lambda spec, part: jax.tree.map(lambda x: one(x, spec), part),
            specs,
            tree,
            is_leaf=lambda x: isinstance(x, P),
        )

    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, P(AXIS))),
        BATCH,
    )
    args = placed(PARAMS, SPECS), placed(state, outer), batch
    out = jax.tree.map(lambda s: jax.NamedSharding(mesh, s), (SPECS, outer))
    with jax.set_mesh(mesh):
        return jax.jit(mapped, out_shardings=out).lower(*args).compile().as_text()


def in_mesh(tx, params, mesh):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return tx.init(params)


def sent_by_axis(text):
    """The bytes over the axis of two workers and over that of four shards."""
    types, sent = _types(text), {WORKERS: 0, SHARDS: 0}
    for line in text.splitlines():
        for _, size in collectives(line, types):
            sent[_largest_group(line)] += size
    return sent[WORKERS], sent[SHARDS]


def payload(scheme):
    """Sharded and replicated leaves travel in two buffers."""
    like = shapes()
    groups = [[like[n] for n in like if bool(axes_in(SPECS[n])) == own] for own in (True, False)]
    return sum(gz.payload_bytes(scheme, group, workers=WORKERS) for group in groups)


def axes_in(spec):
    return [name for name in spec if name]


@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize('by_hand', [True, False])
def test_bytes_over_each_axis(platform, by_hand, request, full_compilation):
    devices = None
    if platform == 'tpu':
        devices = list(request.getfixturevalue('tpu_mesh').devices.flat)
    mesh = mesh_2x4(AUTO, devices)
    exact, plain = sent_by_axis(
        compiled_step(optax.chain(gz.compress(gz.Identity(), AXIS)), mesh, by_hand=by_hand)
    )
    assert exact == payload(gz.Identity())
    for scheme in (gz.TopK(0.2), gz.PowerSGD(1, min_rate=1)):
        over_data, over_model = sent_by_axis(compiled_step(chain(scheme), mesh, by_hand=by_hand))
        assert over_data == payload(scheme)
        assert over_model == plain
    assert plain > 0
