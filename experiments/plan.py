"""`gz.plan` on the command line, with a figure: `python -m experiments.plan --help`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from matplotlib.figure import Figure

import gradzip as gz
from experiments import figures, tables
from experiments.exchanges import COLORS, EXACT, SCHEMES, chosen
from experiments.options import refuse
from gradzip._quantities import THOUSANDS, parsed, speed

WIDTH = 2048  # parameters are taken to be matrices of so many rows and columns
RANGE = 1e6, 1e11  # bits per second in the figure

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    link: Annotated[str, typer.Option(help="Of every worker, such as 1Gbit; 'unlimited' too.")],
    workers: Annotated[int, typer.Option(min=2, help='How many exchange.')],
    params: Annotated[str, typer.Option(help='How many, such as 124M.')],
    compute: Annotated[str, typer.Option(help='Of one step on one worker, such as 0.3s.')] = '0s',
    latency: Annotated[str, typer.Option(help='One way, such as 1ms.')] = '0ms',
    host: Annotated[
        str, typer.Option(help="What a host's network stack carries; 'unlimited' to ignore it.")
    ] = 'unlimited',
    only: Annotated[
        list[str] | None,
        typer.Option('--scheme', metavar='NAME', help=f'Repeat for several: {list(SCHEMES)}.'),
    ] = None,
    collectives: Annotated[
        str | None,
        typer.Option(
            help='ring, or gloo, where the directions of a link take turns.',
            show_default='gloo on CPU',
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(help='Of every exchange without the network; measured by default.'),
    ] = None,
    out: Annotated[Path, typer.Option(help='Folder for table, CSV and figure.')] = Path(
        'experiments/output/plan'
    ),
) -> None:
    """Ranks the exchanges for a network, and says when not to compress.

    What encoding and decoding cost is measured here, so run it on a machine like those that will
    train; the rest is counted: bytes and rounds of ring collectives on links of that speed. Number
    of steps to a loss is not predicted: `python -m experiments.network` measures it.
    """
    console = tables.console()
    try:
        names = [name for name in chosen(only) if name != EXACT]
        with console.status('exchanges on this machine'):
            found = gz.plan(
                tree(params),
                workers=workers,
                link=link,
                schemes={name: SCHEMES[name] for name in names},
                latency=latency,
                compute=compute,
                host=host,
                collectives=collectives,
                costs=cost,
            )
    except ValueError as error:
        raise refuse(error) from None
    out.mkdir(parents=True, exist_ok=True)
    tables.write_csv(out / 'plan.csv', (row._asdict() for row in found.rows))
    figures.save(draw(found), out / 'plan.png')
    (out / 'plan.txt').write_text(f'{found}\n')
    console.print(str(found), f'Files in {out}.', sep='\n', soft_wrap=True)


def tree(count: str) -> list[jax.ShapeDtypeStruct]:
    """So many parameters in square matrices, and what is left in rows of one more.

    Raises:
      ValueError: the text is no number such as 124M.
    """
    number, unit, per = parsed('--params', count, '25M or 1.3B')
    entries = number * THOUSANDS.get(unit, 0.0)
    if entries < 1 or per:
        raise ValueError(f'--params must be a number such as 25M or 1.3B; got {count!r}.')
    width = min(WIDTH, math.isqrt(round(entries)))
    rows = round(entries / width)
    heights = [width] * (rows // width) + [rows % width] * (rows % width > 0)
    return [jax.ShapeDtypeStruct((height, width), jnp.float32) for height in heights]


def draw(found: gz.Plan) -> Figure:
    """A step against the speed of the link; yours is marked."""
    yours = [found.link] if math.isfinite(found.link) else []
    speeds = np.geomspace(min([RANGE[0], *yours]), max([RANGE[1], *yours]), 60)
    plans = [found.at(float(bits)) for bits in speeds]
    figure, panels = figures.panels(1, 1, (6.4, 4.4))
    panel = panels[0, 0]
    title = f'{found.entries / 1e6:,.4g} M parameters, {found.workers} workers'
    labels = {'xlabel': 'link of every worker, bit/s', 'ylabel': 'seconds a step'}
    figures.log_log(panel, title=title, **labels)
    for scheme in found.costs:
        y = [plan[scheme].step for plan in plans]
        panel.plot(speeds, y, color=COLORS[scheme], label=scheme)
    for bits in yours:
        panel.axvline(bits, color='0.5', linestyle=figures.DOTTED, linewidth=1)
        panel.annotate(
            speed(bits), (bits, 1), xycoords=('data', 'axes fraction'), fontsize=8,
            xytext=(3, -10), textcoords='offset points',
        )  # fmt: skip
    panel.legend()
    return figure


if __name__ == '__main__':
    app(prog_name='python -m experiments.plan')
