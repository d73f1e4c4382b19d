"""How far theorems and runs are apart: iterations predicted over measured, for each theorem.

Eight workers hold sparse rows on a ring, each on 8 of 32 coordinates, which it shares with its two
neighbours. The minimiser lies along the slowest direction, where the theorems are nearest to the
truth. Every run takes the step with which its theorem reaches a thousandth of the start soonest
(`gradzip.theory.for_target`), from zero, through the chains of the library.

    least squares, exact      all workers have the same minimiser (G = 0)
    least squares, noisy      they do not
    logistic                  with an l2 term, which every worker applies to all coordinates

`python -m experiments.looseness` takes some minutes; `--quick` runs the first problem only, and
`--attained` the worst cases of `experiments.attained`, which are within the bars.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer

import gradzip as gz
from experiments import attained, tables
from experiments.attained import BARS, TARGET
from experiments.problems import Problem, loss
from experiments.simulate import AXIS, run_jobs, simulate
from gradzip import _empirical as empirical, theory

WORKERS, ROWS, WINDOW, SIZE = 8, 24, 8, 32
SEEDS = 24
MOST = 6000  # iterations of a run; the measured ones are far below the longest prediction
TAU = 6

Key = jax.Array
app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class Row(NamedTuple):
    """A theorem with what it takes, and the exchange that runs it."""

    about: str
    family: Callable[..., theory.Bound]
    problem: theory.Problem
    options: dict[str, Any]
    before: Callable[[Key], optax.GradientTransformation]
    random: bool = True
    shift: int = 0  # iterations in which nothing has arrived


class Found(NamedTuple):
    """What a theorem said, and what the run took."""

    problem: str
    row: Row
    theorem: str
    predicted: float
    measured: int | None
    exceeded: bool


@app.command()
def main(
    quick: Annotated[bool, typer.Option('--quick', help='The first problem, 8 seeds.')] = False,
    worst: Annotated[
        bool, typer.Option('--attained', help='Worst cases, which come near their bounds.')
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for the text and CSV files.')] = Path(
        'experiments/output/looseness'
    ),
) -> None:
    """Runs every theorem at the step for its target. Exit code 1 if a bound was exceeded."""
    console = tables.console()
    out.mkdir(parents=True, exist_ok=True)
    if worst:
        raise typer.Exit(int(attained.show(console, out)))
    chosen, seeds = (problems()[:1], 8) if quick else (problems(), SEEDS)
    jobs = []
    for problem in chosen:
        for row in rows(problem.constants):
            length = int(min(MOST, _bound(row).iterations(_eps(row)) + row.shift))
            title = f'{problem.name}, {row.about}'
            jobs.append((title, length, functools.partial(run, problem, row, length, seeds)))
    found = run_jobs(jobs, console)
    tables.write_csv(out / 'looseness.csv', map(csv_row, found))
    tables.show(console, out / 'looseness.txt', *report(found))
    if any(each.exceeded for each in found):
        raise typer.Exit(1)


def problems() -> list[Problem]:
    """The three problems, whose weights start at zero."""
    rng = np.random.default_rng(0)
    x = np.zeros((WORKERS, ROWS, SIZE))
    for i in range(WORKERS):
        x[i][:, np.arange(4 * i, 4 * i + WINDOW) % SIZE] = rng.normal(size=(ROWS, WINDOW))
    x *= 2 / np.linalg.norm(x, axis=2, keepdims=True)
    flat = x.reshape(-1, SIZE)
    slowest = np.linalg.eigh(flat.T @ flat)[1][:, 0]
    z = x @ (3 * slowest + 0.1 * rng.normal(size=SIZE))
    weight = np.full((WORKERS, ROWS), 1 / ROWS)
    labels = np.where(rng.random(z.shape) < 1 / (1 + np.exp(-3 * z)), 1.0, -1.0)
    noisy = z + 0.1 * rng.normal(size=z.shape)
    return [
        Problem('least squares, exact', empirical.Risk('least_squares', x, z, weight, 0.0)),
        Problem('least squares, noisy', empirical.Risk('least_squares', x, noisy, weight, 0.0)),
        Problem('logistic', empirical.Risk('logistic', x, labels, weight, 0.05)),
    ]


def rows(p: theory.Problem) -> Iterator[Row]:
    """Every theorem with a compressor or two."""
    sparse = p.sigma is not None and p.sigma < p.n  # a worker's gradient then has few entries
    whole, one = jax.ShapeDtypeStruct((SIZE,), jnp.float32), p.as_one()
    like = jax.ShapeDtypeStruct((WINDOW,), jnp.float32) if sparse else whole
    ternary, top = gz.Ternary('l2'), gz.TopK(0.25)
    few = gz.TopK(0.25 * WINDOW / SIZE) if sparse else top  # a quarter of a worker's entries
    qsgd = gz.QSGD(7, block=None, norm='l2')
    wide = float(ternary.omega(whole) or 0)
    for name, scheme in (('exact', gz.Identity()), ('ternary', ternary), ('QSGD', qsgd)):
        omega, noisy = scheme.omega(like), not isinstance(scheme, gz.Identity)
        alone = gz.Gather(scheme) if noisy else scheme
        after, late = _whole(scheme), _late(gz.Constant(TAU), alone)
        all_of_it = {'omega': scheme.omega(whole)}
        yield Row(f'gradient descent, {name}', theory.gd, one, all_of_it, after, noisy)
        yield Row(
            f'mini-batch of 2, {name}', theory.minibatch, p, {'omega': omega, 'batch': 2},
            functools.partial(_few, alone),
        )  # fmt: skip
        yield Row(f'distributed, {name}', theory.dcgd, p, {'omega': omega}, _exchange(alone), noisy)
        options = {'omega': omega, 'tau': TAU}
        yield Row(f'always {TAU} late, {name}', theory.stale, p, options, late, noisy, TAU)
        if noisy:
            uniform = _late(gz.Uniform(TAU), alone)
            yield Row(f'up to {TAU} late, {name}', theory.stale, p, options, uniform)
            turns = {**options, 'ordered': True}
            yield Row(f'Q-IAG, {name}', theory.q_iag, p, turns, _stored(scheme))
            yield Row(f'DIANA, {name}', theory.diana, p, {'omega': omega}, _diana(alone, omega))
    yield Row('shared mask, Bernoulli', theory.dcgd, p, {'omega': 3.0, 'shared': True},
              _exchange(gz.Bernoulli(0.25)))  # fmt: skip
    yield Row('smooth only, ternary', theory.gd, one, {'omega': wide, 'convex': False},
              _whole(ternary))  # fmt: skip
    yield Row('TopK without memory', theory.gd, one, {'delta': 0.25}, _whole(top), False)
    late = _late(gz.Constant(TAU), gz.Identity())
    yield Row(f'IAG, always {TAU} late', theory.iag, p, {'tau': TAU}, late, False, TAU)
    yield Row(
        'one node, late, ternary', theory.stale_gd, one, {'omega': wide, 'tau': TAU},
        lambda key: optax.chain(gz.delay(gz.Constant(TAU), AXIS), _whole(ternary)(key)),
        True, TAU,
    )  # fmt: skip
    for name, problem, of in (('one node', one, None), ('distributed', p, AXIS)):
        yield Row(
            f'error feedback, {name}', theory.ef14, problem, {'delta': 0.25},
            functools.partial(_memory, of, few if of else top), False,
        )  # fmt: skip
    first = gz.Schedule((gz.Identity(), few), (1,))
    yield Row('EF21', theory.ef21, p, {'delta': 0.25}, lambda key: gz.ef21(first, AXIS), False)


def _whole(scheme: gz.Compressor) -> Callable[[Key], optax.GradientTransformation]:
    mean = gz.compress(gz.Identity(), AXIS)
    return lambda key: optax.chain(mean, gz.compress(scheme, key=key))


def _exchange(scheme: Any) -> Callable[[Key], optax.GradientTransformation]:
    return lambda key: gz.compress(scheme, AXIS, key=key)


def _few(scheme: Any, key: Key) -> optax.GradientTransformation:
    who, what = jax.random.split(key)
    return optax.chain(gz.participate(2, AXIS, key=who), gz.compress(scheme, AXIS, key=what))


def _late(model: gz.Delay, scheme: Any) -> Callable[[Key], optax.GradientTransformation]:
    def before(key: Key) -> optax.GradientTransformation:
        when, what = jax.random.split(key)
        return optax.chain(gz.delay(model, AXIS, key=when), gz.compress(scheme, AXIS, key=what))

    return before


def _stored(scheme: gz.Compressor) -> Callable[[Key], optax.GradientTransformation]:
    return lambda key: gz.iag(scheme, AXIS, gz.Cyclic(TAU + 1), key=key)


def _diana(scheme: Any, omega: Any) -> Callable[[Key], optax.GradientTransformation]:
    return lambda key: gz.diana(scheme, AXIS, alpha=1 / (1 + omega), key=key)


def _memory(axis: str | None, top: gz.TopK, key: Key) -> optax.GradientTransformation:
    if axis is not None:
        return gz.error_feedback(top, axis)
    return optax.chain(gz.compress(gz.Identity(), AXIS), gz.error_feedback(top))


def _eps(row: Row) -> float:
    """The target, in the quantity of the theorem."""
    quantity = row.family(row.problem, **row.options).quantity
    return TARGET * row.problem.need('V0' if quantity == 'V' else 'F0', 'The table')


def _bound(row: Row) -> theory.Bound:
    return theory.for_target(row.family, row.problem, _eps(row), **row.options)


def run(
    problem: Problem, row: Row, length: int, seeds: int, advance: Callable[[int], Any]
) -> Found:
    """From zero; the average over the seeds of what the theorem bounds."""
    bound, eps = _bound(row), _eps(row)
    kind, x, y, weight, lam = problem.risk
    shards = tuple(jnp.asarray(a, jnp.float32) for a in (x, y, weight))
    optimum = jnp.asarray(problem.optimum, jnp.float32)
    least = empirical.value(problem.risk, problem.optimum)

    def record(w: jax.Array) -> jax.Array:
        if bound.quantity == 'V':
            return jnp.sum((w - optimum) ** 2)
        return jnp.mean(jax.vmap(lambda mine: loss(w, mine, kind, lam))(shards)) - least

    def make(key: Key) -> optax.GradientTransformation:
        return optax.chain(row.before(key), theory.scale_by_theory(bound))

    keys = jax.random.split(jax.random.key(0), seeds if row.random else 1)
    values = simulate(problem, make, keys, length, record, advance=advance).astype(np.float64)
    mean, count = values.mean(axis=1), values.shape[1]
    error = values.std(axis=1, ddof=1) / math.sqrt(count) if count > 1 else np.zeros(len(mean))
    limit = np.array([bound.at(max(0, k - row.shift)) for k in range(len(mean))])
    rounding = 1e-5 * limit + 1e-6 * abs(least)  # of float32
    exceeded = bool(np.any(~(mean - 3 * error <= limit + rounding)))
    reached = np.flatnonzero(mean <= eps)
    measured = int(reached[0]) if len(reached) else None
    name = bound.theorem.split(':')[0]
    return Found(problem.name, row, name, bound.iterations(eps) + row.shift, measured, exceeded)


def report(found: list[Found]) -> Iterator[Any]:
    """A table of all runs, and a sentence for each theorem."""
    heads = ('problem', 'run', 'theorem', 'predicted', 'measured', 'loose')
    cells = (
        (
            each.problem, each.row.about, each.theorem, f'{each.predicted:.0f}',
            '-' if each.measured is None else str(each.measured),
            'EXCEEDED' if each.exceeded else _loose(each),
        )
        for each in found
    )  # fmt: skip
    yield tables.table(
        f'Iterations until {TARGET:g} of the start', heads, cells, names=3,
        caption='at the step for this target; averages of seeds where something is random',
    )  # fmt: skip
    for name in dict.fromkeys(each.theorem for each in found):
        ratios = [r for each in found if each.theorem == name and (r := _ratio(each)) is not None]
        if ratios:
            bar = BARS.get(name[0])
            yield (
                f'{name}: predicted over measured {statistics.median(ratios):.2f} in the median of '
                f'{len(ratios)}, from {min(ratios):.2f} to {max(ratios):.2f}'
                + ('.' if bar is None else f' (bar {bar:g}).')
            )
    wrong = sum(each.exceeded for each in found)
    yield f'{wrong} of {len(found)} runs exceeded their bound.'


def _ratio(each: Found) -> float | None:
    return None if not each.measured else each.predicted / each.measured


def _loose(each: Found) -> str:
    ratio = _ratio(each)
    return '-' if ratio is None else f'{ratio:.3g}'


def csv_row(each: Found) -> dict[str, Any]:
    """What was predicted and measured."""
    return {
        'problem': each.problem,
        'run': each.row.about,
        'theorem': each.theorem,
        'predicted': each.predicted,
        'measured': each.measured,
        'exceeded': each.exceeded,
    }


if __name__ == '__main__':
    app(prog_name='python -m experiments.looseness')
