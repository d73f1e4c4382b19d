"""Every notebook runs from top to bottom, and is saved with its outputs."""

import pathlib
import re
import sys

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parent.parent / 'notebooks').glob('*.ipynb'))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of the kernel's own machinery
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    if path.stem != '02_stale_and_compressed':  # where the runs take longer than to compile them
        monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
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


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.parametrize('beside', ['wheel', 'clone', 'both', 'neither'])
def test_it_installs_what_it_can_reach(path, beside, tmp_path, monkeypatch):
    """The first cell, run where gradzip cannot be imported, with pip replaced by a list."""
    folder, wheel = tmp_path / 'notebooks', 'gradzip-0.1.0-py3-none-any.whl'
    folder.mkdir()
    if beside in ('wheel', 'both'):
        (folder / wheel).touch()
    if beside in ('clone', 'both'):
        (tmp_path / 'gradzip').mkdir()
        (tmp_path / 'gradzip/__init__.py').touch()
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, 'gradzip', None)  # importing it raises ImportError
    cell = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == 'code')
    install, _, _ = cell.source.partition('\n\nimport ')
    tried, _, _ = install.rpartition('    import gradzip as gz')
    code = re.sub(r'%pip install -q (".*")', r'installed.append(f\1)', tried)
    installed = []
    if beside == 'neither':
        with pytest.raises(ImportError, match='pip wheel --no-deps'):
            exec(code, {'installed': installed})
        assert installed == []
    else:
        exec(code, {'installed': installed})
        source = tmp_path if beside == 'clone' else folder / wheel
        assert installed == [f'{source}[experiments]']


def test_there_are_notebooks():
    assert NOTEBOOKS
