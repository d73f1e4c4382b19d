"""Tables, rows and a figure of what programs cost."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from experiments import figures, tables
from experiments.accelerators.chips import CHIPS
from experiments.accelerators.compiling import Result
from experiments.accelerators.programs import Form, Job, Measured

HEADS = (
    'scheme', 'passes', 'floor', 'rare', 'temporaries', 'kernels', 'random', 'limit, ms',
    'compile, s',
)  # fmt: skip
TITLES = {
    Form.ENCODE: 'encoding',
    Form.MEMORY: 'encoding under a memory, (e, g) to (payload, e)',
    Form.DECODE: 'the mean of eight payloads, taken from the parameters',
    Form.STEP: 'a step of a transformer, 27.8 M in 76 leaves, adamw, eight workers',
}
COLORS = dict(
    zip(CHIPS, (figures.BLUE, figures.SKY, figures.GREEN, figures.VERMILION), strict=True)
)
CAPTION = (
    'passes: bytes read or written over those of the leaf, or of the parameters; floor: '
    'the same if every argument is read and every result written once; rare: if every conditional '
    'takes its dearer branch. temporaries: leaves. random: indices gathered or scattered and '
    'entries sorted, over all entries. limit: what the passes take at the bandwidth of the chip.'
)
TICKS = (2, 3, 4, 6, 10, 20, 40, 100)
Found = list[tuple[Job, Result]]


def tables_of(found: Found) -> Iterable[Table | str]:
    """One table a form and chip, and a line for each program that does not compile."""
    groups: dict[tuple[Form, str, int], Found] = {}
    for job, result in found:
        groups.setdefault((job.form, job.chip, job.entries), []).append((job, result))
    for (form, chip, entries), rows in groups.items():
        size = '' if form == Form.STEP else f', {entries:,} float32'
        cells = [_cells(job, result) for job, result in rows if isinstance(result, Measured)]
        if cells:
            yield tables.table(f'{chip}{size}: {TITLES[form]}', HEADS, cells)
        for job, result in rows:
            if isinstance(result, str):
                yield f'{chip}, {form}, {job.scheme}: {result}'
    yield CAPTION


def _cells(job: Job, m: Measured) -> list[str]:
    rare = '' if m.worst < 1.01 * m.passes else f'{m.worst:.1f}'
    random = f'{m.random:.2g}' if m.random else ''
    return [
        job.scheme, f'{m.passes:.2f}', f'{m.floor:.2f}', rare, f'{m.temporaries:.2f}',
        f'{m.kernels:,}', random, f'{m.milliseconds:.3g}', f'{m.seconds:.1f}',
    ]  # fmt: skip


def csv_rows(found: Found) -> list[dict[str, Any]]:
    """A row a program."""
    empty = dict.fromkeys(Measured._fields, '')
    return [
        {
            **job._asdict(),
            **(empty if isinstance(result, str) else _rounded(result)),
            'error': result if isinstance(result, str) else '',
        }
        for job, result in found
    ]


def _rounded(m: Measured) -> dict[str, Any]:
    return {name: f'{value:.5g}' for name, value in m._asdict().items()}


def draw(found: Found) -> Figure:
    """Passes of every scheme on every chip, one panel a form."""
    forms = list(dict.fromkeys(job.form for job, _ in found))
    figure, panels = figures.panels(1, len(forms), (5.5, 7.5))
    for panel, form in zip(panels[0], forms, strict=True):
        own = [(job, m) for job, m in found if job.form == form and isinstance(m, Measured)]
        names = list(dict.fromkeys(job.scheme for job, _ in own))
        for chip, color in COLORS.items():
            points = [(m.passes, names.index(j.scheme)) for j, m in own if j.chip == chip]
            if points:
                panel.plot(*zip(*points, strict=True), 'o', color=color, label=chip)
        floors = {names.index(job.scheme): m.floor for job, m in own}
        panel.plot([*floors.values()], [*floors], '|', color='0.35', ms=11, label='floor')
        panel.set_yticks(range(len(names)), names)
        panel.invert_yaxis()
        panel.set(xscale='log', xlabel='passes over memory', title=TITLES[form].split(',')[0])
        panel.set_xticks(TICKS, map(str, TICKS))
        panel.minorticks_off()
    panels[0, 0].legend()
    return figure


def markdown(path: Path) -> list[str]:
    """The table of a page, from the rows of programs for v5e and H100."""
    lines = [
        '| scheme | floor | v5e: passes | temporaries | limit, ms | H100: passes | kernels | '
        'limit, ms |',
        '|---|---:|---:|---:|---:|---:|---:|---:|',
    ]
    with path.open(newline='') as file:
        rows = {(row['chip'], row['scheme']): row for row in csv.DictReader(file)}
    for scheme in dict.fromkeys(scheme for _, scheme in rows):
        tpu, gpu = rows['v5e', scheme], rows['h100', scheme]
        cells = (
            f'`{scheme}`', _cell(tpu, 'floor', 2), _cell(tpu, 'passes', 2),
            _cell(tpu, 'temporaries', 2), _cell(tpu, 'milliseconds', 2),
            _cell(gpu, 'passes', 2), _cell(gpu, 'kernels', 0), _cell(gpu, 'milliseconds', 3),
        )  # fmt: skip
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def _cell(row: dict[str, str], name: str, digits: int) -> str:
    return f'{float(row[name]):.{digits}f}' if row[name] else '-'
