"""Every compressor: bits, errors and times. `python -m experiments.bench_compressors --help`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import optax
import typer
from rich.console import Console
from rich.progress import Progress

import gradzip as gz
from experiments.bench import measures, report, timing
from experiments.bench.schemes import SCHEMES, SWEEPS
from experiments.message import message_bits

SIZE = 10_000_000
SMALL = 65_536  # a small leaf, which must not be slower than the plain form
ROUNDS = 15
WIDTH = 130
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

Bar = tuple[str, float, str, bool]  # what, reached, asked, whether met
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
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    chosen = {name: c for name, c in SCHEMES.items() if only is None or only in name}
    if not chosen:
        raise typer.BadParameter(f'no compressor has {only!r} in its name: {", ".join(SCHEMES)}')
    out.mkdir(parents=True, exist_ok=True)
    rows, unit = _rows(chosen, size, rounds, console)
    shown = [report.table(rows, size, unit)]
    if only is None:
        found = [
            *_limits(size, rounds, console),
            *_hard(size, rounds, console),
            *_small(rounds, console),
            *_compile(console),
        ]
        shown.append(report.bars(found, size))
        report.pareto(_points(console), out)
    with (out / 'tables.txt').open('w') as file:
        Console(file=file, width=WIDTH).print(*shown)
    _write(out / 'compressors.csv', rows, unit)
    console.print(*shown, f'Tables and figure are in {out}.')


def _rows(
    chosen: dict[str, gz.Compressor], size: int, rounds: int, console: Console
) -> tuple[dict, float]:
    """Accuracy and times, in memory passes, of each; and the seconds of a memory pass."""
    rows, units = {}, []
    with Progress(console=console) as progress:
        bar = progress.add_task('', total=len(chosen) * (rounds + timing.WARM_UP))
        for name, compressor in chosen.items():
            progress.update(bar, description=name)
            cases = {'unit': measures.memory_pass(size), **measures.cases(compressor, size)}
            times = timing.measure(cases, rounds, lambda: progress.advance(bar))
            units.append(float(np.median(times['unit'])))
            passes = {case: timing.ratio(times, case, 'unit') for case in measures.ENTRIES}
            rows[name] = (measures.accuracy(compressor), passes)
    return rows, float(np.median(units))


def _limits(size: int, rounds: int, console: Console) -> Iterator[Bar]:
    """Against lax.top_k and torch, and in memory passes."""
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
                what = f'TopK 1 %, {entry}: times faster than {other}.top_k'
                yield what, reached, f'>= {asked}', reached >= asked
    reached = timing.ratio(times, 'lax 0.1 encode', 'TopK(0.1) encode')
    what = 'TopK 10 %, encode: times faster than lax.top_k'
    yield what, reached, f'>= {FASTER_AT_TENTH}', reached >= FASTER_AT_TENTH
    for title, entry, asked_of in (
        ('encode + what is lost', 'remainder', PASSES),
        ('memory step', 'step', STEP_PASSES),
    ):
        for name, asked in asked_of.items():
            reached = timing.ratio(times, f'{name} {entry}', 'unit')
            yield f'{name}, {title}: memory passes', reached, f'<= {asked}', reached <= asked
    reached = timing.ratio(times, 'decode two', 'unit')
    what = "decoding two workers' TopK 1 %: memory passes"
    yield what, reached, f'<= {DECODE_PASSES}', reached <= DECODE_PASSES


def _hard(size: int, rounds: int, console: Console) -> Iterator[Bar]:
    """Inputs on which a selection may be slow, against Gaussian ones."""
    cases = {'normal': measures.cases(gz.TopK(0.01), size)['encode']}
    cases |= measures.hard(gz.TopK(0.01), size)
    times = _measured(cases, rounds, console, 'hard inputs')
    for name in [name for name in cases if name != 'normal']:
        reached = timing.ratio(times, name, 'normal')
        what = f'TopK 1 %, encode, {name}: times that of Gaussian entries'
        yield what, reached, f'<= {HARD_TIMES}', reached <= HARD_TIMES


def _small(rounds: int, console: Console) -> Iterator[Bar]:
    """A leaf of 65 536 entries: no compressor slower than its plain form."""
    cases = {'unpacked': measures.unpacked(SMALL)}
    for name, compressor in NAMED.items():
        cases[name] = measures.cases(compressor, SMALL)['step']
        if isinstance(compressor, gz.TopK):
            cases[f'lax {name}'] = measures.naive_top_k(compressor.fraction, SMALL)['step']
    times = _measured(cases, 10 * rounds, console, 'small leaves')
    for name in NAMED:
        plain, form = (
            (f'lax {name}', 'lax.top_k')
            if f'lax {name}' in cases
            else ('unpacked', 'unpacked integers drawn with jax.random')
        )
        reached = timing.ratio(times, name, plain)
        what = f'{name}, memory step of {SMALL:,} entries: times that of {form}'
        yield what, reached, '<= 1', reached <= 1


def _compile(console: Console) -> Iterator[Bar]:
    """A transformer: the chain against adam alone."""
    with console.status('compiling'):
        alone = measures.compile_seconds(optax.adam(1e-3))
        for name in ('TopK(0.01)', 'Int(4)', 'QSGD(7)', 'ScaledSign()'):
            chain = optax.chain(gz.error_feedback(NAMED[name], key=0), optax.adam(1e-3))
            reached = measures.compile_seconds(chain) / alone
            what = f'{name}, 150 leaves: time to compile, in times of optax.adam alone'
            yield what, reached, f'<= {COMPILE_TIMES}', reached <= COMPILE_TIMES


def _measured(
    cases: dict[str, timing.Case], rounds: int, console: Console, what: str
) -> dict[str, np.ndarray]:
    with Progress(console=console) as progress:
        bar = progress.add_task(what, total=rounds + timing.WARM_UP)
        return timing.measure(cases, rounds, lambda: progress.advance(bar))


def _points(console: Console) -> dict[str, tuple[str, list[tuple[float, float]]]]:
    """Bits and error of every family at several settings."""
    like = jax.ShapeDtypeStruct((measures.LENGTH,), np.float32)
    x = measures.gradient(measures.LENGTH)
    found = {}
    with console.status('errors'):
        for name, (family, sweep) in SWEEPS.items():
            bits = [message_bits(c, like) / measures.LENGTH for c in sweep]
            errors = [measures.error(c.contractive(x), x) for c in sweep]
            found[name] = family, list(zip(bits, errors, strict=True))
    return found


def _write(path: Path, rows: dict, unit: float) -> None:
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        errors = ('bits', 'error', 'omega', 'declared_omega', 'declared_delta')
        writer.writerow(('compressor', *errors, *measures.ENTRIES, 'unit_seconds'))
        for name, (found, times) in rows.items():
            own = (getattr(found, field) for field in errors)
            writer.writerow((name, *own, *(times[entry] for entry in measures.ENTRIES), unit))


if __name__ == '__main__':
    app(prog_name='python -m experiments.bench_compressors')
