"""Processes on the machines of a network, which do what they are told together."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from experiments.network.links import Network, network

PORT = 47_770
PATIENCE_SECONDS = 7200  # for one answer: a training over 10 Mbit/s; a dead worker shows at once


class WorkerDied(RuntimeError):
    """A worker ended, or did not answer in time."""


class Workers:
    """One process on every machine, of a module that answers a line of JSON by another."""

    def __init__(self, made: Network, module: str) -> None:
        self.network, self.module = made, module
        self.processes: list[subprocess.Popen] = []
        self.logs: list[IO[str]] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.network.names)

    def start(self, workload: dict) -> None:
        """Starts them; returns when all have met."""
        address = f'{self.network.addresses[0]}:{PORT}'
        for rank in range(self.count):
            self.logs.append(tempfile.TemporaryFile('w+'))  # noqa: SIM115 - closed with the rest
            program = [sys.executable, '-m', self.module]
            self.processes.append(
                self.network.start(
                    rank,
                    [*program, str(rank), str(self.count), address, json.dumps(workload)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self.logs[-1],
                    cwd=Path(__file__).parents[2],
                    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
                    start_new_session=True,  # Ctrl-C is the parent's affair
                )
            )
        self._answers()

    def ask(self, **words: Any) -> list[dict]:
        """The answers of all workers to one command."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f'{json.dumps(words)}\n'.encode())
            process.stdin.flush()
        return self._answers()

    def _answers(self) -> list[dict]:
        return [self._answer(rank) for rank in range(len(self.processes))]

    def _answer(self, rank: int) -> dict:
        out = self.processes[rank].stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], PATIENCE_SECONDS)
        line = out.readline() if ready else b''
        if not line:
            self.logs[rank].seek(0)
            tail = self.logs[rank].read()[-2000:]
            raise WorkerDied(f'Worker {rank} gave no answer. Its last words:\n{tail}')
        return json.loads(line)

    def stop(self) -> None:
        """Ends all of them."""
        for process, log in zip(self.processes, self.logs, strict=True):
            process.kill()
            process.wait()
            log.close()


@contextmanager
def workers_on(
    made: Network, workload: dict, module: str = 'experiments.network.worker'
) -> Iterator[Workers]:
    """Workers that are ended in any case."""
    started = Workers(made, module)
    try:
        started.start(workload)
        yield started
    finally:
        started.stop()


@contextmanager
def terminable_network(workers: int) -> Iterator[Network]:
    """A network that is removed also after SIGTERM, which unwinds like Ctrl-C."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with network(workers) as made:
            yield made
    finally:
        signal.signal(signal.SIGTERM, before)
