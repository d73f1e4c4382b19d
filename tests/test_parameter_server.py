"""The parameter server of the experiments: what it applies, and how it is compared."""

import socket
import threading

import numpy as np
import pytest

import gradzip as gz
from experiments.network.links import Link
from experiments.parameter_server import report
from experiments.parameter_server.runs import Arrived, Compared
from experiments.parameter_server.server import RATE, Server
from experiments.parameter_server.setting import PROTOCOLS, SCHEMES
from experiments.parameter_server.wire import Codec
from experiments.parameter_server.worker import work

WORKERS, SIZE, STEPS = 3, 4, 12
TARGETS = np.random.default_rng(0).normal(size=(WORKERS, SIZE)).astype(np.float32)


class Plain:
    """A codec that compresses nothing and compiles nothing."""

    def pack(self, x, worker, count):
        return x.tobytes()

    def unpack(self, data, worker, count):
        return np.frombuffer(data, np.float32)


def served(synchronous: bool) -> Server:
    pairs = [socket.socketpair() for _ in range(WORKERS)]
    server = Server(Plain(), SIZE, STEPS)
    threads = [
        threading.Thread(target=work, args=(pairs[w][1], Plain(), w, TARGETS[w], [1e-3 * (w + 1)]))
        for w in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    server.serve({w: pair[0] for w, pair in enumerate(pairs)}, synchronous)
    for thread in threads:
        thread.join()
    for pair in pairs:
        for end in pair:
            end.close()
    return server


@pytest.mark.parametrize('synchronous', [True, False])
def test_every_gradient_is_that_of_the_version_at_its_birth(synchronous):
    """The records, replayed with the version that each names, give the model."""
    server = served(synchronous)
    versions = [np.zeros(SIZE)]
    for step in range(STEPS):
        own = [(w, born) for w, born, applied, _ in server.records if applied == step]
        assert len(own) == (WORKERS if synchronous else 1)
        moves = sum(versions[born] - TARGETS[w] for w, born in own)
        versions.append(versions[step] - RATE * moves)
    np.testing.assert_allclose(server.model, versions[-1], rtol=1e-5)
    if synchronous:
        assert all(born == applied for _, born, applied, _ in server.records)
        assert sorted(w for w, *_ in server.records) == sorted([*range(WORKERS)] * STEPS)


def test_a_gradient_as_bytes():
    x = np.linspace(-1, 1, 300, dtype=np.float32)
    codec = Codec(gz.QSGD(7), x.size)
    data = codec.pack(x, 2, 5)
    assert len(data) <= gz.payload_bytes(gz.QSGD(7), x)
    far = codec.unpack(data, 2, 5) - x
    assert 0 < np.abs(far).max() < 1 / 7


def test_sentences_say_what_was_measured():
    worker, delay = np.array([0, 1, 2, 3] * 5), np.array([2, 2, 2, 6] * 5)
    said = Arrived(worker, delay, 0.2)

    def compared(protocol, scheme, measured):
        return Compared(protocol, scheme, Link('1 Gbit/s', 1e9), measured, [said], 1.0)

    measured = [Arrived(worker, delay, 0.22), Arrived(worker, np.maximum(delay, 3), 0.11)]
    found = [
        compared(protocol, scheme, arrived)
        for protocol in PROTOCOLS
        for scheme, arrived in zip(SCHEMES, measured, strict=True)
    ]
    text = ' '.join(report.findings(found))
    assert 'from 0.55 to 1.10 in 4 runs. The farthest is synchronous, QSGD 4 bit' in text
    assert 'from 1.00 to 1.50 for fast workers and from 1.00 to 1.00 for the slow worker' in text
    assert 'up to 0.750 apart in total variation' in text
    assert 'faster by 2.00 times (1.00 predicted) with QSGD 4 bit at 1 Gbit/s.' in text
    assert 'within 25%, is not met' in text
    assert report.within([found[0], found[2]])
    shares = [row for row in report.histogram_rows(found) if row['scheme'] == 'QSGD 4 bit']
    slow = [row for row in shares if row['workers'] == 'the slow worker']
    assert [row['delay'] for row in slow] == [*range(7)]
    assert [row['measured'] for row in slow] == [*['0.0000'] * 6, '1.0000']
    assert len(report.figure(found).axes) == 2
