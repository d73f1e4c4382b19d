"""Chips that programs are compiled for on a machine that has none of them.

libtpu and the CUDA plugin of JAX compile ahead of time from a description of the chip.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

AXIS = 'data'
WORKERS = 8

# What XLA would ask the driver of a GPU.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 28 patch: 1 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
ENVIRONMENT = {  # libtpu asks for no metadata server, and several processes may compile
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of chip, of which there are eight.

    Args:
      platform: JAX's name of it.
      package: what has to be installed to compile for it.
      bandwidth: bytes a second between the chip and its memory, from its data sheet.
      topology: the arrangement of eight chips.
      options: of the compiler.
    """

    platform: str
    package: str
    bandwidth: float
    topology: dict[str, str]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether its compiler is."""
        return importlib.util.find_spec(self.package) is not None


def _tpu(topology: str, bandwidth: float) -> Chip:
    return Chip('tpu', 'libtpu', bandwidth, {'topology_name': topology})


CHIPS: dict[str, Chip] = {
    'v5e': _tpu('v5e:2x4', 819e9),
    'v6e': _tpu('v6e:2x4', 1640e9),
    'v5p': _tpu('v5p:2x2x2', 2765e9),
    'h100': Chip(
        'cuda',
        'jax_cuda13_plugin',
        3352e9,
        {'topology_name': 'h100', 'target_config': H100, 'topology': '1x1x8'},
        # Without a device there is nothing to time variants of a kernel on.
        {'xla_gpu_autotune_level': 0, 'xla_gpu_enable_triton_gemm': False},
    ),
}


def mesh(chip: Chip, workers: int = WORKERS) -> jax.sharding.Mesh:
    """Some chips of a kind, along one axis."""
    os.environ.update(ENVIRONMENT)
    found = topologies.get_topology_desc(platform=chip.platform, **chip.topology)
    return jax.sharding.Mesh(np.array(found.devices[:workers]), (AXIS,))
