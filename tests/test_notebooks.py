"""Every notebook runs from top to bottom, and is saved with its outputs."""

import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parent.parent / 'notebooks').glob('*.ipynb'))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of the kernel's own machinery
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={'metadata': {'path': str(tmp_path)}}
    )
    client.execute()  # raises at the first cell that does


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_saved_with_outputs_and_figures(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [o for cell in notebook.cells if cell.cell_type == 'code' for o in cell.outputs]
    assert any('image/png' in o.get('data', {}) for o in outputs)
    assert not any(o.output_type == 'error' for o in outputs)


def test_there_are_notebooks():
    assert NOTEBOOKS
