"""Eight CPU devices, no silent promotion of dtypes or ranks, and every warning is an error."""

import gc
import os
import pathlib

os.environ['JAX_PLATFORMS'] = 'cpu'  # libtpu may be installed, to compile for TPU, not to run on it

import hypothesis
import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_threefry_partitionable', True)

# Tracing makes many small objects. To look through all of them for garbage after every few hundred,
# as Python does by default, takes a tenth of the time of the suite.
gc.freeze()
gc.set_threshold(100_000, 10, 10)

# Compiling takes most of the time of the suite, so programs are kept on disk from run to run.
# `pytest --cache-clear` removes them.
if not jax.config.jax_compilation_cache_dir:
    jax.config.update('jax_compilation_cache_dir', str(ROOT / '.pytest_cache/d/jax'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)

# The suite draws the same examples in every run. `HYPOTHESIS_PROFILE=long python -m pytest`, or
# `--hypothesis-profile=long`, draws new ones, and more.
hypothesis.settings.register_profile(
    'repeatable', derandomize=True, database=None, deadline=None, max_examples=25
)
hypothesis.settings.register_profile('long', database=None, deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'repeatable'))


@pytest.fixture
def x64():
    """Sixty-four bits for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope='module')
def fast_compilation():
    """XLA optimizes little, for modules that judge numbers and not compiled programs."""
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture
def full_compilation():
    """XLA optimizes as it does for users, for one test in a module of fast compilation."""
    before = jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', before)


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
