"""The cost model: how long a step takes, from what is computed, what is sent, and the link.

    step = compute + offline + network,    network = sum over collectives of
           rounds * latency + 8 sent / min(link, host)

`sent` and `rounds` are those of ring algorithms (`gradzip.traffic.Collective`), `offline` is the
exchange as it runs on this machine without a network (`offline.py`), and the host's own network
stack carries only so many bits a second even where the link has no limit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gradzip.traffic import Collective

SLOWEST, FASTEST = 1e4, 1e13  # bits per second between which a crossover is looked for


class Host(NamedTuple):
    """What the machines at the ends of a link can do."""

    bits: float = math.inf  # per second that a process hands to its network stack
    efficiency: float = 1.0  # share of the link that payload gets; headers take the rest
    turns: tuple[str, ...] = ()  # collectives whose two directions wait for each other


RING = Host()  # as NCCL and TPU meshes do it

# gloo over TCP: 1448 bytes of 1514 in a frame are payload, and its all_to_all serves the two
# directions of a link one after the other (see `gradzip.axes.swap_rows`).
GLOO = Host(efficiency=1448 / 1514, turns=('all_to_all',))


class Cost(NamedTuple):
    """Of one scheme's step."""

    offline: float  # seconds: everything but the network
    collectives: list[Collective]

    def network(self, bits: float, latency: float = 0.0, host: Host = GLOO) -> float:
        """Seconds on links of so many bits per second, so many seconds each way."""
        speed = min(bits * host.efficiency, host.bits)
        sent = sum(c.sent * (2 if c.name in host.turns else 1) for c in self.collectives)
        return sum(c.rounds for c in self.collectives) * latency + 8 * sent / speed

    def step(self, bits: float, latency: float = 0.0, host: Host = GLOO) -> float:
        """Seconds a step."""
        return self.offline + self.network(bits, latency, host)


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


def host_from(exact: Cost, seconds: float) -> Host:
    """The host's own speed, from the exact mean's step on a link without a limit."""
    sent = 8 * sum(c.sent for c in exact.collectives)
    return GLOO._replace(bits=sent / max(seconds - exact.offline, 1e-9))
