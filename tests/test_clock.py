"""The clock against a plain queue of events, its predictions, and what it refuses."""

import csv
import heapq

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import gradzip as gz
from experiments.clock import draw, runs
from experiments.clock.__main__ import app
from gradzip import clock
from gradzip.clock._cycles import Cycles
from tests.mappers import AXIS
from tests.test_reference import workers_run

PROTOCOLS = [
    clock.Synchronous(),
    clock.MSynchronous(2),
    clock.Asynchronous(),
    clock.Asynchronous(batch=3),
    clock.Quorum(1),
    clock.Quorum(3),
    clock.RoundRobin(),
    clock.Rennala(1),
    clock.Rennala(4),
    clock.Ringmaster(1),
    clock.Ringmaster(4),
    clock.BoundedStaleness(0),
    clock.BoundedStaleness(2),
]
SLOW_LINK = clock.Network(
    up=100, down=50, link=(8e3, 8e3, 4e3, 8e3, 16e3), latency=0.01, encode=0.02
)
PLACES = {  # times of five workers, a network, gradients in a message
    'ties': ([clock.Constant(x) for x in (1, 2, 1, 3, 2)], clock.Network(), 1),
    'random': (
        [
            clock.Exponential(1.0),
            clock.LogNormal(2.0, sigma=0.5),
            clock.Pareto(1.0, alpha=1.5),
            clock.Outages(clock.Constant(0.5), every=2.0, lasting=4.0),
            clock.Measured([0.5, 1.0, 3.0]),
        ],
        clock.Network(),
        1,
    ),
    'links': ([clock.Exponential(0.3)] * 5, SLOW_LINK, 3),
    'shared link': ([clock.Exponential(0.3)] * 5, clock.Network(up=100, server=8e3), 1),
}


def reference(protocol, cycles, steps):
    """One event after the other: (worker, born, applied, seconds, used), and seconds of steps."""
    n, service = cycles.workers, cycles.network.service
    following, heap = cycles.one_by_one(), []
    version, free, log, times = 0, 0.0, [], []
    born, delivered, waiting, ready = [0] * n, [0] * n, set(), {}

    def start(workers):
        for w in sorted(workers):
            born[w] = version
            heapq.heappush(heap, (free + next(following[w]), w))

    start(range(n))
    collected = []
    while len(times) < steps:
        crossed, w = heapq.heappop(heap)
        arrived = [(crossed, w)]
        if isinstance(protocol, clock.RoundRobin):  # all whose turn it is now
            ready[w], arrived, turn = crossed, [], sum(delivered)
            while turn % n in ready:
                arrived.append((ready.pop(turn % n), turn % n))
                turn += 1
        for crossed, w in arrived:
            if len(times) == steps:
                break
            free = max(free, crossed) + service
            delivered[w] += 1
            delay = version - born[w]
            used = {
                clock.Rennala: delay == 0,
                clock.Ringmaster: delay < getattr(protocol, 'limit', 0),
            }.get(type(protocol), True)
            log.append((w, born[w], version, free, used))
            collected += [w] * used
            enough = {
                clock.Synchronous: n,
                clock.MSynchronous: getattr(protocol, 'm', 0),
                clock.Quorum: getattr(protocol, 'quorum', 0),
            }.get(type(protocol), getattr(protocol, 'batch', 1))
            step = len(collected) == enough
            if step:
                version += 1
                times.append(free)
            if isinstance(protocol, clock.Synchronous | clock.MSynchronous):
                if step:
                    heap.clear()
                    start(range(n))
            elif isinstance(protocol, clock.Quorum):
                if step:
                    start(collected)
            elif isinstance(protocol, clock.BoundedStaleness):
                waiting.add(w)
                now = {v for v in waiting if delivered[v] - min(delivered) <= protocol.slack}
                waiting -= now
                start(now)
            else:
                start([w])
            if step:
                collected = []
    return log, times


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('protocol', PROTOCOLS, ids=repr)
def test_every_event_is_that_of_a_plain_queue(protocol, place):
    compute, network, local_steps = PLACES[place]
    cycles, steps = Cycles(tuple(compute), network, local_steps, 3), 400
    log, times = reference(protocol, cycles, steps)
    run = clock.simulate(
        protocol, compute, steps=steps, network=network, local_steps=local_steps, seed=3
    )
    worker, born, applied, seconds, used = map(np.array, zip(*log, strict=True))
    np.testing.assert_array_equal(run.worker, worker)
    np.testing.assert_array_equal(run.born, born)
    np.testing.assert_array_equal(run.applied, applied)
    np.testing.assert_array_equal(run.used, used)
    np.testing.assert_allclose(run.seconds, seconds, rtol=1e-12)
    np.testing.assert_allclose(run.step_seconds, times, rtol=1e-12)
    assert (run.useful <= run.utilisation + 1e-12).all()
    assert (run.utilisation <= 1 + 1e-12).all()
    if place == 'ties' and isinstance(protocol, clock.Asynchronous):
        np.testing.assert_allclose(run.utilisation, 1)


