"""Convergence bounds: the largest step size, the rate, and the accuracy that a run reaches.

Every function takes a `Problem` and the constants of a compressor and returns a `Bound`. The
labels of the theorems (A1, C1, T2) are gradzip's own. A compact proof stands beside each formula.
"""

from gradzip.theory._adaptive import (
    AdaptiveBound as AdaptiveBound,
    delay_adaptive as delay_adaptive,
)
from gradzip.theory._aggregated import q_iag as q_iag
from gradzip.theory._bound import Bound as Bound
from gradzip.theory._delayed import iag as iag, stale as stale, stale_gd as stale_gd
from gradzip.theory._descent import gd as gd
from gradzip.theory._estimates import diana as diana, ef21 as ef21, marina as marina
from gradzip.theory._memory import ef14 as ef14
from gradzip.theory._problem import Problem as Problem
from gradzip.theory._synchronous import dcgd as dcgd, minibatch as minibatch
