"""The real network in its short form: processes in namespaces on limited links, as root."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradzip as gz
from experiments import exchanges
from experiments.models import Size
from experiments.network import links, predictions, report, utilisation, workloads
from experiments.network.__main__ import links_of
from experiments.network.measure import Row, Trained, _slowest, _steps, sizes
from gradzip._plan.model import Cost, Host, crossover
from gradzip._traffic import Collective

ROOT = pathlib.Path(__file__).parent.parent
TIMEOUT = 600  # seconds; a loaded machine may take many times as long as an idle one
REASON = links.unavailable()
needs_links = pytest.mark.skipif(REASON is not None, reason=str(REASON))
COMMAND = [sys.executable, '-m', 'experiments.network', '--quick']
ENVIRONMENT = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}


def namespaces_of(pid: int) -> list[str]:
    shown = subprocess.run(['ip', 'netns', 'list'], capture_output=True, text=True, check=True)
    made = [line.split()[0] for line in shown.stdout.splitlines() if line]
    left = list(links.HOSTS.glob(f'{links.PREFIX}-{pid}-*')) if links.HOSTS.exists() else []
    return [n for n in made if n.startswith(f'{links.PREFIX}-{pid}-')] + [p.name for p in left]


@pytest.mark.slow
@needs_links
def test_fewer_bytes_are_faster_on_a_slow_link(tmp_path):
    """4 MB each way at 100 Mbit/s take a third of a second; one hundredth of them do not."""
    process = subprocess.Popen([*COMMAND, '--out', str(tmp_path)], cwd=ROOT, env=ENVIRONMENT)
    assert process.wait(timeout=TIMEOUT) == 0
    assert namespaces_of(process.pid) == []
    with (tmp_path / 'steps_2.csv').open() as file:
        rows = {(r['bits_per_second'], r['scheme']): r for r in csv.DictReader(file)}
    slow, exact = rows['100000000', 'TopK 1 %'], rows['100000000', 'exact mean']
    assert int(exact['bytes']) == 4 * 1024**2 > 50 * int(slow['bytes'])
    assert float(exact['min']) > 0.9 * 4 * 1024**2 * 8 / 1e8  # the limit holds
    assert float(slow['min']) < 0.5 * float(exact['min'])
    assert (tmp_path / 'steps_2.png').exists()
    said = (tmp_path / 'table_2.txt').read_text()
    assert '100 Mbit/s: TopK 1 %' in said
    assert 'Cost model: 4 steps predicted' in said
    with (tmp_path / 'training_2.csv').open() as file:
        trained = {(r['bits_per_second'], r['scheme']): r for r in csv.DictReader(file)}
    assert int(trained['100000000', 'exact mean']['steps_to_loss']) <= 20
    assert (tmp_path / 'training_2.png').exists()
    assert 'In full at 100 Mbit/s: exact mean took' in (tmp_path / 'training_2.txt').read_text()


@pytest.fixture
def interrupted(tmp_path):
    """A measurement that is under way, and that is ended with all it made if its test fails."""
    # A shell makes its background jobs, and all that they start, ignore the signal of an interrupt.
    listens = ['env', '--default-signal=INT', *COMMAND, '--out', str(tmp_path)]
    process = subprocess.Popen(listens, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    yield process
    if process.poll() is None:
        process.terminate()  # it takes its network down itself
        try:
            process.wait(timeout=TIMEOUT)
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
@needs_links
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interruption(number, interrupted):
    deadline = time.monotonic() + TIMEOUT
    while len(namespaces_of(interrupted.pid)) < 5:  # a hub, two workers and the hosts file of each
        assert interrupted.poll() is None, 'it ended before it was interrupted'
        assert time.monotonic() < deadline
        time.sleep(0.1)
    interrupted.send_signal(number)
    assert interrupted.wait(timeout=TIMEOUT) != 0
    assert namespaces_of(interrupted.pid) == []


def test_it_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)
    assert 'need root' in str(links.unavailable())
    with pytest.raises(links.NetworkError, match='need root'), links.network(2):
        pass
    monkeypatch.setattr(os, 'geteuid', lambda: 0)
    monkeypatch.setattr(links.shutil, 'which', lambda command: None)
    assert links.unavailable() == 'ip and tc not found: install iproute2.'


@pytest.mark.parametrize(
    ('speeds', 'delays', 'message'),
    [('fast', '0', 'speeds must be'), ('0M', '0', 'speeds'), ('1G', '-1', 'whole milliseconds')],
)
def test_links_that_are_none(speeds, delays, message):
    with pytest.raises(ValueError, match=message):
        links_of(speeds, delays)


def test_links_by_their_speeds_and_delays():
    found = links_of('unlimited,250M,10Gbit', '0,20')
    assert [(link.name, link.bits) for link in found[::2]] == [
        ('unlimited', None),
        ('250 Mbit/s', 2.5e8),
        ('10 Gbit/s', 1e10),
    ]
    assert [report.label(link) for link in found[2:4]] == ['250 Mbit/s', '250 Mbit/s, 20 ms']


def test_the_slowest_worker_counts_and_the_exact_mean_can_win():
    assert _slowest([{'seconds': [1.0, 5.0]}, {'seconds': [2.0, 3.0]}]) == [2.0, 5.0]
    fast = links.Link('10 Gbit/s', 1e10, 1e-3)
    rows = [Row(2, fast, 'exact mean', 100, [0.1, 0.3]), Row(2, fast, 'sign', 4, [0.4])]
    assert report.step_findings(rows) == [
        '10 Gbit/s, 1 ms: do not compress; the exact mean is the fastest.'
    ]
    assert [str(c.header) for c in report.step_table(rows).columns] == [
        'scheme',
        'bytes a step',
        '10 Gbit/s, 1 ms',
    ]


class Periodic:
    """Workers whose every fourth step exchanges 400 bytes, and takes 0.5 s in place of 0.1 s."""

    def __init__(self):
        self.done = 0

    def ask(self, *, scheme, do, steps=0):
        if do == 'compile':
            return [{'bytes': 400}] * 2
        assert scheme == exchanges.LOCAL
        seconds = [0.5 if (self.done + i) % 4 == 3 else 0.1 for i in range(steps)]
        self.done += steps
        return [{'seconds': seconds}] * 2


def test_local_steps_are_measured_by_whole_periods():
    workers = Periodic()
    assert _steps(workers, exchanges.LOCAL) == pytest.approx([0.2] * 5)  # 4 s, in periods of 0.8 s
    assert workers.done % 4 == 0  # the next ones begin with a period too
    assert sizes(workers, [exchanges.LOCAL, 'sign']) == {exchanges.LOCAL: 100, 'sign': 400}


def test_an_outer_step_of_local_adam_is_as_long_as_twice_the_inner_ones():
    """Adam's first step is its rate, whatever the gradient; a schedule is read in inner steps."""
    tx = exchanges.local_adam(lambda count: 0.01 * (1 + count), gz.Identity(), 'data', 2)

    def worker(gradient):
        params = jnp.zeros(2)
        state = tx.init(params)
        for _ in range(2):
            update, state = tx.update(gradient, state, params)
        return update

    with jax.numpy_dtype_promotion('standard'):  # as optax needs it
        made = jax.vmap(worker, axis_name='data', out_axes=None)(jnp.array([[1.0, -2.0]] * 2))
    np.testing.assert_allclose(made, [-4 * 0.03, 4 * 0.03], rtol=1e-4)  # at count 2


