"""Asynchronous or synchronous, by the clock: the least squares of Mishchenko et al.

40 workers draw batches of 256 of the same 10 000 rows of 400 entries. A server either waits for all
of them and adds up their gradients, or takes each gradient as it comes. The authors ran processes
on 48 cores. Here the seconds are drawn: a worker has a speed of its own, and every gradient takes
its own time. Delays therefore differ from theirs, and the step size of each method is tuned again,
as they did: it is the one that is soonest at the target. In their figure, over the number of
gradients, the asynchronous method is first, the delay-adaptive one close behind it and smoother,
and the synchronous one last.

Reference: Mishchenko, Bach, Even, Woodworth, arXiv 2206.07638, and the code that they published.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import gradzip as gz
from experiments import figures, tables
from gradzip import delay_rules

NAME = 'least_squares'
WORKERS, ROWS, SIZE, BATCH = 40, 10_000, 400, 256
NOISE = 1e-5
ROUNDS, QUICK_ROUNDS = 800, 40  # of the synchronous method; the others use as many gradients
RATES = tuple(0.08 * 2 ** (i / 3) for i in range(10))  # of one gradient; theirs: 0.19 and 0.43
SPREAD, NOISE_OF_TIME = 0.5, 0.5  # log-standard deviations of speeds and of single times
TARGET = 0.2  # of the first gap
METHODS = {  # in the order of the authors' figure, the best first
    'asynchronous': figures.ORANGE,
    'delay-adaptive': figures.BLUE,
    'synchronous': figures.GREY,
}


class Row(NamedTuple):
    """One method's run."""

    method: str
    rate: float  # the best of RATES
    seconds: np.ndarray
    gaps: np.ndarray  # F - F*, relative to the first
    longest: int  # delay, in steps


class Arrivals(NamedTuple):
    """The gradients in the order in which a server receives them."""

    seconds: np.ndarray
    ages: np.ndarray  # how many steps the server has taken since it was begun


def times(workers: int, seed: int = 0) -> Callable[[int], float]:
    """From a worker to the seconds that its next gradient takes."""
    rng = np.random.default_rng(seed)
    speeds = rng.lognormal(0, SPREAD, workers)
    return lambda worker: float(speeds[worker] * rng.lognormal(0, NOISE_OF_TIME))


def asynchronous(count: int, workers: int = WORKERS, seed: int = 0) -> Arrivals:
    """Every worker begins anew when the server has taken its gradient."""
    draw = times(workers, seed)
    waiting = [(draw(worker), worker, 0) for worker in range(workers)]
    heapq.heapify(waiting)
    seconds, ages = np.zeros(count), np.zeros(count, np.int32)
    for step in range(count):
        now, worker, born = heapq.heappop(waiting)
        seconds[step], ages[step] = now, step - born
        heapq.heappush(waiting, (now + draw(worker), worker, step + 1))
    return Arrivals(seconds, ages)


def rounds(count: int, workers: int = WORKERS, seed: int = 0) -> np.ndarray:
    """The second at which each round is complete, where the server waits for all."""
    draw = times(workers, seed)
    return np.cumsum([max(draw(worker) for worker in range(workers)) for _ in range(count)])


class Data(NamedTuple):
    """The rows, the labels, and the least loss."""

    rows: Any  # f32[rows, size]
    labels: Any
    least: float


def data() -> Data:
    """As the authors draw it."""
    rng = np.random.default_rng(42)
    rows = rng.uniform(size=(ROWS, SIZE)) / np.sqrt(SIZE)
    labels = rows @ rng.normal(size=SIZE) + NOISE * rng.normal(size=ROWS)
    best = np.linalg.lstsq(rows, labels, rcond=None)[0]
    least = float(np.mean((rows @ best - labels) ** 2))
    return Data(jnp.asarray(rows, jnp.float32), jnp.asarray(labels, jnp.float32), least)


def measure(quick: bool, report: Callable[[str], None]) -> list[Row]:
    """The three methods on as many gradients, each with its best step size."""
    given, count = data(), QUICK_ROUNDS if quick else ROUNDS
    arrivals = asynchronous(count * WORKERS)
    report('synchronous')
    found = [_best(given, 'synchronous', rounds(count), by_rounds(given, count), 0)]
    for method in ('delay-adaptive', 'asynchronous'):
        report(method)
        paths = by_events(given, arrivals.ages, method == 'delay-adaptive')
        seconds = arrivals.seconds[WORKERS - 1 :: WORKERS]
        found.append(_best(given, method, seconds, paths, int(arrivals.ages.max())))
    return found[::-1]


def _best(given: Data, method: str, seconds: np.ndarray, paths: Any, longest: int) -> Row:
    """The run with the step size that is soonest at the target, or lowest at the end."""
    rows = [
        Row(method, rate, seconds, _gaps(given, path), longest)
        for rate, path in zip(RATES, paths, strict=True)
    ]
    ends = [np.nan_to_num(row.gaps[-1], nan=np.inf) for row in rows]
    times = [seconds_to_target(row) for row in rows]
    order = [(np.inf if t is None else t, end) for t, end in zip(times, ends, strict=True)]
    return rows[min(range(len(rows)), key=lambda i: order[i])]


def _gradient(given: Data, x: Any, key: Any) -> Any:
    drawn = jax.random.randint(key, (BATCH,), 0, ROWS)
    rows = given.rows[drawn]
    return (rows @ x - given.labels[drawn]) @ rows / BATCH


