"""Bounds in plain numbers: how long a step may be, how fast and how far a run then goes.

Every function takes a `Problem` and the constants of a compressor and returns a `Bound`. The
theorems' labels are gradzip's own; a compact proof stands beside each formula.
"""

from gradzip.theory._aggregated import q_iag as q_iag
from gradzip.theory._bound import Bound as Bound
from gradzip.theory._delayed import iag as iag, stale as stale, stale_gd as stale_gd
from gradzip.theory._descent import gd as gd
from gradzip.theory._memory import ef14 as ef14
from gradzip.theory._problem import Problem as Problem
from gradzip.theory._synchronous import dcgd as dcgd, minibatch as minibatch
