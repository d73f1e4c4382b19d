"""Ten workers with different quadratics, in float64: `python -m experiments.quadratics`.

    f_i(x) = (1/2) x' A_i x - b_i' x,   F = mean of f_i

The minimisers of the f_i lie far apart, so that a worker's gradient does not vanish at the minimum
of F. A compressor without a memory then loses the same share of it in every step, and error
feedback at a constant step size keeps an error in proportion to the step. EF21, DIANA and MARINA
compress differences that vanish, so they must reach the minimum exactly. Every step size is a
theorem's, but for EControl, for which there is none here: it takes that of EF21.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from matplotlib.figure import Figure

import gradzip as gz
from experiments import figures, tables
from experiments.simulate import message_bits
from gradzip import theory

AXIS = 'worker'
WORKERS, SIZE, SENT = 10, 50, 0.1  # entries: five of fifty are sent
STEPS = 20_000
SMALLEST, LARGEST = 1.0, 10.0  # eigenvalues of an A_i, before its own scale
EXACT, ZERO = 1e-24, 1e-34  # the target, and what is drawn for 0


class Quadratics(NamedTuple):
    """The losses of all workers, in float64."""

    curvature: np.ndarray  # f64[workers, n, n]
    linear: np.ndarray  # f64[workers, n]
    optimum: np.ndarray  # f64[n]
    constants: theory.Problem


class Method(NamedTuple):
    """One line of the figure."""

    title: str
    tx: optax.GradientTransformation
    step_size: float
    bits: float  # of a worker's message, in the mean
    style: dict[str, Any]


app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    steps: Annotated[int, typer.Option(min=10, help='Of each run.')] = STEPS,
    out: Annotated[Path, typer.Option(help='Folder for text, CSV and figure.')] = Path(
        'experiments/output/quadratics'
    ),
) -> None:
    """Runs every memory on ten different quadratics, at the step sizes of the theorems."""
    out.mkdir(parents=True, exist_ok=True)
    console = tables.console()
    problem, curves = quadratics(), {}
    rows = list(methods(problem.constants))
    with jax.enable_x64(True):
        for method in rows:
            with console.status(method.title):
                curves[method.title] = distances(problem, method, steps)
    figures.save(draw(rows, curves), out / 'quadratics.png')
    tables.write_csv(out / 'runs.csv', csv_rows(rows, curves))
    tables.show(console, out / 'quadratics.txt', *report(rows, curves))
    console.print(f'Files in {out}.')


def quadratics(seed: int = 0) -> Quadratics:
    """Random ones, whose curvatures, scales and minimisers differ."""
    rng = np.random.default_rng(seed)
    curvature, linear = np.zeros((WORKERS, SIZE, SIZE)), np.zeros((WORKERS, SIZE))
    for i in range(WORKERS):
        basis = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
        eigenvalues = rng.uniform(0.5, 2) * np.geomspace(SMALLEST, LARGEST, SIZE)
        curvature[i] = basis * eigenvalues @ basis.T
        linear[i] = curvature[i] @ rng.normal(size=SIZE)  # at its own minimiser
    mean = curvature.mean(0)
    optimum = np.linalg.solve(mean, linear.mean(0))
    ends = np.linalg.eigvalsh(mean)
    each = np.array([np.linalg.eigvalsh(a)[-1] for a in curvature])
    gradients = np.einsum('ijk,k->ij', curvature, optimum) - linear
    constants = theory.Problem(
        n=WORKERS, L=ends[-1], mu=ends[0], L_max=each.max(), L_mean=each.mean(),
        L_rms=np.sqrt(np.mean(each**2)), G=np.sum(gradients**2), V0=np.sum(optimum**2),
    )  # fmt: skip
    return Quadratics(curvature, linear, optimum, constants)


def methods(problem: theory.Problem) -> Iterator[Method]:
    """Every method with its theorem's step size."""
    like = jax.ShapeDtypeStruct((SIZE,), jnp.float64)
    top, rand = gz.TopK(SENT), gz.Gather(gz.RandK(SENT))  # RandK with independent draws
    delta, omega = SENT, 1 / SENT - 1
    whole, few, random = (message_bits(s, like) for s in (gz.Identity(), top, rand))
    ef21 = theory.ef21(problem, delta).step_size

    def method(title: str, tx: Any, step: float, bits: float, color: str, **style: Any) -> Method:
        return Method(title, tx, step, bits, {'color': color, **style})

    dashed = {'linestyle': figures.DASHED}
    yield method('exact', gz.compress(gz.Identity(), AXIS), 1 / problem.L, whole, figures.GREY)
    yield method(
        'TopK, no memory', gz.compress(top, AXIS), 1 / problem.L, few, figures.WINE, **dashed
    )
    step = theory.dcgd(problem, omega).step_size
    tx = gz.compress(rand, AXIS, key=0)
    yield method('RandK, no memory', tx, step, random, figures.PINK, **dashed)
    step = theory.ef14(problem, delta).step_size
    yield method('error feedback', gz.error_feedback(top, AXIS), step, few, figures.ORANGE)
    yield method('EF21', gz.ef21(top, AXIS), ef21, few, figures.BLUE)
    econtrol = gz.econtrol(top, AXIS, eta=delta)
    yield method('EControl', econtrol, ef21, few, figures.SKY)
    step = theory.diana(problem, omega).step_size
    yield method('DIANA', gz.diana(rand, AXIS, key=0), step, random, figures.GREEN)
    p = 1 / (1 + omega)
    step = theory.marina(problem, omega, probability=p).step_size
    bits = p * whole + (1 - p) * random
    yield method('MARINA', gz.marina(rand, AXIS, key=0), step, bits, figures.VERMILION)


