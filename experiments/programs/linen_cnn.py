"""A Linen CNN with batch normalisation and dropout on scikit-learn's digits, by many workers.

What a program with plain optax changes, beside the imports (4 lines):

    tx = optax.adam(2e-3)
    -> tx = optax.chain(gz.error_feedback(scheme, 'data', key=0), optax.adam(2e-3))
    state = tx.init(params); a jitted step with grad, update and apply_updates
    -> training, step = gz.data_parallel(
           loss, params, tx, mesh, 'data', aux=statistics, key=1)

The loss takes `aux` and `key`: the running statistics, averaged over the workers after each step,
and a key of its own for each worker and step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from flax import linen as nn
from sklearn.datasets import load_digits

import gradzip as gz
from experiments.programs import processes
from experiments.programs.common import AXIS, SCHEMES, mesh_of, picture, scheme, train

HELD_OUT = 297  # of 1797 images

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class CNN(nn.Module):
    """Images f32[batch, 8, 8, 1] to logits f32[batch, 10]."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for channels in (16, 32):
            x = nn.Conv(channels, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(nn.Dropout(0.3, deterministic=not train)(x))


def loss(params: Any, batch: tuple, *, aux: Any, key: jax.Array) -> tuple:
    """Cross-entropy, the new statistics, and the accuracy as a metric."""
    images, digits = batch
    out: Any = CNN().apply(
        {'params': params, 'batch_stats': aux},
        images,
        train=True,
        rngs={'dropout': key},
        mutable=['batch_stats'],
    )
    logits, new = out
    value = optax.softmax_cross_entropy_with_integer_labels(logits, digits).mean()
    return value, new['batch_stats'], {'accuracy': jnp.mean(jnp.argmax(logits, -1) == digits)}


@app.command()
def main(
    workers: Annotated[int, typer.Option(min=1, help='That share a batch.')] = 4,
    scheme_name: Annotated[str, typer.Option('--scheme', help=', '.join(SCHEMES))] = 'topk',
    steps: Annotated[int, typer.Option(min=1, help='In all, with those before a resume.')] = 200,
    examples: Annotated[int, typer.Option(min=1, help='Of each worker in a step.')] = 16,
    count: Annotated[
        int, typer.Option('--processes', min=1, help='That share the devices evenly, on CPU.')
    ] = 1,
    checkpoint: Annotated[Path | None, typer.Option(help='Saves there, and resumes.')] = None,
    out: Annotated[Path, typer.Option(help='Of the picture.')] = Path(
        'experiments/output/programs/linen_cnn.png'
    ),
) -> None:
    """Trains a small CNN, and prints its accuracy on digits that it has not seen."""
    scheme(scheme_name)
    args = workers, scheme_name, steps, examples, checkpoint, out
    processes.run(run, *args, processes=count, devices=workers)


def run(
    workers: int, scheme_name: str, steps: int, examples: int, checkpoint: Path | None, out: Path
) -> None:
    """Trains in one process, or in each of several."""
    mesh = mesh_of(workers)
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
    digits = np.asarray(labels, np.int32)

    def batch(i: int) -> tuple:
        rows = np.random.default_rng(i).integers(len(images) - HELD_OUT, size=examples * workers)
        return images[rows], digits[rows]

    start = CNN().init(jax.random.key(0), images[:1], train=False)
    tx = optax.chain(gz.error_feedback(scheme(scheme_name), AXIS, key=0), optax.adam(2e-3))
    training, step = gz.data_parallel(
        loss, start['params'], tx, mesh, AXIS, aux=start['batch_stats'], key=1
    )
    training, losses = train(training, step, batch, steps, checkpoint, scheme_name)
    params, statistics = jax.device_get((training.params, training.aux))
    variables = {'params': params, 'batch_stats': statistics}
    logits: Any = CNN().apply(variables, images[-HELD_OUT:], train=False)
    accuracy = np.mean(np.argmax(logits, -1) == digits[-HELD_OUT:])
    picture(losses, f'CNN, {workers} workers, {scheme_name}: {accuracy:.1%} of unseen digits', out)


if __name__ == '__main__':
    app(prog_name='python -m experiments.programs.linen_cnn')
