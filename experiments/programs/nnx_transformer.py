"""An NNX transformer that learns the characters of Python's manual, by many workers.

What a program with plain optax changes, beside the imports (4 lines):

    tx = optax.adam(3e-3)
    -> tx = optax.chain(gz.error_feedback(scheme, 'data', key=0), optax.adam(3e-3))
    state = tx.init(params); a jitted step with grad, update and apply_updates
    -> training, step = gz.data_parallel(loss, params, tx, mesh, 'data')

With `--model-parallel 4`, the heads and the hidden units of every worker's model are shared out
over four devices. Each of them compresses its own shards and exchanges them with the same shards of
the other workers. The call then says how params lie on the mesh, `specs=`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import optax
import typer

import gradzip as gz
from experiments.models import Model, Size, text
from experiments.options import refuse
from experiments.programs import processes
from experiments.programs.common import AXIS, SCHEMES, mesh_of, picture, scheme, train

HEADS = 4

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    workers: Annotated[int, typer.Option(min=1, help='That share a batch.')] = 4,
    scheme_name: Annotated[str, typer.Option('--scheme', help=', '.join(SCHEMES))] = 'topk',
    steps: Annotated[int, typer.Option(min=1, help='In all, with those before a resume.')] = 200,
    layers: Annotated[int, typer.Option(min=1)] = 2,
    width: Annotated[int, typer.Option(min=8, help='A multiple of 4.')] = 64,
    examples: Annotated[int, typer.Option(min=1, help='Of each worker in a step.')] = 8,
    shards: Annotated[
        int, typer.Option('--model-parallel', min=1, help='Devices of each worker: 1, 2 or 4.')
    ] = 1,
    count: Annotated[
        int, typer.Option('--processes', min=1, help='That share the devices evenly, on CPU.')
    ] = 1,
    checkpoint: Annotated[Path | None, typer.Option(help='Saves there, and resumes.')] = None,
    out: Annotated[Path, typer.Option(help='Of the picture.')] = Path(
        'experiments/output/programs/nnx_transformer.png'
    ),
) -> None:
    """Trains a small transformer."""
    scheme(scheme_name)
    if HEADS % shards:
        raise refuse(ValueError(f'--model-parallel must divide the {HEADS} heads; got {shards}.'))
    size = Size(layers, width, HEADS, context=32)
    args = workers, shards, scheme_name, steps, size, examples, checkpoint, out
    processes.run(run, *args, processes=count, devices=workers * shards)


def run(
    workers: int,
    shards: int,
    scheme_name: str,
    steps: int,
    size: Size,
    examples: int,
    checkpoint: Path | None,
    out: Path,
) -> None:
    """Trains in one process, or in each of several."""
    mesh = mesh_of(workers, shards)
    model = Model(size, sharded=shards > 1)  # nnx.split into structure and params
    tx = optax.chain(gz.error_feedback(scheme(scheme_name), AXIS, key=0), optax.adam(3e-3))
    training, step = gz.data_parallel(
        model.loss, model.params, tx, mesh, AXIS, specs=model.specs if shards > 1 else None
    )
    _, losses = train(
        training,
        step,
        lambda i: text().batch(examples * workers, size, seed=i),
        steps,
        checkpoint,
        scheme_name,
    )
    picture(losses, f'transformer, {workers} workers, {scheme_name}', out)


if __name__ == '__main__':
    app(prog_name='python -m experiments.programs.nnx_transformer')
