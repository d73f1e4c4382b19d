"""Does the Hessian keep the errors of rounding from adding up?

One node has a quadratic of 20 entries and rounds what it sends to multiples of a number. The
condition number grows; L is always 1, and so is the largest error eps of a message. A run without a
memory stops where every entry of the gradient rounds to zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from experiments import figures
from experiments.paper.claim import Claim, Report, Settings
from gradzip import theory

NAME = 'hessian'
ABOUT = 'Error compensation by the Hessian'
SIZE, EPS, GAMMA = 20, 1.0, 0.5
CONDITIONS = (10.0, 100.0, 1000.0, 10_000.0)
QUICK = (10.0, 100.0)
HORIZON = 20.0  # steps, in units of 1 / (gamma mu): the start is forgotten then
TAIL = 0.1  # of the steps, in which the largest distance counts


class Rounding(gz.Compressor):
    """The nearest multiple of a step: no entry is off by more than half of it."""

    step = 2 * EPS / math.sqrt(SIZE)

    def encode(self, x: jax.Array, key: jax.Array) -> jax.Array:
        del key
        return jnp.round(x / self.step).astype(jnp.int32)

    def decode(self, payload: jax.Array, like: Any, key: jax.Array) -> jax.Array:
        del key
        return payload.astype(like.dtype) * jnp.asarray(self.step, like.dtype)

    def contractive(self, like: Any) -> Rounding:
        """A memory behind it is at most eps, so it needs no contraction."""
        del like
        return self


class Method(NamedTuple):
    """An exchange, what it takes in `update`, and what its bound takes."""

    make: Callable[[], optax.GradientTransformation]
    extra: Callable[[jax.Array], dict[str, Any]]  # from the Hessian
    options: Callable[[np.ndarray], dict[str, Any]]
    style: dict[str, Any]


def _corrected() -> optax.GradientTransformation:
    return gz.hessian_feedback(Rounding(), step_size=GAMMA)


def _off_diagonal(hessian: np.ndarray) -> float:
    return float(np.linalg.norm(hessian - np.diag(np.diag(hessian)), 2))


METHODS = {
    'no memory': Method(
        lambda: gz.compress(Rounding()), lambda h: {}, lambda h: {'memory': False},
        {'color': figures.GREY, 'marker': 's'},
    ),
    'error feedback': Method(
        lambda: gz.error_feedback(Rounding()), lambda h: {}, lambda h: {'hessian_error': None},
        {'color': figures.ORANGE, 'marker': '^'},
    ),
    'HAEC, diagonal': Method(
        _corrected, lambda h: {'hessian_diagonal': jnp.diag(h)},
        lambda h: {'hessian_error': _off_diagonal(h)}, {'color': figures.SKY, 'marker': 'v'},
    ),
    'HAEC': Method(
        _corrected, lambda h: {'value_fn': lambda x: x @ h @ x / 2}, lambda h: {},
        {'color': figures.BLUE, 'marker': 'o'},
    ),
}  # fmt: skip


def measure(settings: Settings, report: Report) -> Claim:
    """The distance at which every method stops, for every condition number."""
    conditions, rows = QUICK if settings.quick else CONDITIONS, []
    with jax.enable_x64(True):
        for condition in conditions:
            hessian = quadratic(condition)
            start = 4 * condition * EPS * np.linalg.eigh(hessian)[1][:, 0]
            problem = theory.Problem(n=1, L=1.0, mu=1 / condition, V0=float(start @ start))
            steps = int(HORIZON * condition / GAMMA)
            for name, method in METHODS.items():
                report(f'{name}, condition {condition:g}')
                options = method.options(hessian)
                bound = theory.haec(problem, EPS, step_size=GAMMA, **options)
                found = distances(method, hessian, start, steps)
                limit = [bound.at(k) for k in range(0, steps + 1, max(1, steps // 200))]
                exceeded = np.any(found[:: max(1, steps // 200)] > np.array(limit) * (1 + 1e-9))
                row = {'method': name, 'condition': condition, 'step_size': GAMMA, 'eps': EPS}
                row |= {'steps': steps, 'floor': float(found[-int(TAIL * steps) :].max())}
                rows.append(row | {'bound': bound.floor, 'exceeded': bool(exceeded)})
    return Claim(rows, draw(rows), says(rows))


def quadratic(condition: float) -> np.ndarray:
    """Curvatures from 1 / condition to 1 along random directions."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
    return basis * np.geomspace(1 / condition, 1, SIZE) @ basis.T


def distances(method: Method, hessian: np.ndarray, start: np.ndarray, steps: int) -> np.ndarray:
    """|x_k| for k = 0 .. steps."""
    h = jnp.asarray(hessian)
    tx = optax.with_extra_args_support(optax.chain(method.make(), optax.sgd(GAMMA)))

    @jax.jit
    def run(x: jax.Array) -> jax.Array:
        def body(carry: tuple, _: None) -> tuple:
            x, state = carry
            update, state = tx.update(h @ x, state, x, **method.extra(h))
            return (optax.apply_updates(x, update), state), jnp.linalg.norm(x)

        return jax.lax.scan(body, (x, tx.init(x)), length=steps + 1)[1]

    return np.asarray(run(jnp.asarray(start)))


def draw(rows: list[dict[str, Any]]) -> Any:
    """Measured floors and their bounds over the condition number."""
    figure, panels = figures.panels(1, 1, (6.0, 4.2))
    panel = panels[0, 0]
    for name, method in METHODS.items():
        own = [row for row in rows if row['method'] == name]
        x = [row['condition'] for row in own]
        panel.plot(x, [row['floor'] for row in own], **method.style)
        style = {'color': method.style['color'], 'linestyle': figures.DASHED, 'linewidth': 1}
        panel.plot(x, [row['bound'] for row in own], **style)
    figures.log_log(
        panel, xlabel='condition number $L / \\mu$', ylabel='distance to the minimiser, in eps',
        title=f'Rounding with errors up to eps, step {GAMMA:g} / L',
    )  # fmt: skip
    styles = [(name, method.style) for name, method in METHODS.items()]
    figures.legend(figure, [*styles, ('bound', {'color': '0.4', 'ls': figures.DASHED})], columns=3)
    return figure


def says(rows: list[dict[str, Any]]) -> str:
    """The floors at the smallest and the largest condition number, in units of gamma eps."""
    ends = rows[0]['condition'], rows[-1]['condition']
    parts = []
    for name in METHODS:
        low, high = (
            next(r['floor'] for r in rows if r['method'] == name and r['condition'] == end)
            for end in ends
        )
        parts.append(f'{name} from {low / (GAMMA * EPS):.3g} to {high / (GAMMA * EPS):,.3g}')
    wrong = [row['method'] for row in rows if row['exceeded']]
    end = f'Bounds were exceeded by {", ".join(wrong)}.' if wrong else 'No bound was exceeded.'
    return (
        f'From a condition number of {ends[0]:g} to {ends[1]:,.0f}, the distance at which a run '
        f'stops goes, in units of step times eps: {"; ".join(parts)}. {end}'
    )
