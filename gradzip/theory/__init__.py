"""Bounds in plain numbers: how long a step may be, how fast and how far a run then goes.

Every function takes a `Problem` and the constants of a compressor and returns a `Bound`. The
theorems' labels are gradzip's own; a compact proof stands beside each formula.
"""

from gradzip.theory.aggregated import q_iag as q_iag
from gradzip.theory.bound import Bound as Bound
from gradzip.theory.delayed import iag as iag
from gradzip.theory.delayed import stale as stale
from gradzip.theory.delayed import stale_gd as stale_gd
from gradzip.theory.descent import gd as gd
from gradzip.theory.memory import ef14 as ef14
from gradzip.theory.problem import Problem as Problem
from gradzip.theory.synchronous import dcgd as dcgd
from gradzip.theory.synchronous import minibatch as minibatch