HOST = Host(bits=4e9, slower={'psum': 1.05})
COSTS = {
    'exact mean': Cost(0.02, [Collective('psum', 4_000_000, 2)]),
    'sign': Cost(0.05, [Collective('all_gather', 125_000, 2)]),
}


def rows_of(costs, off=1.0):
    """What a network would show that is as the model says, or takes so many times longer."""
    rows = []
    for bits in (None, 2e9, 9e8, 1e8):
        link = links.Link(str(bits), bits)
        for scheme, cost in costs.items():
            seconds = cost.step(float('inf') if bits is None else bits, host=HOST)
            slower = 1.0 if scheme == 'exact mean' else off
            rows.append(Row(2, link, scheme, 0, [slower * seconds]))
    return rows


def test_predictions_are_judged():
    model = predictions.Model(COSTS, HOST)
    perfect = predictions.predict(model, rows_of(COSTS))
    assert max(abs(p.error) for p in perfect) < 1e-12
    said = predictions.findings(model, perfect)
    assert said[0].startswith('Cost model: 7 steps predicted, 0.0% off in the median')
    assert said[2].startswith('What it chooses is the fastest on 4 of 4 links')
    [(scheme, (at, seen))] = predictions.crossovers(model, rows_of(COSTS)).items()
    assert scheme == 'sign'
    assert at == crossover(COSTS['sign'], COSTS['exact mean'], host=HOST)
    assert seen == pytest.approx(at, rel=0.1)  # read off between two links
    unknown = Row(2, links.Link('1', 1e8), exchanges.LOCAL, 0, [1.0])  # it has no cost
    assert predictions.predict(model, [unknown, *rows_of(COSTS)]) == perfect
    late = predictions.predict(model, rows_of(COSTS, off=2.0))
    said = predictions.findings(model, late)
    assert 'off in the median, 50% at most (sign' in said[0]
    assert '3 of 4 links' in said[2]


