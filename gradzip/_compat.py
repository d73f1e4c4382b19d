"""What gradzip reads from JAX outside of its stable interface, and what differs between versions.

Everything in which the supported versions of JAX differ belongs here, so that supporting a new
version means reading one file. The text of compiled programs, which differs between versions too,
is read by `_hlo` and `_groups`.
"""

from __future__ import annotations

from typing import Any

import jax


def varying(x: Any) -> frozenset[str]:
    """Returns the mapped axes over which JAX knows a value to vary.

    The set is empty wherever JAX does not track this: outside `shard_map`, and inside it with
    check_vma=False. The attribute is called `manual_axis_type` since JAX 0.10, the oldest
    supported version; it was called `vma` before. A version that renames it again fails here with
    an AttributeError, rather than passing gradients that have already been summed.

    Args:
      x: an array, a traced value, or a ShapeDtypeStruct.
    """
    kind: Any = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    manual = kind.manual_axis_type  # None for a ShapeDtypeStruct made outside of shard_map
    return frozenset() if manual is None else manual.varying


def like_varying(shape: tuple[int, ...], dtype: Any, x: Any) -> jax.ShapeDtypeStruct:
    """Returns a shape and dtype that varies over the axes over which x does.

    Inside a `shard_map` that tracks this, JAX asks for it in the results of a Pallas kernel.

    Args:
      shape: of the result.
      dtype: of the result.
      x: an array or a traced value.
    """
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(x).manual_axis_type)


def one_chip_of_tpu() -> bool:
    """Returns whether what is traced here is a program of one TPU chip, as far as can be told.

    This is so if all axes of a mesh of TPU chips are mapped. Outside of `shard_map` and `pmap`
    nothing tells how many devices a program is for, unless there is only one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.default_backend() == 'tpu' and jax.device_count() == 1
    device = mesh.abstract_device  # None if the mesh does not say
    platform = jax.default_backend() if device is None else device.platform
    return platform == 'tpu' and set(mesh.manual_axes) == set(mesh.axis_names)


def sharded_axes(x: Any) -> tuple[str, ...]:
    """Returns the axes of an explicit mesh over which the type of x says that it is sharded.

    Types show this only for axes of type Explicit; for Auto axes the compiler decides later.

    Args:
      x: an array, a traced value, or a ShapeDtypeStruct.
    """
    sharding = None if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x).sharding
    spec = getattr(sharding, 'spec', None) or ()
    groups = (part if isinstance(part, tuple) else (part,) for part in spec)
    return tuple(name for group in groups for name in group if isinstance(name, str))


def compiler_axes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the axes that the compiler distributes inside a `shard_map` over some of these names.

    These are the axes of type Auto, with more than one device, that a partial `shard_map` does not
    map. Nothing in a type shows how an array lies on them. The result is empty under other mappers.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not set(names) & set(mesh.manual_axes):
        return ()
    return tuple(name for name in mesh.auto_axes if mesh.shape[name] > 1)
