"""Every public algorithm has a row in the table, and its arguments are checked."""

import dataclasses
import inspect
import re

import pytest

import gradzip as gz
from experiments.bench.schemes import SCHEMES
from tests.zoo import REDUCERS, ROWS

KINDS = gz.Compressor | gz.Reducer | gz.Delay
CLASSES = {
    name: value
    for name, value in vars(gz).items()
    if inspect.isclass(value) and issubclass(value, KINDS) and not inspect.isabstract(value)
}
HELD = [*REDUCERS.values(), *(row.scheme for row in ROWS.values())]
SETTINGS = [
    (name, field)
    for name, cls in CLASSES.items()
    for field in inspect.signature(cls).parameters.values()
    if field.kind is not field.VAR_POSITIONAL
]


@pytest.mark.parametrize('name', CLASSES)
def test_every_public_class_has_a_row(name):
    assert any(type(scheme) is CLASSES[name] for scheme in HELD)


@pytest.mark.parametrize('name', [n for n in CLASSES if issubclass(CLASSES[n], gz.Compressor)])
def test_every_public_compressor_is_in_the_benchmark(name):
    assert any(type(scheme) is CLASSES[name] for scheme in SCHEMES.values())


@pytest.mark.parametrize(('name', 'field'), SETTINGS, ids=lambda x: getattr(x, 'name', x))
def test_an_argument_of_another_kind_is_refused_by_name(name, field):
    good = next(scheme for scheme in HELD if type(scheme) is CLASSES[name])
    with pytest.raises((TypeError, ValueError), match=re.escape(f'{field.name}=...) must ')):
        dataclasses.replace(good, **{field.name: object()})


@pytest.mark.parametrize('name', [n for n, row in ROWS.items() if isinstance(row.scheme, KINDS)])
def test_equal_settings_compare_hash_and_print_alike(name):
    scheme = ROWS[name].scheme
    again = dataclasses.replace(scheme)
    assert again is not scheme
    assert (again, hash(again), repr(again)) == (scheme, hash(scheme), repr(scheme))
