"""A thousand simulated workers against NumPy: `python -m experiments.thousand_workers`.

Every worker has one row of a logistic regression, a gradient up to 16 steps late, and a memory for
what its compressor loses. The same algorithm is run in three forms: the chain of gradzip under
`jax.vmap` and `jax.lax.scan`, NumPy with arrays of all workers, and NumPy with a loop over the
workers. The three take turns, so that a busy machine slows all of them down. Ratios are medians
over the turns. The memory is what the compiler reports for the program.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer

import gradzip as gz
from experiments import options, tables

AXIS = 'worker'
BOUND = 16  # steps: the longest delay
FRACTION = 0.01  # of the entries that TopK and RandK keep
RATE = 0.5
SECONDS = 0.4  # of work in one turn of one form, about
TURNS = 5
SIZES = {'1000 x 100': (1000, 100), '1000 x 10000': (1000, 10_000), '10000 x 1000': (10_000, 1000)}
LOOPED_UP_TO = 1_000_000  # entries of all workers; the loop over workers is not run above
BARS = {'1000 x 100': 5.0, '1000 x 10000': 8.0}  # of Ternary, against all workers at once in NumPy
LOOP_BAR = 50.0
TEMPORARIES_BAR = 4.0  # arrays of workers x entries


class Scheme(NamedTuple):
    """A compressor, and what it does to one array of all workers in NumPy."""

    compressor: gz.Compressor | gz.Reducer
    sent: Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Form(NamedTuple):
    """A way to run the algorithm: a function that takes so many steps, and returns the weights."""

    title: str
    run: Callable[[int], Any]


class Measured(NamedTuple):
    """What was measured for one scheme and one size."""

    size: str
    scheme: str
    rates: dict[str, float]  # steps a second
    ratios: dict[str, float]  # of the rate of gradzip to that of the form
    state: float  # arrays of workers x entries
    temporaries: float


def ternary(v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """norm sign(v) Bernoulli(|v| / norm), times the factor that brings it nearest to v."""
    norm = np.sqrt(np.einsum('wd,wd->w', v, v))[:, None]
    drawn = rng.random(v.shape, dtype=np.float32) * norm < np.abs(v)
    sent = np.sign(v) * drawn
    energy = np.einsum('wd,wd->w', sent, sent)
    scale = np.einsum('wd,wd->w', v, sent) / np.where(energy == 0, 1, energy)
    return scale[:, None] * sent


def top_k(v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The entries of largest magnitude."""
    del rng
    k = max(1, round(FRACTION * v.shape[1]))
    return _only(v, np.argpartition(np.abs(v), -k, axis=1)[:, -k:])


