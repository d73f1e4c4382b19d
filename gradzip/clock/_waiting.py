"""Protocols under which workers wait for others: a queue of events, one after the other."""

from __future__ import annotations

import collections
import heapq
from array import array
from collections.abc import Iterable

import numpy as np

from gradzip.clock._cycles import Cycles
from gradzip.clock._events import Events, sum_by_worker
from gradzip.clock._protocols import BoundedStaleness, Quorum


class _Queue:
    """Workers on their way, by the second at which their message will have crossed their link."""

    def __init__(self, cycles: Cycles) -> None:
        self.cycles, self.following = cycles, cycles.one_by_one()
        self.heap: list[tuple[float, int]] = []
        self.free, self.version = 0.0, 0  # when the server has received all so far; steps so far
        self.born, self.spent = [0] * cycles.workers, [0.0] * cycles.workers
        self.arrived, self.cycle = array('d'), array('d')  # seconds of each message so far
        self.worker, self.version_at_birth = array('i'), array('i')
        self.start(range(cycles.workers))

    def start(self, workers: Iterable[int]) -> None:
        """Lets workers start at the newest version, now."""
        for w in workers:
            self.born[w] = self.version
            self.spent[w] = next(self.following[w])
            heapq.heappush(self.heap, (self.free + self.spent[w], w))

    def receive(self) -> int:
        """Receives the next message, and returns whose it is."""
        crossed, w = heapq.heappop(self.heap)
        self.free = max(crossed, self.free) + self.cycles.network.service
        self.arrived.append(self.free)
        self.cycle.append(self.spent[w])
        self.worker.append(w)
        self.version_at_birth.append(self.born[w])
        return w

    def events(self, batch: int, steps: int) -> Events:
        """The events of so many steps, each of which uses the next `batch` messages."""
        seconds, cycle = np.array(self.arrived), np.array(self.cycle)
        worker, born = np.array(self.worker), np.array(self.version_at_birth)
        count, n, overhead = batch * steps, self.cycles.workers, self.cycles.overhead
        spent = sum_by_worker(worker, cycle - overhead[worker], n)
        end, still = seconds[-1], np.zeros(n)
        for crossed, w in self.heap:  # what is under way
            started = crossed - self.spent[w]
            still[w] = max(end - started - self.cycles.down[w], 0.0)
        return Events(
            worker, born, np.arange(count, dtype=np.int32) // batch, seconds,
            np.ones(count, bool), seconds[batch - 1 :: batch], spent + still, spent,
        )  # fmt: skip


def quorum(protocol: Quorum, cycles: Cycles, steps: int) -> Events:
    """Workers who have delivered wait until there are enough of them."""
    queue = _Queue(cycles)
    for _ in range(steps):
        delivered = [queue.receive() for _ in range(protocol.quorum)]
        queue.version += 1
        queue.start(delivered)
    return queue.events(protocol.quorum, steps)


def bounded_staleness(protocol: BoundedStaleness, cycles: Cycles, steps: int) -> Events:
    """Workers who are too far ahead of the slowest wait for it."""
    queue = _Queue(cycles)
    delivered = [0] * cycles.workers
    reached = collections.Counter({0: cycles.workers})  # how many workers have delivered so often
    slowest, waiting = 0, []
    for _ in range(steps):
        w = queue.receive()
        queue.version += 1
        reached[delivered[w]] -= 1
        delivered[w] += 1
        reached[delivered[w]] += 1
        waiting.append(w)
        if delivered[w] - slowest <= protocol.slack:
            queue.start([waiting.pop()])
        if not reached[slowest]:  # those who wait are all one gradient too far ahead
            del reached[slowest]
            slowest += 1
            queue.start(waiting)
            waiting = []
    return queue.events(1, steps)
