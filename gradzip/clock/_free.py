"""Protocols under which no worker ever waits: the arrivals do not depend on what the server uses.

So all messages are put in order first, and a pass in this order finds the versions and what is
used. Where the server receives any number of messages at a time, the arrivals of a worker are the
partial sums of its cycles, and sorting them all replaces the queue of events.
"""

from __future__ import annotations

import heapq
import itertools
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gradzip.clock._cycles import Cycles
from gradzip.clock._events import Events, sum_by_worker
from gradzip.clock._protocols import Asynchronous, Rennala, Ringmaster

Array = np.ndarray
CHUNK = 1 << 16  # events of which Python objects are made at a time
MARGIN = 1.02  # of the time in which the events are expected


class Arrivals(NamedTuple):
    """Messages in the order of arrival."""

    seconds: Array  # f64[events], when the server has received it
    crossed: Array  # f64[events], when it has crossed the worker's link
    worker: Array  # i32[events]
    previous: Array  # i32[events], the event at which the same worker started; -1 for the start


def run(protocol: Asynchronous | Rennala | Ringmaster, cycles: Cycles, steps: int) -> Events:
    """Simulates so many steps."""
    count = steps * getattr(protocol, 'batch', 1)
    while True:
        found = arrivals(cycles, count)
        ends = _ends(protocol, found, cycles.workers)  # whether a step is taken at an event
        last = np.flatnonzero(ends)[steps - 1 : steps]
        if last.size:
            return _events(protocol, cycles, found, ends, int(last[0]) + 1)
        reached = max(np.count_nonzero(ends), 1)
        count = max(2 * count, min(16 * count, round(1.1 * count * steps / reached)))


def arrivals(cycles: Cycles, count: int) -> Arrivals:
    """Returns the first so many messages."""
    return _sorted(cycles, count) if cycles.network.service == 0 else _queued(cycles, count)


def _sorted(cycles: Cycles, count: int) -> Arrivals:
    workers = [_Worker(cycles.blocks(w)) for w in range(cycles.workers)]
    horizon = 0.0
    rate = float(np.sum(1 / cycles.mean))
    missing = count
    while missing > 0:
        horizon += max(MARGIN * missing, cycles.workers) / rate
        missing = count - sum(worker.until(horizon) for worker in workers)
    own = [worker.before(horizon) for worker in workers]
    seconds, sizes = np.concatenate(own), [len(x) for x in own]
    order = np.argsort(seconds, kind='stable').astype(np.int32)  # ties: by worker
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=np.int32)
    previous = np.empty_like(order)
    previous[1:] = rank[:-1]  # the event before, if it is of the same worker
    starts = np.cumsum([0, *sizes[:-1]])
    previous[starts[np.array(sizes) > 0]] = -1
    worker = np.repeat(np.arange(cycles.workers, dtype=np.int32), sizes)
    first = order[:count]
    return Arrivals(seconds[first], seconds[first], worker[first], previous[first])


class _Worker:
    """The arrivals of one worker, as far as they are known."""

    def __init__(self, blocks: Iterator[Array]) -> None:
        self.blocks, self.known, self.last = blocks, [], 0.0

    def until(self, horizon: float) -> int:
        """Draws cycles until the horizon is passed, and returns how many arrivals it has."""
        while self.last <= horizon:
            block = next(self.blocks)
            block[0] += self.last
            self.known.append(np.cumsum(block))
            self.last = self.known[-1][-1]
        full = sum(map(len, self.known[:-1]))
        return full + int(np.searchsorted(self.known[-1], horizon, side='right'))

    def before(self, horizon: float) -> Array:
        every = np.concatenate(self.known)
        return every[: np.searchsorted(every, horizon, side='right')]


def _queued(cycles: Cycles, count: int) -> Arrivals:
    """A worker starts again when the server has received its message, after those before it."""
    service, following = cycles.network.service, cycles.one_by_one()
    heap = [(next(cycle), w) for w, cycle in enumerate(following)]
    heapq.heapify(heap)
    seconds, crossed, worker, previous = array('d'), array('d'), array('i'), array('i')
    latest, free = [-1] * cycles.workers, 0.0
    for i in range(count):
        ready, w = heap[0]
        free = max(ready, free) + service
        seconds.append(free)
        crossed.append(ready)
        worker.append(w)
        previous.append(latest[w])
        latest[w] = i
        heapq.heapreplace(heap, (free + next(following[w]), w))
    return Arrivals(*(np.array(found) for found in (seconds, crossed, worker, previous)))


def _ends(protocol: object, found: Arrivals, workers: int) -> Array:
    """Returns at which events the server takes a step: bool[events]."""
    if isinstance(protocol, Asynchronous):
        number = np.arange(1, len(found.worker) + 1, dtype=np.int32)
        return number % protocol.batch == 0
    if isinstance(protocol, Rennala):
        ends = _rennala(_chunks(found.previous), protocol.batch)
    else:
        assert isinstance(protocol, Ringmaster)
        ends = _ringmaster(_chunks(found.worker), protocol.limit, workers)
    return np.fromiter(ends, bool, len(found.worker))


def _rennala(previous: Iterable[int], batch: int) -> Iterator[bool]:
    """A gradient is of the newest version if its worker started at the last step or after it."""
    last, fresh = -1, 0
    for i, start in enumerate(previous):
        fresh += start >= last
        if fresh == batch:
            last, fresh = i, 0
            yield True
        else:
            yield False


def _ringmaster(worker: Iterable[int], limit: int, workers: int) -> Iterator[bool]:
    version, born = 0, [0] * workers
    for w in worker:
        used = version - born[w] < limit
        version += used
        born[w] = version
        yield used


def _chunks(values: Array) -> Iterator[int]:
    parts = (values[i : i + CHUNK].tolist() for i in range(0, len(values), CHUNK))
    return itertools.chain.from_iterable(parts)


def _events(protocol: object, cycles: Cycles, found: Arrivals, ends: Array, count: int) -> Events:
    """The first so many events, with the versions that follow from when steps were taken."""
    seconds, crossed, worker, previous = (x[:count] for x in found)
    ends = ends[:count]
    version = np.cumsum(ends, dtype=np.int32)  # after each event
    applied = version - ends
    born = np.where(previous < 0, 0, version[previous]).astype(np.int32)
    used = applied == born if isinstance(protocol, Rennala) else ends
    if isinstance(protocol, Asynchronous):
        used = np.ones(count, bool)
    started = np.where(previous < 0, 0.0, seconds[previous])
    spent = crossed - started - cycles.overhead[worker]
    computing = sum_by_worker(worker, spent, cycles.workers)
    return Events(
        worker, born, applied, seconds, used, seconds[ends],
        computing + _unfinished(cycles, seconds, worker),
        sum_by_worker(worker, spent * used, cycles.workers),
    )  # fmt: skip


def _unfinished(cycles: Cycles, seconds: Array, worker: Array) -> Array:
    """Seconds that each worker has spent on the gradient that it computes at the end."""
    started = np.zeros(cycles.workers)
    started[worker] = seconds  # the last assignment stands
    return np.maximum(seconds[-1] - started - cycles.down, 0.0)
