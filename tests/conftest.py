"""Eight CPU devices, no silent promotion, and every warning is an error."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'  # libtpu is installed beside us, to compile for, not to run on

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_threefry_partitionable', True)


@pytest.fixture
def x64():
    """Sixty-four bits for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
    """Thousands of compiled programs would fill the memory."""
    yield
    jax.clear_caches()