def test_workers_compute_as_long_as_their_times_say():
    """Two workers take turns at 1 s and 3 s; messages take 1 s up, models 0.5 s down."""
    network = clock.Network(up=1000, down=500, link=8000)
    compute = [clock.Constant(1), clock.Constant(3)]
    run = clock.simulate(clock.Synchronous(), compute, steps=10, network=network)
    np.testing.assert_allclose(run.step_seconds, 4.5 * np.arange(1, 11))
    np.testing.assert_allclose(run.utilisation, [1 / 4.5, 3 / 4.5])
    run = clock.simulate(clock.MSynchronous(1), compute, steps=10, network=network)
    np.testing.assert_allclose(run.utilisation, [1 / 2.5, 2 / 2.5])  # it stops after 2 s of 3
    np.testing.assert_allclose(run.useful, [1 / 2.5, 0])
    run = clock.simulate(clock.Asynchronous(), compute, steps=1000, network=network)
    np.testing.assert_allclose(run.utilisation, [1 / 2.5, 3 / 4.5], rtol=0.01)
    run = clock.simulate(clock.RoundRobin(), compute, steps=1000, network=network)
    np.testing.assert_allclose(run.utilisation, [1 / 4.5, 3 / 4.5], rtol=0.01)


def test_the_law_of_large_numbers():
    """Every distribution has its mean, and its survival function is that of its draws."""
    rng = np.random.default_rng(0)
    for times in (
        clock.Exponential(2.0),
        clock.LogNormal(2.0, sigma=0.5),
        clock.Pareto(2.0, alpha=4.0),
        clock.Outages(clock.Exponential(1.0), every=4.0, lasting=4.0),
        clock.Measured([1.0, 3.0]),
    ):
        draws = times.draw(rng, 200_000)
        assert abs(draws.mean() - times.mean) < 0.02, times
        for t in (0.5, 2.0, 5.0):
            assert abs((draws > t).mean() - times.survival(np.array(t))) < 0.006, (times, t)


def test_the_trace_is_the_table_of_the_server():
    """`iag` along a trace uses each worker's last gradient, from the version that it says."""
    run = clock.simulate(clock.Asynchronous(), clock.Exponential(1.0), workers=3, steps=20, seed=5)
    last, ages = [0, 0, 0], []
    for k in range(20):
        last[run.worker[k]] = run.born[k]
        ages.append([k - b for b in last])
    trace = run.trace()
    np.testing.assert_array_equal(trace.delays, ages)
    gradients = np.random.default_rng(0).normal(size=(20, 3, 2)).astype(np.float32)
    updates, _ = workers_run(gz.iag(gz.Identity(), AXIS, trace), gradients)
    expected = [np.mean([gradients[k - a[w], w] for w in range(3)], 0) for k, a in enumerate(ages)]
    np.testing.assert_allclose(updates, expected, atol=1e-6)
    short = run.trace(steps=7)
    np.testing.assert_array_equal(short.delays, ages[:7])
    assert run.delays.sum() == run.histogram @ np.arange(len(run.histogram))


@pytest.mark.parametrize(
    'compute', [clock.Constant(1.0), clock.Exponential(1.0), clock.Pareto(1.0, alpha=2.5)], ids=repr
)
@pytest.mark.parametrize('protocol', [p for p in PROTOCOLS if p != clock.Quorum(1)], ids=repr)
def test_predicted_seconds_are_those_of_long_runs(protocol, compute):
    """Within 1.3 times; 1000 workers and the rest are in `python -m experiments.clock`."""
    half = {'workers': 40}
    run = clock.simulate(protocol, compute, steps=4000, seed=0, **half)
    seconds = (run.step_seconds[-1] - run.step_seconds[999]) / 3000
    assert 1 / 1.3 < seconds / clock.predict(protocol, compute, **half) < 1.3


