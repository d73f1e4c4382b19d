"""The programs that people copy train, draw their picture, and resume from their checkpoint."""

import json
import os
import subprocess
import sys

import pytest

from tests.test_processes import ROOT

pytestmark = pytest.mark.slow


def ended(program, folder, *arguments):
    """The process of a program that has ended, with a picture and checkpoints in a folder."""
    command = [sys.executable, '-m', f'experiments.programs.{program}', '--workers', '2']
    paths = ['--out', str(folder / 'loss.png'), '--checkpoint', str(folder / 'saved')]
    cache = {'JAX_COMPILATION_CACHE_DIR': str(ROOT / '.pytest_cache/d/jax')}  # as in conftest
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', **cache}
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
    picture = folder / 'loss.png'
    assert picture.read_bytes().startswith(b'\x89PNG')
    return list(json.loads(picture.with_suffix('.json').read_text()).values())


@pytest.mark.parametrize('program', ['linen_cnn', 'nnx_transformer'])
def test_it_learns_and_resumes(program, tmp_path):
    """The steps before the checkpoint are not taken again, and the curve goes on falling."""
    first = losses(program, tmp_path, '--steps', '12')
    both = losses(program, tmp_path, '--steps', '16')
    assert both[:12] == first
    assert sum(both[-4:]) < sum(both[:4])
    if program == 'linen_cnn':  # the checkpoints of all programs are written by the same function
        (tmp_path / 'whole').mkdir()
        assert both == losses(program, tmp_path / 'whole', '--steps', '16')
        process = ended(program, tmp_path, '--steps', '20', '--scheme', 'qsgd')
        assert process.returncode != 0
        assert 'was trained with --scheme topk' in ' '.join(process.stderr.split())
