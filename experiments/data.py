"""Data sets: what ships with scikit-learn and with Python itself, and LIBSVM files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics as PAGES
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_svmlight_file
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import StandardScaler, normalize

# `topics`: Python's reference manual as `help()` shows it. Is a paragraph about how a program runs
# (statements), or about what it works on (objects)? Python 3.11 to 3.13 have all these pages.
STATEMENTS = (
    *('assert', 'assignment', 'async', 'augassign', 'break', 'compound', 'context-managers'),
    *('continue', 'del', 'else', 'exceptions', 'execmodel', 'for', 'function', 'global', 'if'),
    *('import', 'naming', 'nonlocal', 'pass', 'raise', 'return', 'try', 'while', 'with'),
)
OBJECTS = (
    *('attribute-access', 'bltin-code-objects', 'bltin-type-objects', 'callable-types'),
    *('customization', 'dict', 'integers', 'numeric-types', 'objects', 'sequence-types'),
    *('specialattrs', 'specialnames', 'string-methods', 'types', 'typesfunctions'),
    *('typesmapping', 'typesmethods', 'typesmodules', 'typesseq', 'typesseq-mutable'),
)
FEWEST_WORDS = 12  # a shorter paragraph is a heading, a signature or a line of an example
VOCABULARY = 1024  # the most frequent words; a square, so that the weights are a square matrix


class Data(NamedTuple):
    """Examples in rows, and their labels."""

    name: str
    x: np.ndarray  # f64[examples, features]
    y: np.ndarray  # f64[examples], -1 or +1; of least squares any number
    kind: str = 'logistic'  # or 'least_squares'


def load(name: str) -> Data:
    """The data set of this name, or the LIBSVM file at this path."""
    if name in TARGETS:
        return Data(name, *TARGETS[name](), kind='least_squares')
    if name in BUILT_IN:
        return _checked(name, *BUILT_IN[name]())
    return _checked(Path(name).name, *_libsvm(Path(name)))


def _breast_cancer() -> tuple[Any, np.ndarray]:
    bunch = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(bunch[0]), bunch[1]


def _digits() -> tuple[Any, np.ndarray]:
    """Even against odd."""
    images, digits = load_digits(return_X_y=True)
    return images / 16, digits % 2


def _diabetes() -> tuple[Any, np.ndarray]:
    """The progress of a disease within a year, in standard deviations from its mean."""
    x, y = (np.asarray(a) for a in load_diabetes(return_X_y=True))
    return StandardScaler().fit_transform(x), (y - np.mean(y)) / np.std(y)


def _topics() -> tuple[Any, np.ndarray]:
    """Paragraphs as bags of words of length one: statements (0) against objects (1)."""
    seen: set[str] = set()
    statements, objects = (_paragraphs(names, seen) for names in (STATEMENTS, OBJECTS))
    words = CountVectorizer(
        stop_words='english', max_features=VOCABULARY, token_pattern=r'[a-z_]{2,}'
    )
    counts = words.fit_transform(statements + objects)
    return normalize(counts), np.repeat([0, 1], [len(statements), len(objects)])


def _paragraphs(names: tuple[str, ...], seen: set[str]) -> list[str]:
    """The paragraphs of these pages that no page before had: the manual repeats itself."""
    found = []
    for name in names:
        for paragraph in re.split(r'\n\s*\n', PAGES[name]):
            words = re.findall(r'[A-Za-z]{3,}', paragraph)
            if len(words) >= FEWEST_WORDS and ' '.join(words) not in seen:
                seen.add(' '.join(words))
                found.append(paragraph)
    return found


def _libsvm(path: Path) -> tuple[Any, np.ndarray]:
    if not path.is_file():
        raise ValueError(
            f'{str(path)!r} is neither a data set nor a file. Data sets are '
            f'{", ".join((*BUILT_IN, *TARGETS))}; '
            'anything else must be the path of an existing file in LIBSVM format.'
        )
    try:
        x, y = load_svmlight_file(str(path))[:2]
    except (ValueError, OSError, EOFError, OverflowError) as error:
        raise ValueError(
            f'{str(path)!r} cannot be read as LIBSVM text ({error}). Every line must be '
            '"label index:value index:value ...", with indices that increase (also .gz, .bz2).'
        ) from error
    if x.shape[0] == 0:
        raise ValueError(
            f'{str(path)!r} holds no examples. A LIBSVM file has one example a line: was the '
            'download cut off?'
        )
    return x, y


def sparse(path: Path) -> tuple[Any, np.ndarray]:
    """The examples of a LIBSVM file as a sparse matrix, and labels -1 and +1."""
    x, y = _libsvm(path)
    return x, _labels(path.name, y)


def _labels(name: str, y: np.ndarray) -> np.ndarray:
    """Two classes as -1 and +1."""
    classes = np.unique(y)
    if len(classes) != 2:
        shown = ', '.join(f'{c:g}' for c in classes[:5]) + (', ...' if len(classes) > 5 else '')
        raise ValueError(
            f'{name!r} has {len(classes)} class(es): {shown}. Logistic regression here takes two: '
            'keep the examples of two labels, or merge labels into two groups.'
        )
    return np.where(y == classes[1], 1.0, -1.0)


def _checked(name: str, features: Any, y: np.ndarray) -> Data:
    """Labels become -1 and +1, and the features a dense array."""
    labels = _labels(name, y)
    x = features.toarray() if sp.issparse(features) else np.asarray(features, np.float64)
    if not np.all(np.isfinite(x)):
        raise ValueError(
            f'{name!r} holds NaN or infinity. Features must be finite: clean the file.'
        )
    if not np.any(x):
        raise ValueError(
            f'{name!r} has no feature that differs from zero, so nothing can be learnt.'
        )
    return Data(name, x, labels)


# Two classes, for logistic regression; and targets, for least squares.
BUILT_IN: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {
    'breast_cancer': _breast_cancer,
    'digits': _digits,
    'topics': _topics,
}
TARGETS: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {'diabetes': _diabetes}
