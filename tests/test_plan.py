"""The plan: its cost model by hand, its offline step against real workers, and what it says."""

import csv
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from typer.testing import CliRunner

import gradzip as gz
from experiments import plan as command
from experiments.exchanges import EXACT, SCHEMES
from gradzip import _quantities as quantities
from gradzip._plan import measure, timing
from gradzip._plan.model import GLOO, RING, Cost, Host, crossover, host_from
from gradzip._plan.offline import Offline
from gradzip._traffic import Collective, link_bytes
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
    if name in ('powersgd', 'schedule'):  # what they send depends on the others
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


@pytest.mark.slow
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
    fewer_rounds = Cost(0.02, [Collective('all_gather', 5_000_000, 2)])  # better on no slow link
    assert crossover(fewer_rounds, exact, latency=0.01, host=RING) == 0


def test_the_host_is_known_from_a_link_without_a_limit():
    exact = Cost(0.02, [Collective('psum', 4_000_000, 2)])
    host = host_from(exact, 0.12, {'all_gather': 1.5})
    assert host.slower == {'all_gather': 1.5}
    assert host.bits == pytest.approx(8 * 4e6 / 0.1)
    assert exact.step(math.inf, host=host) == pytest.approx(0.12)


def test_times_of_more_workers_lie_on_a_line():
    assert measure.line([2, 8], [1.0, 4.0], 16) == pytest.approx(8.0)
    assert measure.line([2, 8], [1.0, 0.9], 16) == 1.0  # noise is no speed-up
    assert measure.line([2], [1.0], 2) == 1.0


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_sample_has_every_shape_and_about_as_many_entries_as_asked():
    tree = [leaf(5000, 100), *12 * [leaf(100, 400), leaf(400)], leaf(100), leaf()]
    part = measure.sample(tree, 100_000)
    total = sum(math.prod(x.shape) for x in tree)
    kept = sum(math.prod(x.shape) for x in part.leaves)
    assert 0.8 * 100_000 < kept < 1.2 * 100_000
    assert part.scale == pytest.approx(total / kept)
    assert set(part.whole.values()) == {x.shape for x in tree}
    assert {x.shape for x in part.leaves} == set(part.whole)
    whole = measure.sample(tree, total)
    assert sorted(x.shape for x in whole.leaves) == sorted(x.shape for x in tree)
    assert whole.scale == 1


def test_leaves_of_different_shapes_stay_different_in_a_sample():
    """A leaf that is shortened to the size of another one keeps its own scheme."""
    part = measure.sample([leaf(1000), leaf(500), leaf(10)], 151)
    assert len(part.whole) == 3

    def scheme(like):
        return gz.TopK(0.01) if like.size > 100 else gz.Identity()

    resolved = measure.scheme_of(scheme, part)
    for like in part.leaves:
        assert resolved(like) == scheme(leaf(*part.whole[like.shape]))
    assert measure.scheme_of(gz.TopK(0.1), part) == gz.TopK(0.1)


@pytest.fixture
def clock(monkeypatch):
    """Every program takes a second for each worker whose payload it is given."""
    seen = []

    def measured(cases, rounds):
        seen.append(list(cases))
        return {case: np.full(rounds, float(case[1])) for case in cases}

    monkeypatch.setattr(timing, 'measure', measured)
    return seen


def test_what_is_measured_is_scaled_to_the_tree_and_the_workers(clock, monkeypatch):
    monkeypatch.setattr(measure, 'SAMPLE', 300)
    params = {'w': leaf(60, 20), 'b': jnp.zeros(30)}

    def scheme(like):
        return gz.PowerSGD(1) if like.size > 1000 else gz.ScaledSign()

    found = gz.plan(params, workers=16, link='1Gbit', schemes={'mixed': scheme})
    assert sorted(clock[0]) == [(EXACT, 2), (EXACT, 8), ('mixed', 2), ('mixed', 8)]
    scale = measure.sample(jax.tree.leaves(params), 300).scale
    assert found['mixed'].exchange == pytest.approx(16 * scale)
    tx = gz.error_feedback(scheme, 'worker', key=0)
    assert found['mixed'].sent == link_bytes(tx, params, {'worker': 16})  # of the whole tree


def test_a_measured_program_runs_in_every_round():
    x = jnp.zeros(3)
    times = timing.measure({'add': timing.jitted(lambda s: (None, s + 1), x)}, rounds=4)
    assert times['add'].shape == (4,)
    assert np.all(times['add'] > 0)


