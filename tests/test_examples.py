"""The programs that people copy train, draw their picture, and resume from their checkpoint."""

import json
import os
import subprocess
import sys

import pytest

from tests.test_processes import ROOT

pytestmark = pytest.mark.slow


def run(program, folder, *arguments):
    """The losses by step that a program leaves in a folder."""
    picture = folder / 'loss.png'
    command = [sys.executable, '-m', f'experiments.programs.{program}', '--out', str(picture)]
    ended = subprocess.run(
        [*command, '--workers', '2', '--checkpoint', str(folder / 'saved'), *arguments],
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert picture.read_bytes().startswith(b'\x89PNG')
    return list(json.loads(picture.with_suffix('.json').read_text()).values())


@pytest.mark.parametrize('program', ['linen_cnn', 'nnx_transformer'])
def test_it_learns_and_resumes(program, tmp_path):
    """The steps before the checkpoint are not taken again, and the curve is that of one run."""
    first = run(program, tmp_path, '--steps', '12')
    both = run(program, tmp_path, '--steps', '16')
    assert both[:12] == first
    (tmp_path / 'whole').mkdir()
    assert both == run(program, tmp_path / 'whole', '--steps', '16')
    assert sum(both[-4:]) < sum(both[:4])