def test_exact_predictions():
    """Of exponential times the m-th of n is the sum of 1 / n, 1 / (n - 1), ... in the mean."""
    for n, m in ((1, 1), (5, 2), (30, 30), (200, 17)):
        exact = np.sum(1 / np.arange(n - m + 1, n + 1))
        found = clock.predict(clock.MSynchronous(m), clock.Exponential(1.0), workers=n)
        np.testing.assert_allclose(found, exact, rtol=1e-4)
    for quorum in (1, 10, 15, 20):  # exponential times have no memory, so that a step is new
        exact = np.sum(1 / np.arange(20 - quorum + 1, 21))
        found = clock.predict(clock.Quorum(quorum), clock.Exponential(1.0), workers=20)
        np.testing.assert_allclose(found, exact, rtol=0.05)
    mixed = [clock.Exponential(1.0)] * 3 + [clock.Exponential(2.0)] * 2
    draws = np.random.default_rng(0).exponential(size=(200_000, 5)) * [1, 1, 1, 2, 2]
    ordered = np.sort(draws, 1).mean(0)
    found = [clock.predict(clock.MSynchronous(m), mixed) for m in range(1, 6)]
    np.testing.assert_allclose(found, ordered, rtol=0.01)
    network = clock.Network(up=1000, link=8000)
    found = clock.predict(
        clock.Synchronous(), clock.Constant(0.5), workers=7, network=network, local_steps=4
    )
    np.testing.assert_allclose(found, 3.0, rtol=1e-6)


def test_a_csv_file_of_measured_times(tmp_path):
    path = tmp_path / 'times.csv'
    path.write_text('first,second\n0.5,1\n0.25,2\n,3\n')
    first, second = clock.Measured.from_csv(path)
    np.testing.assert_array_equal(first.seconds, [0.5, 0.25])
    np.testing.assert_array_equal(second.seconds, [1, 2, 3])
    blocks = second.blocks(np.random.default_rng(0), 4)
    there = np.concatenate([next(blocks), next(blocks)])
    assert set(np.diff(there)) == {1, -2}  # in order, and from the start again
    path.write_text('0.5,a\n1,2\n')
    first, second = clock.Measured.from_csv(path)  # the first line holds names
    np.testing.assert_array_equal(second.seconds, [2])
    path.write_text('0.5,1\n1,late\n')
    with pytest.raises(ValueError, match='late'):
        clock.Measured.from_csv(path)


ONE, ASYNCHRONOUS = clock.Constant(1.0), clock.Asynchronous()
BAD = [
    (lambda: clock.Constant(0), ValueError, r'Constant\(mean=...\) must be above 0'),
    (lambda: clock.Exponential('fast'), ValueError, 'must be a quantity such as'),
    (lambda: clock.Exponential(None), TypeError, 'must be a number, or text'),
    (lambda: clock.LogNormal(1.0, sigma=0.0), ValueError, r'LogNormal\(sigma=...\) must be above'),
    (lambda: clock.Pareto(1.0, alpha=1.0), ValueError, 'above 1, or the mean would be infinite'),
    (lambda: clock.Outages(1.0, every=1, lasting=1), TypeError, 'must be a Times; got 1.0'),
    (lambda: clock.Outages(ONE, every=0, lasting=1), ValueError, r'every=...\) must be above 0'),
    (lambda: clock.Measured([[1.0]]), ValueError, r'one axis; got shape \(1, 1\)'),
    (lambda: clock.Measured([]), ValueError, r'got shape \(0,\)'),
    (lambda: clock.Measured([1.0, -1.0]), ValueError, 'finite times above 0; got some from -1.0'),
    (lambda: clock.Network(-1), ValueError, r'Network\(up=...\) must be at least 0'),
    (lambda: clock.Network(1, link=0), ValueError, r'Network\(link=...\) must be a speed above 0'),
    (lambda: clock.MSynchronous(0), ValueError, r'MSynchronous\(m=...\) must be at least 1'),
    (lambda: clock.Asynchronous(0), ValueError, r'Asynchronous\(batch=...\) must be at least 1'),
    (lambda: clock.Quorum(1.5), TypeError, r'Quorum\(quorum=...\) must be an integer'),
    (lambda: clock.Rennala(0), ValueError, r'Rennala\(batch=...\) must be at least 1'),
    (lambda: clock.Ringmaster(0), ValueError, r'Ringmaster\(limit=...\) must be at least 1'),
    (lambda: clock.BoundedStaleness(-1), ValueError, r'slack=...\) must be at least 0'),
    (lambda: simulate(clock.MSynchronous(3)), ValueError, 'no step would ever complete'),
    (lambda: simulate(clock.Quorum(3)), ValueError, 'waits for 3 workers in a step, but there are'),
    (lambda: simulate('async'), TypeError, r"must be a protocol such as .* got 'async'"),
    (lambda: simulate(steps=0), ValueError, r'simulate\(steps=...\) must be at least 1; got 0'),
    (lambda: simulate(local_steps=0), ValueError, r'local_steps=...\) must be at least 1'),
    (lambda: simulate(network=1e9), TypeError, 'must be a clock.Network; got 1000000000.0'),
    (
        lambda: simulate(network=clock.Network(8, link=(1, 2, 3))),
        ValueError,
        r'Network\(link=...\) has values for 3 workers, but there are 2',
    ),
    (lambda: simulate(compute=ONE), ValueError, r'workers=...\) must be the number of workers'),
    (lambda: simulate(compute=[ONE, 1.0]), TypeError, 'or a sequence with one for each worker'),
    (lambda: simulate(compute=[ONE], workers=2), ValueError, 'got 1 of them for 2 workers'),
    (lambda: simulate(compute=[]), ValueError, 'got 0 of them for no workers'),
    (lambda: simulate(compute=[clock.Exponential(1)]), ValueError, 'draws random times: pass seed'),
    (lambda: simulate(steps=4).trace(5), ValueError, r'trace\(steps=...\) must be from 1 to 4'),
    (
        lambda: clock.predict(clock.Synchronous(), [ONE], network=clock.Network(1, server=1)),
        ValueError,
        'leave out',
    ),
]  # fmt: skip