PARAMS = jnp.zeros(1_000_000)
SIGN = {'sign': gz.ScaledSign()}
COSTS = {EXACT: '10ms', 'sign': 0.03}


def planned(**words):
    fixed = {'workers': 2, 'link': 1e8, 'schemes': SIGN, 'costs': COSTS}
    return gz.plan(PARAMS, **{**fixed, 'collectives': 'ring', **words})


def test_it_says_what_to_take():
    found = planned()
    assert [row.scheme for row in found.rows] == ['sign', EXACT]
    assert found.best is found['sign']
    assert found.exact.step == pytest.approx(0.01 + 8 * 4e6 / 1e8)
    assert found.best.step == pytest.approx(0.03 + 8 * found.best.sent / 1e8)
    assert found.best.speedup == pytest.approx(found.exact.step / found.best.step)
    assert math.isnan(found.exact.pays_below)
    saved = 8 * (4_000_000 - found.best.sent)
    assert found.best.pays_below == pytest.approx(saved / 0.02, rel=2e-3)
    assert found.advice.startswith(
        'Take sign: 40 ms a step where the exact mean takes 330 ms, 8.24 times faster.'
    )
    lines = str(found).splitlines()
    assert lines[0].startswith('1,000,000 parameters, 2 workers, link: 100 Mbit/s, 0 ms each way')
    assert lines[2].split()[:3] == ['sign', f'{found.best.sent / 1e3:.4g}', 'kB']
    assert ' '.join(lines[2].split()[3:]) == '30 ms 10 ms 40 ms 8.24 40 ms 1.55 Gbit/s'
    assert repr(found) == str(found)


@pytest.mark.parametrize('link', ['unlimited', '100Gbit', math.inf])
def test_on_fast_links_it_says_not_to_compress(link):
    found = planned(link=link)
    assert [row.scheme for row in found.rows] == [EXACT, 'sign']
    assert found.best is found.exact
    assert found.advice.startswith('Do not compress: the exact mean, ')
    assert 'a step, is the fastest.' in found.advice
    assert 'begin to pay below 1.55 Gbit/s: sign' in found.advice


def test_where_computing_takes_long_compression_hardly_matters():
    found = planned(link='1Gbit', compute='10s', costs={EXACT: 0.01, 'sign': 0.02})
    assert found.rows[0].scheme == 'sign'
    assert found.best is found.exact
    assert 'Do not compress: the exact mean, 10 s a step, is within 0.2% of the fastest' in str(
        found
    )
    assert 'one step late' in found.advice


def test_the_same_schemes_elsewhere():
    found, there = planned(), planned(link='10Gbit', latency='5ms', compute=0.1)
    moved = found.at('10Gbit', latency=5e-3, compute='100ms')
    assert str(moved) == str(there)
    assert str(found.at()) == str(found)
    with pytest.raises(KeyError, match="'TopK' is not in the plan, which has"):
        found['TopK']


def test_a_host_and_gloo_are_slower():
    assert planned(host='50Mbit').exact.network > planned().exact.network
    gloo = gz.plan(PARAMS, workers=2, link=1e8, schemes=SIGN, costs=0, collectives='gloo')
    assert gloo.exact.network == pytest.approx(8 * 4e6 / 1e8 * GLOO.slower['psum'])
    assert gloo.rows[0].exchange == 0


def test_all_reduces_of_leaves_are_joined_where_xla_joins_them():
    tree = 10 * [jnp.zeros(1000)]
    found = {
        kind: gz.plan(
            tree, workers=4, link='unlimited', latency=1.0, schemes=SIGN, costs=0, collectives=kind
        ).exact.network
        for kind in ('ring', 'gloo')
    }
    assert found == {'ring': 6, 'gloo': 60}  # rings of three rounds, there and back


def test_the_default_has_one_of_each_kind():
    found = gz.plan(jnp.zeros((64, 64)), workers=4, link='1Mbit', costs='1ms')
    assert len(found.rows) == 7
    assert found.best.scheme != EXACT


