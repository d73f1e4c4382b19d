"""Every example runs: docstrings, README. The API table is the public list."""

import doctest
import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import gradzip as gz

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
MODULES = ['gradzip'] + [m.name for m in pkgutil.walk_packages(gz.__path__, 'gradzip.')]
MODULES_SHOWN = ('advice', 'clock', 'delay_rules', 'metrics', 'theory', 'types')
PUBLIC = {
    name: value
    for name, value in vars(gz).items()
    if not name.startswith('_') and (not inspect.ismodule(value) or name in MODULES_SHOWN)
}
SECTIONS = re.compile(r'^(Args|Payload|Guarantee|Bytes|Returns|Raises|Example|Reference):', re.M)


@pytest.mark.parametrize('name', MODULES)
def test_docstrings_run(name):
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, optionflags=flags)
    assert result.failed == 0


@pytest.mark.parametrize('name', PUBLIC)
def test_public_names_are_documented(name):
    value = PUBLIC[name]
    assert value.__doc__, name
    if inspect.isfunction(value) or (inspect.isclass(value) and not inspect.isabstract(value)):
        if name == 'Reduced':
            return  # made by reducers, not by users
        assert '>>> ' in value.__doc__, f'{name} has no example'


@pytest.mark.parametrize(
    'name', [n for n, v in PUBLIC.items() if inspect.isclass(v) and issubclass(v, gz.Compressor)]
)
def test_compressors_say_what_they_send_and_promise(name):
    if name != 'Compressor':
        found = SECTIONS.findall(inspect.cleandoc(PUBLIC[name].__doc__))
        assert {'Payload', 'Guarantee', 'Example'} <= set(found)
        assert 'Reference' in found or name == 'Identity'


@pytest.mark.parametrize('name', [n for n, v in PUBLIC.items() if inspect.isfunction(v)])
def test_functions_document_every_argument(name):
    function = PUBLIC[name]
    for argument in inspect.signature(function).parameters:
        assert re.search(rf'^ +{argument}: ', function.__doc__, re.M), argument


def test_the_readme_lists_exactly_the_public_names():
    listed = README.split('<!-- api -->')[1].split('<!-- /api -->')[0]
    links = re.findall(r'\[`(\w+)`\]\(([\w/.]+)\)', listed)
    assert {name for name, _ in links} == set(PUBLIC)
    assert len(links) == len(PUBLIC)
    for name, path in links:
        value = PUBLIC[name]
        file = pathlib.Path(inspect.getsourcefile(value))
        assert ROOT / path == (file.parent if file.name == '__init__.py' else file), name


def test_the_readme_backs_every_scheme_by_a_result():
    """What a row quotes in italics stands in the results file that it links to."""
    rows = (
        README.split('<!-- schemes -->')[1].split('<!-- /schemes -->')[0].strip().splitlines()[2:]
    )
    assert len(rows) == 6
    for row in rows:
        measured = row.split('|')[3]
        [path] = re.findall(r'\]\(([^)]+)\)', measured)
        text = ' '.join(re.sub('[│┃]', ' ', (ROOT / path).read_text()).split())
        quotes = re.findall(r'\*([^*]+)\*', measured)
        assert quotes
        for quote in quotes:
            assert quote in text, quote


@pytest.mark.parametrize('index', range(len(re.findall(r'^```python', README, re.M))))
def test_the_readme_runs(index):
    code = re.findall(r'^```python\n(.*?)^```', README, re.M | re.S)[index]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    subprocess.run([sys.executable, '-c', code], check=True, env=environment, timeout=300)


PAGES = {'README.md': README, 'experiments/README.md': (ROOT / 'experiments/README.md').read_text()}
RESULTS = {  # a quote in a page to the file of results that it is from
    'findings': 'theorems/tables.txt',
    'slowest': 'theorems/slowest/tables.txt',
    'restricted': 'theorems/tables.txt',
    'looseness': 'looseness/looseness.txt',
    'attained': 'looseness/attained.txt',
    **dict.fromkeys(('ranking', 'ranking-seconds'), 'ranking/ranking.txt'),
    **dict.fromkeys(
        (
            f'paper-{c}'
            for c in ('gap', 'sparsity', 'hessian', 'cat', 'masks', 'blocks', 'adaptive')
        ),
        'paper/paper.txt',
    ),
    'sparse': 'sparse/sparse.txt',
    'comparison': 'comparison/tables.txt',
    'memory': 'comparison/tables.txt',
    'quadratics': 'quadratics/quadratics.txt',
    'steps': 'memory/memory.txt',
    'methods': 'memory/methods/memory.txt',
    'long': 'memory/long/memory.txt',
    'dgc': 'dgc/dgc.txt',
    'clock': 'clock/clock.txt',
    **dict.fromkeys(('late', 'reused', 'rare', 'delayed'), 'staleness/staleness.txt'),
    'server': 'parameter_server/parameter_server.txt',
    'compensated': 'late_training/delays.txt',
    'slow': 'late_training/seconds.txt',
    'thousand': 'thousand_workers/thousand_workers.txt',
    'network': 'network/table_2.txt',
    **dict.fromkeys(('training', 'utilisation'), 'network/training_2.txt'),
    'plan': 'plan/plan.txt',
    'predicted': 'network/table_2.txt',
}


def quoted(page, marker):
    return PAGES[page].split(f'<!-- {marker} -->')[1].split(f'<!-- /{marker} -->')[0]


def pages_with(marker):
    return [page for page in PAGES if f'<!-- {marker} -->' in PAGES[page]]


def test_the_page_of_the_experiments_has_every_result():
    for marker in (*RESULTS, 'compressors'):
        assert 'experiments/README.md' in pages_with(marker), marker


@pytest.mark.parametrize('page', pages_with('compressors'))
def test_pages_show_the_table_of_the_benchmark(page):
    from experiments.bench_compressors import markdown

    rows = markdown(ROOT / 'experiments/results/compressors/compressors.csv')
    assert quoted(page, 'compressors').strip().splitlines() == rows


def test_the_page_shows_the_table_of_programs():
    from experiments.accelerators.report import markdown

    rows = markdown(ROOT / 'experiments/results/accelerators/memory/programs.csv')
    assert quoted('experiments/README.md', 'accelerators').strip().splitlines() == rows


@pytest.mark.parametrize(
    ('page', 'marker'), [(page, marker) for marker in RESULTS for page in pages_with(marker)]
)
def test_pages_quote_the_results_as_they_are(page, marker):
    """The sentences under a figure are lines of the results file of the same run."""
    lines = re.findall(r'^> (.*)', quoted(page, marker), re.M)
    results = ' '.join((ROOT / 'experiments/results' / RESULTS[marker]).read_text().split())
    assert lines
    assert ' '.join(lines) in results


@pytest.mark.parametrize('page', PAGES)
def test_what_pages_show_is_there(page):
    for path in re.findall(r'\]\((?!http)([^)#]+)', PAGES[page]):
        assert ((ROOT / page).parent / path).exists(), path
