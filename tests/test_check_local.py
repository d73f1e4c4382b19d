"""Gradients that were averaged before the exchange are found at run time, under every mapper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from tests.mappers import AXIS, P, mesh_of

WORKERS = 3
GRADS = {'w': jnp.arange(12.0).reshape(WORKERS, 4), 'b': jnp.ones((WORKERS, 2))}


def checked(grads, average):
    grads = jax.lax.pmean(grads, AXIS) if average else grads
    grads = gz.check_local(grads, AXIS)
    return jax.tree.map(lambda g: 2 * g, grads)


def run(mapper, average):
    devices = jax.devices()[:WORKERS]
    if mapper == 'pmap':
        step = jax.pmap(checked, AXIS, static_broadcasted_argnums=1, devices=devices)
    elif mapper == 'vmap':
        step = jax.jit(jax.vmap(checked, (0, None), axis_name=AXIS), static_argnums=1)
    else:
        step = jax.jit(
            jax.shard_map(
                lambda g: checked(g, average),
                mesh=mesh_of(WORKERS),
                in_specs=P(AXIS),
                out_specs=P(AXIS),
                check_vma=False,
            )
        )
        return step(GRADS)
    return step(GRADS, average)


@pytest.mark.parametrize('mapper', ['pmap', 'vmap', 'shard_map unchecked'])
def test_an_average_before_the_exchange_is_found(mapper, capfd):
    right = jax.block_until_ready(run(mapper, average=False))
    jax.effects_barrier()
    np.testing.assert_array_equal(right['w'], 2 * GRADS['w'])
    assert not capfd.readouterr().err
    wrong = jax.block_until_ready(run(mapper, average=True))
    jax.effects_barrier()
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(wrong))
    assert "the same on every worker of 'data'" in capfd.readouterr().err


def test_one_worker_has_nobody_to_compare_with():
    out = jax.vmap(lambda g: checked(g, False), axis_name=AXIS)(jnp.ones((1, 3)))
    np.testing.assert_array_equal(out, 2)


def test_leaves_that_are_no_floats_are_refused():
    with pytest.raises(TypeError, match='only real floating-point leaves'):
        jax.vmap(lambda g: checked(g, False), axis_name=AXIS)(jnp.ones((2, 3), jnp.int32))