@pytest.mark.parametrize(
    ('words', 'error', 'message'),
    [
        ({'workers': 1}, ValueError, r'plan\(workers=...\) must be at least 2'),
        ({'workers': 2.0}, TypeError, r'plan\(workers=...\) must be an integer'),
        ({'link': 'fast'}, ValueError, r'plan\(link=...\) must be a quantity such as 100Mbit'),
        ({'link': '3ms'}, ValueError, 'must be a speed above 0'),
        ({'link': 0}, ValueError, 'must be a speed above 0'),
        ({'link': None}, TypeError, 'must be a number, or text such as'),
        ({'latency': '1Mbit'}, ValueError, r'plan\(latency=...\) must be a time'),
        ({'compute': -1.0}, ValueError, r'plan\(compute=...\) must be a time of at least 0'),
        ({'collectives': 'nccl'}, ValueError, "'ring' or 'gloo'"),
        ({'schemes': gz.TopK(0.1)}, TypeError, 'must be a mapping of names to schemes'),
        ({'schemes': {}}, ValueError, 'at least one scheme'),
        ({'schemes': {EXACT: gz.TopK(0.1)}}, ValueError, 'which is always'),
        ({'schemes': {'a': gz.TopK}}, TypeError, "'a' is <class"),
        ({'schemes': {'a': lambda p: None}, 'costs': 0}, TypeError, 'for every leaf'),
        (
            {'costs': {'sign': 1.0}},
            ValueError,
            r"must hold the seconds of \['exact mean', 'sign'\]",
        ),
        ({'costs': {**COSTS, 'sign': 'soon'}}, ValueError, r'plan\(costs=...\)'),
    ],
)
def test_what_the_plan_refuses(words, error, message):
    with pytest.raises(error, match=message):
        planned(**words)


@pytest.mark.parametrize(
    ('params', 'error', 'message'),
    [
        ({}, ValueError, 'has no entries'),
        (jnp.zeros(0), ValueError, 'has no entries'),
        ({'a': 'text'}, TypeError, "got a leaf 'text'"),
        (jnp.zeros(3, int), TypeError, 'only real floating-point'),
    ],
)
def test_params_that_are_none(params, error, message):
    with pytest.raises(error, match=message):
        gz.plan(params, workers=2, link=1e9, costs=0)


def test_the_command(tmp_path):
    arguments = ['--link', '10Mbit', '--workers', '4', '--params', '40k', '--compute', '1ms']
    narrow = ['--scheme', 'TopK 1 %', '--scheme', 'sign', '--cost', '1ms', '--out', str(tmp_path)]
    done = CliRunner().invoke(command.app, [*arguments, *narrow, '--collectives', 'gloo'])
    assert done.exit_code == 0, done.output
    assert 'Take ' in done.output
    with (tmp_path / 'plan.csv').open() as file:
        rows = {row['scheme']: row for row in csv.DictReader(file)}
    assert set(rows) == {EXACT, 'TopK 1 %', 'sign'}
    tx = gz.error_feedback(SCHEMES['sign'], 'data', key=0)
    assert int(rows['sign']['sent']) == link_bytes(tx, leaf(200, 200), {'data': 4})
    assert float(rows[EXACT]['network']) == pytest.approx(
        1.5 * 160_000 * 8 / 1e7 * GLOO.slower['psum'], rel=1e-4
    )
    assert (tmp_path / 'plan.png').exists()
    assert 'pays below' in (tmp_path / 'plan.txt').read_text()


@pytest.mark.parametrize(
    ('option', 'given', 'message'),
    [
        ('--host', 'strong', 'plan(host=...) must be a quantity'),
        ('--link', '0Mbit', 'plan(link=...) must be a speed'),
        ('--params', '1ms', '--params must be a number'),
        ('--compute', '3', 'plan(compute=...) must be a time'),
        ('--scheme', 'TopK', "--scheme: ['TopK'] unknown"),
    ],
)
def test_what_the_command_refuses(option, given, message):
    words = {'--link': '1Gbit', '--workers': '2', '--params': '1k', option: given}
    done = CliRunner().invoke(command.app, [part for pair in words.items() for part in pair])
    assert done.exit_code == 2
    assert message in ' '.join(done.stderr.split())


def test_parameters_are_matrices_and_what_is_left():
    assert command.tree('40k') == [leaf(200, 200)]
    found = command.tree('10M')
    assert found == [leaf(2048, 2048), leaf(2048, 2048), leaf(787, 2048)]


def test_quantities():
    assert quantities.bits_per_second('', '2.5Gbit/s') == 2.5e9
    for text in ('100M', '100 mbit', '100Mbps', '1e5k'):
        assert quantities.bits_per_second('', text) == 1e8, text
    assert quantities.bits_per_second('', 'unlimited') == math.inf
    assert quantities.seconds('', '300us') == pytest.approx(3e-4)
    assert quantities.speed(2.5e9) == '2.5 Gbit/s'
    assert quantities.speed(math.inf) == 'no limit'
    assert quantities.duration(0.0123) == '12.3 ms'
