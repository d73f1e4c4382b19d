"""Types for annotations, for payloads and states, and for compressors of your own.

A compressor or reducer outside of gradzip needs `Array`, `AxisName`, `Key`, `Like`, `Payload` and
`State` for its annotations; `Wrapper` is the base of a compressor that hands another form of the
array to an inner compressor. The other names are the classes of the payloads that compressors
return and of the states that transformations keep.
"""

from gradzip._base import Array as Array
from gradzip._base import AxisName as AxisName
from gradzip._base import Key as Key
from gradzip._base import KeyLike as KeyLike
from gradzip._base import Like as Like
from gradzip._base import Payload as Payload
from gradzip._base import PyTree as PyTree
from gradzip._base import Scheme as Scheme
from gradzip._base import State as State
from gradzip._compose import Composed as Composed
from gradzip._compose import Contracted as Contracted
from gradzip._compose import Wrapper as Wrapper

# payloads
from gradzip._compressors.blocktopk import BlockSparse as BlockSparse
from gradzip._compressors.cast import Narrow as Narrow
from gradzip._compressors.columnmax import ColumnSparse as ColumnSparse
from gradzip._compressors.counted import Counted as Counted
from gradzip._compressors.identity import Dense as Dense
from gradzip._compressors.induced import Twofold as Twofold
from gradzip._compressors.natural import Powers as Powers
from gradzip._compressors.onebit import TwoMeans as TwoMeans
from gradzip._compressors.integers import Quantized as Quantized
from gradzip._compressors.drawn import Entries as Entries
from gradzip._compressors.scaled_sign import Signs as Signs
from gradzip._compressors.sparse import Sparse as Sparse
from gradzip._narrow import Int8Blocks as Int8Blocks
from gradzip._positions import Positions as Positions

# states
from gradzip._step import Training as Training
from gradzip._compensate import CompensateState as CompensateState
from gradzip._delay import DelayState as DelayState
from gradzip._feedback.compress import CompressState as CompressState
from gradzip._feedback.dgc import DGCState as DGCState
from gradzip._feedback.diana import DianaState as DianaState
from gradzip._feedback.econtrol import EControlState as EControlState
from gradzip._feedback.ef21 import EF21State as EF21State
from gradzip._feedback.error_feedback import ErrorFeedbackState as ErrorFeedbackState
from gradzip._feedback.iag import IAGState as IAGState
from gradzip._feedback.marina import MarinaState as MarinaState
from gradzip._leaves import ExchangeState as ExchangeState
from gradzip._local_steps import LocalStepsState as LocalStepsState
from gradzip._one_bit_adam import FrozenAdamState as FrozenAdamState
from gradzip._one_bit_adam import SharedMomentumState as SharedMomentumState
from gradzip._reducers.schedule import ScheduleState as ScheduleState
from gradzip._fresh_batches import FreshBatchesState as FreshBatchesState
from gradzip._scale_by_delay import ScaleByDelayState as ScaleByDelayState
from gradzip._stale_params import StaleParams as StaleParams
from gradzip._stale_params import StaleState as StaleState
from gradzip._take_turns import TakeTurnsState as TakeTurnsState
from gradzip._wrappers import EveryState as EveryState
from gradzip._zero_one_adam import ZeroOneAdamState as ZeroOneAdamState
from gradzip._wrappers import ParticipateState as ParticipateState
from gradzip._wrappers import SkipNonfiniteState as SkipNonfiniteState
from gradzip.metrics import Metric as Metric
