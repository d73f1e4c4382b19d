"""Programs for an H100, compiled without one: bytes, types, rounding, overlap and passes.

`pip install 'jax[cuda13]'`, then `python -m pytest -m cuda`; the suite leaves this out.
"""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import gradzip as gz
from experiments.accelerators import chips, cost
from experiments.accelerators.programs import Form, Job, measure
from gradzip._hlo import instructions
from tests.mappers import AXIS, P
from tests.test_bytes import FEW, compile_exchange
from tests.test_overlap import PRODUCTS, compile_step, products_before_and_beside
from tests.wire import check_exchange
from tests.zoo import REDUCERS

pytestmark = pytest.mark.cuda

H100 = chips.CHIPS['h100']
NARROW = {
    'bfloat16': 'bf16',
    'float16': 'f16',
    'float8_e4m3fn': 'f8e4m3fn',
    'float8_e5m2': 'f8e5m2',
}
ENTRIES = 10_000_000
TYPE = re.compile(r'\(*([a-z]+\d+\w*)\[')


@pytest.mark.parametrize('workers', [2, 8])
@pytest.mark.parametrize('name', REDUCERS)
def test_bytes_are_as_predicted(name, workers):
    reducer = REDUCERS[name]
    tx = gz.error_feedback(reducer, AXIS, key=0)
    compiled = compile_exchange(tx, FEW, chips.mesh(H100, workers))
    assert gz.wire_bytes(compiled) == gz.step_bytes(tx, FEW, {AXIS: workers})
    check_exchange(compiled, reducer, FEW, workers, 'cuda')
    if isinstance(reducer, gz.Gather | gz.TwoShot):  # what is sent is words, never widened
        kinds = ('all-gather', 'all-gather-start', 'all-to-all')
        sent = [m for m in instructions(compiled.as_text()) if m['op'] in kinds]
        assert {TYPE.match(m['type'])[1] for m in sent} == {'u32'}


def roundings(text, narrow):
    """How many instructions widen a value of the narrow type to float32."""
    types = {m['name']: m['type'] for m in instructions(text)}
    widened = [
        m for m in instructions(text) if m['op'] == 'convert' and m['type'].startswith('f32')
    ]
    sources = [types[re.findall(r'%([\w.\-]+)', m['args'])[0]] for m in widened]
    return sum(source.startswith(f'{narrow}[') for source in sources)


@pytest.mark.parametrize('name', NARROW)
def test_a_memory_remembers_what_rounding_lost(name):
    """XLA would take x -> narrow -> x for nothing, and the memory would stay zero."""
    mesh = chips.mesh(H100)
    tx = optax.chain(gz.error_feedback(gz.Cast(name), AXIS), optax.sgd(0.1))
    x = jax.ShapeDtypeStruct((1 << 16,), jnp.float32)
    specs = gz.state_specs(jax.eval_shape(tx.init, x))

    def step(g, state):
        return tx.update(g[0], state)

    state = jax.eval_shape(jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=specs), x)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(AXIS), specs), out_specs=(P(), specs))
    rows = jax.ShapeDtypeStruct((mesh.size, *x.shape), x.dtype)
    text = jax.jit(mapped).lower(rows, state).compile(compiler_options=H100.options).as_text()
    alone = jax.jit(lambda x: gz.Cast(name).message(x, jax.random.key(0)))
    here = jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=jax.NamedSharding(chips.mesh(H100, 1), P())
    )
    memory = alone.lower(here).compile(compiler_options=H100.options).as_text()
    assert roundings(memory, NARROW[name]) >= 1
    assert roundings(text, NARROW[name]) >= 2, 'what the memory loses, and what is received'


@pytest.mark.parametrize('dtype', ['float64', 'float16', 'bfloat16'])
@pytest.mark.parametrize('scheme', [gz.TopK(0.01), gz.QSGD(7), gz.Cast('bfloat16')], ids=repr)
def test_leaves_of_any_dtype_compile(scheme, dtype):
    with jax.enable_x64(dtype == 'float64'):
        mesh = chips.mesh(H100, 2)
        tx = gz.error_feedback(scheme, AXIS, key=0)
        compiled = compile_exchange(tx, {'w': jnp.zeros(4000, dtype)}, mesh)
    assert cost.read(compiled.as_text()).cost().bytes > 0


@pytest.mark.parametrize('late', [False, True])
def test_the_exchange_of_a_late_gradient_is_beside_the_products(late):
    text = compile_step(late, chips.mesh(H100), H100.options)
    before, beside = products_before_and_beside(text)
    assert before == (0 if late else PRODUCTS)
    assert (2 * beside >= PRODUCTS) if late else beside == 0, "how many is the compiler's choice"


# Of the memory form: passes over memory, temporaries in leaves and kernels, at most.
CEILINGS = {
    'TopK(0.01)': (5.5, 0.25, 210),
    'BlockTopK(32, 4096)': (6.2, 0.2, 40),
    'ColumnMax(104)': (4.3, 0.1, 12),
    'RandK(0.01)': (3.3, 0.1, 10),
    'RandBlock(0.01)': (3.3, 0.1, 10),
    'Bernoulli(0.01)': (3.6, 0.15, 20),
    "Cast('float8_e4m3fn')": (5.5, 0.1, 8),
}


@pytest.mark.parametrize('name', CEILINGS)
def test_passes_over_memory(name):
    found = measure(Job('h100', Form.MEMORY, name, ENTRIES))
    passes, temporaries, kernels = CEILINGS[name]
    assert found.floor <= found.passes <= passes
    assert found.temporaries <= temporaries
    assert found.kernels <= kernels


def test_a_step_of_a_transformer():
    with jax.numpy_dtype_promotion('standard'):  # optax relies on it
        found = measure(Job('h100', Form.STEP, 'ScaledSign()', ENTRIES))
    assert found.passes <= 16
    assert found.kernels <= 300
