"""Eight CPU devices, no silent promotion, and every warning is an error."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'  # libtpu is installed beside us, to compile for, not to run on

import jax
import numpy as np
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_threefry_partitionable', True)


@pytest.fixture
def x64():
    """Sixty-four bits for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope='session')
def tpu_mesh():
    """Eight v5e chips that we only compile for: libtpu does it on the CPU."""
    pytest.importorskip('libtpu', reason='libtpu is published for Linux on x86-64 only')
    from jax.experimental import topologies

    os.environ.update(
        TPU_SKIP_MDS_QUERY='1',
        TPU_ACCELERATOR_TYPE='v5litepod-8',
        TPU_WORKER_HOSTNAMES='localhost',
        ALLOW_MULTIPLE_LIBTPU_LOAD='1',  # nothing runs on a chip, so test processes can share
    )
    topology = topologies.get_topology_desc('v5e:2x4', platform='tpu')
    return jax.sharding.Mesh(np.array(topology.devices), ('data',))


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
    """Thousands of compiled programs would fill the memory."""
    yield
    jax.clear_caches()
