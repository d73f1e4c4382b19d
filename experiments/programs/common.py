"""What the programs share: schemes by name, the mesh, training with checkpoints, the picture."""

from __future__ import annotations

import json
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
# Small leaves, such as biases, are averaged exactly.
SCHEMES: dict[str, gz.types.Scheme] = {
    'exact': gz.Identity(),
    'topk': lambda p: gz.TopK(0.05) if p.size > 256 else gz.Identity(),
    'sparse_codes': lambda p: gz.TopK(0.05) >> gz.QSGD(7) if p.size > 256 else gz.Identity(),
    'qsgd': gz.QSGD(7),
    'powersgd': lambda p: gz.PowerSGD(4) if p.ndim == 2 else gz.Identity(),
}


def scheme(name: str) -> gz.types.Scheme:
    """Returns the scheme of this name, or ends the program with a list of the names."""
    if name not in SCHEMES:
        raise refuse(ValueError(f'--scheme must be one of {", ".join(SCHEMES)}; got {name!r}.'))
    return SCHEMES[name]


def mesh_of(workers: int, shards: int = 1) -> jax.sharding.Mesh:
    """Returns a mesh of CPU devices, or of accelerators where there are any.

    Its axes are the workers and, if each worker's model is sharded, the shards.
    """
    devices = jax.devices()[: workers * shards]
    if shards == 1:
        return jax.make_mesh((workers,), (AXIS,), devices=devices)
    return jax.make_mesh((workers, shards), (AXIS, 'model'), devices=devices)


def train(
    training: Any,
    step: Callable[[Any, Any], tuple],
    batch: Callable[[int], Any],
    steps: int,
    checkpoint: Path | None,
    name: str,
    every: int = 50,
) -> tuple[Any, dict[int, float]]:
    """Trains from the last checkpoint, if there is one, and returns the end and the losses by step.

    Orbax saves arrays, and not the scheme that they belong to, so its name is saved beside them. Of
    several processes, all train and save their part, and the first one shows the bar.
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
    """Draws the loss curve, and writes its numbers to a file beside the figure, in one process."""
    if jax.process_index() > 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, panels = figures.panels(1, 1, (5.6, 3.8))
    panels[0, 0].plot(list(losses), list(losses.values()), color=figures.BLUE)
    panels[0, 0].set(title=title, xlabel='step', ylabel='loss')
    figures.save(figure, path)
    path.with_suffix('.json').write_text(json.dumps(losses))
    typer.echo(f'Loss {losses[min(losses)]:.3f} to {losses[max(losses)]:.3f}; picture in {path}.')
