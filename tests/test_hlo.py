"""Collectives are read from HLO in every form in which XLA writes the groups of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from gradzip._hlo import collectives
from tests.mappers import P

FOUR_BYTES = 'f32[1]{0}'  # the type of the operands
SENDS = {
    'lists': 'replica_groups={{0,1},{2,3}}',
    'one list': 'replica_groups={{0,1,2,3,4,5,6,7}}',
    'lists of different lengths': 'replica_groups={{0},{1,2,3}}',
    'lists with spaces': 'replica_groups={{0,1}, {2,3}}',
    'all devices': 'replica_groups={}',
    'iota': 'replica_groups=[2,4]<=[8]',
    'iota, transposed': 'replica_groups=[2,4]<=[4,2]T(1,0)',
    'iota, transposed in three dimensions': 'replica_groups=[4,2]<=[2,2,2]T(0,2,1)',
    'mesh of one axis': "replica_groups=mesh['a'=8] {'a'}",
    'one axis of two': "replica_groups=mesh['a'=2,'b'=4] {'b'}",
    'both axes': "replica_groups=mesh['a'=2,'b'=4] {'b','a'}",
    'an axis next to one of size one': "replica_groups=mesh['a'=8,'b'=1] {'a'}",
    'a part of an axis': "replica_groups=mesh['a'=8,'b'=1] {'a':(2)4}",
    'parts of two axes': "replica_groups=mesh['axis_0'=8,'axis_1'=8] {'axis_0':(2)4,'axis_1':(2)4}",
    'two parts of one axis': "replica_groups=mesh['a'=8] {'a':(1)2,'a':(4)2}",
    'names of any kind': "replica_groups=mesh['a, {b}]'=8,'b c'=1] {'a, {b}]'}",
    'devices in another order': (
        "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}"
    ),
    'devices listed': "replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'a'}",
}
SENDS_NOTHING = {
    'lists': 'replica_groups={{0},{1},{2},{3}}',
    'one list': 'replica_groups={{0}}',
    'iota': 'replica_groups=[8,1]<=[8]',
    'iota, transposed': 'replica_groups=[8,1]<=[4,2]T(1,0)',
    'an axis of size one': "replica_groups=mesh['a'=8,'b'=1] {'b'}",
    'no axis': "replica_groups=mesh['a'=8,'b'=1] {}",
    'an axis of size one, devices in another order': (
        "replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'b'}"
    ),
}
UNKNOWN = {
    'names without quotes': 'replica_groups=mesh[a=2,b=4] {b}',
    'an axis that the mesh lacks': "replica_groups=mesh['a'=2,'b'=4] {'c'}",
    'a name instead of groups': 'replica_groups=@mesh_0 {a}',
    'a mesh without axes': "replica_groups=mesh['a'=8]",
    'something behind the lists': 'replica_groups={{0,1}}T(1,0)',
    'something behind the iota': 'replica_groups=[2,4]<=[8]x',
    'a maximal mesh': 'replica_groups=maximal_mesh[device_id=0] {}',
    'lists that are deeper': 'replica_groups={{{0,1}},{{2,3}}}',
    'nothing': 'replica_groups=, dimensions={0}',
}


def all_reduce(groups):
    """An all-reduce of four bytes; the attributes around the groups stand as XLA writes them."""
    return (
        f'%x = {FOUR_BYTES} parameter(0)\n'
        f'ROOT %y = {FOUR_BYTES} all-reduce(%x), channel_id=1, {groups}, '
        'use_global_device_ids=true, to_apply=%add, metadata={op_name="jit(f)/psum"}'
    )


def permute(pairs):
    return (
        f'%x = {FOUR_BYTES} parameter(0)\n'
        f'ROOT %y = {FOUR_BYTES} collective-permute(%x), channel_id=1, {pairs}, metadata={{}}'
    )


@pytest.mark.parametrize('form', SENDS)
def test_groups_of_several_devices_send(form):
    assert collectives(all_reduce(SENDS[form])) == [('all-reduce', 4)]


@pytest.mark.parametrize('form', SENDS_NOTHING)
def test_groups_of_one_device_send_nothing(form):
    assert collectives(all_reduce(SENDS_NOTHING[form])) == []


@pytest.mark.parametrize('form', UNKNOWN)
def test_an_unknown_form_is_an_error(form):
    with pytest.raises(ValueError, match=r'cannot read replica_groups=.*count with step_bytes'):
        collectives(all_reduce(UNKNOWN[form]))


def test_groups_at_the_end_of_an_instruction():
    text = f'%x = {FOUR_BYTES} parameter(0)\n%y = {FOUR_BYTES} all-reduce(%x), replica_groups='
    assert collectives(text + '[2,4]<=[8]') == [('all-reduce', 4)]
    assert collectives(text + "mesh['a'=8] {'a'}") == [('all-reduce', 4)]
    assert collectives(text + '{{0},{1}}') == []


def test_a_permutation_sends_if_any_device_sends_to_another():
    moves = 'source_target_pairs={{0,1},{1,0}}'
    assert collectives(permute(moves)) == [('collective-permute', 4)]
    assert collectives(permute('source_target_pairs={{0,0},{1,2}}')) == [('collective-permute', 4)]
    assert collectives(permute('source_target_pairs={{0,0},{1,1}}')) == []
    assert collectives(permute('source_target_pairs={}')) == []
    for unknown in ('source_target_pairs=[2]<=[2]', 'dimensions={0}'):
        with pytest.raises(ValueError, match='cannot read source_target_pairs='):
            collectives(permute(unknown))


def mesh_of_shape(*shape):
    count = np.prod(shape)
    return jax.sharding.Mesh(np.array(jax.devices()[:count]).reshape(shape), ('a', 'b'))


def compiled(function, mesh):
    """A program of one worker function over a mesh, on 10 float32 entries a worker."""
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    return jax.jit(mapped).lower(jnp.zeros(10)).compile()


@pytest.mark.parametrize('axes', ['a', 'b', ('a', 'b'), ('b', 'a')])
def test_compiled_over_axes_of_several_devices(axes):
    program = compiled(lambda x: jax.lax.psum(x, axes), mesh_of_shape(2, 4))
    assert gz.wire_bytes(program) == 40


def test_compiled_over_an_axis_of_one_device():
    mesh = mesh_of_shape(8, 1)
    assert gz.wire_bytes(compiled(lambda x: jax.lax.psum(x, 'b'), mesh)) == 0
    assert gz.wire_bytes(compiled(lambda x: jax.lax.all_gather(x, 'b')[0], mesh)) == 0
    assert gz.wire_bytes(compiled(lambda x: jax.lax.psum(x, 'a'), mesh)) == 40


@pytest.mark.parametrize(('pairs', 'sent'), [([(0, 1), (1, 0)], 40), ([(0, 0), (1, 1)], 0)])
def test_compiled_and_traced_permutations(pairs, sent):
    def permute(x):
        return jax.lax.ppermute(x, 'b', pairs)

    assert gz.wire_bytes(compiled(permute, mesh_of_shape(2, 4))) == sent
    tx = optax.stateless(lambda updates, _: permute(updates))
    assert gz.step_bytes(tx, jnp.zeros(10), {'a': 2, 'b': 4}) == sent


@pytest.mark.parametrize('axis', ['a', 'b'])
def test_a_collective_that_the_compiler_inserts(axis):
    """The compiler writes the groups of its own collectives by mesh axes in every version."""
    mesh = mesh_of_shape(2, 4)
    rows = jax.ShapeDtypeStruct((8, 10), jnp.float32, sharding=jax.NamedSharding(mesh, P(axis)))
    total = jax.jit(lambda x: jnp.sum(x, axis=0), out_shardings=jax.NamedSharding(mesh, P()))
    program = total.lower(rows).compile()
    assert 'replica_groups=mesh[' in program.as_text()
    assert gz.wire_bytes(program) == 40
