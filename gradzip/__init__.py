"""Distributed training that is cheap to communicate, as optax transformations."""

__version__ = '0.1.0'

# what is chosen: compressors
from gradzip._base import Compressor as Compressor
from gradzip._compressors.bernoulli import Bernoulli as Bernoulli
from gradzip._compressors.blocktopk import BlockTopK as BlockTopK
from gradzip._compressors.cast import Cast as Cast
from gradzip._compressors.columnmax import ColumnMax as ColumnMax
from gradzip._compressors.dct import DCT as DCT
from gradzip._compressors.eden import EDEN as EDEN
from gradzip._compressors.energy import Energy as Energy
from gradzip._compressors.identity import Identity as Identity
from gradzip._compressors.induced import Induced as Induced
from gradzip._compressors.integer import Int as Int
from gradzip._compressors.natural import Natural as Natural
from gradzip._compressors.onebit import OneBit as OneBit
from gradzip._compressors.qsgd import QSGD as QSGD
from gradzip._compressors.randblock import RandBlock as RandBlock
from gradzip._compressors.randk import RandK as RandK
from gradzip._compressors.rotated import Rotated as Rotated
from gradzip._compressors.scaled_sign import ScaledSign as ScaledSign
from gradzip._compressors.ternary import Ternary as Ternary
from gradzip._compressors.threshold import Threshold as Threshold
from gradzip._compressors.topk import TopK as TopK
from gradzip._compressors.weighted import WeightedBernoulli as WeightedBernoulli

# what is chosen: reducers
from gradzip._base import Reduced as Reduced
from gradzip._base import Reducer as Reducer
from gradzip._reducers.acpsgd import ACPSGD as ACPSGD
from gradzip._reducers.cat import CAT as CAT
from gradzip._reducers.gather import Gather as Gather
from gradzip._reducers.powersgd import PowerSGD as PowerSGD
from gradzip._reducers.schedule import Schedule as Schedule
from gradzip._reducers.sum import Sum as Sum
from gradzip._reducers.two_shot import TwoShot as TwoShot

# what is done: exchanges and delays
from gradzip._delay_draws import Geometric as Geometric
from gradzip._delay_draws import Straggler as Straggler
from gradzip._delay_draws import Uniform as Uniform
from gradzip._delay_models import Burst as Burst
from gradzip._delay_models import Constant as Constant
from gradzip._delay_models import Cyclic as Cyclic
from gradzip._delay_models import Delay as Delay
from gradzip._delay_models import Fixed as Fixed
from gradzip._trace import Trace as Trace
from gradzip._compensate import compensate as compensate
from gradzip._delay import delay as delay
from gradzip._feedback.compress import compress as compress
from gradzip._feedback.dgc import dgc as dgc
from gradzip._feedback.diana import diana as diana
from gradzip._feedback.econtrol import econtrol as econtrol
from gradzip._feedback.ef21 import ef21 as ef21
from gradzip._feedback.error_feedback import error_feedback as error_feedback
from gradzip._feedback.hessian_feedback import hessian_feedback as hessian_feedback
from gradzip._feedback.iag import iag as iag
from gradzip._feedback.marina import marina as marina
from gradzip._feedback.marina import marina_grads as marina_grads
from gradzip._fresh_batches import fresh_batches as fresh_batches
from gradzip._newton_linesearch import (
    scale_by_newton_linesearch as scale_by_newton_linesearch,
)
from gradzip._scale_by_delay import scale_by_delay as scale_by_delay
from gradzip._stale_params import stale_params as stale_params
from gradzip._take_turns import take_turns as take_turns

# what is done: recipes
from gradzip._recipes import compressed_adam as compressed_adam
from gradzip._recipes import dion as dion

# what is done: wrappers
from gradzip._hierarchy import hierarchical as hierarchical
from gradzip._local_params import local_params as local_params
from gradzip._local_steps import local_steps as local_steps
from gradzip._one_bit_adam import scale_by_frozen_adam as scale_by_frozen_adam
from gradzip._one_bit_adam import shared_momentum as shared_momentum
from gradzip._per_shard import per_shard as per_shard
from gradzip._zero_one_adam import zero_one_adam as zero_one_adam
from gradzip._wrappers import every as every
from gradzip._wrappers import participate as participate
from gradzip._wrappers import per_worker as per_worker
from gradzip._wrappers import skip_nonfinite as skip_nonfinite

# around a step: mappers, metrics, traffic, plan, theory
from gradzip import advice as advice
from gradzip import clock as clock
from gradzip import delay_rules as delay_rules
from gradzip import metrics as metrics
from gradzip import theory as theory
from gradzip import types as types
from gradzip._agreement import check_same_shapes as check_same_shapes
from gradzip._axes import localize as localize
from gradzip._citation import citation as citation
from gradzip._base import PerWorker as PerWorker
from gradzip._debug import check_local as check_local
from gradzip._data_parallel import data_parallel as data_parallel
from gradzip._distribute import distribute as distribute
from gradzip._plan.plan import plan as plan
from gradzip._plan.ranking import Plan as Plan
from gradzip._plan.ranking import PlanRow as PlanRow
from gradzip._hlo import wire_bytes as wire_bytes
from gradzip._resize import resize as resize
from gradzip._shards import shard_shapes as shard_shapes
from gradzip._specs import state_specs as state_specs
from gradzip._traffic import payload_bytes as payload_bytes
from gradzip._traffic import step_bytes as step_bytes
