"""Should workers draw the same mask or masks of their own?

Eight workers send a quarter of their entries. With the same mask for all, the mean of the messages
is the message of the mean: it vanishes at the minimiser, also where the workers' gradients do not.
With masks of their own, the noise is averaged over the workers, so that longer steps are safe.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments import figures
from experiments.paper.claim import Claim, Report, Settings, first, shown, some_of
from experiments.staleness.problem import AXIS, SIZE, Quadratics, quadratics, run
from gradzip import theory

NAME = 'masks'
ABOUT = 'Shared against independent masks'
FRACTION, SEEDS, STEPS = 0.25, 8, 3000
QUICK_SEEDS, QUICK_STEPS = 2, 200
TARGET = 1e-6  # of the first squared distance
SPREAD = 0.1  # of the workers' minimisers, in units of those of `experiments.staleness`
AIM = 1e-2  # the target of the steps, which noise lets both theorems reach
SCHEMES = {
    'a shared mask': (gz.Sum(gz.RandK(FRACTION)), {'shared': True}, figures.BLUE),
    'masks of their own': (gz.Gather(gz.RandK(FRACTION)), {}, figures.ORANGE),
}


def problems() -> dict[str, Quadratics]:
    """Workers with different minimisers, and with a common one."""
    far = quadratics()
    linear = np.einsum('ijk,k->ij', far.curvature, far.optimum)
    near = linear + SPREAD * (far.linear - linear)  # the minimiser of the mean is the same
    constants = far.constants
    G = SPREAD**2 * constants.need('G', 'The claim')
    apart = far._replace(linear=near, constants=dataclasses.replace(constants, G=G))
    together = dataclasses.replace(constants, G=0.0)
    return {
        'different minimisers': apart,
        'a common minimiser': far._replace(linear=linear, constants=together),
    }


def measure(settings: Settings, report: Report) -> Claim:
    """Both schemes on both problems, each at the step with which its theorem is soonest at AIM."""
    seeds, steps = (QUICK_SEEDS, QUICK_STEPS) if settings.quick else (SEEDS, STEPS)
    like = jax.ShapeDtypeStruct((SIZE,), jnp.float64)
    rows, curves = [], {}
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), seeds)
        chosen = list(problems().items())[: 1 if settings.quick else None]
        for name, problem in chosen:
            for scheme, (reducer, options, _) in SCHEMES.items():
                report(f'{name}, {scheme}')
                omega = reducer.compressor.omega(like)
                eps = AIM * problem.constants.need('V0', 'The claim')
                bound = theory.for_target(theory.dcgd, problem.constants, eps, omega, **options)

                def make(key: Any, reducer: Any = reducer, step: float = bound.step_size) -> Any:
                    return optax.chain(gz.compress(reducer, AXIS, key=key), optax.sgd(step))

                found = run(problem, make, keys, steps, lambda x: jnp.sum(x * x)).mean(axis=0)
                curve = found / found[0]
                curves[name, scheme] = curve
                rows.append(
                    {
                        'problem': name, 'masks': scheme, 'step_size': bound.step_size,
                        'iterations': first(curve, TARGET), 'last': float(curve[-1]),
                        'floor': float(curve[-len(curve) // 4 :].mean()),
                        'bound_floor': bound.floor / found[0],
                    }
                )  # fmt: skip
    return Claim(rows, draw(curves), says(rows))


def draw(curves: dict[tuple[str, str], np.ndarray]) -> Any:
    """The squared distance over iterations."""
    names = list(dict.fromkeys(name for name, _ in curves))
    figure, panels = figures.panels(1, len(names), (4.6, 3.4), sharey=True)
    for panel, name in zip(panels[0], names, strict=True):
        for (problem, scheme), curve in curves.items():
            if problem == name:
                k = some_of(curve)
                panel.plot(k + 1, np.maximum(curve[k], 1e-12), color=SCHEMES[scheme][2])
        panel.set(xscale='log', yscale='log', xlabel='iteration', title=name, ylim=(1e-10, 3))
        panel.axhline(TARGET, color='0.5', linestyle=figures.DOTTED, linewidth=1)
    panels[0, 0].set_ylabel('$E|x_k - x^*|^2$, relative')
    figures.legend(figure, [(name, {'color': c}) for name, (_, _, c) in SCHEMES.items()])
    return figure


def says(rows: list[dict[str, Any]]) -> str:
    """Where each stops, or when it arrives."""
    parts = []
    for name in dict.fromkeys(row['problem'] for row in rows):
        own = []
        for row in (row for row in rows if row['problem'] == name):
            if row['iterations'] is None:
                own.append(f'with {row["masks"]} the run stays at {row["floor"]:.1e} of the start')
            else:
                count = shown(row['iterations'])
                own.append(f'with {row["masks"]} {TARGET:g} is reached after {count} iterations')
        parts.append(f'{name}: {", ".join(own)}')
    return f'RandK with {FRACTION:.0%} of the entries, {"; ".join(parts)}.'