def rand_k(v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Entries drawn by each worker without replacement, not rescaled, as a memory needs them."""
    k = max(1, round(FRACTION * v.shape[1]))
    drawn = rng.random(v.shape, dtype=np.float32)
    return _only(v, np.argpartition(drawn, k - 1, axis=1)[:, :k])


def _only(v: np.ndarray, indices: np.ndarray) -> np.ndarray:
    sent = np.zeros_like(v)
    np.put_along_axis(sent, indices, np.take_along_axis(v, indices, 1), 1)
    return sent


SCHEMES = {
    'Ternary': Scheme(gz.Ternary('l2'), ternary),
    'TopK': Scheme(gz.TopK(FRACTION), top_k),
    'RandK': Scheme(gz.Gather(gz.RandK(FRACTION)), rand_k),
}

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    sizes: Annotated[str, typer.Option(help='With commas, of workers x entries.')] = ','.join(
        SIZES
    ),
    schemes: Annotated[str, typer.Option(help='With commas.')] = ','.join(SCHEMES),
    quick: Annotated[bool, typer.Option('--quick', help='The smallest size, two turns.')] = False,
    out: Annotated[Path, typer.Option(help='Folder for text and CSV.')] = Path(
        'experiments/output/thousand_workers'
    ),
) -> None:
    """Compares the simulator with NumPy: steps a second, and memory."""
    try:
        chosen = options.some_of('--sizes', sizes, list(SIZES))
        names = options.some_of('--schemes', schemes, list(SCHEMES))
    except ValueError as error:
        raise options.refuse(error) from None
    chosen = chosen[:1] if quick else chosen
    out.mkdir(parents=True, exist_ok=True)
    console, rows = tables.console(), []
    for size in chosen:
        for name in names:
            with console.status(f'{name}, {size}'):
                rows.append(measure(size, name, 2 if quick else TURNS))
            console.print(sentence(rows[-1]))
    tables.write_csv(out / 'thousand_workers.csv', csv_rows(rows))
    tables.show(console, out / 'thousand_workers.txt', *report(rows))
    console.print(f'Files in {out}.')


def rows_of(workers: int, d: int) -> np.ndarray:
    """One row for each worker, multiplied by its label: f32[workers, d]."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(workers, d)).astype(np.float32) / np.float32(np.sqrt(d))
    return np.sign(x @ rng.normal(size=d).astype(np.float32))[:, None] * x


def gradzip_form(x: np.ndarray, scheme: Scheme) -> tuple[Form, float, float]:
    """The chain, and how many arrays of the size of x its state and its temporaries take."""
    workers, d = x.shape
    tx = optax.chain(
        gz.delay(gz.Uniform(BOUND), AXIS, key=0),
        gz.error_feedback(scheme.compressor, AXIS, key=1),
        optax.sgd(RATE),
    )
    w = jnp.zeros(d)
    specs = gz.state_specs(jax.eval_shape(tx.init, w), 0, None)

    def worker(w: Any, state: Any, row: Any) -> tuple[Any, Any]:
        gradient = jax.grad(lambda w: jax.nn.softplus(-row @ w))(w)
        updates, state = tx.update(gradient, state, w)
        return optax.apply_updates(w, updates), state

    def steps(count: int) -> Callable:
        step: Callable = jax.vmap(worker, (None, specs, 0), (None, specs), axis_name=AXIS)

        def run(carry: Any, x: Any) -> Any:
            return jax.lax.scan(lambda carry, _: (step(*carry, x), None), carry, length=count)[0]

        return jax.jit(run, donate_argnums=0)

    init = jax.vmap(lambda _: tx.init(w), out_axes=specs, axis_name=AXIS, axis_size=workers)
    carry = (w, jax.jit(init)(jnp.arange(workers)))
    data, programs = jnp.asarray(x), {}

    def compiled(count: int) -> Any:
        if count not in programs:
            programs[count] = steps(count).lower(carry, data).compile()
        return programs[count]

    def run(count: int) -> Any:
        nonlocal carry
        carry = jax.block_until_ready(compiled(count)(carry, data))
        return np.asarray(carry[0])

    state = sum(leaf.nbytes for leaf in jax.tree.leaves(carry[1]) if leaf.size >= x.size)
    temporaries = compiled(2).memory_analysis().temp_size_in_bytes
    return Form('gradzip', run), state / x.nbytes, temporaries / x.nbytes


def at_once(x: np.ndarray, scheme: Scheme) -> Form:
    """NumPy with arrays of all workers."""
    workers, d = x.shape
    rng = np.random.default_rng(1)
    ring, error = np.zeros((BOUND, workers, d), np.float32), np.zeros((workers, d), np.float32)
    w, count = np.zeros(d, np.float32), 0

    def step() -> None:
        nonlocal count, error, w
        gradient = (-1 / (1 + np.exp(x @ w)))[:, None] * x
        ages = np.minimum(rng.integers(0, BOUND + 1, workers), count)
        late = ring[(count - ages) % BOUND, np.arange(workers)]
        late[ages == 0] = gradient[ages == 0]
        ring[count % BOUND] = gradient
        target = late + error
        sent = scheme.sent(target, rng)
        error = target - sent
        w = w - np.float32(RATE) * sent.mean(0)
        count += 1

    return Form('NumPy, all workers at once', _repeated(step, lambda: w))


def one_by_one(x: np.ndarray, scheme: Scheme) -> Form:
    """NumPy with a loop over the workers."""
    workers, d = x.shape
    rng = np.random.default_rng(1)
    rings = [np.zeros((BOUND, d), np.float32) for _ in range(workers)]
    errors = [np.zeros(d, np.float32) for _ in range(workers)]
    w, count = np.zeros(d, np.float32), 0

    def step() -> None:
        nonlocal count, w
        total = np.zeros(d, np.float32)
        for i in range(workers):
            gradient = (-1 / (1 + np.exp(x[i] @ w))) * x[i]
            age = min(rng.integers(0, BOUND + 1), count)
            late = gradient if age == 0 else rings[i][(count - age) % BOUND].copy()
            rings[i][count % BOUND] = gradient
            target = late + errors[i]
            sent = scheme.sent(target[None], rng)[0]
            errors[i] = target - sent
            total += sent
        w = w - np.float32(RATE / workers) * total
        count += 1

    return Form('NumPy, a loop over workers', _repeated(step, lambda: w))


def _repeated(step: Callable[[], None], weights: Callable[[], np.ndarray]) -> Callable[[int], Any]:
    def run(count: int) -> np.ndarray:
        for _ in range(count):
            step()
        return weights()

    return run


def measure(size: str, name: str, turns: int) -> Measured:
    """Lets all forms take turns."""
    workers, d = SIZES[size]
    x, scheme = rows_of(workers, d), SCHEMES[name]
    chain, state, temporaries = gradzip_form(x, scheme)
    forms = [chain, at_once(x, scheme)]
    if x.size <= LOOPED_UP_TO:
        forms.append(one_by_one(x, scheme))
    counts = {form.title: _fitting(form) for form in forms}
    rates: dict[str, list[float]] = {form.title: [] for form in forms}
    for _ in range(turns):
        for form in forms:
            seconds = _seconds(form, counts[form.title])
            rates[form.title].append(counts[form.title] / seconds)
    mine = np.array(rates['gradzip'])
    others = [form.title for form in forms[1:]]
    return Measured(
        size,
        name,
        {title: float(np.median(found)) for title, found in rates.items()},
        {title: float(np.median(mine / np.array(rates[title]))) for title in others},
        state,
        temporaries,
    )


def _seconds(form: Form, count: int) -> float:
    start = time.perf_counter()
    form.run(count)
    return time.perf_counter() - start


def _fitting(form: Form) -> int:
    """How many steps take about SECONDS. The chain compiles a program for this number."""
    form.run(2)
    once = _seconds(form, 2) / 2
    count = max(2, round(SECONDS / once))
    form.run(count)
    return count


def csv_rows(rows: list[Measured]) -> list[dict[str, Any]]:
    """A row for every form."""
    return [
        {
            'size': row.size,
            'scheme': row.scheme,
            'form': title,
            'steps_a_second': f'{rate:.4g}',
            'gradzip_times_as_fast': f'{row.ratios.get(title, 1.0):.4g}',
        }
        for row in rows
        for title, rate in row.rates.items()
    ]


def sentence(row: Measured) -> str:
    """What was measured for one scheme and size."""
    ratios = ', '.join(f'{ratio:.3g} times {title}' for title, ratio in row.ratios.items())
    return (
        f'{row.scheme}, {row.size}: {row.rates["gradzip"]:.4g} steps a second, {ratios}; '
        f'the state takes {row.state:.2f} arrays of workers x entries, '
        f'temporaries {row.temporaries:.2f}.'
    )


def report(rows: list[Measured]) -> list[Any]:
    """A table, a sentence a row, and whether the bars are met."""
    titles = list(dict.fromkeys(title for row in rows for title in row.rates))
    heads = ['workers x entries', 'scheme', *titles, 'state', 'temporaries']
    lines = []
    for row in rows:
        found = []
        for title in titles:
            ratio = f' ({row.ratios[title]:.3g})' if title in row.ratios else ''
            found.append(f'{row.rates[title]:.4g}{ratio}' if title in row.rates else '-')
        lines.append([row.size, row.scheme, *found, f'{row.state:.2f}', f'{row.temporaries:.2f}'])
    caption = 'Steps a second, and in brackets how many times as fast gradzip is.'
    table = tables.table('Simulated workers', heads, lines, names=2, caption=caption)
    return [table, *map(sentence, rows), *filter(None, map(bars, rows))]


def bars(row: Measured) -> str:
    """Whether a row meets what was asked of it, or '' if nothing was."""
    if row.scheme != 'Ternary':
        return ''
    all_workers, loop = 'NumPy, all workers at once', 'NumPy, a loop over workers'
    asked = [('temporaries', row.temporaries, 'at most', TEMPORARIES_BAR)]
    if row.size in BARS:
        asked.append((f'times {all_workers}', row.ratios[all_workers], 'at least', BARS[row.size]))
    if loop in row.ratios:
        asked.append((f'times {loop}', row.ratios[loop], 'at least', LOOP_BAR))
    parts = []
    for what, found, relation, bar in asked:
        met = found <= bar if relation == 'at most' else found >= bar
        parts.append(f'{what} {found:.3g}, {relation} {bar:g}: {"met" if met else "not met"}')
    return f'Bars of Ternary, {row.size}: {"; ".join(parts)}.'


if __name__ == '__main__':
    app(prog_name='python -m experiments.thousand_workers')
