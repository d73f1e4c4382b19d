"""The claims of the papers: what their sentences say of given rows, and the command."""

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.paper import (
    __main__ as command,
    adaptive,
    blocks,
    cat,
    gap,
    hessian,
    masks,
    sparsity,
)
from gradzip import theory
from tests.test_theory import data


def row(**fields):
    return dict.fromkeys(('iterations', 'bits', 'spent', 'fixed', *adaptive.RULES)) | fields


def test_sentences_say_what_was_measured():
    one = [
        row(data='d', scheme='none', iterations=10, bits=8000),
        row(data='d', scheme='qsgd', iterations=20, bits=4000),
        row(data='d', scheme='topk'),
    ]
    assert 'after 10 iterations and 8 kbit' in gap.says(one)[0]
    assert 'QSGD 2 and 2, TopK + memory never.' in gap.says(one)[0]
    two = [
        row(data='d', step=cat.FIXED_STEP, cost='bits', scheme=scheme, spent=spent)
        for scheme, spent in (('0.1', 100.0), ('1.0', 150.0), ('CAT', 101.0), ('foreseen', 110.0))
    ]
    assert 'times TopK(0.1), foreseen 1.100. The largest is 1.010, within' in cat.says(two)
    two[2]['spent'] = 120.0
    assert 'The largest is 1.200, above the bar' in cat.says(two)
    two += [{**each, 'step': cat.LINE_SEARCH, 'spent': each['spent'] / 4} for each in two]
    assert 'CAT spends 3.3 to 3.3 times less than the best fixed' in cat.says(two)
    three = [
        {'method': name, 'condition': c, 'floor': c / 2, 'exceeded': False}
        for c in (10.0, 100.0)
        for name in hessian.METHODS
    ]
    assert 'no memory from 10 to 100;' in hessian.says(three)
    assert hessian.says(three).endswith('No bound was exceeded.')
    three[0]['exceeded'] = True
    assert 'exceeded by no memory' in hessian.says(three)
    four = [
        row(data=d, exchange='QSGD', fixed=10, DoG=count)
        for d, count in (('a', 15), ('b', 25), ('c', None))
    ]
    assert '2.00 in the median of 2 settings, from 1.50 to 2.50' in adaptive.says(four)
    assert (
        'Above 2: b with QSGD 2.50, c with QSGD never. DoWG never reached 0.001 of the gap. Newton'
        in adaptive.says(four)
    )
    five = [
        row(problem='p', masks='a shared mask', iterations=7, floor=0.0),
        row(problem='p', masks='masks of their own', floor=0.25),
    ]
    said = masks.says(five)
    assert 'p: with a shared mask 1e-06 is reached after 7 iterations, with masks of' in said
    assert said.endswith('with masks of their own the run stays at 2.5e-01 of the start.')
    six = [row(data='d', variant='v', iterations=c, bits=b) for c, b in ((4, 1000), (8, 3000))]
    assert blocks.says(six).endswith('v 8 (3 kbit). Iterations differ by 2 times, bits by 3 times.')


def test_supports_have_the_sigma_that_their_names_say():
    block, ring, *_, dense = sparsity.supports()
    found = [sparsity.problem_of(support).constants for support in (block, ring)]
    assert [round(p.known('sigma'), 6) for p in found] == [1, 3]
    assert sparsity.blind(found[0]).known('sigma') == sparsity.WORKERS
    assert np.all(dense.on)


def test_a_first_step_is_that_of_the_curvature_along_the_gradient():
    d = data('LSn')
    x, y, ridge = (jnp.asarray(a, jnp.float32) for a in (d.x, d.y, d.ridge))

    def loss(w, mine):
        x, y, ridge = mine
        return jnp.mean((x @ w - y) ** 2) / 2 + jnp.sum(ridge * w * w) / 2

    g = d.gradients(np.zeros((len(d.x), 1, d.x.shape[2])))[:, 0].mean(0)
    each = np.einsum('nrd,nre->nde', d.x, d.x) / d.x.shape[1] + np.einsum(
        'nd,de->nde', d.ridge, np.eye(len(g))
    )
    curvature = np.sqrt(np.mean(np.sum((each @ g) ** 2, axis=1))) / np.linalg.norm(g)
    found = theory.first_step(loss, jnp.zeros(len(g)), (x, y, ridge), share=0.5)
    np.testing.assert_allclose(found, 0.5 / curvature, rtol=1e-5)
    with pytest.raises(ValueError, match='Take another x_0'):
        theory.first_step(lambda w, mine: jnp.sum(w**2), jnp.zeros(3), jnp.zeros((2, 1)))


@pytest.mark.usefixtures('fast_compilation')
def test_the_command(tmp_path):
    options = ['--quick', '--claim', 'masks', '--out', str(tmp_path)]
    result = CliRunner().invoke(command.app, options)
    assert result.exit_code == 0, result.output
    said = ' '.join((tmp_path / 'paper.txt').read_text().split())
    assert 'RandK with 25% of the entries, different minimisers: with a shared mask' in said
    assert (tmp_path / 'masks.png').stat().st_size > 10_000
    assert (tmp_path / 'masks.csv').read_text().count('\n') == 3
    refused = CliRunner().invoke(command.app, ['--claim', 'nonsense'])
    assert refused.exit_code == 2


@pytest.mark.slow
def test_all_claims(tmp_path):
    result = CliRunner().invoke(command.app, ['--quick', '--out', str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert {path.stem for path in tmp_path.glob('*.png')} == set(command.CLAIMS)
