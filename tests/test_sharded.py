"""Params are sharded over one axis of a mesh, and their gradients are exchanged over another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from gradzip._groups import _largest_group
from gradzip._hlo import _once, _types, collectives
from tests.mappers import AXIS, P, adam

pytestmark = pytest.mark.usefixtures('fast_compilation')

AUTO = (jax.sharding.AxisType.Auto,) * 2
EXPLICIT = (jax.sharding.AxisType.Explicit,) * 2
WORKERS, SHARDS, WIDTH, HIDDEN = 2, 4, 8, 32
SPECS = {
    'gain': P(),
    'in': P(None, 'model'),
    'hidden': P('model'),
    'out': P('model', None),
    'bias': P(),
}


def make_params(hidden):
    draw = np.random.default_rng(0).normal
    return {
        'gain': jnp.ones(WIDTH),
        'in': jnp.asarray(draw(size=(WIDTH, hidden)) / 3, jnp.float32),
        'hidden': jnp.zeros(hidden),
        'out': jnp.asarray(draw(size=(hidden, WIDTH)) / 6, jnp.float32),
        'bias': jnp.zeros(WIDTH),
    }


PARAMS = make_params(HIDDEN)
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


TOP = gz.TopK(0.2)


def chain(scheme=TOP, exchange=gz.error_feedback, **options):
    return optax.chain(exchange(scheme, AXIS, **options), adam(0.01))


BOTH = (AXIS, 'model')
SAME = {
    'topk': chain(),
    'powersgd, ef21': chain(gz.PowerSGD(1, min_rate=1), gz.ef21),
    'acpsgd, senders': chain(
        lambda p: gz.ACPSGD(1, min_rate=1) if p.ndim > 1 else gz.Gather(TOP, mean_over='senders')
    ),
    'every': gz.every(chain(), 2, AXIS),
    'delay': optax.chain(gz.delay(2, AXIS), chain()),
    'sign, exact for vectors': chain(lambda p: gz.ScaledSign() if p.ndim > 1 else gz.Identity()),
    'momentum of the worker': optax.chain(gz.per_worker(optax.trace(0.9), AXIS), chain()),
    'skip_nonfinite': gz.skip_nonfinite(chain(), BOTH),
}
REFERENCES = SAME | {'skip_nonfinite': gz.skip_nonfinite(chain(), AXIS)}


def fast(table, count):
    """The names of a table, of which those after the first few are slow."""
    return [
        pytest.param(name, marks=() if i < count else pytest.mark.slow)
        for i, name in enumerate(table)
    ]


@pytest.mark.parametrize('name', fast(SAME, 1))
def test_each_shard_is_a_leaf_of_its_own(name):
    """The same as data parallelism alone, on a tree in which every shard is a leaf."""
    state, values = trained(SAME[name])
    expected, expected_values = trained_in_pieces(REFERENCES[name])
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    assert_same_params(state.params, joined(expected.params))
    for name, leaf in state.params.items():
        assert leaf.sharding.shard_shape(leaf.shape) == shapes()[name].shape


def shapes(params=PARAMS):
    return gz.shard_shapes(params, SPECS, mesh_2x4())


def test_what_is_printed_counts_one_device():
    said = []
    gz.data_parallel(
        sharded_loss, PARAMS, chain(), mesh_2x4(), AXIS, specs=SPECS, printer=said.append
    )
    entries = sum(like.size for like in shapes().values())
    assert f'{WORKERS} workers, {entries} entries' in said[0]


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


@pytest.mark.parametrize('name', fast(RANDOM, 1))
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
    """Selection by shard instead of by leaf changes the loss after 300 steps by less than 20 %."""
    mesh = jax.sharding.Mesh(jax.devices()[:WORKERS], (AXIS,))
    tx = chain(gz.TopK(0.1))
    _, values = trained(tx, 300)
    _, expected = trained(tx, 300, loss, specs=None, mesh=mesh)
    assert values[-1] < 0.01 * values[0]
    assert abs(values[-1] - expected[-1]) < 0.2 * expected[-1]


def test_frozen_leaves_and_metrics():
    """Zeros are the same everywhere; a metric is the mean over shards, which are devices here."""
    frozen = {'gain': 'frozen', 'in': 'frozen'}
    tx = optax.partition(
        {'train': chain(metrics={'lost': gz.metrics.lost}), 'frozen': optax.set_to_zero()},
        {name: frozen.get(name, 'train') for name in PARAMS},
    )
    with jax.numpy_dtype_promotion('standard'):
        state, values = trained(tx, 4)
    assert values[-1] < values[0]
    for name in frozen:
        np.testing.assert_array_equal(state.params[name], PARAMS[name])
    assert state.params['in'].sharding.shard_shape((WIDTH, HIDDEN)) == shapes()['in'].shape
    lost = optax.tree.get(state.state, 'lost')
    assert lost.sharding.is_fully_replicated
    assert 0 < lost < 1


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
    local = gz.hierarchical(gz.error_feedback(gz.TopK(0.5), AXIS), 'gpu', 2)
    assert specs_of(local).error.rows['w'] == P((AXIS, 'gpu'), None, 'model')
    assert specs_of(local).error.axes == (AXIS, 'gpu')


def test_specs_of_what_asks_a_model_of_delay():
    """Rings of params, and arrays that no param is like, also where the params are one array."""
    trace = gz.Trace([[0, 1], [2, 0]])
    tx = gz.compensate(trace, AXIS, decay=0.5)
    specs = specs_of(tx)
    assert specs.past == {'w': P(None, None, 'model'), 'b': P(None)}
    assert specs.mean_square.rows['w'] == P(AXIS, None, 'model')
    for asks in (tx, gz.delay(trace, AXIS), gz.iag(gz.QSGD(7), AXIS, trace, key=0)):
        assert specs_of(asks, LIKE['w'], SMALL['w']).arrays == P()
    scaled = gz.scale_by_delay(gz.delay_rules.Adaptive2(), trace, AXIS)
    assert specs_of(scaled, LIKE['w'], SMALL['w']).factors == P()
    stale = gz.stale_params(trace, AXIS)
    assert specs_of(stale).past['w'] == P(None, None, 'model')
    narrow = gz.delay(2, AXIS, memory_dtype='int8', key=0)
    assert specs_of(narrow).past.rows['w'].codes == P(AXIS, None, None, 'model')


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

LARGE = make_params(32 * HIDDEN)  # so that padding is a small part of the bytes
PLATFORMS = ['cpu', pytest.param('tpu', marks=pytest.mark.slow)]


def compiled_step(tx, mesh, *, by_hand):
    """A training step, with the model's collectives by hand or from the compiler."""
    mapped = BOTH if by_hand else (AXIS,)
    objective = sharded_loss if by_hand else loss
    tx = tx if by_hand else gz.per_shard(tx, SPECS)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        state = jax.eval_shape(tx.init, shapes(LARGE) if by_hand else LARGE)
    outer = gz.state_specs(state, params=SPECS)
    inner = (SPECS, outer) if by_hand else (P(), gz.state_specs(state))

    def step(params, state, batch):
        grads = jax.grad(objective)(gz.localize(params, AXIS), batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def placed(x, spec, own):
        """The whole array of which x is the part that a device, or the compiler's program, sees."""
        shape = list(x.shape)
        for i, entry in enumerate(spec):
            for name in entry if isinstance(entry, tuple) else (entry,):
                shape[i] *= mesh.shape[name] if name in own else 1
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=jax.NamedSharding(mesh, spec))

    def place(tree, specs, own):
        return jax.tree.map(lambda x, s: placed(x, s, own), tree, specs)

    args = place(LARGE, SPECS, ()), place(state, outer, mapped)
    batch = jax.tree.map(lambda x: placed(x, P(AXIS), ()), BATCH)
    program = jax.shard_map(
        step, mesh=mesh, in_specs=(*inner, P(AXIS)), out_specs=inner, axis_names=set(mapped)
    )
    out = jax.tree.map(lambda s: jax.NamedSharding(mesh, s), (SPECS, outer))
    with jax.set_mesh(mesh):
        return jax.jit(program, out_shardings=out).lower(*args, batch).compile().as_text()


