"""A donated memory is updated in place, whatever its shape: no copy of it is made on CPU."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

import gradzip as gz
from tests.mappers import AXIS, P, mesh_of

SCHEMES = {
    'topk': gz.TopK(0.01),
    'topk, qsgd': gz.TopK(0.01) >> gz.QSGD(7),
    'blocktopk': gz.BlockTopK(8, 1024),
    'by leaf': lambda leaf: gz.TopK(0.01) if leaf.size > 100 else gz.Identity(),
}
SHAPES = {'vector': (1 << 20,), 'kernel': (3, 3, 256, 512)}


# The schemes differ in how they write a memory, the shapes and the axis in how it is kept.
CASES = [(name, 'kernel', AXIS) for name in SCHEMES]
CASES += [('topk', 'vector', AXIS), ('topk', 'kernel', None), ('topk', 'vector', None)]


@pytest.mark.parametrize(('name', 'shape', 'axis'), CASES)
def test_no_copy_of_the_memory(name, shape, axis):
    tx = gz.error_feedback(SCHEMES[name], axis, key=0)
    like = jax.ShapeDtypeStruct(SHAPES[shape], jnp.float32)
    state = jax.eval_shape(tx.init, like)

    def step(params, state, grads):
        mean, state = tx.update(grads[0], state, params)
        return params - 0.1 * mean, state

    specs = P(), gz.state_specs(state)
    mapped = step
    if axis is not None:
        mapped = jax.shard_map(step, mesh=mesh_of(1), in_specs=(*specs, P(AXIS)), out_specs=specs)
    grads = jax.ShapeDtypeStruct((1, *like.shape), like.dtype)
    compiled = jax.jit(mapped, donate_argnums=(0, 1)).lower(like, state, grads).compile()
    copies = [
        line
        for line in compiled.as_text().splitlines()
        if (m := re.search(r' = f32\[([\d,]+)\]\S* copy\(', line))
        and math.prod(map(int, m[1].split(','))) >= like.size
    ]
    assert not copies, copies[0]
