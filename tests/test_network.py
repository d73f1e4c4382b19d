"""The real network in its short form: processes in namespaces on limited links, as root."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from experiments.network import links
from experiments.network.__main__ import _links
from experiments.network.measure import Row, _slowest
from experiments.network.report import findings, table

ROOT = pathlib.Path(__file__).parent.parent
REASON = links.unavailable()
needs_links = pytest.mark.skipif(REASON is not None, reason=str(REASON))
COMMAND = [sys.executable, '-m', 'experiments.network', '--quick']
ENVIRONMENT = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}


def namespaces_of(pid: int) -> list[str]:
    shown = subprocess.run(['ip', 'netns', 'list'], capture_output=True, text=True, check=True)
    made = [line.split()[0] for line in shown.stdout.splitlines() if line]
    left = list(links.HOSTS.glob(f'{links.PREFIX}-{pid}-*')) if links.HOSTS.exists() else []
    return [n for n in made if n.startswith(f'{links.PREFIX}-{pid}-')] + [p.name for p in left]


@needs_links
def test_fewer_bytes_are_faster_on_a_slow_link(tmp_path):
    """4 MB each way at 100 Mbit/s take a third of a second; one hundredth of them do not."""
    process = subprocess.Popen([*COMMAND, '--out', str(tmp_path)], cwd=ROOT, env=ENVIRONMENT)
    assert process.wait(timeout=300) == 0
    assert namespaces_of(process.pid) == []
    with (tmp_path / 'steps_2.csv').open() as file:
        rows = {(r['bits_per_second'], r['scheme']): r for r in csv.DictReader(file)}
    slow, exact = rows['100000000', 'TopK 1 %'], rows['100000000', 'exact mean']
    assert int(exact['bytes']) == 4 * 1024**2 > 50 * int(slow['bytes'])
    assert float(exact['min']) > 0.9 * 4 * 1024**2 * 8 / 1e8  # the limit holds
    assert float(slow['min']) < 0.5 * float(exact['min'])
    assert (tmp_path / 'steps_2.png').exists()
    assert '100 Mbit/s: TopK 1 %' in (tmp_path / 'table_2.txt').read_text()


@needs_links
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interruption(number, tmp_path):
    process = subprocess.Popen(
        [*COMMAND, '--out', str(tmp_path)], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(namespaces_of(process.pid)) < 5:  # a hub and two workers, with a hosts file each
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) != 0
    assert namespaces_of(process.pid) == []


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
        _links(speeds, delays)


def test_the_slowest_worker_counts_and_the_exact_mean_can_win():
    assert _slowest([{'seconds': [1.0, 5.0]}, {'seconds': [2.0, 3.0]}]) == [2.0, 5.0]
    fast = links.Link('10 Gbit/s', 1e10, 1e-3)
    rows = [Row(2, fast, 'exact mean', 100, [0.1, 0.3]), Row(2, fast, 'sign', 4, [0.4])]
    assert findings(rows) == ['10 Gbit/s, 1 ms: do not compress; the exact mean is the fastest.']
    assert [str(c.header) for c in table(rows).columns] == [
        'scheme',
        'bytes a step',
        '10 Gbit/s, 1 ms',
    ]