def sent_by_axis(text):
    """The bytes over the axis of two workers and over that of four shards."""
    text = _once(text)  # XLA for TPU repeats a collective that it overlaps with products
    types, sent = _types(text), {WORKERS: 0, SHARDS: 0}
    for line in text.splitlines():
        for _, size in collectives(line, types):
            sent[_largest_group(line)] += size
    return sent[WORKERS], sent[SHARDS]


def payload(scheme):
    """Sharded and replicated leaves travel in two buffers."""
    groups = ('in', 'hidden', 'out'), ('gain', 'bias')
    likes = [[shapes(LARGE)[name] for name in group] for group in groups]
    return sum(gz.payload_bytes(scheme, like, workers=WORKERS) for like in likes)


@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize('by_hand', [True, pytest.param(False, marks=pytest.mark.slow)])
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


# -- a model that the compiler distributes -------------------------------------------------------


def compiler_step(tx, mesh):
    """A step under a shard_map over the workers alone."""

    def step(params, state, batch):
        grads = jax.grad(loss)(gz.localize(params, AXIS), batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    specs = (P(), gz.state_specs(jax.eval_shape(tx.init, PARAMS)))
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(*specs, P(AXIS)), out_specs=specs, axis_names={AXIS}
    )
    init = jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=specs[1], axis_names={AXIS})
    return jax.jit(init), jax.jit(mapped)


