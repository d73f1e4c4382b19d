"""Bytes that are really saved: counted on shapes, and equal in the compiled HLO of CPU and TPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from gradzip._hlo import collectives
from tests.mappers import AXIS, P, mesh_of
from tests.wire import check_exchange
from tests.zoo import COMPRESSORS, REDUCER_ROWS, REDUCERS, ROWS, TRANSFORMATIONS, representatives

PARAMS = {
    'w': jnp.zeros((37, 20)),
    'b': jnp.zeros(20),
    's': jnp.zeros([]),
    'none': jnp.zeros((0, 4)),
    'v': jnp.zeros((37, 20)),
}
# A matrix and a scalar, for all reducers: the time of compiling grows with the number of leaves.
FEW = {'w': jnp.zeros((37, 20)), 's': jnp.zeros([])}
PLATFORMS = ['cpu', pytest.param('tpu', marks=pytest.mark.slow)]


def compile_exchange(tx, params, mesh):
    """The program of one exchange, and nothing else."""
    shapes = jax.eval_shape(tx.init, params)
    specs = gz.state_specs(shapes)
    step = jax.shard_map(
        lambda g, s: tx.update(gz.localize(g, AXIS), s),
        mesh=mesh,
        in_specs=(P(), specs),
        out_specs=(P(), specs),
    )

    def on_mesh(shape, spec):
        return jax.ShapeDtypeStruct(
            shape.shape, shape.dtype, sharding=jax.NamedSharding(mesh, spec)
        )

    state = jax.tree.map(
        lambda spec, part: jax.tree.map(lambda s: on_mesh(widen(s, spec, mesh), spec), part),
        specs,
        shapes,
        is_leaf=lambda x: isinstance(x, P),
    )
    grads = jax.tree.map(lambda p: on_mesh(p, P()), params)
    # What is sent is read, not run: machine code need not be good, which compiles sooner.
    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    options = {'xla_backend_optimization_level': 0} if on_cpu else None
    return jax.jit(step).lower(grads, state).compile(compiler_options=options)


def widen(shape, spec, mesh):
    """A worker's row as all the rows, outside the mapper."""
    if spec == P():
        return shape
    return jax.ShapeDtypeStruct((mesh.size, *shape.shape[1:]), shape.dtype)


@pytest.fixture
def devices(platform, request):
    """Eight devices of a platform; those of a TPU are only compiled for."""
    if platform == 'cpu':
        return np.array(jax.devices())
    return request.getfixturevalue('tpu_mesh').devices


@pytest.mark.slow
@pytest.mark.parametrize('name', REDUCERS)
def test_bytes_on_tpu_are_as_predicted(name, tpu_mesh):
    """Law 2 counts those of every reducer on CPU, in the programs that it runs."""
    tx = gz.error_feedback(REDUCERS[name], AXIS, key=0)
    compiled = compile_exchange(tx, FEW, jax.sharding.Mesh(tpu_mesh.devices, (AXIS,)))
    assert gz.wire_bytes(compiled) == gz.step_bytes(tx, FEW, {AXIS: 8})
    check_exchange(compiled, REDUCERS[name], FEW, 8, 'tpu')


@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize('name', representatives(REDUCER_ROWS))
def test_bytes_of_many_leaves(name, platform, devices):
    """Leaves of one shape, a leaf of no entries and one without rows change nothing."""
    tx = gz.error_feedback(REDUCERS[name], AXIS, key=0)
    compiled = compile_exchange(tx, PARAMS, jax.sharding.Mesh(devices, (AXIS,)))
    assert gz.wire_bytes(compiled) == gz.step_bytes(tx, PARAMS, {AXIS: 8})
    check_exchange(compiled, REDUCERS[name], PARAMS, 8, platform)


@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize('name', representatives(REDUCER_ROWS))
def test_two_workers(name, platform, devices):
    """The pieces of an array depend on the number, and a compiler may choose by it too."""
    reducer = REDUCERS[name]
    tx = gz.compress(reducer, AXIS, key=0)
    compiled = compile_exchange(tx, FEW, jax.sharding.Mesh(devices[:2], (AXIS,)))
    predicted = gz.step_bytes(tx, FEW, {AXIS: 2})
    assert gz.wire_bytes(compiled) == predicted
    assert predicted == gz.payload_bytes(reducer, FEW, workers=2) > 0


@pytest.mark.parametrize('name', ['two shot qsgd', 'powersgd', 'schedule'])
def test_what_one_worker_sends_to_itself_is_nothing(name):
    tx = gz.error_feedback(REDUCERS[name], AXIS, key=0)
    compiled = compile_exchange(tx, FEW, mesh_of(1))
    assert gz.wire_bytes(compiled) == gz.step_bytes(tx, FEW, {AXIS: 1}) == 0
    assert gz.payload_bytes(REDUCERS[name], FEW, workers=1) == 0


@pytest.mark.parametrize(
    'name',
    [
        'measured',
        'skip_nonfinite',
        'every',
        'participate',
        pytest.param('marina', marks=pytest.mark.slow),
    ],
)
def test_whole_transformations(name):
    """Metrics and wrappers have collectives of their own."""
    tx = TRANSFORMATIONS[name].scheme(AXIS)
    compiled = compile_exchange(tx, FEW, mesh_of(4))
    assert gz.wire_bytes(compiled) == gz.step_bytes(tx, FEW, {AXIS: 4}) > 0


