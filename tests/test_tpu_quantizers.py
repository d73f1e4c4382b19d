"""Programs for TPU read and write no more than they must: ceilings on the compiled HLO of a v5e."""

import math

import jax
import jax.numpy as jnp
import pytest

import gradzip as gz
from experiments.accelerators import cost
from experiments.accelerators.programs import Form, leaf_program
from tests.mappers import P

pytestmark = pytest.mark.slow  # half a minute in all

KEY = jax.random.key(0)
WORKERS = 8
MATRIX = 16_384, 6_144  # at ten million entries, XLA keeps whole arrays in on-chip memory
LARGE = math.prod(MATRIX)
UNEVEN = 10_000_000  # entries; not a multiple of the 1024 of a tile
GIBIBYTE = 1 << 28  # entries of float32
# Passes over memory of g, e -> payload, e' (at least three and the payload), its temporaries in
# leaves, and passes of p, eight payloads -> p - mean.
CEILINGS = {
    gz.ScaledSign(): (5.1, 0.1, 4.3),  # a mean over all entries comes before any remainder
    gz.OneBit(): (5.1, 0.1, 4.3),
    gz.QSGD(7): (3.2, 0.1, 5.1),
    gz.QSGD(3, block=512): (3.2, 0.1, 4.8),
    gz.Ternary('max'): (6.1, 0.1, 4.6),  # the norm, then the scale, then the remainder
    gz.Natural(): (3.3, 0.1, 6.3),
    gz.EDEN(1): (3.1, 0.1, 4.3),
    gz.EDEN(5): (3.2, 0.1, 5.3),
    gz.Rotated(gz.QSGD(7)): (9.2, 0.1, None),
    gz.DCT(gz.QSGD(7), 64): (9.2, 1.1, 5.1),
    gz.Cast('float8_e5m2'): (5.3, 0.1, None),  # the largest entry, then the remainder
}


def compiled(function, donated, mesh, *arguments):
    """The program of one chip. A kernel needs a mesh with all axes mapped, or one device."""
    one = jax.sharding.Mesh(mesh.devices.flat[:1], ('data',))
    mapped = jax.shard_map(function, mesh=one, in_specs=P(), out_specs=P(), check_vma=False)
    return jax.jit(mapped, donate_argnums=donated).lower(*arguments).compile()


def shape_for(scheme):
    """Most kernels read a matrix as it lies. The other schemes make it flat, or XLA copies it."""
    flat = isinstance(scheme, gz.Rotated | gz.DCT | gz.EDEN | gz.Ternary | gz.Cast)
    return (LARGE,) if flat else MATRIX


def step_of_memory(scheme, shape, mesh, dtype='float32'):
    x = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    own = scheme.contractive(x)

    def step(memory, gradient):
        if own.adds(x):
            return own.message(gradient, KEY, memory)
        return own.message(gradient + memory, KEY)

    return compiled(step, 0, mesh, x, x)


@pytest.mark.parametrize('scheme', CEILINGS, ids=repr)
def test_passes_of_a_step_of_memory(scheme, tpu_mesh):
    program = step_of_memory(scheme, shape_for(scheme), tpu_mesh)
    passes, temporaries, _ = CEILINGS[scheme]
    assert cost.read(program.as_text()).cost().bytes <= passes * 4 * LARGE
    assert program.memory_analysis().temp_size_in_bytes <= temporaries * 4 * LARGE


@pytest.mark.parametrize('scheme', [s for s, c in CEILINGS.items() if c[2]], ids=repr)
def test_passes_of_decoding(scheme, tpu_mesh):
    x = jax.ShapeDtypeStruct(shape_for(scheme), jnp.float32)
    function, arguments, donated = leaf_program(scheme, Form.DECODE, x)
    program = compiled(function, donated, tpu_mesh, *arguments)
    assert cost.read(program.as_text()).cost().bytes <= CEILINGS[scheme][2] * 4 * LARGE


@pytest.mark.parametrize('scheme', CEILINGS, ids=repr)
@pytest.mark.parametrize(('size', 'leaves'), [(UNEVEN, 2.1), (GIBIBYTE, 1.1)])
def test_leaves_that_did_not_compile(scheme, size, leaves, tpu_mesh):
    """Uneven leaves took minutes, and one of a gibibyte had temporaries of nineteen.

    An uneven leaf is padded. XLA keeps the sum of a small one on the chip, and a copy of it.
    """
    program = step_of_memory(scheme, (size,), tpu_mesh)
    assert program.memory_analysis().temp_size_in_bytes <= leaves * 4 * size


@pytest.mark.parametrize(
    ('scheme', 'dtype'),
    [(gz.QSGD(7), 'float64'), (gz.QSGD(7), 'float16'), (gz.Natural(), 'bfloat16')],
    ids=repr,
)
def test_other_dtypes_compile(scheme, dtype, tpu_mesh):
    with jax.enable_x64(dtype == 'float64'):
        step_of_memory(scheme, (200_003,), tpu_mesh, dtype)


@pytest.mark.parametrize('scheme', [gz.QSGD(7), gz.ScaledSign()], ids=repr)
def test_a_compiler_that_distributes_a_leaf_gets_no_kernel(scheme, tpu_mesh):
    """It cannot split one."""
    here = jax.NamedSharding(tpu_mesh, P('data'))
    x = jax.ShapeDtypeStruct((1 << 20,), jnp.float32, sharding=here)
    text = jax.jit(lambda x: scheme.encode(x, KEY)).lower(x).compile().as_text()
    assert 'tpu_custom_call' not in text


def test_simulated_workers_have_kernels_in_a_loop(tpu_mesh):
    x = jax.ShapeDtypeStruct((3, 1 << 18), jnp.float32)
    keys = jax.random.split(KEY, 3)
    program = compiled(lambda x: jax.vmap(gz.QSGD(7).encode)(x, keys), (), tpu_mesh, x)
    assert 'tpu_custom_call' in program.as_text()
