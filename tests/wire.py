"""What a compiled program may send for one exchange of a reducer."""

import gradzip as gz
from gradzip._hlo import collectives
from gradzip._reducers.schedule import Schedule


def check_exchange(compiled, reducer: gz.Reducer, params, workers: int, platform='cpu') -> None:
    """The bytes that were predicted, in one collective for all leaves."""
    assert gz.wire_bytes(compiled) == gz.payload_bytes(reducer, params, workers=workers) > 0
    kinds = [kind for kind, _ in collectives(compiled.as_text())]
    if isinstance(reducer, Schedule):
        assert len(kinds) == 4
    elif isinstance(reducer, gz.CAT):
        assert sorted(kinds) == ['all-gather'] * len(reducer.fractions) + ['all-reduce']
    elif isinstance(reducer, gz.PowerSGD):  # both factors
        assert kinds == ['all-reduce'] * 2
    elif isinstance(reducer, gz.ACPSGD):  # a factor in each branch, or that of a known first step
        assert kinds in (['all-reduce'], ['all-reduce'] * 2)
    elif isinstance(reducer, gz.TwoShot):
        assert kinds == ['all-to-all', 'all-gather']
    elif isinstance(reducer, gz.Gather):
        assert kinds == ['all-gather']
    else:
        assert set(kinds) == {'all-reduce'}
        assert len(kinds) == 1 or platform == 'tpu'  # which splits an all-reduce of two dtypes
