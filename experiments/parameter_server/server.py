"""The server: a thread for every worker receives its gradients and sends it the model."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import numpy as np

from experiments.parameter_server.wire import Codec, receive, send

RATE = 0.01  # of the steps; small, so that stale gradients do no harm
STOP = -1  # the version by which workers learn that it is over
Record = tuple[int, int, int, float]  # worker, version at birth, step that used it, second


class Server:
    """The model, its version, and a record of every gradient that was applied.

    Args:
      codec: of the messages.
      size: entries of the model.
      steps: after which it is over.
    """

    def __init__(self, codec: Codec, size: int, steps: int) -> None:
        self.codec, self.steps = codec, steps
        self.model, self.version = np.zeros(size, np.float32), 0
        self.records: list[Record] = []
        self._moves: list[np.ndarray] = []  # of the step that is under way
        self._lock, self._start = threading.Lock(), 0.0

    def serve(self, connections: dict[int, socket.socket], synchronous: bool) -> None:
        """Applies gradients until it is over.

        Args:
          connections: from the number of each worker, 0, 1, ..., to its socket.
          synchronous: whether a step waits for a gradient of every worker; else each makes one.
        """
        meeting = threading.Barrier(len(connections), self._step)
        wait = meeting.wait if synchronous else None
        threads = [
            threading.Thread(target=self._talk, args=(worker, connection, wait))
            for worker, connection in connections.items()
        ]
        self._start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _talk(self, worker: int, connection: socket.socket, wait: Callable[[], int] | None) -> None:
        """Sends a worker the model, and takes its gradient, again and again."""
        count = 0
        version, model = self._read()
        while version != STOP:
            send(connection, version, model)
            born, data = receive(connection)
            second = time.perf_counter() - self._start
            gradient = self.codec.unpack(data, worker, count)
            count += 1
            with self._lock:
                if self.version < self.steps:
                    self.records.append((worker, born, self.version, second))
                    self._moves.append(np.float32(-RATE) * gradient)
                    if wait is None:
                        self._step()
            if wait is not None:
                wait()  # the last one to arrive takes the step
            version, model = self._read()
        send(connection, STOP)

    def _step(self) -> None:
        """Applies what has arrived since the last step; until then all workers see one version."""
        self.model = sum(self._moves, self.model)
        self._moves = []
        self.version += 1

    def _read(self) -> tuple[int, bytes]:
        with self._lock:
            over = self.version >= self.steps
            return (STOP, b'') if over else (self.version, self.model.tobytes())
