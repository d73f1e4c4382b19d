"""One claim, one figure, one sentence each: `python -m experiments.paper --all`.

Every claim is a module of this folder with a function `measure`, which returns rows for a CSV file,
a figure and a sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from experiments import data, figures, tables
from experiments.options import refuse
from experiments.paper import adaptive, blocks, cat, gap, hessian, masks, sparsity
from experiments.paper.claim import Claim, Settings

CLAIMS: dict[str, Any] = {
    claim.NAME: claim for claim in (gap, sparsity, hessian, cat, masks, blocks, adaptive)
}
app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    everything: Annotated[bool, typer.Option('--all', help='Check all claims.')] = False,
    names: Annotated[
        list[str] | None,
        typer.Option('--claim', metavar='NAME', help=f'{", ".join(CLAIMS)}; repeat for several.'),
    ] = None,
    data_sets: Annotated[
        list[str] | None,
        typer.Option(
            '--data',
            metavar='NAME|PATH',
            help='A data set or the path of a LIBSVM file, for the claims gap, cat, blocks and '
            f'adaptive: {", ".join((*data.TARGETS, *data.BUILT_IN))}. Repeat for several.',
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option('--quick', help='Fewer settings and short runs, to see that they work.')
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for text, CSV files and figures.')] = Path(
        'experiments/output/paper'
    ),
) -> None:
    """Checks claims of the papers. Writes NAME.png and NAME.csv for each, and paper.txt."""
    console = tables.console()
    try:
        chosen = _chosen(names, everything or (quick and not names))
        out.mkdir(parents=True, exist_ok=True)
        found = _measured(chosen, Settings(quick, tuple(data_sets or ())), console)
    except (ValueError, OSError) as error:
        raise refuse(error) from None
    for name, claim in found.items():
        figures.save(claim.figure, out / f'{name}.png')
        tables.write_csv(out / f'{name}.csv', claim.rows)
    tables.show(console, out / 'paper.txt', *report(found))
    console.print(f'Files in {out}.')


def _chosen(names: list[str] | None, everything: bool) -> list[str]:
    """The claims to check, in their order.

    Raises:
      ValueError: none was asked for, or an unknown one.
    """
    unknown = [name for name in names or () if name not in CLAIMS]
    if unknown:
        raise ValueError(f'--claim: {unknown} unknown. Choose from {", ".join(CLAIMS)}.')
    if not (names or everything):
        raise ValueError(f'Pass --all, --quick, or --claim with one of {", ".join(CLAIMS)}.')
    return [name for name in CLAIMS if everything or name in (names or ())]


def _measured(chosen: list[str], settings: Settings, console: Any) -> dict[str, Claim]:
    """Every claim, behind a progress bar that says what is being done."""
    columns = TextColumn('{task.description}'), BarColumn(), TimeElapsedColumn()
    found = {}
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task('', total=len(chosen))
        for name in chosen:

            def said(text: str, name: str = name) -> None:
                progress.update(bar, description=f'{name}: {text}')

            found[name] = CLAIMS[name].measure(settings, said)
            progress.advance(bar)
        progress.update(bar, description='done')
    return found


def report(found: dict[str, Claim]) -> list[Any]:
    """The table of claims, and their sentences."""
    heads = ['claim', 'about', 'files']
    rows = [[name, CLAIMS[name].ABOUT, f'{name}.png, {name}.csv'] for name in found]
    table = tables.table('Claims of the papers', heads, rows)
    return [table, *(f'{CLAIMS[name].ABOUT}. {claim.says}' for name, claim in found.items())]


if __name__ == '__main__':
    app(prog_name='python -m experiments.paper')
