"""What the programs share: schemes by name, processes, checkpoints, and the picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import typer
from rich.progress import Progress

import gradzip as gz
from experiments import figures
from experiments.options import refuse

AXIS = 'data'
PORT = 47_771
RANK = 'GRADZIP_RANK'
# Small leaves, such as biases, travel as they are.
SCHEMES: dict[str, gz.types.Scheme] = {
    'exact': gz.Identity(),
    'topk': lambda p: gz.TopK(0.05) if p.size > 256 else gz.Identity(),
    'sparse_codes': lambda p: gz.TopK(0.05) >> gz.QSGD(7) if p.size > 256 else gz.Identity(),
    'qsgd': gz.QSGD(7),
    'powersgd': lambda p: gz.PowerSGD(4) if p.ndim == 2 else gz.Identity(),
}


def scheme(name: str) -> gz.types.Scheme:
    """The scheme of this name, or an exit that lists the names."""
    if name not in SCHEMES:
        raise refuse(ValueError(f'--scheme must be one of {", ".join(SCHEMES)}; got {name!r}.'))
    return SCHEMES[name]


def workers_mesh(workers: int, processes: int) -> jax.sharding.Mesh:
    """A mesh of so many CPU devices, or of accelerators where there are any.

    With two processes, the program starts itself a second time, and both meet over gloo.
    """
    if workers % processes:
        raise refuse(ValueError(f'--workers {workers} must be a multiple of --processes.'))
    jax.config.update('jax_num_cpu_devices', workers // processes)
    if processes > 1:
        rank = int(os.environ.get(RANK, 0))
        if rank == 0:
            for other in range(1, processes):
                subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]], env=os.environ | {RANK: str(other)}
                )
        jax.config.update('jax_cpu_collectives_implementation', 'gloo')
        jax.distributed.initialize(f'127.0.0.1:{PORT}', processes, rank)
    return jax.make_mesh((workers,), (AXIS,), devices=jax.devices()[:workers])


def train(
    training: Any,
    step: Callable[[Any, Any], tuple],
    batch: Callable[[int], Any],
    steps: int,
    checkpoint: Path | None,
    name: str,
    every: int = 50,
) -> tuple[Any, dict[int, float]]:
    """Steps from the last checkpoint, if there is one, to `steps`: the end, and losses by step.

    Orbax saves arrays and not what they are for, so the name of the scheme is saved beside them.
    """
    losses: dict[int, float] = {}
    manager = ocp.CheckpointManager(checkpoint.absolute()) if checkpoint else None
    start = manager.latest_step() if manager else None
    if manager and start is not None:
        saved = manager.restore(start, args=ocp.args.Composite(about=ocp.args.JsonRestore()))[
            'about'
        ]
        if saved['scheme'] != name:
            raise refuse(ValueError(f'{checkpoint} was trained with --scheme {saved["scheme"]}.'))
        like = ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, training))
        training = manager.restore(start, args=ocp.args.Composite(training=like))['training']
        losses = {int(i): value for i, value in saved['losses'].items()}
    with Progress(disable=jax.process_index() > 0) as progress:
        bar = progress.add_task('training', total=steps, completed=start or 0)
        for i in range(start or 0, steps):
            training, value, *_ = step(training, batch(i))
            losses[i] = float(value)  # waits for the step
            progress.update(bar, advance=1, description=f'loss {losses[i]:.3f}')
            if manager and ((i + 1) % every == 0 or i + 1 == steps):
                about = {'scheme': name, 'losses': losses}
                manager.save(
                    i + 1,
                    args=ocp.args.Composite(
                        training=ocp.args.StandardSave(training), about=ocp.args.JsonSave(about)
                    ),
                )
    if manager:
        manager.close()
    return training, losses


def picture(losses: dict[int, float], title: str, path: Path) -> None:
    """The loss curve as a figure, and its numbers beside it; only the first process writes."""
    if jax.process_index() > 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, panels = figures.panels(1, 1, (5.6, 3.8))
    panels[0, 0].plot(list(losses), list(losses.values()), color=figures.BLUE)
    panels[0, 0].set(title=title, xlabel='step', ylabel='loss')
    figures.save(figure, path)
    path.with_suffix('.json').write_text(json.dumps(losses))
    typer.echo(f'Loss {losses[min(losses)]:.3f} to {losses[max(losses)]:.3f}; picture in {path}.')
