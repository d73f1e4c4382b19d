"""Arrays that break things, by name and by hypothesis."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np


def _draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# A bound must hold on every one of them, not only on Gaussians. All have 100 entries, so that one
# compiled program serves them all.
HARD: dict[str, np.ndarray] = {
    'gaussian': _draw(0).normal(size=100),
    'cauchy': _draw(1).standard_cauchy(size=100),
    'zeros': np.zeros(100),
    'one nonzero': np.eye(1, 100, 37)[0],
    'all equal': np.full(100, -3.0),
    'two values': np.where(np.arange(100) % 2, 1.0, -2.0),
    'sorted': np.linspace(-1, 1, 100),
    'mostly zero': np.where(np.arange(100) % 9 == 0, _draw(5).normal(size=100), 0.0),
    'huge': _draw(2).normal(size=100) * 1e30,
    'tiny': _draw(3).normal(size=100) * 1e-30,
    'denormal': np.full(100, 1e-40),
    'worst for ternary': np.concatenate([[1.0], np.full(99, 1 / 11)]),
}

FLOATS = st.one_of(
    st.floats(-10, 10, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, 2.0**-126]),
)


# A scalar, nothing, one and two entries, more than a word of 32 and a block of 64, two axes.
SHAPES = [(), (0,), (1,), (2,), (70,), (6, 7)]


def vectors() -> st.SearchStrategy[np.ndarray]:
    """Float32 arrays of zero to three axes, with zeros, ties, huge and tiny entries.

    The shapes are few, so that JAX compiles for each only once.
    """
    return st.sampled_from(SHAPES).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=FLOATS)
    )


def flushed(x: np.ndarray) -> np.ndarray:
    """x in float64 as a processor sees its float32: denormals count as zero."""
    x = np.asarray(x, np.float32).astype(np.float64)
    return np.where(np.abs(x) < 2.0**-126, 0, x)
