"""Distributed training that is cheap to communicate, as optax transformations."""

# what is chosen: compressors
from gradzip.base import Compressor as Compressor
from gradzip.compressors.bernoulli import Bernoulli as Bernoulli
from gradzip.compressors.blocktopk import BlockTopK as BlockTopK
from gradzip.compressors.cast import Cast as Cast
from gradzip.compressors.dct import DCT as DCT
from gradzip.compressors.eden import EDEN as EDEN
from gradzip.compressors.energy import Energy as Energy
from gradzip.compressors.identity import Identity as Identity
from gradzip.compressors.induced import Induced as Induced
from gradzip.compressors.integer import Int as Int
from gradzip.compressors.natural import Natural as Natural
from gradzip.compressors.onebit import OneBit as OneBit
from gradzip.compressors.qsgd import QSGD as QSGD
from gradzip.compressors.randblock import RandBlock as RandBlock
from gradzip.compressors.randk import RandK as RandK
from gradzip.compressors.rotated import Rotated as Rotated
from gradzip.compressors.scaled_sign import ScaledSign as ScaledSign
from gradzip.compressors.ternary import Ternary as Ternary
from gradzip.compressors.threshold import Threshold as Threshold
from gradzip.compressors.topk import TopK as TopK
from gradzip.compressors.weighted import WeightedBernoulli as WeightedBernoulli

# what is chosen: reducers
from gradzip.base import Reduced as Reduced
from gradzip.base import Reducer as Reducer
from gradzip.reducers.gather import Gather as Gather
from gradzip.reducers.powersgd import PowerSGD as PowerSGD
from gradzip.reducers.stages import stages as stages
from gradzip.reducers.sum import Sum as Sum
from gradzip.reducers.two_shot import TwoShot as TwoShot

# what is done: exchanges and delays
from gradzip.delay import Constant as Constant
from gradzip.delay import Cyclic as Cyclic
from gradzip.delay import Delay as Delay
from gradzip.delay import Uniform as Uniform
from gradzip.delay import delay as delay
from gradzip.feedback.compress import compress as compress
from gradzip.feedback.ef21 import ef21 as ef21
from gradzip.feedback.error_feedback import error_feedback as error_feedback
from gradzip.feedback.iag import iag as iag

# what is done: wrappers
from gradzip.hierarchy import hierarchical as hierarchical
from gradzip.wrappers import every as every
from gradzip.wrappers import participate as participate
from gradzip.wrappers import per_worker as per_worker
from gradzip.wrappers import skip_nonfinite as skip_nonfinite

# around a step: mappers, metrics, traffic, theory
from gradzip import advice as advice
from gradzip import metrics as metrics
from gradzip import theory as theory
from gradzip.agreement import check_same_shapes as check_same_shapes
from gradzip.axes import localize as localize
from gradzip.axes import state_specs as state_specs
from gradzip.base import PerWorker as PerWorker
from gradzip.data_parallel import data_parallel as data_parallel
from gradzip.hlo import wire_bytes as wire_bytes
from gradzip.traffic import payload_bytes as payload_bytes
from gradzip.traffic import step_bytes as step_bytes
