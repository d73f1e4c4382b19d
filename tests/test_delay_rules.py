"""Step sizes that depend on delays, and what is returned for delays that nobody can answer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from gradzip import delay_rules
from tests.mappers import AXIS
from tests.messages import within_budget

pytestmark = pytest.mark.usefixtures('fast_compilation')


@pytest.mark.parametrize(
    ('rule', 'delays', 'factors'),
    [
        (delay_rules.Inverse(), [0, 1, 4, 9], [1, 0.5, 0.2, 0.1]),
        (delay_rules.Concurrency(5), [0, 1, 5, 10], [1, 1, 1, 0.5]),
        (delay_rules.CutOff(4), [0, 1, 4, 5], [1, 1, 1, 0]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_rules_of_the_delay_alone(rule, delays, factors):
    found = rule.factor(jnp.array(delays, jnp.float32), jnp.zeros(4))
    np.testing.assert_allclose(found, factors)


@pytest.mark.parametrize('rule', [delay_rules.Adaptive1(0.6), delay_rules.Adaptive2()], ids=repr)
def test_no_window_of_a_delay_is_given_more_than_its_budget(rule):
    """The principle, for random delays with long ones among them, and the definition in NumPy."""
    rng = np.random.default_rng(0)
    ages = np.where(rng.random(120) < 0.1, 30, rng.integers(0, 4, 120))
    tx = gz.scale_by_delay(rule, 30)
    one = jnp.ones([])

    def step(state, age):
        update, state = tx.update(one, state, delay=age)
        return state, update

    factors = np.asarray(jax.lax.scan(step, tx.init(one), jnp.asarray(ages))[1])
    for k, age in enumerate(ages):
        assert factors[k] == 0 or factors[max(k - age, 0) : k + 1].sum() <= 1 + 1e-5
    assert factors.sum() > 20
    share = rule.share if isinstance(rule, delay_rules.Adaptive1) else None
    np.testing.assert_allclose(factors, within_budget(list(ages), share), atol=1e-5)


def test_the_longest_delay_of_all_workers_or_each_its_own():
    model = gz.Fixed((0, 3, 1))
    for own, expected in ((False, [0.25, 0.25, 0.25]), (True, [1, 0.25, 0.5])):
        tx = gz.scale_by_delay(delay_rules.Inverse(), model, AXIS, own=own)
        state = tx.init(jnp.zeros([]))._replace(count=jnp.int32(5))
        update = jax.vmap(lambda g, tx=tx, s=state: tx.update(g, s)[0], axis_name=AXIS)
        np.testing.assert_allclose(update(jnp.ones(3)), expected)


def test_delays_and_workers_out_of_bounds():
    params = jnp.ones(2)
    stale = gz.stale_params(3)
    assert jnp.isnan(stale.read(stale.init(params), params, delay=4)[0]).all()
    tx = gz.compensate(3)
    assert jnp.isnan(tx.update(params, tx.init(params), params, delay=4)[0]).all()
    tx = gz.scale_by_delay(delay_rules.Adaptive1(), 3)
    assert (tx.update(params, tx.init(params), delay=4)[0] == 0).all()
    turns = gz.take_turns(optax.identity(), 2)
    for worker in (-1, 2):
        assert jnp.isnan(turns.update(params, turns.init(params), worker=worker)[0]).all()


def test_workers_that_take_turns_draw_differently():
    tx = gz.take_turns(gz.compress(gz.QSGD(1), key=0), 2)
    g = jnp.linspace(-1, 1, 200)
    state = tx.init(g)
    first, state = tx.update(g, state, worker=0)
    second, state = tx.update(g, state, worker=1)
    assert (first != second).any()
    again = gz.compress(gz.QSGD(1), key=jax.random.fold_in(jax.random.key(0), 1))
    np.testing.assert_array_equal(second, again.update(g, again.init(g))[0])
    assert state.rows.exchange.count.tolist() == [1, 1]


def test_a_trace_with_too_few_columns_is_refused():
    trace = gz.Trace([[0, 2]])
    for tx in (
        gz.delay(trace, AXIS),
        gz.compensate(trace, AXIS),
        gz.scale_by_delay(delay_rules.Inverse(), trace, AXIS),
        gz.iag(gz.Identity(), AXIS, trace),
    ):
        update = jax.vmap(lambda g, tx=tx: tx.update(g, tx.init(g), g)[0], axis_name=AXIS)
        with pytest.raises(ValueError, match='of 2 workers, but there are 3'):
            jax.eval_shape(update, jnp.zeros((3, 2)))