def distances(problem: Quadratics, method: Method, steps: int) -> np.ndarray:
    """|x_k - x*|^2 for k = 0 .. steps, from x_0 = 0: f64[steps + 1]."""
    tx = optax.with_extra_args_support(optax.chain(method.tx, optax.sgd(method.step_size)))
    x = jnp.zeros(SIZE)
    optimum, *own = (jnp.asarray(a) for a in (problem.optimum, problem.curvature, problem.linear))
    specs = gz.state_specs(jax.eval_shape(tx.init, x), 0, None)

    def worker(x: Any, last: Any, state: Any, curvature: Any, linear: Any) -> tuple[Any, Any]:
        new, old = curvature @ x - linear, curvature @ last - linear
        updates, state = tx.update(new, state, x, previous_grads=old)
        return optax.apply_updates(x, updates), state

    step: Callable = jax.vmap(worker, (None, None, specs, 0, 0), (None, specs), axis_name=AXIS)
    init = jax.vmap(lambda _: tx.init(x), out_axes=specs, axis_name=AXIS)

    @jax.jit
    def run(own: list[Any]) -> Any:
        def body(carry: tuple, _: None) -> tuple:
            x, last, state = carry
            moved, state = step(x, last, state, *own)
            return (moved, x, state), jnp.sum((x - optimum) ** 2)

        return jax.lax.scan(body, (x, x, init(jnp.arange(WORKERS))), length=steps + 1)[1]

    return np.asarray(run(own))


def level(curve: np.ndarray) -> float:
    """The distance at the end, averaged over a tenth of the steps: noise makes it jump."""
    return float(np.mean(curve[-max(1, len(curve) // 10) :]))


def draw(rows: list[Method], curves: dict[str, np.ndarray]) -> Figure:
    """The distances over steps, and over what a worker has sent."""
    figure, panels = figures.panels(1, 2, (5.6, 3.8), sharey=True)
    for method in rows:
        curve = np.maximum(curves[method.title], ZERO)
        messages = np.arange(1, len(curve) + 1)
        panels[0, 0].plot(messages, curve, **method.style)
        panels[0, 1].plot(messages * method.bits / 8e6, curve, **method.style)
    panels[0, 0].set(yscale='log', xscale='log', ylabel='$|x_k - x^*|^2$', xlabel='step')
    panels[0, 1].set(xscale='log', xlabel='megabytes that a worker has sent')
    for panel in panels[0]:
        panel.axhline(EXACT, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    figures.legend(figure, [(m.title, m.style) for m in rows], columns=4)
    return figure


def csv_rows(rows: list[Method], curves: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """A row for each of about two hundred steps of each run."""
    for method in rows:
        curve = curves[method.title]
        for k in np.unique(np.geomspace(1, len(curve), 200).astype(int)) - 1:
            yield {'method': method.title, 'step': int(k), 'distance': float(curve[k])}


def reached(curve: np.ndarray) -> int | None:
    """The first step at which the distance is below the target."""
    below = np.flatnonzero(curve < EXACT)
    return int(below[0]) if len(below) else None


def report(rows: list[Method], curves: dict[str, np.ndarray]) -> list[Any]:
    """A table, and what it says."""
    heads = ['method', 'step size', f'steps to {EXACT:g}', 'kbit a worker', 'distance at the end']
    lines = []
    for method in rows:
        curve = curves[method.title]
        first = reached(curve)
        lines.append(
            [
                method.title,
                f'{method.step_size:.4g}',
                '-' if first is None else f'{first:,}',
                '-' if first is None else f'{first * method.bits / 1e3:,.0f}',
                f'{level(curve):.1e}',
            ]
        )
    steps = len(next(iter(curves.values()))) - 1
    exact = [m.title for m in rows if level(curves[m.title]) < EXACT]
    rest = [f'{m.title} at {level(curves[m.title]):.1e}' for m in rows if m.title not in exact]
    says = (
        f'After {steps:,} steps these are below {EXACT:g}: {", ".join(exact) or "none"}. '
        f'The others stay above it: {", ".join(rest) or "none"}.'
    )
    title = f'{WORKERS} quadratics of {SIZE} entries, {SENT * SIZE:g} entries sent, float64'
    return [tables.table(title, heads, lines), says]


if __name__ == '__main__':
    app(prog_name='python -m experiments.quadratics')
