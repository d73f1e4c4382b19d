"""A parameter server in real processes, beside the clock.

A server and its workers run on machines of their own (network namespaces), on links of a set speed.
One worker is three times slower. What is measured, seconds and delays, stands beside what
`gradzip.clock` says of the same times, bytes and links.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from experiments import figures, tables
from experiments.network.__main__ import links_of
from experiments.network.links import NetworkError
from experiments.network.workers import WorkerDied, terminable_network, workers_on
from experiments.options import refuse
from experiments.parameter_server import report, runs
from experiments.parameter_server.setting import PROTOCOLS, SCHEMES, SIZE, WORKERS

SPEEDS, QUICK_SPEEDS = '50M,200M,1G', '200M'
QUICK_GRADIENTS = 100

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    speeds: Annotated[
        str, typer.Option(metavar='SPEED,...', help='Of the workers\x27 links.')
    ] = SPEEDS,
    gradients: Annotated[int, typer.Option(min=WORKERS, help='Used by the server in a run.')] = 240,
    quick: Annotated[
        bool,
        typer.Option('--quick', help=f'{QUICK_GRADIENTS} gradients, a link of {QUICK_SPEEDS}.'),
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for the table, CSV and figure.')] = Path(
        'experiments/output/parameter_server'
    ),
) -> None:
    """Runs a parameter server, synchronous and not, compressed and not. Needs root.

    Ends with exit code 1 if seconds or delays are more than 25 % from what the clock says. The
    namespaces are removed at the end, also after Ctrl-C.
    """
    console = tables.console()
    try:
        links = links_of(QUICK_SPEEDS if quick else speeds, '0')
        gradients = QUICK_GRADIENTS if quick else gradients
        out.mkdir(parents=True, exist_ok=True)
        jobs = [(link, s, p) for link in links for s in SCHEMES for p in PROTOCOLS]
        found = []
        with (
            terminable_network(1 + WORKERS) as made,
            workers_on(made, {'size': SIZE}, 'experiments.parameter_server.process') as workers,
        ):
            for link, scheme, protocol in track(jobs, 'runs', console=console, transient=True):
                made.limit(link, range(1, 1 + WORKERS))
                found.append(runs.run(workers, protocol, scheme, link, gradients, SIZE))
    except (ValueError, NetworkError, WorkerDied) as error:
        raise refuse(error) from None
    found.sort(key=lambda c: list(PROTOCOLS).index(c.protocol))
    figures.save(report.figure(found), out / 'delays.png')
    tables.write_csv(out / 'runs.csv', map(report.csv_row, found))
    tables.write_csv(out / 'histograms.csv', report.histogram_rows(found))
    said = report.findings(found)
    tables.show(console, out / 'parameter_server.txt', report.table(found, SIZE), *said)
    console.print(f'Files in {out}.')
    if not report.within(found):
        raise typer.Exit(1)


if __name__ == '__main__':
    app(prog_name='python -m experiments.parameter_server')
