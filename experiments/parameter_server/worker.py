"""A worker: it receives the model, computes for a set time, and sends its gradient."""

from __future__ import annotations

import socket
import time

import numpy as np

from experiments.parameter_server.server import STOP
from experiments.parameter_server.wire import Codec, receive, send


def work(
    connection: socket.socket, codec: Codec, worker: int, target: np.ndarray, times: list[float]
) -> list[float]:
    """Works until the server says that it is over; returns the seconds of every gradient.

    The loss is |x - target|^2 / 2. Making the gradient and its message takes little time; the
    worker sleeps for the rest of the set time, so that many workers compute at once on few cores.

    Args:
      connection: to the server.
      codec: of the messages.
      worker: its number.
      target: f32[size].
      times: set seconds of its gradients; after the last one it begins again.
    """
    seconds = []
    version, data = receive(connection)
    while version != STOP:
        begin = time.perf_counter()
        gradient = np.frombuffer(data, np.float32) - target
        message = codec.pack(gradient, worker, len(seconds))
        left = times[len(seconds) % len(times)] - (time.perf_counter() - begin)
        time.sleep(max(left, 0.0))
        seconds.append(time.perf_counter() - begin)
        send(connection, version, message)
        version, data = receive(connection)
    return seconds
