"""The links between the workers and the server: what a message costs in seconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradzip import _checks as checks, _quantities as quantities


@dataclasses.dataclass(frozen=True)
class Network:
    """Messages to the server, models back to the workers, and links that carry them.

    A worker receives the model, computes, encodes its message and sends it, one after the other:

        latency + 8 down / link,   computing,   encode,   latency + 8 up / link,   8 up / server

    The last term is modelled as a queue: the server receives one message after the other, in the
    order in which they have crossed the links of the workers.

    Not modelled: models on their way to several workers do not share the server's outgoing link; no
    packet is lost; nothing overlaps on one worker; the server needs no time for its own work.

    Args:
      up: bytes of a message to the server, such as `gradzip.payload_bytes(scheme, params)`.
      down: bytes of the model, or of what replaces it, from the server to a worker.
      link: the speed of a worker's link in bits per second or as text ('1Gbit'); 'unlimited'; or
        one for each worker.
      latency: of a message one way, in seconds or as text ('1ms'); or one for each worker.
      server: how many bits per second the server receives from all workers together.
      encode: seconds in which a worker makes a message of its gradient, or text.

    Raises:
      ValueError: a negative number, or a speed that is not above 0.
      TypeError: bytes that are no integers, or quantities that are neither numbers nor text.

    Example:
      >>> from gradzip import clock
      >>> clock.Network(up=125_000_000, link='1Gbit', latency='1ms').seconds_up(workers=2)
      array([1.001, 1.001])
    """

    up: int = 0
    down: int = 0
    _: dataclasses.KW_ONLY
    link: Any = math.inf
    latency: Any = 0.0
    server: Any = math.inf
    encode: Any = 0.0

    def __post_init__(self) -> None:
        checks.integer('Network', 'up', self.up, 0)
        checks.integer('Network', 'down', self.down, 0)
        speed, time = quantities.bits_per_second, quantities.seconds
        read = {
            'link': _each('Network(link=...)', self.link, speed),
            'latency': _each('Network(latency=...)', self.latency, time),
            'server': speed('Network(server=...)', self.server),
            'encode': time('Network(encode=...)', self.encode),
        }
        for name, value in read.items():
            object.__setattr__(self, name, value)

    def seconds_down(self, workers: int) -> np.ndarray:
        """Returns the seconds of the model on its way to each worker: f64[workers]."""
        return self._crossing(self.down, workers)

    def seconds_up(self, workers: int) -> np.ndarray:
        """Returns the seconds of a message on the link of each worker: f64[workers]."""
        return self._crossing(self.up, workers)

    def check_workers(self, workers: int) -> None:
        """Raises ValueError if there are links, but not one for each of so many workers."""
        per_worker('Network(link=...)', self.link, workers)
        per_worker('Network(latency=...)', self.latency, workers)

    @property
    def service(self) -> float:
        """Seconds in which the server receives one message."""
        return 8 * self.up / self.server

    def _crossing(self, count: int, workers: int) -> np.ndarray:
        if not count:  # no message at all
            return np.zeros(workers)
        bits = per_worker('Network(link=...)', self.link, workers)
        return per_worker('Network(latency=...)', self.latency, workers) + 8 * count / bits


def per_worker(what: str, value: Any, workers: int) -> np.ndarray:
    """Returns a number for each worker: f64[workers].

    Raises:
      ValueError: there are several numbers, but not one for each worker.
    """
    values = np.asarray(value, float)
    if values.ndim and len(values) != workers:
        raise ValueError(f'{what} has values for {len(values)} workers, but there are {workers}.')
    return np.broadcast_to(values, workers)


def _each(what: str, value: Any, read: Any) -> float | tuple[float, ...]:
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return tuple(read(what, x) for x in value)
    return read(what, value)
