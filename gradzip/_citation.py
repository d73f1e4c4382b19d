"""BibTeX entries of the papers behind a chain."""

from __future__ import annotations

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradzip._base import Compressor, MadeFor, PyTree, Reducer
from gradzip._delay_models import Delay
from gradzip._references import PAPERS

NUMBER = re.compile(r'\b\d{4}\.\d{4,5}\b|Interspeech 201\d')


def citation(*used: Any, params: PyTree | None = None) -> str:
    """Returns the BibTeX entries of the papers that describe what is used, in order of appearance.

    They are the references in the docstrings of gradzip's compressors, reducers, delay models and
    transformations. Optimizers and wrappers of optax are not looked up.

    Args:
      used: transformations, such as a whole chain; compressors, reducers or delay models, such as
        those which a function from a leaf chooses; or states.
      params: tree of arrays, or of their shapes and dtypes, for chains that depend on the tree of
        params, such as `optax.partition`. By default a matrix and a vector.

    Returns:
      BibTeX, with an empty line between two entries; an empty string if nothing has a reference.

    Example:
      >>> import optax, gradzip as gz
      >>> tx = optax.chain(gz.econtrol(gz.Identity(), eta=0.1), optax.sgd(0.1))
      >>> print(gz.citation(tx))
      @misc{gao2023econtrol,
        title = {{EControl}: Fast Distributed Optimization with Compression and Error Control},
        author = {Gao, Yuan and Islamov, Rustem and Stich, Sebastian U.},
        year = {2023},
        eprint = {2311.05645},
        archivePrefix = {arXiv},
      }
    """
    names = re.findall(r'\w+', ' '.join(_words(part, params) for part in used))
    papers = [paper for name in dict.fromkeys(names) for paper in references(name)]
    return '\n\n'.join(_entry(paper) for paper in dict.fromkeys(papers))


def references(name: str) -> list[str]:
    """Returns the papers that the docstring of a public name refers to, as keys of `PAPERS`."""
    import gradzip  # the names are its own, and exist once it is imported

    value = getattr(gradzip, name, None)
    if inspect.ismodule(value) or value is None:
        return []
    _, _, after = inspect.cleandoc(value.__doc__ or '').partition('\nReference: ')
    return NUMBER.findall(' '.join(after.split()))


def _words(part: Any, params: PyTree | None) -> str:
    """Returns a text in which the names of what was used appear."""
    if isinstance(part, Compressor | Reducer | Delay):
        return repr(part)
    if isinstance(part, optax.GradientTransformation):
        likes = {'matrix': jnp.zeros((64, 64)), 'vector': jnp.zeros(64)}
        part = jax.eval_shape(part.init, likes if params is None else params)
    found = jax.tree.leaves(part, is_leaf=lambda x: isinstance(x, MadeFor))
    return ' '.join(str(x) for x in found if isinstance(x, MadeFor))


def _entry(key: str) -> str:
    paper = PAPERS[key]
    surname = re.sub(r'\W', '', re.sub(r'\\.', '', paper.authors.split(',')[0])).lower()
    first = re.findall(r'[A-Za-z0-9]{2,}', paper.title)[0].lower()
    fields = {'title': paper.title, 'author': paper.authors, 'year': str(paper.year)}
    if paper.venue:
        fields['booktitle'] = paper.venue
    else:
        fields |= {'eprint': key, 'archivePrefix': 'arXiv'}
    kind = 'inproceedings' if paper.venue else 'misc'
    lines = [f'  {name} = {{{value}}},' for name, value in fields.items()]
    return '\n'.join([f'@{kind}{{{surname}{paper.year}{first},', *lines, '}'])
