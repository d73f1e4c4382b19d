"""What each part of deep gradient compression does: `python -m experiments.dgc --help`.

A small convolutional network learns digits on four workers, which send one entry in a thousand.
Plain error feedback, with momentum behind the exchange, is the start. Deep gradient compression
accumulates momentum instead of gradients (correction), forgets the momentum of what was sent
(masking), clips each worker's gradient, and sends ever less in its first epochs (warm-up). Here one
part after the other is left out. All weights are one leaf, so that the largest thousandth of all
entries is sent. Every line has the best of six rates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import typer
from sklearn.datasets import load_digits

import gradzip as gz
from experiments import tables
from experiments.progress import saying

AXIS = 'data'
WORKERS, BATCH = 4, 32  # examples of a worker in a step
SENT = 0.001
MOMENTUM = 0.9
CLIP = 1.0
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SEEDS = 3
STEPS = 300
QUICK = ('exact mean', 'error feedback', 'dgc without warm-up')  # at one rate and seed
QUICK_STEPS = 60
TRAINING = 1408  # examples; the other 389 judge
EPOCH = TRAINING // (WORKERS * BATCH)
TARGET, SMOOTH = 0.1, 20  # the loss to reach, and the steps whose mean counts
WARM_UP = gz.Schedule(
    tuple(gz.TopK(f) for f in (0.25, 0.0625, 0.015625, 0.004, SENT)),
    tuple(EPOCH * i for i in (1, 2, 3, 4)),
)
Make = Callable[[Any], optax.GradientTransformation]


def _dgc(**options: Any) -> Make:
    """Deep gradient compression with a part changed, then SGD."""
    given = {'scheme': WARM_UP, 'momentum': MOMENTUM, 'clip': CLIP} | options
    scheme = given.pop('scheme')
    return lambda rate: optax.chain(gz.dgc(scheme, AXIS, **given), optax.sgd(rate))


def _behind(exchange: optax.GradientTransformation) -> Make:
    """An exchange, then SGD with momentum."""
    return lambda rate: optax.chain(exchange, optax.sgd(rate, momentum=MOMENTUM))


METHODS: dict[str, Make] = {
    'exact mean': _behind(gz.compress(gz.Identity(), AXIS)),
    'error feedback': _behind(gz.error_feedback(gz.TopK(SENT), AXIS)),
    'error feedback, warm-up': _behind(gz.error_feedback(WARM_UP, AXIS)),
    'dgc': _dgc(),
    'dgc, Nesterov': _dgc(nesterov=True),
    'dgc without masking': _dgc(masking=False),
    'dgc without clipping': _dgc(clip=None),
    'dgc without warm-up': _dgc(scheme=gz.TopK(SENT)),
    'dgc without momentum': _dgc(momentum=0.0),
}

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class Grid(NamedTuple):
    """What every method is run with."""

    rates: tuple[float, ...]
    seeds: int
    steps: int


class Run(NamedTuple):
    """A method at every rate and seed."""

    losses: np.ndarray  # f32[rates, seeds, steps]
    right: np.ndarray  # f32[rates, seeds], the share of the unseen digits


@app.command()
def main(
    quick: Annotated[
        bool, typer.Option('--quick', help='Three methods, one rate and seed, 60 steps.')
    ] = False,
    steps: Annotated[int, typer.Option(min=SMOOTH, help='Of each run.')] = STEPS,
    out: Annotated[Path, typer.Option(help='Folder for the table and a CSV file.')] = Path(
        'experiments/output/dgc'
    ),
) -> None:
    """Leaves out one part of deep gradient compression after the other."""
    out.mkdir(parents=True, exist_ok=True)
    console = tables.console()
    names = QUICK if quick else tuple(METHODS)
    grid = Grid((0.1,), 1, QUICK_STEPS) if quick else Grid(RATES, SEEDS, steps)
    runs = {}
    with saying(console) as say:
        for i, name in enumerate(names, 1):
            say(f'method {i} of {len(names)}: {name}')
            runs[name] = run(METHODS[name], grid)
    tables.write_csv(out / 'runs.csv', csv_rows(runs, grid))
    tables.show(console, out / 'dgc.txt', *report(runs, grid))
    console.print(f'Files in {out}.')


def network(key: jax.Array) -> dict[str, jax.Array]:
    """The weights of two convolutions and two layers: 39 thousand entries."""
    sizes = {'first': (9, 16), 'second': (144, 32), 'hidden': (512, 64), 'out': (64, 10)}
    keys = jax.random.split(key, len(sizes))
    return {
        name: jax.random.normal(k, size) * np.sqrt(2 / size[0])
        for k, (name, size) in zip(keys, sizes.items(), strict=True)
    } | {f'{name} bias': jnp.zeros(size[1]) for name, size in sizes.items()}


def scores(params: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """f32[examples, 10] of images f32[examples, 8, 8]."""

    def convolved(x: jax.Array, name: str, stride: int) -> jax.Array:
        # patches and a product: that stays fast where every run has weights of its own
        patches = jax.lax.conv_general_dilated_patches(
            x, (3, 3), (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        return jax.nn.relu(patches @ params[name] + params[f'{name} bias'])

    x = convolved(convolved(images[..., None], 'first', 1), 'second', 2)
    x = x.reshape(len(images), -1)
    x = jax.nn.relu(x @ params['hidden'] + params['hidden bias'])
    return x @ params['out'] + params['out bias']


def run(make: Make, grid: Grid) -> Run:
    """All rates and seeds of a method in one program."""
    images, digits = (jnp.asarray(a) for a in load_digits(return_X_y=True))
    images = (images / 16).reshape(-1, 8, 8).astype(jnp.float32)
    seen, judge = (images[:TRAINING], digits[:TRAINING]), (images[TRAINING:], digits[TRAINING:])

    def loss(params: Any, batch: Any) -> jax.Array:
        x, y = batch
        return optax.softmax_cross_entropy_with_integer_labels(scores(params, x), y).mean()

    def one(rate: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        tx = make(rate)
        params, unravel = jax.flatten_util.ravel_pytree(network(jax.random.key(seed)))
        specs = gz.state_specs(jax.eval_shape(tx.init, params), 0, None)

        def worker(params: Any, state: Any, batch: Any) -> tuple:
            value, grads = jax.value_and_grad(lambda w: loss(unravel(w), batch))(params)
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state, jax.lax.pmean(value, AXIS)

        mapped: Callable = jax.vmap(worker, (None, specs, 0), (None, specs, None), axis_name=AXIS)

        def step(carry: tuple, key: jax.Array) -> tuple:
            rows = jax.random.choice(key, TRAINING, (WORKERS, BATCH), replace=False)
            params, state, value = mapped(*carry, jax.tree.map(lambda a: a[rows], seen))
            return (params, state), value

        init = jax.vmap(lambda _: tx.init(params), out_axes=specs, axis_name=AXIS)
        keys = jax.random.split(jax.random.key(seed + 100), grid.steps)
        (params, _), losses = jax.lax.scan(step, (params, init(jnp.arange(WORKERS))), keys)
        return losses, jnp.mean(scores(unravel(params), judge[0]).argmax(1) == judge[1])

    rates, seeds = jnp.asarray(grid.rates), jnp.arange(grid.seeds)
    every = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    return Run(*(np.asarray(a) for a in every(rates, seeds)))


def steps_to_target(losses: np.ndarray) -> np.ndarray:
    """The steps until the mean of the last `SMOOTH` losses is at the target; infinity if never."""
    sums = np.cumsum(losses, axis=-1)
    sums[..., SMOOTH:] -= sums[..., :-SMOOTH].copy()
    reached = sums[..., SMOOTH - 1 :] / SMOOTH <= TARGET  # NaN is not
    return np.where(reached.any(-1), reached.argmax(-1) + SMOOTH, np.inf)


def best(runs: Run) -> int:
    """The number of the rate that takes the fewest steps to the target, in the mean over seeds."""
    return int(np.argmin(steps_to_target(runs.losses).mean(1)))


def csv_rows(runs: dict[str, Run], grid: Grid) -> list[dict[str, Any]]:
    """A row for every method, rate and seed."""
    return [
        {
            'method': name,
            'rate': rate,
            'seed': seed,
            'steps_to_target': f'{steps_to_target(run_.losses)[i, seed]:.0f}',
            'last_loss': float(run_.losses[i, seed, -SMOOTH:].mean()),
            'right': float(run_.right[i, seed]),
        }
        for name, run_ in runs.items()
        for i, rate in enumerate(grid.rates)
        for seed in range(grid.seeds)
    ]


def report(runs: dict[str, Run], grid: Grid) -> list[Any]:
    """A table, and what it says."""
    heads = ['method', 'best rate', 'steps', 'of the exact mean', 'unseen digits']
    steps = {name: steps_to_target(r.losses)[best(r)] for name, r in runs.items()}
    exact = steps['exact mean'].mean()
    rows = [
        [
            name,
            f'{grid.rates[best(r)]:g}',
            f'{steps[name].mean():.0f} ({steps[name].min():.0f} to {steps[name].max():.0f})',
            f'{steps[name].mean() / exact:.2f}',
            f'{100 * r.right[best(r)].mean():.1f} %',
        ]
        for name, r in runs.items()
    ]
    title = (
        f'Steps to a training loss of {TARGET:g}: digits, {WORKERS} workers, TopK({SENT:g}), '
        f'{grid.seeds} seeds (from the fastest to the slowest)'
    )
    caption = (
        f'The mean loss of {SMOOTH} steps counts. Each method has the best of the rates '
        f'{", ".join(f"{rate:g}" for rate in grid.rates)}; inf: not in {grid.steps} steps. The '
        f'share of unseen digits is that after {grid.steps} steps.'
    )
    parts: list[Any] = [tables.table(title, heads, rows, caption=caption)]
    if 'dgc' in runs:
        compared = [name for name in runs if name not in ('exact mean', 'dgc')]
        full = steps['dgc'].mean()
        ratios = ', '.join(f'{name} {steps[name].mean() / full:.2f}' for name in compared)
        parts.append(f'Steps, divided by those of dgc: {ratios}.')
    return parts


if __name__ == '__main__':
    app(prog_name='python -m experiments.dgc')