def simulate(protocol=ASYNCHRONOUS, compute=(ONE, ONE), steps=4, **options):
    return clock.simulate(protocol, compute, steps=steps, **options)


@pytest.mark.parametrize(('make', 'kind', 'message'), BAD, ids=lambda x: None)
def test_errors(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_the_ranking_of_protocols_and_schemes():
    """Seconds are steps of the theorem times simulated seconds; a slow link favours few bytes."""
    likes, workers = jax.ShapeDtypeStruct((1000, 1000), 'float32'), 6
    schemes = {'4 bits': gz.QSGD(7)}
    plan = gz.plan(likes, workers=workers, link='100Mbit', schemes=schemes, costs='5ms')
    target = gz.theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
    protocols = [clock.Synchronous(), clock.Asynchronous(), clock.Quorum(3)]
    times = [clock.Constant(0.1)] * 4 + [clock.Constant(0.3)] * 2
    more = {'4 bits': 1.5}
    found = clock.rank(plan, times, target, protocols=protocols, more_steps=more, down=0)
    assert [row.seconds for row in found.rows] == sorted(row.seconds for row in found.rows)
    assert {(r.protocol, r.scheme) for r in found.rows} == {
        (p, s) for p in protocols for s in ('4 bits', 'exact mean')
    }
    row = next(r for r in found.rows if (r.protocol, r.scheme) == (protocols[0], '4 bits'))
    sent = 8 * gz.payload_bytes(gz.QSGD(7), likes) / 1e8
    np.testing.assert_allclose(row.seconds_a_step, 0.3 + 0.005 + sent)
    assert row.steps == round(1.5 * gz.theory.late_sgd(target, 0, batch=6)[1])
    np.testing.assert_allclose(row.seconds, row.steps * row.seconds_a_step)
    assert found.best.scheme == '4 bits'
    assert clock.rank(plan, times, target).best.protocol is not None  # those of the default run
    with pytest.raises(ValueError, match=r"in the plan, which are .* got \['sign'\]"):
        clock.rank(plan, times, target, more_steps={'sign': 2.0})
    with pytest.raises(ValueError, match='factors above 0; got 0'):
        clock.rank(plan, times, target, more_steps={'4 bits': 0})
    with pytest.raises(TypeError, match=r'rank\(target=...\) must be a Target'):
        clock.rank(plan, times, 0.1)


def test_the_experiment_in_its_short_form(tmp_path, monkeypatch):
    arguments = ['--quick', '--workers', '4', '--out', str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    with (tmp_path / 'runs.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(runs.TIMES) * len(draw.COLORS)
    assert all(0 < float(row['useful']) <= float(row['utilisation']) for row in rows)
    assert (tmp_path / 'clock.png').stat().st_size > 10_000
    monkeypatch.setattr(runs, 'TIMES', {'constant': (ONE,)})
    monkeypatch.setattr(clock, 'predict', lambda *_: 10.0)  # too far from the simulation
    assert CliRunner().invoke(app, arguments).exit_code == 1
