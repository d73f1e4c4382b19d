"""A schedule uses its schemes one after another, with one memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from tests.mappers import AXIS

pytestmark = pytest.mark.usefixtures('fast_compilation')

PARTS = (gz.Gather(gz.RandK(0.3)), gz.Sum(gz.RandK(0.3)), gz.TopK(0.2))
STEPS = (2, 3, 3)


def test_each_runs_for_its_steps_and_the_memory_goes_on():
    """Bit for bit what the parts would have done with the memory that they found."""
    params = {'w': jnp.zeros((6, 5)), 'b': jnp.zeros(7)}
    schedule = gz.Schedule(PARTS, (2, 5))
    tx = gz.error_feedback(schedule, key=3)
    state, update = tx.init(params), jax.jit(tx.update)
    step = 0
    for part, steps in zip(PARTS, STEPS, strict=True):
        alone = gz.error_feedback(part, key=3)
        for _ in range(steps):
            grads = jax.tree.map(
                lambda p, s=step: jnp.cos(jnp.arange(p.size) + s).reshape(p.shape), params
            )
            expected = jax.jit(alone.update)(
                grads,
                alone.init(params)._replace(
                    error=state.error,
                    exchange=alone.init(params).exchange._replace(count=state.exchange.count),
                ),
            )
            mean, state = update(grads, state)
            for a, b in zip(
                jax.tree.leaves((mean, state.error)),
                jax.tree.leaves((expected[0], expected[1].error)),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
            step += 1
    assert update._cache_size() == 1


def test_all_workers_take_the_same_branch():
    """One conditional in the program, on a count that is not mapped over."""
    schedule = gz.Schedule((gz.Identity(), gz.RandK(0.2)), (2,))
    tx = gz.compress(schedule, AXIS, key=0)
    mapped = jax.vmap(tx.update, (0, None), (None, None), axis_name=AXIS)
    text = str(jax.make_jaxpr(mapped)(jnp.ones((4, 50)), tx.init(jnp.zeros(50))))
    assert text.count('cond[') == 1


def test_the_count_stays_at_the_last_scheme():
    schedule = gz.Schedule((gz.Identity(), gz.TopK(0.2)), (2,))
    state = schedule.init(jax.ShapeDtypeStruct((5,), jnp.float32))
    state = state._replace(count=jnp.int32(2**31 - 1))
    [out] = schedule.reduce([jnp.arange(5.0)], [state], [jax.random.key(0)], None)
    np.testing.assert_array_equal(out.mean, [0, 0, 0, 0, 4])
    assert out.state.count == 3
