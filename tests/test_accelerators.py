"""What a program costs is read from HLO as the chips execute it, and the command reports it."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from typer.testing import CliRunner

from experiments.accelerators import cost
from experiments.accelerators.__main__ import app
from experiments.accelerators.schemes import transformer

BODIES = """
%part (p: f32[1024], i: s32[]) -> f32[8] {
  %p = f32[1024]{0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = f32[8]{0} dynamic-slice(%p, %i), dynamic_slice_sizes={8}
}
%update (p: f32[1024], u: f32[8], i: s32[]) -> f32[1024] {
  %p = f32[1024]{0} parameter(0)
  %u = f32[8]{0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %d = f32[1024]{0} dynamic-update-slice(%p, %u, %i)
}
%twice (p: f32[1024]) -> f32[1024] {
  %p = f32[1024]{0} parameter(0)
  ROOT %m = f32[1024]{0} multiply(%p, %p)
}
%body (p: f32[1024]) -> f32[1024] {
  %p = f32[1024]{0} parameter(0)
  ROOT %m = f32[1024]{0} multiply(%p, %p)
}
%below (p: f32[1024]) -> pred[] {
  %p = f32[1024]{0} parameter(0)
  %five = s32[] constant(5)
  ROOT %c = pred[] compare(%five, %five), direction=LT
}
%nothing (p: f32[1024]) -> f32[1024] {
  ROOT %p = f32[1024]{0} parameter(0)
}
"""
KIB = 4096  # the bytes of f32[1024]
CASES = {
    'one reading, one writing': ('f32[1024]{0} negate(%x)', 2 * KIB, 1),
    'two readings': ('f32[1024]{0} add(%x, %x)', 3 * KIB, 1),
    'renamed': ('f32[8,128]{1,0} bitcast(%x)', 0, 0),
    'a slice': ('f32[8]{0} slice(%x), slice={[0:8]}', 64, 1),
    'a fused slice': ('f32[8]{0} fusion(%x, %i), kind=kLoop, calls=%part', 68, 1),
    'an update in place': ('f32[1024]{0} fusion(%x, %u, %i), kind=kLoop, calls=%update', 68, 1),
    'a fusion': ('f32[1024]{0} fusion(%x), kind=kLoop, calls=%twice', 2 * KIB, 1),
    'a call': ('f32[1024]{0} call(%x), to_apply=%twice', 3 * KIB, 1),
    'a loop of known length': (
        'f32[1024]{0} while(%x), condition=%below, body=%body, '
        'backend_config={"known_trip_count":{"n":"7"}}',
        21 * KIB,
        7,
    ),
    'a loop with a limit': ('f32[1024]{0} while(%x), condition=%below, body=%body', 15 * KIB, 5),
    'the cheaper branch': (
        'f32[1024]{0} conditional(%i, %x, %x), branch_computations={%body, %nothing}', 0, 0
    ),
    'padded to tiles': ('f32[1024,8]{1,0:T(8,128)} broadcast(%u)', 1024 * 128 * 4 + 32, 1),
    'kept on the chip': ('f32[1024]{0:S(1)} negate(%x)', KIB, 1),
    'a product and its scratch': (
        '(f32[8]{0}, s8[33554432]{0}) custom-call(%u, %u), custom_call_target="__cublas$gemm"',
        96,
        1,
    ),
    'a collective that holds its operand': (
        '(f32[8]{0}, f32[1024]{0}) all-gather-start(%u), replica_groups={}', 32 + KIB, 1
    ),
    'a copy to the chip': (
        '(f32[1024]{0:S(1)}, f32[1024]{0}, u32[]) copy-start(%x)', KIB, 1
    ),
}  # fmt: skip


def program(line: str) -> cost.Program:
    return cost.read(
        f'HloModule m, is_scheduled=true\n{BODIES}\nENTRY %main (x: f32[1024]) -> f32[] {{\n'
        '  %x = f32[1024]{0} parameter(0)\n  %u = f32[8]{0} parameter(1)\n'
        f'  %i = s32[] parameter(2)\n  ROOT %result = {line}\n}}\n'
    )


@pytest.mark.parametrize('name', CASES)
def test_bytes_and_kernels(name):
    line, expected, kernels = CASES[name]
    found = program(line).cost()
    assert (found.bytes, found.kernels, found.random) == (expected, kernels, 0)


def test_the_dearer_branch():
    line, _, _ = CASES['the cheaper branch']
    assert program(line).cost(max).bytes == 3 * KIB


RANDOM = {
    'f32[8]{0} gather(%x, %u), slice_sizes={1}': 8,
    'f32[4,2]{1,0} gather(%x, %u), slice_sizes={2}': 4,
    'f32[1024]{0} scatter(%x, %i, %u), update_window_dims={}, to_apply=%twice': 8,
    'f32[1024]{0} sort(%x), dimensions={0}, to_apply=%twice': 1024,
    'f32[8]{0} custom-call(%x), custom_call_target="TopK"': 1024,
}


@pytest.mark.parametrize('line', RANDOM)
def test_random_accesses(line):
    found = program(line).cost()
    assert (found.random, found.largest) == (RANDOM[line], RANDOM[line])


def test_a_sum_on_a_tpu_takes_three_passes(tpu_mesh):
    n = 100_663_296
    here = jax.NamedSharding(tpu_mesh, jax.P())
    x = jax.ShapeDtypeStruct((n,), jnp.float32, sharding=here)
    compiled = jax.jit(jnp.add, donate_argnums=0).lower(x, x).compile()
    assert cost.read(compiled.as_text()).cost() == (3 * 4 * n, 1, 0, 0)


def test_the_transformer_is_the_one_of_the_page():
    leaves = jax.tree.leaves(transformer())
    assert (len(leaves), sum(leaf.size for leaf in leaves)) == (76, 27_827_712)


@pytest.mark.slow
@pytest.mark.parametrize('form', ['encode', 'decode', 'memory'])
def test_command_line(form, tmp_path: Path):
    arguments = ['--chip', 'v5e', '--scheme', 'RandBlock', '--form', form, '--out', str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None, result.output
    with (tmp_path / 'programs.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['scheme'] for row in rows] == ['RandBlock(0.01)']
    assert rows[0]['error'] == ''
    floor, passes = (float(rows[0][name]) for name in ('floor', 'passes'))
    assert floor >= 1
    # Encoding reads the drawn blocks alone, where the floor counts an argument whole.
    assert 0 < passes < floor if form == 'encode' else floor <= passes
    assert (tmp_path / 'passes.png').stat().st_size > 10_000
    assert 'RandBlock(0.01)' in (tmp_path / 'tables.txt').read_text()


@pytest.mark.parametrize(
    ('option', 'value', 'named'),
    [('--chip', 'v4', 'v5e'), ('--form', 'all', 'decode'), ('--scheme', 'nothing', 'ScaledSign')],
)
def test_what_it_refuses(option, value, named, tmp_path: Path):
    result = CliRunner().invoke(app, [option, value, '--out', str(tmp_path)])
    assert result.exit_code == 2
    assert named in result.output.replace('\n', '')