@pytest.mark.parametrize('workers', [2, 3, 4])
def test_all_workers_look_at_as_many_unseen_windows(workers, monkeypatch):
    monkeypatch.setattr(workloads, '_split', lambda mine, workers: mine)
    size = Size(layers=1, width=8, heads=1, context=4)
    parts = [workloads.transformer(size, rank, workers) for rank in range(workers)]
    for look in (lambda work: work.unseen(), lambda work: work.batch(0)):
        seen = [look(work) for work in parts]
        assert len({windows.shape for windows in seen}) == 1
        assert len({windows.tobytes() for windows in seen}) == workers


def test_time_to_the_loss_is_steps_times_the_time_of_a_step():
    rows = rows_of(COSTS)
    ways = {
        'exact mean': Trained('exact mean', 2.5, [(10, 3.0, 1.0), (20, 2.4, 2.0), (30, 2.5, 3.0)]),
        'sign': Trained('sign', 2.5, [(30, 2.5, 1.0)]),
    }
    found = report.training_times(rows, ways)['100000000.0']
    assert found['sign'] == pytest.approx(30 * COSTS['sign'].step(1e8, host=HOST))
    assert found['exact mean'] == pytest.approx(20 * COSTS['exact mean'].step(1e8, host=HOST))
    said = report.training_findings(rows, ways)
    assert said[0] == 'None: do not compress; the exact mean is there first.'
    assert said[-1].startswith('100000000.0: sign is at the loss after 1.8 s, ')
    never = {**ways, 'sign': Trained('sign', 2.5, [(80, 2.9, 1.0)])}
    assert list(report.training_times(rows, never)['100000000.0']) == ['exact mean']
    assert report.training_findings(rows, never)[-1].endswith('the exact mean is there first.')
    cells = [list(column.cells) for column in report.training_table(rows, never).columns]
    assert cells[2] == ['20', '> 80']
    assert cells[-1][1] == '-'


def test_time_that_is_spent_on_gradients():
    """Of steps of 10 s with 1 s of computing, 8 local steps make 8 s of 7 + 10."""
    rows = [Row(2, links.Link('10 Mbit/s', 1e7), name, 0, [s]) for name, s in
            (('exact mean', 10.0), ('TopK 4 % >> sign', 2.0))]  # fmt: skip
    faster = [row._replace(link=links.Link('1 Gbit/s', 1e9)) for row in rows]
    share, _ = utilisation.findings([*rows, *faster], 1.0)
    assert 'at 10 Mbit/s' in share  # the slowest link, in whatever order
    share, limit = utilisation.findings(rows, 1.0)
    assert 'exact mean 10.00%, exact mean after 8 local steps, computed 47.06%' in share
    assert share.endswith('TopK 4 % >> sign 50.00%.')
    assert limit.endswith('10 Mbit/s 10.')
