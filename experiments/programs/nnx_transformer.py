"""An NNX transformer that learns the characters of Python's manual, by many workers.

What a program with plain optax changes, beside the imports (4 lines):

    tx = optax.adam(3e-3)
    -> tx = optax.chain(gz.error_feedback(scheme, 'data', key=0), optax.adam(3e-3))
    state = tx.init(params); a jitted step with grad, update and apply_updates
    -> training, step = gz.data_parallel(loss, params, tx, mesh, 'data')
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import optax
import typer

import gradzip as gz
from experiments.models import Model, Size, text
from experiments.programs.common import AXIS, SCHEMES, picture, scheme, train, workers_mesh

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    workers: Annotated[int, typer.Option(min=1, help='Devices that share a batch.')] = 4,
    scheme_name: Annotated[str, typer.Option('--scheme', help=', '.join(SCHEMES))] = 'topk',
    steps: Annotated[int, typer.Option(min=1, help='In all, with those before a resume.')] = 200,
    layers: Annotated[int, typer.Option(min=1)] = 2,
    width: Annotated[int, typer.Option(min=8, help='A multiple of 4.')] = 64,
    examples: Annotated[int, typer.Option(min=1, help='Of each worker in a step.')] = 8,
    checkpoint: Annotated[Path | None, typer.Option(help='Saves there, and resumes.')] = None,
    out: Annotated[Path, typer.Option(help='Of the picture.')] = Path(
        'experiments/output/programs/nnx_transformer.png'
    ),
) -> None:
    """Trains a small transformer."""
    chosen = scheme(scheme_name)
    mesh = workers_mesh(workers)
    size = Size(layers, width, heads=4, context=32)
    model = Model(size)  # nnx.split into structure and params; its loss merges them again
    tx = optax.chain(gz.error_feedback(chosen, AXIS, key=0), optax.adam(3e-3))
    training, step = gz.data_parallel(model.loss, model.params, tx, mesh, AXIS)
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
