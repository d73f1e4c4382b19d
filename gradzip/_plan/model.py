"""The cost model: how long a step takes, from what is computed, what is sent, and the link.

    step = compute + offline + network,    network = sum over collectives of
           rounds * latency + 8 sent both(slower / link, 1 / host)

`sent` and `rounds` are those of ring algorithms (`gradzip._traffic.Collective`). `offline` is the
time of the exchange on this machine without a network (`offline.py`). The host's own network stack
carries a limited number of bits a second even where the link has no limit, and a collective may be
`slower` on a link than its bytes alone would be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gradzip._traffic import Collective

SIDE_BY_SIDE = 3  # a norm: 1 means one after the other, infinity means at the same time
SLOWEST, FASTEST = 1e4, 1e13  # bits per second between which a crossover is searched


class Host(NamedTuple):
    """What limits the machines at the ends of a link."""

    bits: float = math.inf  # per second that a process hands to its network stack
    slower: Mapping[str, float] = MappingProxyType({})  # collective to a factor on its bytes


RING = Host()  # both directions of a link at the same time, as NCCL and TPU meshes do it

# gloo over TCP, as `python -m experiments.network` measures it. Each side sends a payload only when
# the other side has announced that it expects one, and the announcement queues behind what its
# sender has begun to send. So the two directions of a link take turns, except in an all-reduce,
# which sends small pieces.
GLOO = Host(slower={'psum': 1.07, 'all_gather': 1.7, 'all_to_all': 2.1})


class Cost(NamedTuple):
    """What a step of one scheme costs."""

    offline: float  # seconds, without the network
    collectives: list[Collective]

    def network(self, bits: float, latency: float = 0.0, host: Host = RING) -> float:
        """Seconds on the network; latency in seconds, each way."""
        total = 0.0
        for c in self.collectives:
            a_bit = _both(host.slower.get(c.name, 1) / bits, 1 / host.bits)
            total += c.rounds * latency + 8 * c.sent * a_bit
        return total

    def step(self, bits: float, latency: float = 0.0, host: Host = RING) -> float:
        """Seconds of the exchange, the network included."""
        return self.offline + self.network(bits, latency, host)


def _both(link: float, host: float) -> float:
    """Seconds a bit where link and host work side by side and sometimes wait for each other.

    The result is more than the slower of them takes and less than the sum: 1.26 times where both
    are equally fast.
    """
    return (link**SIDE_BY_SIDE + host**SIDE_BY_SIDE) ** (1 / SIDE_BY_SIDE)


def crossover(cost: Cost, exact: Cost, latency: float = 0.0, host: Host = RING) -> float:
    """Bits per second of the link below which a scheme is faster than the exact mean.

    The result is 0 if the scheme is never faster, and infinity if it always is.
    """

    def gain(bits: float) -> float:
        return exact.step(bits, latency, host) - cost.step(bits, latency, host)

    if gain(SLOWEST) <= 0:
        return 0.0  # on fast links it may still gain, by fewer rounds
    if gain(FASTEST) > 0:
        return math.inf
    low, high = SLOWEST, FASTEST
    while high / low > 1.001:  # the gain falls as links get faster
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gain(middle) > 0 else (low, middle)
    return low


def host_from(exact: Cost, seconds: float, slower: Mapping[str, float]) -> Host:
    """The host's own speed, from the exact mean's step on a link without a limit."""
    sent = 8 * sum(c.sent for c in exact.collectives)
    return Host(sent / max(seconds - exact.offline, 1e-9), slower)
