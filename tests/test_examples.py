"""The programs that people copy train, draw a picture, and resume, in one process or several."""

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from experiments.programs import linen_cnn, nnx_transformer, processes
from tests.programs import one_fails
from tests.test_processes import ROOT

pytestmark = pytest.mark.slow


def ended(program, folder, *arguments):
    """The process of a program that has ended, with a picture and checkpoints in a folder."""
    command = [sys.executable, '-m', f'experiments.programs.{program}', '--workers', '2']
    paths = ['--out', str(folder / 'loss.png'), '--checkpoint', str(folder / 'saved')]
    cache = {'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.pytest_cache/d/jax')}  # as in conftest
    quick = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}  # what counts is what comes out
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', **cache, **quick}
    return subprocess.run(
        [*command, *paths, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


def losses(program, folder, *arguments):
    """The losses by step that a program leaves in a folder."""
    process = ended(program, folder, *arguments)
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.count('fewer than float32') == 1, 'one report, whatever the processes'
    picture = folder / 'loss.png'
    assert picture.read_bytes().startswith(b'\x89PNG')
    return list(json.loads(picture.with_suffix('.json').read_text()).values())


def test_statistics_and_processes(tmp_path):
    """The steps before the checkpoint are not taken again, and two processes go on from there."""
    first = losses('linen_cnn', tmp_path, '--steps', '12')
    both = losses('linen_cnn', tmp_path, '--steps', '16', '--processes', '2')
    assert both[:12] == first
    assert sum(both[-4:]) < sum(both[:4])
    process = ended('linen_cnn', tmp_path, '--steps', '20', '--scheme', 'qsgd')
    assert process.returncode != 0
    assert 'was trained with --scheme topk' in ' '.join(process.stderr.split())


def test_a_sharded_model_and_processes(tmp_path):
    """Two workers of two devices each, first in one process and then in two."""
    options = ['--model-parallel', '2', '--layers', '1', '--width', '16', '--steps']
    first = losses('nnx_transformer', tmp_path, *options, '12')
    both = losses('nnx_transformer', tmp_path, *options, '16', '--processes', '2')
    assert both[:12] == first
    assert sum(both[-4:]) < sum(both[:4])


def test_all_processes_end_when_one_fails():
    with pytest.raises(typer.Exit) as end:
        processes.run(one_fails.main, processes=2, devices=2)
    assert end.value.exit_code == 3


REFUSED = {
    'scheme': (linen_cnn, ['--scheme', 'none'], '--scheme must be one of exact, topk'),
    'processes': (linen_cnn, ['--processes', '3'], '4 devices cannot be shared evenly'),
    'shards': (nnx_transformer, ['--model-parallel', '3'], 'must divide the 4 heads; got 3'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name):
    program, arguments, message = REFUSED[name]
    result = CliRunner().invoke(program.app, arguments)
    assert result.exit_code == 2
    assert message in ' '.join(result.stderr.split())
