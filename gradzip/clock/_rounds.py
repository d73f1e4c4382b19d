"""Protocols in rounds: a row of cycles, one for each worker, decides a round at once."""

from __future__ import annotations

import numpy as np

from gradzip.clock._cycles import Cycles
from gradzip.clock._events import Events, sum_by_worker
from gradzip.clock._protocols import MSynchronous, RoundRobin, Synchronous

Array = np.ndarray


def together(protocol: Synchronous | MSynchronous, cycles: Cycles, steps: int) -> Events:
    """All workers start together, and the first m of them end the round."""
    n = cycles.workers
    m = protocol.m if isinstance(protocol, MSynchronous) else n
    rows = cycles.rows(steps)
    first = np.argsort(rows, axis=1, kind='stable')[:, :m].astype(np.int32)  # ties: by worker
    crossed = np.take_along_axis(rows, first, 1)
    arrived = _received(crossed, cycles.network.service)
    length = arrived[:, -1]
    step_seconds = np.cumsum(length)
    started = np.concatenate([[0.0], step_seconds[:-1]])
    version = np.repeat(np.arange(steps, dtype=np.int32), m)
    whole = rows - cycles.overhead  # seconds of computing, if the round lets a worker finish
    spent = np.minimum(whole, np.maximum(length[:, None] - cycles.down, 0.0))
    useful = np.take_along_axis(whole, first, 1)
    return Events(
        first.ravel(), version, version, (started[:, None] + arrived).ravel(),
        np.ones(steps * m, bool), step_seconds, spent.sum(0),
        sum_by_worker(first.ravel(), useful.ravel(), n),
    )  # fmt: skip


def _received(crossed: Array, service: float) -> Array:
    """When the server has received messages that have crossed the links in this order.

    They queue: received_k = max(crossed_k, received_{k-1}) + service, along the last axis.
    """
    if service == 0:
        return crossed
    before = service * np.arange(crossed.shape[-1])
    return np.maximum.accumulate(crossed - before, axis=-1) + before + service


def in_turn(protocol: RoundRobin, cycles: Cycles, steps: int) -> Events:
    """One worker after the other: a turn takes place when it is ready and the one before is over.

    turn_k = max(turn_{k-1}, turn_{k-n} + cycle_k) + service
    """
    del protocol
    n, service = cycles.workers, cycles.network.service
    rounds = -(-steps // n)
    rows = cycles.rows(rounds + 1)
    turns, last = np.empty((rounds, n)), np.zeros(n)
    for row in range(rounds):
        ready = last + rows[row]
        ready[0] = max(ready[0], last[-1])  # the turn before the first of this round
        last = turns[row] = _received(np.maximum.accumulate(ready), service)
    seconds = turns.ravel()[:steps]
    k = np.arange(steps, dtype=np.int32)
    worker = k % n
    spent = (rows - cycles.overhead).ravel()
    useful = sum_by_worker(worker, spent[:steps], n)
    started = np.zeros(n)
    started[worker[-n:]] = seconds[-n:]
    under_way = np.clip(seconds[-1] - started - cycles.down, 0.0, np.roll(spent[steps:][:n], steps))
    born = np.maximum(k - n + 1, 0)
    return Events(
        worker, born, k, seconds, np.ones(steps, bool), seconds, useful + under_way, useful
    )
