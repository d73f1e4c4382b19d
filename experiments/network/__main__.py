"""The command line: `python -m experiments.network --help`."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.network import report
from experiments.network.links import Link, NetworkError
from experiments.network.measure import Row, WorkerDied, measure
from experiments.network.schemes import EXACT, schemes

SPEEDS = {'unlimited': None, '10G': 1e10, '1G': 1e9, '100M': 1e8, '10M': 1e7}  # bits per second
DELAYS = '0,1,20'  # ms each way: one room, one city, one continent
ROWS = 4096  # of a square matrix: 16.8 million entries, 67 MB of float32
ROUNDS = 2  # each link sees every scheme so often, in turn
QUICK_ROWS, QUICK_SPEEDS, QUICK_SCHEMES = 1024, '1G,100M', (EXACT, 'TopK 1 %')
WIDTH = 150  # of tables where there is no terminal to ask

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    workers: Annotated[int, typer.Option(min=2, max=4, help='Processes, a namespace each.')] = 2,
    speeds: Annotated[
        str, typer.Option(metavar='SPEED,...', help=f'Some of {", ".join(SPEEDS)}, or as 250M.')
    ] = ','.join(SPEEDS),
    delays: Annotated[
        str, typer.Option(metavar='MS,...', help='Each way, where the kernel can (netem).')
    ] = DELAYS,
    only: Annotated[
        list[str] | None,
        typer.Option('--scheme', metavar='NAME', help=f'Repeat for several: {list(schemes())}.'),
    ] = None,
    rows: Annotated[int, typer.Option(min=8, help='Of the square matrix exchanged.')] = ROWS,
    rounds: Annotated[
        int, typer.Option(min=1, help='Over which schemes are interleaved.')
    ] = ROUNDS,
    quick: Annotated[
        bool,
        typer.Option(
            '--quick',
            help=f'A matrix of {QUICK_ROWS} rows, links {QUICK_SPEEDS}, two schemes: a minute.',
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for table, CSV and figure.')] = Path(
        'experiments/output/network'
    ),
) -> None:
    """Exchanges a gradient between processes on limited links, scheme by scheme. Needs root.

    Every process runs in a network namespace of its own, joined by a bridge; the namespaces are
    removed at the end, also after Ctrl-C.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        chosen = _schemes(list(QUICK_SCHEMES) if quick and only is None else only)
        links = _links(QUICK_SPEEDS if quick else speeds, '0' if quick else delays)
        begin, found = time.time(), list[Row]()
        counts = QUICK_ROWS if quick else rows, 1 if quick else rounds
        measured = measure(workers, counts[0], links, chosen, counts[1], console.print)
        with closing(measured):  # an interruption here, too, takes the network down
            for row in measured:
                found.append(row)
                where, took = report.label(row.link), row.median * 1e3
                console.print(f'{where:>18}  {row.scheme:28} {took:10,.1f} ms', highlight=False)
    except (ValueError, NetworkError, WorkerDied) as error:
        Console(stderr=True).print(f'Error: {error}', style='red', markup=False, highlight=False)
        raise typer.Exit(2) from None
    out.mkdir(parents=True, exist_ok=True)
    report.write(out / f'steps_{workers}.csv', found)
    report.draw(out / f'steps_{workers}.png', found, counts[0] ** 2)
    shown, said = report.table(found), '\n'.join(report.findings(found))
    with (out / f'table_{workers}.txt').open('w') as file:
        Console(file=file, width=WIDTH).print(shown, said, sep='\n', highlight=False)
    console.print(shown, said, f'In {time.time() - begin:.0f} s; files in {out}.', sep='\n')


def _schemes(only: list[str] | None) -> list[str]:
    known = list(schemes())
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise ValueError(f'--scheme: {unknown} unknown. Choose from {known}.')
    return list(dict.fromkeys([EXACT, *(only or known)]))  # what all others are compared with


def _links(speeds: str, delays: str) -> list[Link]:
    links = []
    for speed in speeds.split(','):
        for delay in delays.split(','):
            links.append(Link(_name(speed), _bits(speed), _milliseconds(delay) / 1e3))
    return links


def _name(speed: str) -> str:
    return speed if speed == 'unlimited' else f'{speed[:-1]} {speed[-1]}bit/s'


def _bits(speed: str) -> float | None:
    if speed in SPEEDS:
        return SPEEDS[speed]
    unit = {'G': 1e9, 'M': 1e6}.get(speed[-1:])
    if unit is None or not speed[:-1].isdecimal() or int(speed[:-1]) < 1:
        raise ValueError(f'--speeds must be such as {",".join(SPEEDS)} or 250M; got {speed!r}.')
    return int(speed[:-1]) * unit


def _milliseconds(delay: str) -> float:
    if not delay.isdecimal():
        raise ValueError(f'--delays must be whole milliseconds, such as {DELAYS}; got {delay!r}.')
    return float(delay)


if __name__ == '__main__':
    app(prog_name='python -m experiments.network')