@pytest.mark.parametrize(
    'scheme', [TOP, pytest.param(gz.PowerSGD(1, min_rate=1), marks=pytest.mark.slow)]
)
def test_per_shard_does_what_the_model_by_hand_does(scheme):
    mesh = mesh_2x4(AUTO)
    with jax.set_mesh(mesh):
        init, step = compiler_step(gz.per_shard(chain(scheme), SPECS), mesh)
        params = jax.tree.map(
            lambda p, s: jax.device_put(p, jax.NamedSharding(mesh, s)), PARAMS, SPECS
        )
        state = jax.block_until_ready(init(params))
        for _ in range(3):
            params, state = jax.block_until_ready(step(params, state, BATCH))
    expected, _ = trained(chain(scheme), 3)
    assert_same_params(params, expected.params)
    rows = state[0].error.rows['in']
    assert rows.shape == (WORKERS, WIDTH, HIDDEN)
    assert rows.sharding.shard_shape(rows.shape) == (1, WIDTH, HIDDEN // SHARDS)


# -- what is refused -----------------------------------------------------------------------------


def step_on(mesh, tx):
    with jax.set_mesh(mesh):
        init, step = compiler_step(tx, mesh)
        state = jax.eval_shape(init, PARAMS)
        return jax.eval_shape(step, PARAMS, state, BATCH)


def test_a_function_among_the_extra_arguments_is_no_error():
    """It is one of whole params, which a shard does not have."""
    tx = gz.per_shard(chain(), SPECS)

    def update(updates, state, params=None):
        return tx.update(updates, state, params, value=1.0, value_fn=loss)

    params, _ = step_on(mesh_2x4(), optax.GradientTransformation(tx.init, update))
    assert {name: x.shape for name, x in params.items()} == {
        name: x.shape for name, x in PARAMS.items()
    }


def inside_both():
    tx = gz.per_shard(chain(), SPECS)
    return jax.shard_map(tx.init, mesh=mesh_2x4(), in_specs=(SPECS,), out_specs=P())(PARAMS)


def explicit_without():
    """Gradients of an explicit mesh show in their types that they are sharded."""
    mesh = mesh_2x4(EXPLICIT)
    tx = gz.compress(TOP, AXIS)
    with jax.set_mesh(mesh):
        grads = {'w': jax.device_put(jnp.ones((4, 8)), P(None, 'model'))}
        specs = gz.state_specs(jax.eval_shape(tx.init, grads))
        update = jax.shard_map(
            lambda g, s: tx.update(gz.localize(g, AXIS), s),
            in_specs=(P(), specs),
            out_specs=(P(), specs),
            axis_names={AXIS},
        )
        return jax.eval_shape(update, grads, tx.init(grads))


def with_specs(**changes):
    return lambda: trained(chain(), 1, specs=SPECS | changes)


def unreduced(params, batch):
    return jnp.mean((forward(params, batch[0], lambda y: y) - batch[1]) ** 2)


BAD = {
    'loss that is not reduced': (
        lambda: trained(chain(), 1, unreduced),
        r"What the loss returns at .* differs between the shards of \('model',\).*psum",
    ),
    'specs over workers': (with_specs(gain=P(AXIS)), r"\['gain'\].*\['data'\] are axes of workers"),
    'specs of no axis': (with_specs(gain=P('x')), r"the mesh has the axes \('data', 'model'\)"),
    'specs that do not divide': (
        lambda: trained(chain(), 1, params=PARAMS | {'gain': jnp.ones(7)}, specs=P('model')),
        r'\(7,\).*must be a multiple of its number of parts',
    ),
    'specs with too many entries': (with_specs(gain=P(None, 'model')), 'more entries than'),
    'specs of another tree': (
        lambda: trained(chain(), 1, specs={'gain': P()}),
        'must have the structure of params',
    ),
    'norm of all leaves': (
        lambda: trained(optax.chain(chain(), optax.clip_by_global_norm(1.0)), 1),
        r'The update at .* differs between the shards .*clip_by_global_norm',
    ),
    'axes left to the compiler': (
        lambda: step_on(mesh_2x4(AUTO), chain()),
        r"axes \('model',\) of the mesh are left to the compiler.*gradzip.per_shard",
    ),
    'explicit axes': (explicit_without, r"sharded over \('model',\) of an explicit mesh"),
    'per_shard on explicit axes': (
        lambda: step_on(mesh_2x4(EXPLICIT), gz.per_shard(chain(), SPECS)),
        r"\['model'\] are axes of type Explicit",
    ),
    'per_shard of mapped axes': (inside_both, r"\['model'\] are mapped here already"),
    'per_shard without a mesh': (
        lambda: gz.per_shard(chain(), SPECS).init(PARAMS),
        r'needs a mesh: .*jax.set_mesh',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_refused(name):
    make, message = BAD[name]
    with jax.numpy_dtype_promotion('standard'), pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_spec_is_refused():
    for specs in ('model', {'gain': None, **{n: P() for n in PARAMS if n != 'gain'}}):
        with pytest.raises((TypeError, ValueError), match=r'jax\.P|structure of params'):
            trained(chain(), 1, specs=specs)
    with pytest.raises(TypeError, match=r'needs a jax\.P for every param'):
        gz.state_specs(chain().init(LIKE), 0, params=SMALL)
    with pytest.raises(TypeError, match='must be an optax transformation'):
        gz.per_shard(gz.TopK(0.5), P())
