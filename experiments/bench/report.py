"""The benchmark's tables and its figure."""

from __future__ import annotations

import csv
import os
import platform
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.bench.measures import ENTRIES, Accuracy, limit

# A family of compressors, one colour (Okabe and Ito): what it keeps, or how it rounds.
FAMILIES = {
    'sparse': '#D55E00',
    'rounded': '#0072B2',
    'rotated': '#009E73',
    'both': '#CC79A7',
}


def machine(size: int) -> str:
    """Where this ran."""
    device = jax.devices()[0]
    return (
        f'{size:,} float32; {device.device_kind} ({device.platform}), {os.cpu_count()} cores, jax '
        f'{jax.__version__}, Python {platform.python_version()}'
    )


def table(rows: dict[str, tuple[Accuracy, dict[str, float]]], size: int, unit: float) -> Table:
    """One row a compressor."""
    out = Table(
        title=machine(size),
        caption='bits: an entry. error: E|C(x)-x|^2 / |x|^2 on a Gaussian vector, as a memory '
        'applies the compressor, beside the most that its delta allows. omega: measured on the '
        'same vector, beside the stated. Times in units of one donated g + e, '
        f'{unit * 1e3:.3g} ms here: encoding; p - decoded payload; encoding with what is lost left '
        'in the memory; the whole step p, memory = p - rate * u, ... with error_feedback, '
        'everything donated. Medians of ratios, all programs in turns.',
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    out.add_column('compressor', no_wrap=True)
    for name in (
        'bits',
        'error',
        'at most',
        'omega',
        'stated',
        'encode',
        'decode',
        '+ lost',
        'step',
    ):
        out.add_column(name, justify='right', no_wrap=True, min_width=7)
    for name, (found, times) in rows.items():
        most = None if found.declared_delta is None else 1 - found.declared_delta
        out.add_row(
            name,
            f'{found.bits:.3g}',
            _number(found.error),
            _number(most),
            _number(found.omega),
            _number(found.declared_omega),
            *(f'{times[entry]:.1f}' for entry in ENTRIES),
        )
    return out


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3g}' if value < 1 - 5e-4 else f'{value:.4g}'


def bars(rows: list[tuple[str, float, str, bool]], size: int) -> Table:
    """What was asked of the library, what it reached, and whether that is enough."""
    out = Table(title=f'Against the limits, {machine(size)}', box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    out.add_column('what')
    out.add_column('reached', justify='right', no_wrap=True)
    out.add_column('asked', justify='right', no_wrap=True)
    out.add_column('', no_wrap=True)
    for what, reached, asked, met in rows:
        out.add_row(what, f'{reached:.3g}', asked, 'met' if met else '[bold red]missed[/]')
    return out


def markdown(path: Path) -> list[str]:
    """The README's table, from the rows of a benchmark."""
    lines = [
        '| compressor | bits an entry | times fewer | omega | delta | error | memory step |',
        '|---|---:|---:|---:|---:|---:|---:|',
    ]
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            found = {name: float(value) for name, value in row.items() if _is_number(value)}
            shown = [
                '-' if name not in found else f'{found[name]:.3g}'
                for name in ('declared_omega', 'declared_delta', 'error')
            ]
            bits = found['bits']
            lines.append(
                f'| `{row["compressor"]}` | {bits:.3g} | {32 / bits:.3g} | {" | ".join(shown)} | '
                f'{found["step"]:.1f} |'
            )
    return lines


def _is_number(text: str) -> bool:
    return text.replace('.', '').replace('e-', '').replace('e+', '').isdigit()


def pareto(points: dict[str, tuple[str, list[tuple[float, float]]]], folder: Path) -> None:
    """Error against bits of every family, over the limit of a Gaussian source."""
    figure = Figure(figsize=(8.5, 5.4), layout='constrained')
    panel = figure.subplots()
    bits = np.geomspace(0.005, 16, 200)
    panel.plot(bits, limit(bits), color='0.35', linestyle=(0, (4, 2)), linewidth=1.2)
    panel.annotate(r'limit of a Gaussian source, $2^{-2R}$', (2.0, limit(np.array(2.0))),
                   xytext=(-8, -6), textcoords='offset points', ha='right', va='top',
                   color='0.3', fontsize=9)  # fmt: skip
    for number, (name, (family, found)) in enumerate(points.items()):
        x, y = zip(*sorted(found), strict=True)
        marker = 'osD^v<>P*Xhdp'[number % 13]
        color = FAMILIES[family]
        panel.plot(x, y, color=color, marker=marker, markersize=5, linewidth=1, label=name)
    panel.set(
        xscale='log', yscale='log', xlabel='bits an entry', xlim=(0.01, 16), ylim=(1e-5, 1.3),
        ylabel=r'error $E|C(x) - x|^2\,/\,|x|^2$ on a Gaussian vector',
        title='What a memory must make up for, against what is sent',
    )  # fmt: skip
    panel.grid(color='0.92', linewidth=0.8)
    panel.set_axisbelow(True)
    figure.legend(loc='outside right upper', frameon=False, fontsize=9)
    for suffix in ('png', 'svg'):
        figure.savefig(folder / f'pareto.{suffix}', dpi=130)
