"""A process that compiles, so that a program that takes too long, or a crash, ends nothing else."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType

from experiments.accelerators.programs import Job, Measured, measure

Result = Measured | str  # what it costs, or why that is not known


class Compiler:
    """Compiles one job after the other in a process of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds  # after which a program is given up
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context('spawn')
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()

    def __call__(self, job: Job) -> Result:
        """What the program of a job costs."""
        self._here.send(job)
        try:
            if self._here.poll(self._seconds):
                return self._here.recv()
            reason = f'not compiled in {self._seconds:.0f} s'
        except EOFError:
            reason = 'the compiler crashed'
        self._stop()
        self._start()
        return reason

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._here.close()

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def _serve(pipe: Connection) -> None:
    import jax

    jax.config.update('jax_platforms', 'cpu')  # nothing runs on the chips that may be here
    while True:
        job = pipe.recv()
        try:
            pipe.send(measure(job))
        except Exception as error:
            pipe.send(f'{type(error).__name__}: {error}'.splitlines()[0][:200])
        jax.clear_caches()
