"""The plan: its cost model by hand, its measured part against real workers, and what it says."""

import csv
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from typer.testing import CliRunner

import gradzip as gz
from experiments.exchanges import EXACT, schemes
from experiments.plan import units
from experiments.plan.__main__ import app
from experiments.plan.calibrate import _line
from experiments.plan.model import GLOO, RING, Cost, Host, crossover, host_from
from experiments.plan.offline import Offline
from experiments.plan.report import Place, advice, ranked
from gradzip._reducers.schedule import Schedule
from gradzip._traffic import Collective
from tests.mappers import AXIS
from tests.zoo import REDUCERS

# Where nothing is drawn. TwoShot is left out: the first worker only knows the average of its own
# chunk, and takes the others' to be like it. The cost is theirs, not the numbers.
STILL = ('gather topk', 'gather scaled sign', 'gather dct', 'sum identity', 'powersgd', 'schedule')
WORKERS = 3


@pytest.mark.parametrize('name', STILL)
def test_off_the_network_a_worker_does_what_it_does_on_it(name):
    """One exchange: the mean, and the memory of the first of several."""
    params = {'w': jnp.zeros((6, 5)), 'b': jnp.zeros(7)}
    assert not REDUCERS[name].random
    tx = optax.chain(gz.error_feedback(REDUCERS[name], AXIS, key=0), optax.sgd(0.1))
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: jnp.float32(rng.normal(size=(WORKERS, *p.shape))), params)
    if isinstance(REDUCERS[name], gz.PowerSGD | Schedule):  # what they send depends on the others
        grads = jax.tree.map(lambda g: jnp.broadcast_to(g[:1], g.shape), grads)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    first, *others = (
        (params, state, jax.tree.map(lambda g, i=i: g[i], grads)) for i in range(WORKERS)
    )
    alone = Offline(step, {AXIS: WORKERS}, first, others)
    ours = jax.jit(alone)(alone.received, *first)
    specs = gz.state_specs(jax.eval_shape(tx.init, params), 0, None)
    everyone = jax.jit(jax.vmap(step, (None, specs, 0), (None, specs), axis_name=AXIS))
    make = jax.vmap(lambda _: tx.init(params), axis_name=AXIS, out_axes=specs)
    theirs = everyone(params, make(jnp.arange(WORKERS)), grads)
    for mine, other in zip(jax.tree.leaves(ours[0]), jax.tree.leaves(theirs[0]), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    memories = [jax.tree.leaves(state[0].error) for state in (ours[1], theirs[1])]
    for mine, other in zip(*memories, strict=True):
        np.testing.assert_allclose(mine, other[0], rtol=1e-5, atol=1e-6)


def test_random_ones_run_off_the_network_too():
    tx = gz.error_feedback(gz.TwoShot(gz.QSGD(7)), AXIS, key=0)
    x = jnp.ones(64)
    alone = Offline(lambda g, s: tx.update(g, s), {AXIS: 4}, (x, tx.init(x)))
    mean, _ = alone(alone.received, x, tx.init(x))
    np.testing.assert_allclose(mean, x, atol=0.3)


def test_the_others_send_something_else():
    """Of the same size, at other places, so that decoding it is not for nothing."""
    x = jax.random.normal(jax.random.key(0), (40, 50))
    tx = gz.compress(gz.TopK(0.1), AXIS)
    alone = Offline(lambda g, s: tx.update(g, s), {AXIS: 2}, (x, tx.init(x)))
    mean, _ = alone(alone.received, x, tx.init(x))
    assert 1.5 * 200 < np.count_nonzero(mean) <= 2 * 200


def test_an_owner_averages_the_chunk_that_all_sent_to_it():
    """Of the first worker, which owns the first quarter; nothing is rounded here."""
    xs = jax.random.normal(jax.random.key(0), (4, 64))
    tx = gz.compress(gz.TwoShot(gz.Identity()), AXIS)
    first, *others = ((x, tx.init(x)) for x in xs)
    alone = Offline(lambda g, s: tx.update(g, s), {AXIS: 4}, first, others)
    mean, _ = alone(alone.received, *first)
    np.testing.assert_allclose(mean[:16], xs.mean(0)[:16], atol=1e-6)


def test_a_collective_without_a_stand_in_is_refused():
    def step(x):
        return jax.lax.ppermute(x, AXIS, [(0, 1), (1, 0)])

    with pytest.raises(NotImplementedError, match="'ppermute' has no stand-in off the network"):
        Offline(step, {AXIS: 2}, (jnp.ones(3),))


def test_a_collective_in_a_loop_is_refused():
    def step(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: jax.lax.pmean(y, AXIS), x)

    with pytest.raises(NotImplementedError, match='cannot be taken off the network'):
        Offline(step, {AXIS: 2}, (jnp.ones(3),))


def test_seconds_by_hand():
    """Four workers: rings of three rounds, twice for an all-reduce."""
    costs = {
        'psum': (6, 1.5e6),
        'all_gather': (3, 3e6),
        'all_to_all': (3, 0.75e6),
        'reduce_scatter': (3, 0.75e6),
        'ppermute': (1, 1e6),
    }
    for name, (rounds, sent) in costs.items():
        cost = Cost(0.5, [Collective(name, 1_000_000, 4)])
        expected = 0.5 + rounds * 0.01 + 8 * sent / 1e8
        assert cost.step(1e8, 0.01, RING) == pytest.approx(expected), name
    swap = Cost(0.0, [Collective('all_to_all', 1_000_000, 4)])
    slow = Host(slower={'all_to_all': 2.0})
    assert swap.step(1e8, host=slow) == pytest.approx(2 * 8 * 0.75e6 / 1e8)
    assert swap.step(1e12, host=Host(bits=1e8)) == pytest.approx(8 * 0.75e6 / 1e8)
    equal = swap.step(1e8, host=Host(bits=1e8))  # more than one of them, less than both in turn
    assert equal == pytest.approx(2 ** (1 / 3) * 8 * 0.75e6 / 1e8)


def test_the_crossover_is_where_both_take_equally_long():
    exact = Cost(0.02, [Collective('psum', 4_000_000, 2)])
    cheap = Cost(0.05, [Collective('all_gather', 100_000, 2)])
    at = crossover(cheap, exact, host=RING)
    assert at == pytest.approx(8 * 3.9e6 / 0.03, rel=2e-3)
    assert cheap.step(at, host=RING) == pytest.approx(exact.step(at, host=RING), rel=1e-2)
    assert crossover(Cost(0.01, cheap.collectives), exact, host=RING) == math.inf
    dear = Cost(0.05, [Collective('all_gather', 5_000_000, 2)])
    assert crossover(dear, exact, host=RING) == 0


def test_the_host_is_known_from_a_link_without_a_limit():
    exact = Cost(0.02, [Collective('psum', 4_000_000, 2)])
    host = host_from(exact, 0.12, {'all_gather': 1.5})
    assert host.slower == {'all_gather': 1.5}
    assert host.bits == pytest.approx(8 * 4e6 / 0.1)
    assert exact.step(math.inf, host=host) == pytest.approx(0.12)


def test_times_of_more_workers_lie_on_a_line():
    assert _line([2, 8], [1.0, 4.0], 16) == pytest.approx(8.0)
    assert _line([2, 8], [1.0, 0.9], 16) == 1.0  # noise is no speed-up
    assert _line([2], [1.0], 2) == 1.0


def place(bits, compute=0.0):
    return Place(bits, 0.0, 2, 10**6, compute, RING)


COSTS = {
    EXACT: Cost(0.01, [Collective('psum', 4_000_000, 2)]),
    'TopK 1 %': Cost(0.03, [Collective('all_gather', 40_000, 2)]),
}


def test_it_says_what_to_take_and_when_not_to_compress():
    slow, fast = (ranked(COSTS, place(bits)) for bits in (1e8, 1e11))
    assert [c.scheme for c in slow] == ['TopK 1 %', EXACT]
    said = ' '.join(advice(slow, place(1e8)))
    assert said.startswith('Take TopK 1 %: 33.2 ms a step where the exact mean takes 330 ms, 9.94')
    assert [c.scheme for c in fast] == [EXACT, 'TopK 1 %']
    said = ' '.join(advice(fast, place(1e11)))
    assert said.startswith('Do not compress: the exact mean, 10.3 ms a step, is the fastest.')
    assert 'begin to pay below 1.58 Gbit/s: TopK 1 %' in said


def test_where_computing_takes_long_compression_hardly_matters():
    said = advice(ranked(COSTS, place(1e9, compute=10.0)), place(1e9, compute=10.0))
    assert said[0].startswith('Do not compress: the exact mean, 10 s a step, is within 0.1%')
    assert 'one step late' in said[-1]


def test_the_command(tmp_path):
    arguments = ['--link', '10Mbit', '--workers', '4', '--params', '40k', '--compute', '1ms']
    narrow = ['--scheme', 'TopK 1 %', '--scheme', 'sign', '--rounds', '2', '--out', str(tmp_path)]
    done = CliRunner().invoke(app, arguments + narrow)
    assert done.exit_code == 0, done.output
    assert 'Take ' in done.output
    with (tmp_path / 'plan.csv').open() as file:
        rows = {row['scheme']: row for row in csv.DictReader(file)}
    assert set(rows) == {EXACT, 'TopK 1 %', 'sign'}
    like = jax.ShapeDtypeStruct((200, 200), jnp.float32)
    sent = gz.traffic.link_bytes(schemes()['sign'], like, {'data': 4})
    assert int(rows['sign']['sent']) == pytest.approx(sent, abs=4)
    assert float(rows[EXACT]['network']) == pytest.approx(
        1.5 * 160_000 * 8 / 1e7 * GLOO.slower['psum'], rel=1e-4
    )
    assert (tmp_path / 'plan.png').exists()
    assert 'times faster' in (tmp_path / 'plan.txt').read_text()


def test_without_a_limit_nothing_is_to_be_saved(tmp_path):
    arguments = ['--link', 'unlimited', '--workers', '2', '--params', '40k', '--rounds', '2']
    done = CliRunner().invoke(app, [*arguments, '--scheme', 'TopK 1 %', '--out', str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert 'Do not compress: the exact mean' in done.output
    assert (tmp_path / 'plan.png').exists()


@pytest.mark.parametrize(
    ('option', 'given', 'message'),
    [
        ('--host', 'strong', '--host must be a quantity'),
        ('--link', 'fast', '--link must be a quantity such as 100Mbit'),
        ('--link', '0Mbit', '--link must be a speed'),
        ('--link', '3ms', '--link must be a speed'),
        ('--params', '1ms', '--params must be a number'),
        ('--compute', '3', '--compute must be a time'),
        ('--latency', '1Mbit', '--latency must be a time'),
        ('--scheme', 'TopK', r"--scheme: \['TopK'\] unknown"),
    ],
)
def test_what_it_refuses(option, given, message):
    words = {'--link': '1Gbit', '--workers': '2', '--params': '1k', option: given}
    done = CliRunner().invoke(app, [part for pair in words.items() for part in pair])
    assert done.exit_code == 2
    with pytest.raises(ValueError, match=message):
        raise ValueError(' '.join(done.stderr.split()))


def test_quantities():
    assert units.bits('--link', '2.5Gbit/s') == 2.5e9
    for text in ('100M', '100 mbit', '100Mbps', '1e5k'):
        assert units.bits('--link', text) == 1e8, text
    assert units.seconds('--compute', '300us') == pytest.approx(3e-4)
    assert units.count('1.3B') == 1_300_000_000
    assert units.count('4096') == 4096
    assert units.speed(2.5e9) == '2.5 Gbit/s'
    assert units.speed(math.inf) == 'no limit'
    assert units.duration(0.0123) == '12.3 ms'
