"""Training that changes its number of workers: `python -m experiments.resize --help`.

Workers come and go on shared machines. Each has a memory of what it has not sent yet, and a run
that goes on with fewer or more of them must not lose it. `gradzip.resize` shares the memories out
anew and keeps their mean; a run that starts them from zero loses what they held.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import typer
from matplotlib.figure import Figure

import gradzip as gz
from experiments import figures, tables
from experiments.models import Model, Size, text

AXIS = 'data'
SIZE = Size(layers=2, width=64, heads=4, context=32)
BATCH = 24  # windows of the text in a step, which 8, 6 and 4 workers can share evenly
RATE = 3e-3
RUNS = {  # the workers of each third of the steps
    '8 workers throughout': (8, 8, 8),
    'from 8 to 4 to 6, memories resized': (8, 4, 6),
    'from 8 to 4 to 6, memories from zero': (8, 4, 6),
}
RESIZED = list(RUNS)[1]
FRESH = list(RUNS)[2]
STYLES: dict[str, dict[str, Any]] = dict(
    zip(
        RUNS,
        (
            {'color': figures.GREY, 'linewidth': 2.5},
            {'color': figures.BLUE},
            {'color': figures.VERMILION, 'linestyle': figures.DASHED},
        ),
        strict=True,
    )
)

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    steps: Annotated[int, typer.Option(min=30, help='Of each run.')] = 240,
    fraction: Annotated[float, typer.Option(help='That TopK sends.')] = 0.01,
    out: Annotated[Path, typer.Option(help='Folder for text, CSV and figure.')] = Path(
        'experiments/output/resize'
    ),
) -> None:
    """Trains a transformer on 8 workers, then on 4, then on 6, through Orbax checkpoints."""
    jax.config.update('jax_num_cpu_devices', 8)
    out.mkdir(parents=True, exist_ok=True)
    console = tables.console()
    model = Model(SIZE)
    unseen = text().unseen(256, SIZE)
    judge = jax.jit(model.loss)
    doors = {workers: front_door(model, workers, fraction) for workers in (8, 6, 4)}
    curves, ends = {}, {}
    for name, workers in RUNS.items():
        with console.status(name):
            curves[name], params = run(doors, workers, steps, name != FRESH)
            ends[name] = float(judge(params, unseen))
    rows = [
        {'run': name, 'step': step, 'loss': value}
        for name, curve in curves.items()
        for step, value in enumerate(curve)
    ]
    tables.write_csv(out / 'curves.csv', rows)
    figures.save(draw(curves, fraction), out / 'resize.png')
    tables.show(console, out / 'resize.txt', *report(curves, ends, model.entries))
    console.print(f'Files in {out}.')


def front_door(model: Model, workers: int, fraction: float) -> tuple[Any, Any]:
    """A new training by so many workers, and its step, which all runs share."""
    mesh = jax.make_mesh((workers,), (AXIS,), devices=jax.devices()[:workers])
    tx = optax.chain(gz.error_feedback(gz.TopK(fraction), AXIS), optax.adam(RATE))
    return gz.data_parallel(model.loss, model.params, tx, mesh, AXIS, donate=False, printer=None)


def run(
    doors: dict[int, tuple[Any, Any]], workers: tuple[int, ...], steps: int, keep: bool
) -> tuple[np.ndarray, Any]:
    """The loss of every step, and the parameters at the end; a checkpoint ends every part.

    Args:
      doors: a new training and its step for every number of workers.
      workers: how many there are in each part of the run.
      steps: of all parts together.
      keep: whether a part begins with the memories of the part before, or with zeros.
    """
    losses = []
    training, _ = doors[workers[0]]
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
        ends = np.linspace(0, steps, len(workers) + 1).astype(int)
        for part, (first, last) in enumerate(pairwise(ends)):
            fresh, step = doors[workers[part]]
            if part:
                training = resumed(checkpointer, Path(folder) / str(part), fresh, workers[part - 1])
                if not keep:
                    training = training._replace(state=(fresh.state[0], training.state[1]))
            for i in range(first, last):
                training, value = step(training, text().batch(BATCH, SIZE, seed=i))
                losses.append(float(value))
            checkpointer.save(Path(folder) / str(part + 1), training)
            checkpointer.wait_until_finished()
    return np.array(losses), jax.device_get(training.params)


def resumed(checkpointer: Any, path: Path, fresh: Any, before: int) -> Any:
    """The training at `path`, saved by `before` workers, for the workers of a new training."""
    workers = fresh.state[0].error.worker.size
    saved = checkpointer.restore(path, gz.resize(fresh, before))
    return jax.device_put(gz.resize(saved, workers), jax.tree.map(lambda x: x.sharding, fresh))


def smooth(curve: np.ndarray, over: int = 10) -> np.ndarray:
    """Means over that many steps, at the last of them."""
    return np.convolve(curve, np.full(over, 1 / over), 'valid')


def draw(curves: dict[str, np.ndarray], fraction: float) -> Figure:
    """The losses, and how far each run is from the one that did not change."""
    figure, panels = figures.panels(1, 2, (5.6, 3.8))
    base = smooth(curves[next(iter(RUNS))])
    steps = len(curves[next(iter(RUNS))])
    x = np.arange(steps - len(base), steps)
    for name, curve in curves.items():
        panels[0, 0].plot(x, smooth(curve), **STYLES[name])
        panels[0, 1].plot(x, smooth(curve) - base, **STYLES[name])
    panels[0, 0].set(title=f'TopK({fraction:g}) with a memory, Adam', ylabel='loss, nats')
    panels[0, 1].set(title='minus the run of 8 workers', ylabel='difference, nats')
    for panel in panels[0]:
        panel.set(xlabel='step')
        for part in (1, 2):
            panel.axvline(part * steps / 3, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    figures.legend(figure, list(STYLES.items()), columns=3)
    return figure


def report(curves: dict[str, np.ndarray], ends: dict[str, float], entries: int) -> list[Any]:
    """A table, and what it says."""
    base, *_ = curves.values()
    steps = len(base)
    after = slice(steps // 3, steps // 3 + 20)  # the steps after the first change
    heads = ['run', 'last 20 steps', 'unseen text', '20 steps after 8 to 4', 'largest gap']
    gaps = {name: float(np.max(np.abs(smooth(c) - smooth(base)))) for name, c in curves.items()}
    rows = [
        [
            name,
            f'{np.mean(curve[-20:]):.4f}',
            f'{ends[name]:.4f}',
            f'{np.mean(curve[after]):.4f}',
            f'{gaps[name]:.4f}',
        ]
        for name, curve in curves.items()
    ]
    title = f'Loss in nats a character, {entries:,} parameters, {steps} steps'
    says = (
        f'With resized memories the loss, averaged over 10 steps, stays within '
        f'{gaps[RESIZED]:.3f} nats of the run that kept its 8 workers; with memories from zero it '
        f'departs by up to {gaps[FRESH]:.3f}.'
    )
    return [tables.table(title, heads, rows), says]


if __name__ == '__main__':
    app(prog_name='python -m experiments.resize')
