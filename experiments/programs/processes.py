"""A program in several processes on this machine, which JAX connects over gloo.

They stand for the machines of a cluster. There, the cluster starts one process on each machine, and
all that remains of this file is `jax.distributed.initialize()`.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import jax
import typer

from experiments.options import refuse


def run(program: Callable, *args: Any, processes: int, devices: int) -> None:
    """Runs program(*args) here, or in several processes that share the devices.

    Devices are of the CPU, unless one process finds accelerators.

    If one of them fails, the others are ended, because they would wait for it.
    """
    if processes == 1:
        jax.config.update('jax_num_cpu_devices', devices)
        program(*args)
        return
    if devices % processes:
        raise refuse(
            ValueError(f'{devices} devices cannot be shared evenly by --processes {processes}.')
        )
    spawn = multiprocessing.get_context('spawn')  # a fork of a process with threads may hang
    port, share = _free_port(), devices // processes
    ranks = [
        spawn.Process(target=_rank, args=(rank, processes, port, share, program, args), daemon=True)
        for rank in range(processes)
    ]
    for rank in ranks:
        rank.start()
    try:
        codes = _codes(ranks)
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    if failed := [code for code in codes if code]:
        raise typer.Exit(failed[0])


def _rank(rank: int, processes: int, port: int, share: int, program: Callable, args: tuple) -> None:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', share)
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(f'127.0.0.1:{port}', processes, rank)
    try:
        program(*args)
    except BaseException as error:
        if not isinstance(error, typer.Exit):  # which has said already what was wrong
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # An exit like any other would wait until the other processes end too.
        os._exit(error.exit_code if isinstance(error, typer.Exit) else 1)


def _codes(ranks: list[Any]) -> list[int | None]:
    """Waits until all have ended, or one has failed; None for one that still runs."""
    running = list(ranks)
    while running and not any(rank.exitcode for rank in ranks):
        ended = wait([rank.sentinel for rank in running])
        running = [rank for rank in running if rank.sentinel not in ended]
        for rank in set(ranks) - set(running):
            rank.join()
    return [rank.exitcode for rank in ranks]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]
