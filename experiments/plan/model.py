"""The cost model: how long a step takes, from what is computed, what is sent, and the link.

    step = compute + offline + network,    network = sum over collectives of
           rounds * latency + 8 sent both(slower / link, 1 / host)

`sent` and `rounds` are those of ring algorithms (`gradzip._traffic.Collective`), `offline` is the
exchange as it runs on this machine without a network (`offline.py`), and the host's own network
stack carries only so many bits a second even where the link has no limit. On a link, a collective
may be `slower` than its bytes need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gradzip._traffic import Collective

SIDE_BY_SIDE = 3  # the norm; 1 would be one after the other, infinity without any waiting
SLOWEST, FASTEST = 1e4, 1e13  # bits per second between which a crossover is looked for


class Host(NamedTuple):
    """What the machines at the ends of a link can do."""

    bits: float = math.inf  # per second that a process hands to its network stack
    slower: Mapping[str, float] = MappingProxyType({})  # collective: times its bytes on the link


RING = Host()  # both directions of a link at the same time, as NCCL and TPU meshes do it

# gloo over TCP, as `python -m experiments.network` measures it. A payload waits on each side until
# the other one has announced that it expects it, and the announcement queues behind what its sender
# has begun to send. So directions take turns, but not in an all-reduce, which sends small pieces.
GLOO = Host(slower={'psum': 1.07, 'all_gather': 1.7, 'all_to_all': 2.1})


class Cost(NamedTuple):
    """Of one scheme's step."""

    offline: float  # seconds: everything but the network
    collectives: list[Collective]

    def network(self, bits: float, latency: float = 0.0, host: Host = GLOO) -> float:
        """Seconds on links of so many bits per second, so many seconds each way."""
        total = 0.0
        for c in self.collectives:
            a_bit = _both(host.slower.get(c.name, 1) / bits, 1 / host.bits)
            total += c.rounds * latency + 8 * c.sent * a_bit
        return total

    def step(self, bits: float, latency: float = 0.0, host: Host = GLOO) -> float:
        """Seconds a step."""
        return self.offline + self.network(bits, latency, host)


def _both(link: float, host: float) -> float:
    """Seconds a bit where two things work side by side and wait for each other at times.

    More than the slower one takes, less than the sum: 1.26 times where they are equally fast.
    """
    return (link**SIDE_BY_SIDE + host**SIDE_BY_SIDE) ** (1 / SIDE_BY_SIDE)


def crossover(cost: Cost, exact: Cost, latency: float = 0.0, host: Host = GLOO) -> float:
    """Bits per second of the link below which a scheme is faster than the exact mean.

    0 where it never is, infinity where it always is.
    """

    def gain(bits: float) -> float:
        return exact.step(bits, latency, host) - cost.step(bits, latency, host)

    if gain(FASTEST) > 0:
        return math.inf
    if gain(SLOWEST) <= 0:
        return 0.0
    low, high = SLOWEST, FASTEST
    while high / low > 1.001:  # the gain falls as links get faster
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gain(middle) > 0 else (low, middle)
    return low


def host_from(exact: Cost, seconds: float, slower: Mapping[str, float]) -> Host:
    """The host's own speed, from the exact mean's step on a link without a limit."""
    sent = 8 * sum(c.sent for c in exact.collectives)
    return Host(sent / max(seconds - exact.offline, 1e-9), slower)
