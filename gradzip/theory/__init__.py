"""Convergence bounds: the largest step size, the rate, and the accuracy that a run reaches.

Every theorem is a function of a `Problem` and the constants of a compressor, and returns a `Bound`.
`for_target` chooses its step size. The labels of the theorems (A1, C1, T2) are gradzip's own. A
compact proof stands beside each formula.
"""

from gradzip.theory._absolute import haec as haec
from gradzip.theory._adaptive import (
    AdaptiveBound as AdaptiveBound,
    delay_adaptive as delay_adaptive,
)
from gradzip.theory._aggregated import q_iag as q_iag
from gradzip.theory._bound import Bound as Bound
from gradzip.theory._control import econtrol as econtrol
from gradzip.theory._descend import scale_by_theory as scale_by_theory
from gradzip.theory._descent import gd as gd
from gradzip.theory._dissimilar import bounded_below as bounded_below, dissimilar as dissimilar
from gradzip.theory._estimates import diana as diana, ef21 as ef21, marina as marina
from gradzip.theory._first_step import first_step as first_step
from gradzip.theory._late import iag as iag, stale_gd as stale_gd
from gradzip.theory._late_sgd import Target as Target, late_sgd as late_sgd
from gradzip.theory._measure import Measured as Measured, measure as measure
from gradzip.theory._memory import ef14 as ef14
from gradzip.theory._momentum import ef21_momentum as ef21_momentum
from gradzip.theory._problem import Problem as Problem
from gradzip.theory._random_block import random_block as random_block
from gradzip.theory._seconds import TimeBound as TimeBound
from gradzip.theory._sequence import sequence_lemma as sequence_lemma
from gradzip.theory._shadowheart import (
    equilibrium_time as equilibrium_time,
    time_shadowheart as time_shadowheart,
)
from gradzip.theory._staged import Staged as Staged, halving as halving
from gradzip.theory._stale import stale as stale
from gradzip.theory._synchronous import dcgd as dcgd, minibatch as minibatch
from gradzip.theory._target import for_target as for_target
from gradzip.theory._time import (
    time_asynchronous as time_asynchronous,
    time_m_synchronous as time_m_synchronous,
    time_rennala as time_rennala,
    time_ringmaster as time_ringmaster,
    time_synchronous as time_synchronous,
)
