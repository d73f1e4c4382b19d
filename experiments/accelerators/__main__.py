"""Programs for TPU and GPU, from their compilers: `python -m experiments.accelerators --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from experiments import figures, tables
from experiments.accelerators import report
from experiments.accelerators.chips import CHIPS
from experiments.accelerators.compiling import Compiler, Result
from experiments.accelerators.programs import Form, Job
from experiments.accelerators.schemes import names
from experiments.options import refuse, some_of

ENTRIES = {'tpu': 100_663_296, 'cuda': 10_000_000}  # by platform
QUICK = ('ScaledSign()', 'RandBlock(0.01)')
SECONDS = 600

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    chip: Annotated[
        str | None,
        typer.Option(
            metavar='CHIP,...', help=f'Of {list(CHIPS)}.', show_default='all with a compiler here'
        ),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help='Only schemes whose name contains this.', show_default='all')
    ] = None,
    form: Annotated[
        str, typer.Option(metavar='FORM,...', help=f'Of {[f.value for f in Form]}.')
    ] = 'memory,decode,step',
    entries: Annotated[
        int | None,
        typer.Option(
            min=1,
            help='Of the leaf.',
            show_default=', '.join(map('{0[1]:,} on {0[0]}'.format, ENTRIES.items())),
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help='After which a program is given up.')
    ] = SECONDS,
    quick: Annotated[
        bool,
        typer.Option(
            '--quick', help=f'Only {" and ".join(QUICK)}, under a memory: seconds a chip.'
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(help='Folder for the table, the CSV file and the figure.')
    ] = Path('experiments/output/accelerators'),
) -> None:
    """Compiles every scheme for TPU v5e, v6e, v5p and H100, and reads what the programs cost.

    No chip is needed: libtpu compiles for TPU, jax\\[cuda13] for GPU. Passes over memory are bytes
    read or written, in units of the leaf. `limit` is how long the chip's memory takes for them, and
    a program cannot be faster; how long it takes was not measured.
    """
    console = tables.console()
    try:
        jobs = _jobs(chip, scheme, 'memory' if quick else form, entries)
    except ValueError as error:
        raise refuse(error) from None
    if quick and scheme is None:
        jobs = [job for job in jobs if job.scheme in QUICK]
    out.mkdir(parents=True, exist_ok=True)
    found = _compile(jobs, seconds, console, out / 'programs.csv')
    tables.show(console, out / 'tables.txt', *report.tables_of(found))
    figures.save(report.draw(found), out / 'passes.png')


def _jobs(chip: str | None, scheme: str | None, form: str, entries: int | None) -> list[Job]:
    """One job a form, chip and scheme.

    Raises:
      ValueError: an unknown name, or a chip that nothing compiles for here.
    """
    forms = [Form(name) for name in some_of('--form', form, [f.value for f in Form])]
    schemes = {one: [s for s in names(one) if scheme is None or scheme in s] for one in forms}
    if not any(schemes.values()):
        known = ', '.join(dict.fromkeys(s for one in forms for s in names(one)))
        raise ValueError(f'--scheme: none has {scheme!r} in its name. Choose from {known}.')
    asked = list(CHIPS) if chip is None else some_of('--chip', chip, list(CHIPS))
    found = [name for name in asked if CHIPS[name].installed]
    missing = [] if chip is None and found else [name for name in asked if name not in found]
    if missing:
        raise ValueError(
            f'--chip: nothing compiles for {", ".join(missing)} here. Install libtpu for TPU, or '
            'jax[cuda13] for GPU.'
        )
    return [
        Job(name, one, known, entries or ENTRIES[CHIPS[name].platform])
        for one in forms
        for name in found
        for known in schemes[one]
    ]


def _compile(
    jobs: list[Job], seconds: float, console: Console, path: Path
) -> list[tuple[Job, Result]]:
    """What every program costs. The rows so far are in a file, whatever happens to the rest."""
    found = []
    with Compiler(seconds) as compiler, Progress(console=console) as progress:
        bar: Any = progress.add_task('compiling', total=len(jobs))
        for job in jobs:
            progress.update(bar, description=f'{job.chip} {job.form} {job.scheme}')
            found.append((job, compiler(job)))
            tables.write_csv(path, report.csv_rows(found))
            progress.advance(bar)
    return found


if __name__ == '__main__':
    app(prog_name='python -m experiments.accelerators')
