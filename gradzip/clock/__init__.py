"""A clock for many workers: computing times and links in, delays and seconds out.

`simulate` runs a protocol, such as `Asynchronous()` or `Synchronous()`, over the random times of
its workers and a `Network`, and returns a `Run`: who sent what when, how late it was used, and how
many seconds the steps took. `predict` computes the seconds of a step without simulating. Both use
NumPy alone. `Run.trace` turns the delays into a `gradzip.Trace`, so that a chain trains with them.
"""

from gradzip.clock._distributions import (
    Constant as Constant,
    Exponential as Exponential,
    LogNormal as LogNormal,
    Pareto as Pareto,
)
from gradzip.clock._network import Network as Network
from gradzip.clock._observed import Measured as Measured, Outages as Outages
from gradzip.clock._predict import predict as predict
from gradzip.clock._protocols import (
    Asynchronous as Asynchronous,
    BoundedStaleness as BoundedStaleness,
    MSynchronous as MSynchronous,
    Protocol as Protocol,
    Quorum as Quorum,
    Rennala as Rennala,
    Ringmaster as Ringmaster,
    RoundRobin as RoundRobin,
    Synchronous as Synchronous,
)
from gradzip.clock._rank import rank as rank
from gradzip.clock._ranking import Ranking as Ranking, RankRow as RankRow
from gradzip.clock._run import Run as Run
from gradzip.clock._simulate import simulate as simulate
from gradzip.clock._times import Times as Times
