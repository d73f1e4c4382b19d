"""Checks that all processes have the same tree, before they run a program on it.

With several processes, each one traces the program with its own shapes, and JAX does not compare
them. If a leaf has another shape on one process, that process runs other collectives than the rest,
which then hang, fail with an unrelated error, or return wrong numbers. Here each process describes
its tree as text, with one line for each leaf. The processes first gather a digest of fixed size.
Only if the digests differ do they gather the texts, from which all of them find the same leaves.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from gradzip import _axes as axes
from gradzip._base import PyTree

NAMED = 4  # an error lists at most this many leaves


def check_same_shapes(tree: PyTree, mesh: jax.sharding.Mesh | None = None) -> None:
    """Raises an error if the leaves of a tree have other paths, shapes or dtypes on some process.

    All processes must call it at the same point of the program, and all of them raise. It gathers a
    few bytes, so call it before training and not in every step. It does not compare values.

    Args:
      tree: the tree of this process: arrays, or anything with their shapes and dtypes.
      mesh: the mesh whose processes are compared; None for all processes. With a single process
        nothing is done.

    Raises:
      ValueError: the leaves differ between processes. The error names the leaves, and what each
        process has.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> gz.check_same_shapes({'w': jnp.zeros((3, 4))})
    """
    devices = _one_device_a_process(mesh)
    if len(devices) == 1:
        return
    lines = described(tree)
    text = '\n'.join(lines).encode()
    digests = _gather(hashlib.sha256(text).digest() + len(text).to_bytes(8), devices)
    if len(set(digests)) == 1:
        return
    sizes = [int.from_bytes(digest[-8:]) for digest in digests]
    texts = _gather(text.ljust(max(sizes)), devices)
    given = [one[:size].decode().splitlines() for one, size in zip(texts, sizes, strict=True)]
    ranks = [device.process_index for device in devices]
    raise ValueError(difference(dict(zip(ranks, given, strict=True))))


def described(tree: PyTree) -> list[str]:
    """Returns one line for each leaf, in order: its path, a tab, and its shape and dtype."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f'{_one_line(axes.path_of(path))}\t{_kind(leaf)}' for path, leaf in leaves]


def difference(given: dict[int, list[str]]) -> str:
    """Returns the error message for processes whose descriptions of their trees differ."""
    leaves = {rank: dict(line.split('\t') for line in lines) for rank, lines in given.items()}
    paths = list(dict.fromkeys(path for own in leaves.values() for path in own))
    kinds = {p: {rank: own.get(p, 'no such leaf') for rank, own in leaves.items()} for p in paths}
    differing = [p for p in paths if len(set(kinds[p].values())) > 1]
    told = [f'  the leaf at {p!r} is {_by_process(kinds[p])}.' for p in differing[:NAMED]]
    if len(differing) > NAMED:
        told.append(f'  And {len(differing) - NAMED} more leaves.')
    if not differing:
        orders = {rank: ', '.join(own) for rank, own in leaves.items()}
        told = [f'  the order of the leaves is {_by_process(orders)}.']
    return '\n'.join(
        (
            'The processes have different trees:',
            *told,
            'All processes run one program together, so leaves, shapes and dtypes must be the same '
            'on every process.\nBuild the parameters from the same settings on all processes, and '
            'give all processes batches of the same shape.',
        )
    )


def _by_process(kinds: dict[int, str]) -> str:
    """Returns text such as 'float32[3] on processes 0, 2; float32[4] on process 1'."""
    parts = []
    for kind in dict.fromkeys(kinds.values()):
        ranks = [str(rank) for rank, other in kinds.items() if other == kind]
        parts.append(f'{kind} on process{"es" if len(ranks) > 1 else ""} {", ".join(ranks)}')
    return '; '.join(parts)


def _kind(leaf: Any) -> str:
    """Returns shape and dtype, such as float32[3,4], or the type of a leaf that is no array."""
    try:
        like = jax.eval_shape(lambda x: x, leaf)
    except TypeError:
        return type(leaf).__name__
    return f'{like.dtype}[{",".join(map(str, like.shape))}]'


def _one_line(path: str) -> str:
    """Removes line breaks and tabs, which the keys of a user-defined node may contain."""
    return ' '.join(path.split())


def _one_device_a_process(mesh: jax.sharding.Mesh | None) -> list[Any]:
    """Returns the first device of each process, ordered by process."""
    devices = jax.devices() if mesh is None else mesh.devices.flat
    first: dict[int, Any] = {}
    for device in devices:
        first.setdefault(device.process_index, device)
    return [first[rank] for rank in sorted(first)]


def _gather(own: bytes, devices: list[Any]) -> list[bytes]:
    """Returns the bytes of every process, in order. All must have the same length."""
    mesh = jax.sharding.Mesh(np.array(devices), ('process',))
    rows, whole = (jax.NamedSharding(mesh, spec) for spec in (jax.P('process'), jax.P()))
    row = np.frombuffer(own, np.uint8)[None]
    everyones = jax.make_array_from_process_local_data(rows, row, (len(devices), row.size))
    gathered = jax.jit(lambda x: x, out_shardings=whole)(everyones)
    return [one.tobytes() for one in np.asarray(gathered.addressable_data(0))]
