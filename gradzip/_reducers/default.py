"""What a bare compressor means as a reducer."""

from gradzip._base import Compressor, Reducer
from gradzip._reducers.gather import Gather
from gradzip._reducers.sum import Sum


def reducer_of(scheme: Compressor | Reducer) -> Reducer:
    """A bare compressor is summed if linear, else gathered."""
    if isinstance(scheme, Reducer):
        return scheme
    return Sum(scheme) if scheme.linear else Gather(scheme)
