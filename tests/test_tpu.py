"""Programs for a TPU v5e, compiled without one: passes over memory, and dtypes."""

import jax
import jax.numpy as jnp
import pytest

import gradzip as gz
from experiments.accelerators import cost
from experiments.accelerators.programs import Form, Job, leaf_program, measure
from gradzip._buffer import from_buffer, to_buffer
from gradzip._hlo import collectives
from tests.mappers import AXIS
from tests.test_bytes import compile_exchange

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('tpu_mesh')]

ENTRIES = 100_663_296  # 0.4 GB, which do not fit the memory on the chip

# Passes over memory, at most; temporaries in leaves; indices gathered, scattered or sorted, in
# shares of the entries.
CEILINGS = {
    (Form.MEMORY, 'TopK(0.01)'): (5.1, 0.01, 0.02),
    (Form.MEMORY, 'BlockTopK(32, 4096)'): (3.1, 0.01, 1e-4),
    (Form.MEMORY, 'ColumnMax(104)'): (3.1, 0.01, 1e-4),
    (Form.MEMORY, 'RandK(0.01)'): (3.3, 0.1, 0.04),
    (Form.MEMORY, 'RandBlock(0.01)'): (3.1, 0.01, 0),
    (Form.DECODE, 'ColumnMax(104)'): (4.5, 1.1, 1e-4),
}


@pytest.mark.parametrize(('form', 'name'), CEILINGS)
def test_passes_over_memory(form, name):
    found = measure(Job('v5e', form, name, ENTRIES))
    passes, temporaries, random = CEILINGS[form, name]
    assert found.passes <= passes
    assert found.temporaries <= temporaries
    assert found.random <= random
    assert found.largest <= 0.02 * ENTRIES


@pytest.mark.parametrize(
    ('scheme', 'form', 'passes'),
    [
        (gz.TopK(0.01), Form.MEMORY, 5.2),
        (gz.BlockTopK(32, 4096), Form.MEMORY, 3.1),
        (gz.BlockTopK(32, 4096), Form.DECODE, 3.5),
    ],
)
def test_a_matrix_is_not_copied(scheme, form, passes, tpu_mesh):
    """Not to select from it, and not where means are added: each worker would cost four passes."""
    x = jax.ShapeDtypeStruct((16_384, 1_024), jnp.float32)
    one = jax.sharding.Mesh(tpu_mesh.devices.flat[:1], (AXIS,))
    function, arguments, donated = leaf_program(scheme, form, x)
    mapped = jax.shard_map(function, mesh=one, in_specs=jax.P(), out_specs=jax.P())
    program = jax.jit(mapped, donate_argnums=donated).lower(*arguments).compile()
    assert cost.read(program.as_text()).cost().bytes <= passes * 4 * x.size


@pytest.mark.parametrize('dtype', ['uint16', 'uint8'])
def test_narrow_payloads_in_a_buffer(dtype, tpu_mesh):
    """Arrays whose last axis is 2 or 4 would take 64 or 32 times the memory."""
    here = jax.NamedSharding(tpu_mesh, jax.P())
    x = jax.ShapeDtypeStruct((1 << 25,), dtype, sharding=here)
    there_and_back = jax.jit(lambda x: from_buffer(jax.lax.optimization_barrier(to_buffer(x)), x))
    program = there_and_back.lower(x).compile()
    assert cost.read(program.as_text()).cost().bytes <= 12 * x.size * x.dtype.itemsize


@pytest.mark.parametrize(
    'scheme', [gz.QSGD(7), gz.Cast('bfloat16'), gz.Cast('float8_e5m2')], ids=repr
)
def test_large_payloads_travel_alone(scheme, tpu_mesh):
    """They take as many bytes as in the buffer, in which the small ones are."""
    params = {'matrix': jnp.zeros((1024, 1024)), 'flat': jnp.zeros(1 << 20), 'small': jnp.zeros(9)}
    program = compile_exchange(gz.error_feedback(scheme, AXIS, key=0), params, tpu_mesh)
    assert gz.wire_bytes(program) == gz.payload_bytes(scheme, params, workers=8)
    kinds = [kind for kind, _ in collectives(program.as_text())]
    assert set(kinds) == {'all-gather'}
    assert len(kinds) <= 3


def test_a_leaf_of_float64_is_rounded(tpu_mesh):
    """XLA has no reduce-precision of float64 for TPU."""
    with jax.enable_x64(True):
        params = {'w': jnp.zeros(300, jnp.float64)}
        tx = gz.error_feedback(gz.Cast('bfloat16'), AXIS)
        assert gz.wire_bytes(compile_exchange(tx, params, tpu_mesh)) == 1024