def test_a_chain_on_an_axis_of_another_name_is_refused():
    with pytest.raises(ValueError, match="No axis named 'data' is mapped here"):
        gz.step_bytes(gz.compress(gz.TopK(0.1), AXIS), PARAMS, {'workers': 4})


def test_of_a_conditional_the_largest_branch_counts():
    text = """
HloModule jit_step

%small (a: f32[7]) -> f32[7] {
  %a = f32[7]{0} parameter(0)
  ROOT %one = f32[7]{0} all-reduce(%a), to_apply=%add
}

%large (b: f32[9]) -> f32[7] {
  %b = f32[9]{0} parameter(0)
  %two = f32[9]{0} all-reduce(%b), to_apply=%add
  ROOT %more = f32[7]{0} call(%two), to_apply=%small
}

ENTRY %main (p: s32[], x: f32[7], y: f32[9]) -> f32[7] {
  %p = s32[] parameter(0)
  ROOT %c = f32[7]{0} conditional(%p, %x, %y), branch_computations={%small, %large}
}"""
    assert gz.wire_bytes(text) == 4 * (9 + 7)


@pytest.mark.parametrize('scheme', [gz.TopK(0.01), gz.ScaledSign(), gz.Identity()], ids=repr)
def test_many_leaves_are_one_collective(scheme):
    params = [jnp.zeros((i % 3 + 1, 11)) for i in range(30)]
    compiled = compile_exchange(gz.compress(scheme, AXIS, key=0), params, mesh_of(8))
    assert len(collectives(compiled.as_text())) == 1
    assert gz.wire_bytes(compiled) == gz.payload_bytes(scheme, params)


def test_two_schemes_are_two_collectives():
    def scheme(leaf):
        return gz.TopK(0.1) if leaf.size > 100 else gz.Identity()

    compiled = compile_exchange(gz.compress(scheme, AXIS), PARAMS, mesh_of(8))
    ops = sorted(op for op, _ in collectives(compiled.as_text()))
    assert ops == ['all-gather', 'all-reduce']
    assert gz.wire_bytes(compiled) == gz.payload_bytes(scheme, PARAMS)


@pytest.mark.parametrize('platform', PLATFORMS)
def test_hierarchical_sends_its_share(platform, devices):
    """Between nodes a quarter of the entries cross, and gathers stay gathers on TPU."""
    del platform
    mesh, both = jax.sharding.Mesh(devices.reshape(2, 4), ('node', 'gpu')), ('node', 'gpu')
    params = {'w': jnp.zeros((256, 512)), 'b': jnp.zeros(33)}
    shares = {'w': jnp.zeros((64, 512)), 'b': jnp.zeros(9)}
    tx = gz.hierarchical(gz.error_feedback(gz.TopK(0.1), 'node'), 'gpu', local_size=4)

    def worker(grads):
        return tx.update(gz.localize(grads, both), tx.init(params))[0]

    step = jax.shard_map(worker, mesh=mesh, in_specs=P(), out_specs=P())
    whole = jax.NamedSharding(mesh, P())
    grads = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=whole), params)
    found = collectives(jax.jit(step).lower(grads).compile().as_text())
    assert sorted(op for op, _ in found) == ['all-gather', 'all-gather', 'reduce-scatter']
    assert gz.payload_bytes(gz.TopK(0.1), shares) in [size for _, size in found]


@pytest.mark.parametrize('name', COMPRESSORS)
def test_payloads_are_as_small_as_described(name):
    """Bits an entry of a large leaf, within the words that padding costs."""
    n = 100_000
    bits = ROWS[name].bits
    seen = 8 * gz.payload_bytes(COMPRESSORS[name], jnp.zeros(n)) / n
    assert bits <= seen * 1.01
    assert seen <= bits * 1.01 + 8 * 512 / n


def test_indices_and_coarse_values_in_thirteen_bits():
    """Of 10 million entries one in a hundred, index and value together."""
    like = jax.ShapeDtypeStruct((10_000_000,), jnp.float32)
    size = gz.payload_bytes(gz.TopK(0.01) >> gz.QSGD(levels=7), like)
    assert 8 * size / 100_000 < 13


def test_a_narrow_type_on_the_wire_would_be_seen():
    """The parser reads the types of the operands, so that a widened gather cannot pass."""
    text = """
      %x = u32[3,128]{1,0} parameter(0)
      %ag = u32[8,3,128]{2,1,0} all-gather(%x), channel_id=1, dimensions={0}
      %y = bf16[7]{0} parameter(1)
      %s = (bf16[7]{0}, bf16[56]{0}) all-gather-start(%y), dimensions={0}
      %d = bf16[56]{0} all-gather-done(%s)
      ROOT %ar = (f32[2]{0:T(1,128)}, /*index=1*/s8[4]{0}) all-reduce(%p, %q), to_apply=%add
      %p = f32[2]{0} parameter(2)
      %q = s8[4]{0} parameter(3)
    """
    assert collectives(text) == [('all-gather', 1536), ('all-gather', 14), ('all-reduce', 12)]