def by_rounds(given: Data, count: int) -> Any:
    """The weights after every round for all rates: f32[rates, count, size]."""
    keys = jax.random.split(jax.random.key(0), count)

    def run(rate: Any) -> Any:
        def body(x: Any, key: Any) -> tuple[Any, Any]:
            total = sum(_gradient(given, x, each) for each in jax.random.split(key, WORKERS))
            return x - rate * total, x - rate * total

        return jax.lax.scan(body, jnp.zeros(SIZE, jnp.float32), keys)[1]

    return jax.jit(jax.vmap(run))(jnp.asarray(RATES, jnp.float32))


def by_events(given: Data, ages: np.ndarray, adaptive: bool) -> Any:
    """The weights after every WORKERS-th gradient: f32[rates, gradients / WORKERS, size]."""
    longest = int(ages.max())
    stale = gz.stale_params(longest)
    keys = jax.random.split(jax.random.key(0), len(ages)).reshape(-1, WORKERS)
    arrivals = jnp.asarray(ages).reshape(-1, WORKERS), keys

    def run(rate: Any) -> Any:
        tx = optax.scale(-rate)
        if adaptive:
            tx = optax.chain(gz.scale_by_delay(delay_rules.Concurrency(WORKERS), longest), tx)
        tx, x = optax.with_extra_args_support(tx), jnp.zeros(SIZE, jnp.float32)

        def event(carry: tuple, arrival: tuple) -> tuple[tuple, None]:
            (x, past, state), (age, key) = carry, arrival
            late, _ = stale.read(past, x, delay=age)
            updates, state = tx.update(_gradient(given, late, key), state, x, delay=age)
            return (optax.apply_updates(x, updates), stale.update(x, past), state), None

        def as_many_as_workers(carry: tuple, arrivals: tuple) -> tuple[tuple, Any]:
            carry, _ = jax.lax.scan(event, carry, arrivals)
            return carry, carry[0]

        start = x, stale.init(x), tx.init(x)
        return jax.lax.scan(as_many_as_workers, start, arrivals)[1]

    return jax.jit(jax.vmap(run))(jnp.asarray(RATES, jnp.float32))


def _gaps(given: Data, path: Any) -> np.ndarray:
    """F - F* after every round or as many gradients, relative to the first."""
    rest = np.asarray(given.rows, np.float64) @ np.asarray(path).T
    rest -= np.asarray(given.labels)[:, None]
    first = float(np.mean(np.asarray(given.labels) ** 2))
    return (np.mean(rest**2, axis=0) - given.least) / (first - given.least)


def round_of_target(row: Row) -> int | None:
    """The first round from which on the gap is below the target."""
    above = np.flatnonzero(~(row.gaps <= TARGET))
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(row.gaps) else None


def seconds_to_target(row: Row) -> float | None:
    """When that is."""
    first = round_of_target(row)
    return None if first is None else float(row.seconds[first])


def gradients_to_target(row: Row) -> int | None:
    """How many gradients have been computed by then."""
    first = round_of_target(row)
    return None if first is None else (first + 1) * WORKERS


def draw(rows: list[Row]) -> Figure:
    """The gaps over gradients, and over simulated seconds."""
    figure, panels = figures.panels(1, 2, (4.8, 3.8), sharey=True)
    for row in rows:
        gradients = WORKERS * np.arange(1, len(row.gaps) + 1)
        for panel, x in zip(panels[0], (gradients, row.seconds), strict=True):
            panel.plot(x, row.gaps, color=METHODS[row.method], label=row.method)
    for panel, label in zip(panels[0], ('number of gradients', 'simulated seconds'), strict=True):
        panel.axhline(TARGET, color='0.5', linestyle=figures.DOTTED, linewidth=1)
        panel.set(yscale='log', xlabel=label)
    panels[0, 0].set_ylabel('$F(x) - F^*$, relative')
    panels[0, 1].legend()
    figure.suptitle(f'Not to wait for the slowest of {WORKERS} workers saves gradients and time')
    return figure


def report(rows: list[Row]) -> list[Any]:
    """A table and what it says."""
    heads = ['step size', 'longest delay', f'gradients to {TARGET:g}', 'seconds', 'gap at the end']
    cells = []
    for row in rows:
        count, seconds = gradients_to_target(row), seconds_to_target(row)
        found = ['-', '-'] if count is None else [f'{count:,}', f'{seconds:,.0f}']
        cells.append(
            [row.method, f'{row.rate:.3g}', f'{row.longest}', *found, f'{row.gaps[-1]:.1e}']
        )
    title = f'Least squares, {WORKERS} workers, {rows[0].gaps.size * WORKERS:,} gradients each'
    return [
        tables.table(title, heads, cells),
        _order('number of gradients', {row.method: gradients_to_target(row) for row in rows}),
        _order('simulated seconds', {row.method: seconds_to_target(row) for row in rows}),
    ]


def _order(axis: str, found: dict[str, Any]) -> str:
    """In which order the methods reach the target, and whether it is that of the paper."""
    order = sorted(found, key=lambda method: (found[method] is None, found[method]))
    parts = [f'{m} at {found[m]:,.0f}' if found[m] is not None else f'{m} never' for m in order]
    says = f'{TARGET:g} is reached by {axis}: {", ".join(parts)}'
    if None in found.values():
        return f'{says}.'
    return f'{says}; {"the order" if order == list(METHODS) else "not the order"} of the paper.'
