"""Imports point down only: a reader can follow a gradient through the library one way."""

import ast
import pathlib

import pytest

import gradzip

ROOT = pathlib.Path(gradzip.__file__).parent

# A module may import from rooms further down, and, inside feedback/ and the like, siblings.
LAYERS = [
    ['advice', 'types'],
    ['clock', 'ranking'],
    ['data_parallel', 'debug', 'plan'],
    ['distribute', 'per_shard', 'report'],
    ['shards'],
    ['local_params', 'recipes', 'specs'],
    ['local_steps', 'zero_one_adam'],
    ['feedback', 'hierarchy', 'one_bit_adam', 'wrappers'],
    ['citation', 'compensate', 'fragments', 'fresh_batches'],
    ['newton_linesearch', 'scale_by_delay', 'take_turns'],
    ['delay', 'stale_params'],
    ['ages'],
    ['delay_draws', 'trace'],
    ['delay_models', 'delay_rules', 'metrics'],
    ['traffic'],
    ['step'],
    ['agreement', 'leaves', 'replication'],
    ['validation'],
    ['reducers'],
    ['compressors'],
    ['buffer', 'collectives', 'positions'],
    ['compose'],
    ['kernels'],
    ['conditional', 'resize'],
    ['axes', 'narrow'],
    ['base'],
    ['quantities', 'sparse_measure'],
    ['references', 'aligned', 'blocks', 'checks', 'compat', 'empirical', 'hlo', 'noise', 'theory'],
    ['groups'],
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted(p for p in ROOT.rglob('*.py') if p != ROOT / '__init__.py')
# `A >> B` and `contractive` return compressors made of others, which are compressors themselves.
# The default mean of payloads is added up in an order that depends on the platform.
EXCEPTIONS = {'base': {'compose', 'kernels'}}
COLLECTIVES = {
    'psum', 'pmean', 'pmax', 'pmin', 'all_gather', 'all_to_all', 'psum_scatter', 'ppermute',
}  # fmt: skip


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).with_suffix('').parts[0].removeprefix('_')


def imported_rooms(path: pathlib.Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'gradzip':
            parts = node.module.split('.')[1:]
            names = parts[:1] or [alias.name for alias in node.names]
            rooms |= {name.removeprefix('_') for name in names}
        if isinstance(node, ast.Import):
            rooms |= {a.name.split('.')[1] for a in node.names if a.name.startswith('gradzip.')}
    return rooms


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    room = room_of(path)
    for other in imported_rooms(path) - EXCEPTIONS.get(room, set()):
        assert other == room or RANK[other] > RANK[room], f'{room} imports {other}'


def test_every_room_is_in_the_table():
    assert {room_of(p) for p in FILES} <= set(RANK)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_collectives_stay_in_their_rooms(path):
    """`_collectives` lends them out; hierarchical and skip_nonfinite have one each of their own."""
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in COLLECTIVES
        if ast.unparse(node.value) != 'collectives'
    }
    allowed = {'collectives': COLLECTIVES, 'hierarchy': {'psum_scatter'}, 'wrappers': {'pmin'}}
    assert used <= allowed.get(room_of(path), set())


def test_compressors_never_see_an_axis():
    for path in (ROOT / '_compressors').glob('*.py'):
        assert 'axis_name' not in path.read_text(), path.name


def test_nothing_private_or_deprecated_of_jax():
    for path in FILES:
        text = path.read_text()
        if path.parent.name == 'mosaic':  # Pallas has no other name yet; `fused` does without it
            text = text.replace('jax.experimental import pallas', '').replace(
                'jax.experimental.pallas import tpu', ''
            )
        for word in ('jax._src', 'axis_index_groups', 'jax.experimental', 'nan_to_num'):
            assert word not in text, (path.name, word)


def test_the_library_does_not_start_a_backend_when_imported():
    """So that the number of devices and jax.distributed can still be set afterwards."""
    import subprocess
    import sys

    code = (
        'import gradzip as gz, jax; gz.error_feedback(gz.TopK(.1) >> gz.QSGD(7), key=0); '
        "jax.config.update('jax_num_cpu_devices', 3); assert jax.device_count() == 3"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
