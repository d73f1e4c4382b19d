"""Every compressor: bits, errors and times. `python -m experiments.bench_compressors --help`."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import gradzip as gz
from experiments import figures, tables
from experiments.bench import measures
from experiments.bench.measures import ENTRIES
from experiments.bench.schemes import SCHEMES, SWEEPS
from experiments.simulate import message_bits
from gradzip._plan import timing

SIZE = 10_000_000
SMALL = 65_536  # a small leaf, which must not be slower than the plain form
ROUNDS = 15
FASTER = {'encode': 15, 'step': 10}  # than lax.top_k and torch at 1 %, at least
FASTER_AT_TENTH = 40
PASSES = {  # encode + what is lost, in memory passes, at most
    'TopK(0.001)': 5,
    'TopK(0.01)': 6,
    'TopK(0.1)': 14,
    'Int(4)': 5,
    'QSGD(7)': 5,
    'ScaledSign()': 3,
}
STEP_PASSES = {'TopK(0.01)': 12, 'Int(4)': 10, 'QSGD(7)': 10, 'ScaledSign()': 5}
DECODE_PASSES = 2  # two workers' TopK 1 %
HARD_TIMES = 4  # of TopK on Gaussian entries, on any others
COMPILE_TIMES = 3  # of optax.adam alone
NAMED = {name: SCHEMES[name] for name in PASSES}
# A family of compressors, one colour: what it keeps, or how it rounds.
FAMILIES = {
    'sparse': figures.VERMILION,
    'rounded': figures.BLUE,
    'rotated': figures.GREEN,
    'both': figures.PINK,
}

Bar = tuple[str, float, float, bool]  # what, reached, asked, whether at least (or at most)
app = typer.Typer(add_completion=False)


@app.command()
def main(
    size: Annotated[int, typer.Option(help='Entries of the large leaf.', min=1000)] = SIZE,
    rounds: Annotated[int, typer.Option(help='In which every program runs once.', min=1)] = ROUNDS,
    out: Annotated[Path, typer.Option(help='Folder for the tables and the figure.')] = Path(
        'experiments/output/compressors'
    ),
    only: Annotated[
        str | None, typer.Option(help='Only the compressors whose name contains this; no limits.')
    ] = None,
) -> None:
    """Bits, errors and times of every compressor; limits, and the figure of error against bits."""
    console = tables.console()
    chosen = {name: c for name, c in SCHEMES.items() if only is None or only in name}
    if not chosen:
        raise typer.BadParameter(f'no compressor has {only!r} in its name: {", ".join(SCHEMES)}')
    out.mkdir(parents=True, exist_ok=True)
    rows = [_row(name, c, size, rounds, console) for name, c in chosen.items()]
    shown = [_table(rows, size)]
    if only is None:
        shown.append(_limits_table([*_limits(size, rounds, console)], size))
        figures.save(_pareto(), out / 'pareto.png')
    tables.write_csv(out / 'compressors.csv', rows)
    tables.show(console, out / 'tables.txt', *shown)


def _row(
    name: str, compressor: gz.Compressor, size: int, rounds: int, console: Console
) -> dict[str, Any]:
    """Accuracy, and times in memory passes."""
    cases = {'unit': measures.memory_pass(size), **measures.cases(compressor, size)}
    times = _measured(cases, rounds, console, name)
    found = measures.accuracy(compressor)
    passes = {entry: timing.ratio(times, entry, 'unit') for entry in ENTRIES}
    seconds = float(np.median(times['unit']))
    return {'compressor': name, **vars(found), **passes, 'unit_seconds': seconds}


def _limits(size: int, rounds: int, console: Console) -> Iterator[Bar]:
    """Against lax.top_k and torch, in memory passes, on hard inputs, small leaves, to compile."""
    cases = {'unit': measures.memory_pass(size)}
    for name, compressor in NAMED.items():
        own = measures.cases(compressor, size)
        cases |= {f'{name} {entry}': own[entry] for entry in ('encode', 'remainder', 'step')}
    for fraction in (0.01, 0.1):
        for other, naive in (('lax', measures.naive_top_k), ('torch', measures.torch_top_k)):
            cases |= {f'{other} {fraction} {k}': v for k, v in naive(fraction, size).items()}
    cases['decode two'] = measures.decode_two(gz.TopK(0.01), size)
    times = _measured(cases, rounds, console, 'limits')
    for other in ('lax', 'torch'):
        for entry, asked in FASTER.items():
            if f'{other} 0.01 {entry}' in times:
                reached = timing.ratio(times, f'{other} 0.01 {entry}', f'TopK(0.01) {entry}')
                yield f'TopK 1 %, {entry}: times faster than {other}.top_k', reached, asked, True
    reached = timing.ratio(times, 'lax 0.1 encode', 'TopK(0.1) encode')
    yield 'TopK 10 %, encode: times faster than lax.top_k', reached, FASTER_AT_TENTH, True
    for title, entry, asked_of in (
        ('encode + what is lost', 'remainder', PASSES),
        ('memory step', 'step', STEP_PASSES),
    ):
        for name, asked in asked_of.items():
            reached = timing.ratio(times, f'{name} {entry}', 'unit')
            yield f'{name}, {title}: memory passes', reached, asked, False
    reached = timing.ratio(times, 'decode two', 'unit')
    yield "decoding two workers' TopK 1 %: memory passes", reached, DECODE_PASSES, False
    yield from _hard(size, rounds, console)
    yield from _small(rounds, console)
    yield from _compile(console)


def _hard(size: int, rounds: int, console: Console) -> Iterator[Bar]:
    """Inputs on which a selection may be slow, against Gaussian ones."""
    hard = measures.hard(gz.TopK(0.01), size)
    cases = {'normal': measures.cases(gz.TopK(0.01), size)['encode'], **hard}
    times = _measured(cases, rounds, console, 'hard inputs')
    for name in hard:
        what = f'TopK 1 %, encode, {name}: times that of Gaussian entries'
        yield what, timing.ratio(times, name, 'normal'), HARD_TIMES, False


def _small(rounds: int, console: Console) -> Iterator[Bar]:
    """A leaf of 65 536 entries: no compressor slower than its plain form."""
    cases = {'unpacked': measures.unpacked(SMALL)}
    for name, compressor in NAMED.items():
        cases[name] = measures.cases(compressor, SMALL)['step']
        if isinstance(compressor, gz.TopK):
            cases[f'lax {name}'] = measures.naive_top_k(compressor.fraction, SMALL)['step']
    times = _measured(cases, 10 * rounds, console, 'small leaves')
    for name in NAMED:
        plain, form = 'unpacked', 'unpacked integers drawn with jax.random'
        if f'lax {name}' in cases:
            plain, form = f'lax {name}', 'lax.top_k'
        what = f'{name}, memory step of {SMALL:,} entries: times that of {form}'
        yield what, timing.ratio(times, name, plain), 1, False


def _compile(console: Console) -> Iterator[Bar]:
    """A transformer: the chain against adam alone."""
    with console.status('compiling'):
        alone = measures.compile_seconds(optax.adam(1e-3))
        for name in ('TopK(0.01)', 'Int(4)', 'QSGD(7)', 'ScaledSign()'):
            chain = optax.chain(gz.error_feedback(NAMED[name], key=0), optax.adam(1e-3))
            reached = measures.compile_seconds(chain) / alone
            what = f'{name}, 150 leaves: time to compile, in times of optax.adam alone'
            yield what, reached, COMPILE_TIMES, False


def _measured(
    cases: dict[str, timing.Case], rounds: int, console: Console, what: str
) -> dict[str, np.ndarray]:
    with Progress(console=console) as progress:
        bar = progress.add_task(what, total=rounds + timing.WARM_UP)
        return timing.measure(cases, rounds, lambda: progress.advance(bar))


def _machine(size: int) -> str:
    device = jax.devices()[0]
    return (
        f'{size:,} float32; {device.device_kind} ({device.platform}), {os.cpu_count()} cores, jax '
        f'{jax.__version__}, Python {platform.python_version()}'
    )


def _table(rows: list[dict[str, Any]], size: int) -> Table:
    """One row a compressor."""
    unit = float(np.median([row['unit_seconds'] for row in rows]))
    caption = (
        'bits: an entry. error: E|C(x)-x|^2 / |x|^2 on a Gaussian vector, as a memory '
        'applies the compressor, beside the most that its delta allows. omega: measured on the '
        'same vector, beside the stated. Times in units of one donated g + e, '
        f'{unit * 1e3:.3g} ms here: encoding; p - decoded payload; encoding with what is lost left '
        'in the memory; the whole step p, memory = p - rate * u, ... with error_feedback, '
        'everything donated. Medians of ratios, all programs in turns.'
    )
    heads = (
        'compressor', 'bits', 'error', 'at most', 'omega', 'stated', 'encode', 'decode', '+ lost',
        'step',
    )  # fmt: skip

    def cells(row: dict[str, Any]) -> list[str]:
        delta = row['declared_delta']
        most = None if delta is None else 1 - delta
        shown = (row['error'], most, row['omega'], row['declared_omega'])
        times = (f'{row[entry]:.1f}' for entry in ENTRIES)
        return [row['compressor'], f'{row["bits"]:.3g}', *map(_number, shown), *times]

    return tables.table(_machine(size), heads, map(cells, rows), caption=caption)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3g}' if value < 1 - 5e-4 else f'{value:.4g}'


def _limits_table(found: list[Bar], size: int) -> Table:
    """What was asked of the library, what it reached, and whether that is enough."""

    def cells(bar: Bar) -> tuple[str, ...]:
        what, reached, asked, least = bar
        met = reached >= asked if least else reached <= asked
        sign = '>=' if least else '<='
        return what, f'{reached:.3g}', f'{sign} {asked}', 'met' if met else '[bold red]missed[/]'

    heads = 'what', 'reached', 'asked', ''
    return tables.table(f'Against the limits, {_machine(size)}', heads, map(cells, found))


def _pareto() -> Figure:
    """Error against bits of every family, over the limit of a Gaussian source."""
    like = jax.ShapeDtypeStruct((measures.LENGTH,), np.float32)
    x, bits = measures.gradient(measures.LENGTH), np.geomspace(0.005, 16, 200)
    figure, panels = figures.panels(1, 1, (8.5, 5.4))
    panel = panels[0, 0]
    figures.log_log(
        panel, xlabel='bits an entry', xlim=(0.01, 16), ylim=(1e-5, 1.3),
        ylabel=r'error $E|C(x) - x|^2\,/\,|x|^2$ on a Gaussian vector',
        title='What a memory must make up for, against what is sent',
    )  # fmt: skip
    label = r'limit of a Gaussian source, $2^{-2R}$'
    panel.plot(bits, measures.limit(bits), color='0.35', linestyle=figures.DASHED, label=label)
    for i, (name, (family, sweep)) in enumerate(SWEEPS.items()):
        points = [
            (message_bits(c, like) / like.size, measures.error(c.contractive(like), x))
            for c in sweep
        ]
        style = {'color': FAMILIES[family], 'marker': 'osD^v<>P*Xhdp'[i], 'linewidth': 1}
        panel.plot(*zip(*sorted(points), strict=True), label=name, **style)
    figure.legend(loc='outside right upper')
    return figure


def markdown(path: Path) -> list[str]:
    """The table of a README, from the rows of a benchmark."""
    lines = [
        '| compressor | bits an entry | times fewer | omega | delta | error | memory step |',
        '|---|---:|---:|---:|---:|---:|---:|',
    ]
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            names = ('declared_omega', 'declared_delta', 'error')
            shown = [f'{float(row[name]):.3g}' if row[name] else '-' for name in names]
            bits = float(row['bits'])
            cells = f'`{row["compressor"]}`', f'{bits:.3g}', f'{32 / bits:.3g}', *shown
            lines.append(f'| {" | ".join(cells)} | {float(row["step"]):.1f} |')
    return lines


if __name__ == '__main__':
    app(prog_name='python -m experiments.bench_compressors')
