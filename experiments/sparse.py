"""Sparse data of RCV1's size on eight simulated workers: `python -m experiments.sparse --help`.

RCV1 has 20,242 documents of 47,236 words, of which 0.16 % are not zero; as a dense array of float32
it takes 3.8 GB. Here they stay sparse. The documents are drawn, unless a LIBSVM file is given.
Every exchange has a line search behind it (`gradzip.scale_by_newton_linesearch`), so that nothing
is tuned, and runs until a hundredth of the first gap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import optax
import typer

import gradzip as gz
from experiments import data, tables
from experiments.options import refuse
from experiments.simulate import AXIS, message_bits, simulate
from experiments.sparse_problem import SparseProblem, deal, drawn

ROWS, FEATURES, ENTRIES = 20_242, 47_236, 76
QUICK = 500, 1_000, 20
WORKERS, REGULARISATION, TARGET = 8, 0.005, 1e-2
STEPS, QUICK_STEPS = 800, 20
SCHEMES: dict[str, tuple[gz.Compressor, Callable]] = {
    'exact mean': (gz.Identity(), gz.compress),
    'QSGD': (gz.QSGD(7), gz.compress),
    'TopK 1 %, memory': (gz.TopK(0.01), gz.error_feedback),
    'TopK 0.1 %, memory': (gz.TopK(0.001), gz.error_feedback),
}

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


class Found(NamedTuple):
    """What a scheme took."""

    scheme: str
    iterations: int | None  # to the target
    bits: int  # of a worker's message
    milliseconds: float  # of CPU time, of an iteration of all workers


@app.command()
def main(
    path: Annotated[Path | None, typer.Option('--data', help='A LIBSVM file.')] = None,
    quick: Annotated[bool, typer.Option('--quick', help='Few rows and features.')] = False,
    out: Annotated[Path, typer.Option(help='Folder for text and CSV.')] = Path(
        'experiments/output/sparse'
    ),
) -> None:
    """Runs every scheme to the target, and says what an iteration costs."""
    console = tables.console()
    out.mkdir(parents=True, exist_ok=True)
    try:
        size = QUICK if quick else (ROWS, FEATURES, ENTRIES)
        name, (x, y) = ('drawn', drawn(*size)) if path is None else (path.name, data.sparse(path))
        problem = deal(name, x, y, WORKERS, REGULARISATION)
    except ValueError as error:
        raise refuse(error) from None
    found = [run(problem, scheme, QUICK_STEPS if quick else STEPS) for scheme in SCHEMES]
    tables.write_csv(out / 'sparse.csv', [each._asdict() for each in found])
    tables.show(console, out / 'sparse.txt', *report(problem, found))


def run(problem: SparseProblem, name: str, steps: int) -> Found:
    """From zero, with the line search."""
    scheme, exchange = SCHEMES[name]

    def make(key: jax.Array) -> Any:
        options = {'key': key} if scheme.random else {}
        return optax.chain(exchange(scheme, AXIS, **options), gz.scale_by_newton_linesearch(AXIS))

    def weights(steps: int) -> tuple[np.ndarray, float]:
        before = time.process_time()
        keys = jax.random.split(jax.random.key(0), 1)
        ws = simulate(problem, make, keys, steps, lambda w: w)[:, 0]
        return ws, time.process_time() - before

    _, compilation = weights(1)
    ws, seconds = weights(steps)
    reached = np.flatnonzero(problem.relative_gap(ws) <= TARGET)
    like = jax.ShapeDtypeStruct((problem.features,), np.float32)
    end = int(reached[0]) if len(reached) else None
    each = 1e3 * (seconds - compilation) / (steps - 1)
    return Found(name, end, message_bits(scheme, like), each)


def report(problem: SparseProblem, found: list[Found]) -> list[Any]:
    """A table, and what the schemes save."""
    entries = sum(x.nnz for x in problem.x)
    rows = sum(len(y) for y in problem.y)
    heads = ['scheme', 'iterations', 'kbit a worker', 'CPU ms an iteration']
    lines = [
        [
            each.scheme, 'never' if each.iterations is None else str(each.iterations),
            '-' if each.iterations is None else f'{each.iterations * each.bits / 1e3:,.0f}',
            f'{each.milliseconds:.0f}',
        ]
        for each in found
    ]  # fmt: skip
    title = (
        f'{problem.name}: {rows:,} examples, {problem.features:,} features, {entries:,} entries '
        f'that are not zero, {problem.workers} workers, until {TARGET:g} of the gap'
    )
    exact = found[0]
    parts = [
        f'{each.scheme} {each.iterations / exact.iterations:.2g} times the iterations at '
        f'{exact.iterations * exact.bits / (each.iterations * each.bits):.3g} times fewer bits'
        for each in found[1:]
        if each.iterations and exact.iterations
    ]
    says = f'Beside the exact mean: {"; ".join(parts) or "no scheme was at the target"}.'
    return [tables.table(title, heads, lines), says]


if __name__ == '__main__':
    app(prog_name='python -m experiments.sparse')
