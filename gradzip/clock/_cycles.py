"""What one worker does again and again: it receives the model, computes, and sends a message."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from gradzip.clock._network import Network, per_worker
from gradzip.clock._times import Times

Array = np.ndarray
BLOCK = 1024  # gradients of one worker whose times are drawn together, but at least
LEAST = 16  # messages


@dataclasses.dataclass(frozen=True)
class Cycles:
    """The seconds of every cycle of every worker, on its own links.

    Every worker draws from a stream of its own. So its first, second, ... cycle takes the same time
    under every protocol, and protocols are compared on the same luck.
    """

    times: tuple[Times, ...]  # of each worker
    network: Network
    local_steps: int  # gradients in a message
    seed: int | None

    @property
    def workers(self) -> int:
        return len(self.times)

    @property
    def block(self) -> int:
        """How many cycles of one worker are drawn together."""
        return max(LEAST, BLOCK // self.local_steps)

    @functools.cached_property
    def down(self) -> Array:
        """Seconds before the computing starts: f64[workers]."""
        return self.network.seconds_down(self.workers)

    @functools.cached_property
    def overhead(self) -> Array:
        """Seconds of a cycle in which a worker does not compute: f64[workers]."""
        encode = per_worker('Network(encode=...)', self.network.encode, self.workers)
        return self.down + encode + self.network.seconds_up(self.workers)

    @functools.cached_property
    def mean(self) -> Array:
        """Mean seconds of a cycle: f64[workers]."""
        computing = np.array([t.mean for t in self.times])
        return self.overhead + self.local_steps * computing

    def blocks(self, worker: int) -> Iterator[Array]:
        """Yields the seconds of a worker's cycles in order, f64[block] at a time."""
        rng = np.random.default_rng(None if self.seed is None else [self.seed, worker])
        for block in self.times[worker].blocks(rng, self.block * self.local_steps):
            yield self.overhead[worker] + block.reshape(self.block, self.local_steps).sum(1)

    def one_by_one(self) -> list[Iterator[float]]:
        """Returns for each worker an iterator over the seconds of its cycles."""
        return [
            itertools.chain.from_iterable(block.tolist() for block in self.blocks(w))
            for w in range(self.workers)
        ]

    def rows(self, count: int) -> Array:
        """Returns the first cycles of all workers: f64[count, workers]."""
        columns = [
            np.concatenate(list(itertools.islice(self.blocks(w), -(-count // self.block))))[:count]
            for w in range(self.workers)
        ]
        return np.stack(columns, 1)
