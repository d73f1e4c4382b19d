"""Step times of every scheme on every link."""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from experiments.network.links import Link, Network, network

PORT = 47_770
BUDGET_SECONDS = 4.0  # for the steps of one scheme on one link in one round
MOST_STEPS = 7
WARM_UP = 2  # steps: the first touches fresh memory, the second fills the pipe
PATIENCE_SECONDS = 600  # for one answer: several steps of the exact mean at 10 Mbit/s


class Row(NamedTuple):
    """One scheme on one link."""

    workers: int
    link: Link
    scheme: str
    bytes: int  # handed to the collectives by a worker in a step
    seconds: list[float]  # of steps, all rounds together; the slowest worker's

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)


class WorkerDied(RuntimeError):
    """A worker ended, or did not answer in time."""


class Workers:
    """Processes on the machines of a network, which do what they are told together."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen] = []
        self.logs: list[IO[str]] = []

    def start(self, made: Network, rows: int) -> None:
        """One on every machine; returns when all have met."""
        count = len(made.names)
        address = f'{made.addresses[0]}:{PORT}'
        for rank in range(count):
            self.logs.append(tempfile.TemporaryFile('w+'))  # noqa: SIM115 - closed with the rest
            program = [sys.executable, '-m', 'experiments.network.worker']
            self.processes.append(
                made.start(
                    rank,
                    [*program, str(rank), str(count), address, str(rows)],
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
def workers_on(made: Network, rows: int) -> Iterator[Workers]:
    """Workers that are ended in any case."""
    started = Workers()
    try:
        started.start(made, rows)
        yield started
    finally:
        started.stop()


def measure(
    workers: int, rows: int, links: list[Link], schemes: list[str], rounds: int, say: Any = print
) -> Generator[Row, None, None]:
    """Every scheme on every link, the rounds interleaved: the machine's other work moves too."""
    with ExitStack() as stack:
        stack.enter_context(_terminable())
        made = stack.enter_context(network(workers))
        links = _possible(made, links, say)
        started = stack.enter_context(workers_on(made, rows))
        sizes = {scheme: started.ask(scheme=scheme)[0]['bytes'] for scheme in schemes}
        for link in links:
            made.limit(link)
            seconds: dict[str, list[float]] = {scheme: [] for scheme in schemes}
            for _ in range(rounds):
                for scheme in schemes:
                    seconds[scheme] += _steps(started, scheme)
            yield from (Row(workers, link, s, sizes[s], seconds[s]) for s in schemes)


def _steps(started: Workers, scheme: str) -> list[float]:
    """As many steps as the budget allows, the slowest worker's time of each."""
    warm = _slowest(started.ask(scheme=scheme, steps=1))
    if warm[0] > BUDGET_SECONDS:
        return warm  # so slow a link that the first step's page faults do not show
    started.ask(scheme=scheme, steps=WARM_UP - 1)
    steps = max(1, min(MOST_STEPS, int(BUDGET_SECONDS / warm[0])))
    return _slowest(started.ask(scheme=scheme, steps=steps))


def _slowest(answers: list[dict]) -> list[float]:
    return [max(times) for times in zip(*(a['seconds'] for a in answers), strict=True)]


def _possible(made: Network, links: list[Link], say: Any) -> list[Link]:
    reason = made.can_delay() if any(link.delay for link in links) else None
    if reason is None:
        return links
    say(f'This kernel cannot delay packets, so only links without delay are measured. {reason}')
    return [link for link in links if not link.delay]


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that the network is removed."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
