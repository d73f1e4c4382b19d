"""BibTeX of what a chain uses: every reference has an entry, and the right ones are found."""

import re

import jax.numpy as jnp
import optax
import pytest

import gradzip as gz
from gradzip._citation import references
from gradzip._references import PAPERS

CITED = [name for name in vars(gz) if references(name)]


def keys(text: str) -> list[str]:
    return re.findall(r'^@\w+\{(\S+),$', text, re.M)


@pytest.mark.parametrize('name', CITED)
def test_every_reference_has_an_entry(name):
    missing = set(references(name)) - set(PAPERS)
    assert not missing, f'gradzip/_references.py lacks {missing}'


def test_every_entry_is_referred_to():
    assert {paper for name in CITED for paper in references(name)} == set(PAPERS)
    assert len(CITED) > 25


def test_entries_have_keys_of_their_own_and_balanced_braces():
    class Everything(gz.Identity):
        def __repr__(self):
            return ' '.join(CITED)

    text = gz.citation(Everything())
    assert len(set(keys(text))) == len(keys(text)) == len(PAPERS)
    for entry in text.split('\n\n'):
        assert entry.count('{') == entry.count('}')
        assert '\n  year = {' in entry
        assert ('\n  eprint = {' in entry) != ('\n  booktitle = {' in entry)


def test_what_a_chain_uses():
    tx = optax.chain(
        gz.delay(2, 'data'),
        gz.every(gz.dgc(gz.TopK(0.1) >> gz.QSGD(7), 'data', key=0), 2, 'data'),
        optax.adam(1e-3),
    )
    found = {'khirirat2018distributed', 'lin2017deep', 'stich2018sparsified', 'alistarh2016qsgd'}
    assert set(keys(gz.citation(tx))) == found
    assert set(keys(gz.citation(tx.init(jnp.zeros(3))))) == found  # also of a state


def test_schemes_by_themselves_and_nothing():
    assert keys(gz.citation(gz.PowerSGD(2), gz.EDEN(1))) == [
        'vogels2019powersgd', 'xie2025from', 'vargaftik2021eden', 'vargaftik2021drive',
    ]  # fmt: skip
    assert gz.citation(optax.adam(1e-3), gz.Identity()) == ''


def test_a_partition_needs_its_params():
    parts = {'a': gz.ef21(gz.TopK(0.1)), 'b': optax.identity()}
    tx = optax.partition(parts, {'w': 'a', 'v': 'b'})
    params = {'w': jnp.zeros(3), 'v': jnp.zeros(3)}
    assert 'richtarik2021ef21' in keys(gz.citation(tx, params=params))
