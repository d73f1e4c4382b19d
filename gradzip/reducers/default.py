"""What a bare compressor means as a reducer."""

from gradzip.base import Compressor, Reducer
from gradzip.reducers.gather import Gather
from gradzip.reducers.sum import Sum


def reducer_of(scheme: Compressor | Reducer) -> Reducer:
    """A bare compressor is summed if linear, else gathered."""
    if isinstance(scheme, Reducer):
        return scheme
    return Sum(scheme) if scheme.linear else Gather(scheme)
