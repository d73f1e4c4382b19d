"""What do blocks of coordinates and single workers save?

Logistic regression on eight workers. A step uses the whole gradient, a random fifth of its
coordinates, the gradient of one random worker, or a fifth of that. Steps are those of the theorems:
for the same block on all workers, A6 with the smoothness of each block, and otherwise those with
which B1 and C1 reach the target soonest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments import data, figures
from experiments.paper.claim import Claim, Report, Settings, first, gaps, shown, some_of
from experiments.problems import CURVATURE, Problem, split
from experiments.simulate import AXIS, message_bits
from gradzip import theory

NAME = 'blocks'
ABOUT = 'Block-coordinate and incremental variants'
DATA, WORKERS, REGULARISATION = ('breast_cancer',), 8, 0.05
FRACTION = 0.2
TARGET = 1e-2  # of the first gap; of the squared distance for the theorems
SEEDS, STEPS = 8, 6000
QUICK_SEEDS, QUICK_STEPS = 2, 60
BLOCK = gz.RandBlock(FRACTION)


class Variant(NamedTuple):
    """An exchange without its step, who sends, and the step of its theorem."""

    before: Callable[[jax.Array], optax.GradientTransformation]
    messages: int
    compressor: gz.Compressor
    bound: Callable[[Problem], theory.Bound]
    color: str


def _few(scheme: Any) -> Callable[[jax.Array], optax.GradientTransformation]:
    def before(key: jax.Array) -> optax.GradientTransformation:
        who, what = jax.random.split(key)
        return optax.chain(gz.participate(1, AXIS, key=who), gz.compress(scheme, AXIS, key=what))

    return before


def _blocks_of(problem: Problem) -> list[float]:
    """The smoothness of F on every block."""
    _, x, _, weight, lam = problem.risk
    rows = np.sqrt(CURVATURE[problem.risk.kind] * weight / problem.workers)[..., None] * x
    flat = rows.reshape(-1, problem.features)
    length = -(-problem.features // round(1 / FRACTION))
    starts = range(0, problem.features, length)
    return [float(np.linalg.norm(flat[:, s : s + length], 2) ** 2 + lam) for s in starts]


def _same_block(problem: Problem) -> theory.Bound:
    smoothness = _blocks_of(problem)
    even = [1 / len(smoothness)] * len(smoothness)
    return theory.random_block(problem.constants.as_one(), smoothness, even)


def _target(family: Callable[..., theory.Bound], *args: Any) -> Callable[[Problem], theory.Bound]:
    def bound(problem: Problem) -> theory.Bound:
        eps = TARGET * problem.constants.need('V0', 'The claim')
        return theory.for_target(family, problem.constants, eps, *args)

    return bound


OMEGA = 1 / FRACTION - 1
VARIANTS = {
    'whole gradients': Variant(
        lambda key: gz.compress(gz.Identity(), AXIS), WORKERS, gz.Identity(),
        _target(theory.dcgd, 0.0), figures.GREY,
    ),
    'the same block': Variant(
        lambda key: gz.compress(BLOCK, AXIS, key=key), WORKERS, BLOCK, _same_block, figures.BLUE
    ),
    'blocks of their own': Variant(
        lambda key: gz.compress(gz.Gather(BLOCK), AXIS, key=key), WORKERS, BLOCK,
        _target(theory.dcgd, OMEGA), figures.SKY,
    ),
    'one worker': Variant(
        _few(gz.Identity()), 1, gz.Identity(), _target(theory.minibatch, 0.0, 1), figures.ORANGE
    ),
    'one worker, one block': Variant(
        _few(gz.Gather(BLOCK)), 1, BLOCK, _target(theory.minibatch, OMEGA, 1), figures.VERMILION
    ),
}  # fmt: skip


def measure(settings: Settings, report: Report) -> Claim:
    """Runs every variant."""
    seeds, steps = (QUICK_SEEDS, QUICK_STEPS) if settings.quick else (SEEDS, STEPS)
    rows, curves = [], {}
    for name in settings.data or DATA:
        problem = split(data.load(name), WORKERS, 0, REGULARISATION)
        like = jax.ShapeDtypeStruct((problem.features,), jnp.float32)
        for variant, its in VARIANTS.items():
            report(f'{problem.name}, {variant}')
            bound = its.bound(problem)

            def make(key: jax.Array, its: Variant = its, bound: theory.Bound = bound) -> Any:
                return optax.chain(its.before(key), theory.scale_by_theory(bound))

            curve = gaps(problem, make, steps, seeds=seeds).mean(axis=1)
            bits = message_bits(its.compressor, like) * its.messages
            curves[problem.name, variant] = curve, bits
            end = first(curve, TARGET)
            rows.append(
                {
                    'data': problem.name, 'variant': variant, 'step_size': bound.step_size,
                    'theorem': bound.theorem.split(':')[0], 'bits_per_iteration': bits,
                    'iterations': end, 'bits': None if end is None else end * bits,
                }
            )  # fmt: skip
    return Claim(rows, draw(curves), says(rows))


def draw(curves: dict[tuple[str, str], tuple[np.ndarray, int]]) -> Any:
    """The gap over iterations and bits."""
    names = list(dict.fromkeys(name for name, _ in curves))
    figure, panels = figures.panels(len(names), 2, (4.6, 3.4), sharey=True)
    for line, name in zip(panels, names, strict=True):
        for (data_set, variant), (curve, bits) in curves.items():
            if data_set == name:
                k, color = some_of(curve), VARIANTS[variant].color
                k = k[curve[k] > TARGET / 10]
                line[0].plot(k + 1, curve[k], color=color)
                line[1].plot((k + 1) * bits / 1e3, curve[k], color=color)
        figures.log_log(line[0], xlabel='iteration', ylabel='gap, relative', title=name)
        figures.log_log(line[1], xlabel='kbit sent by all workers', title=name)
        for panel in line:
            panel.axhline(TARGET, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    styles = [(name, {'color': its.color}) for name, its in VARIANTS.items()]
    figures.legend(figure, styles, columns=3)
    return figure


def says(rows: list[dict[str, Any]]) -> str:
    """Iterations and bits of each."""
    parts = []
    for name in dict.fromkeys(row['data'] for row in rows):
        own = [
            f'{row["variant"]} {shown(row["iterations"])}'
            + ('' if row['bits'] is None else f' ({row["bits"] / 1e3:,.0f} kbit)')
            for row in rows
            if row['data'] == name
        ]
        parts.append(f'{name}, iterations to {TARGET:g} of the gap: {", ".join(own)}')
    bits = [row['bits'] for row in rows if row['bits'] is not None]
    counts = [max(1, row['iterations']) for row in rows if row['iterations'] is not None]
    more = ''
    if bits:
        more = (
            f' Iterations differ by {max(counts) / min(counts):.2g} times, bits by '
            f'{max(bits) / min(bits):.2g} times.'
        )
    return f'{"; ".join(parts)}.{more}'
