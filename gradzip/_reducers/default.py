"""The reducer that a compressor alone stands for."""

from gradzip._base import Compressor, Reducer
from gradzip._reducers.gather import Gather
from gradzip._reducers.sum import Sum


def reducer_of(scheme: Compressor | Reducer) -> Reducer:
    """Returns a reducer as it is, and for a compressor `Sum` if it is linear, else `Gather`."""
    if isinstance(scheme, Reducer):
        return scheme
    return Sum(scheme) if scheme.linear else Gather(scheme)
