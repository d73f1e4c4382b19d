"""Whether all processes mean the same tree: found out before a program is run on it.

With several processes every one traces its own shapes, and nobody compares them. A leaf of another
shape on one of them makes other collectives there, and those hang, fail somewhere inside, or mix
up numbers. So every process writes down its tree as text, one leaf a line. First a digest of fixed
size is gathered; only where the digests differ are the texts, from which all processes find the
same leaves.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from gradzip import _axes as axes
from gradzip._base import PyTree

NAMED = 4  # leaves in an error; more would hide the first


def check_same_shapes(tree: PyTree, mesh: jax.sharding.Mesh | None = None) -> None:
    """Refuses a tree whose leaves have other paths, shapes or dtypes on another process.

    Every process calls it at the same place, and every process raises. It costs a gather of a few
    bytes, so call it before training, not in a step. Values are not compared.

    Args:
      tree: arrays, or anything with their shapes and dtypes; what this process has.
      mesh: whose processes are compared; None for all. With one process nothing is done.

    Raises:
      ValueError: on every process, if leaves differ between processes. It names the leaves, and
        what each process has.

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
    """A line a leaf, in their order: its path, a tab, and what it is."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f'{_one_line(axes.path_of(path))}\t{_kind(leaf)}' for path, leaf in leaves]


def difference(given: dict[int, list[str]]) -> str:
    """What to tell whoever has processes that described their trees so differently."""
    leaves = {rank: dict(line.split('\t') for line in lines) for rank, lines in given.items()}
    paths = list(dict.fromkeys(path for own in leaves.values() for path in own))
    kinds = {p: {rank: own.get(p, 'no such leaf') for rank, own in leaves.items()} for p in paths}
    differing = [p for p in paths if len(set(kinds[p].values())) > 1]
    told = [f'  the leaf at {p!r} is {_by_process(kinds[p])}.' for p in differing[:NAMED]]
    if len(differing) > NAMED:
        told.append(f'  And {len(differing) - NAMED} leaves more.')
    if not differing:
        orders = {rank: ', '.join(own) for rank, own in leaves.items()}
        told = [f'  the order of the leaves is {_by_process(orders)}.']
    return '\n'.join(
        (
            'The processes have different trees:',
            *told,
            'All of them run one program together, so leaves, shapes and dtypes must be the same '
            'on every process.\nBuild params from the same settings everywhere, and give all '
            'processes batches of one shape.',
        )
    )


def _by_process(kinds: dict[int, str]) -> str:
    """Such as 'float32[3] on processes 0, 2; float32[4] on process 1'."""
    parts = []
    for kind in dict.fromkeys(kinds.values()):
        ranks = [str(rank) for rank, other in kinds.items() if other == kind]
        parts.append(f'{kind} on process{"es" if len(ranks) > 1 else ""} {", ".join(ranks)}')
    return '; '.join(parts)


def _kind(leaf: Any) -> str:
    """Shape and dtype, such as float32[3,4]; of what has none its type, which fails later."""
    try:
        like = jax.eval_shape(lambda x: x, leaf)
    except TypeError:
        return type(leaf).__name__
    return f'{like.dtype}[{",".join(map(str, like.shape))}]'


def _one_line(path: str) -> str:
    """A key of a dictionary may hold anything; keystr shows it by repr, but own nodes need not."""
    return ' '.join(path.split())


def _one_device_a_process(mesh: jax.sharding.Mesh | None) -> list[Any]:
    devices = jax.devices() if mesh is None else mesh.devices.flat
    first: dict[int, Any] = {}
    for device in devices:
        first.setdefault(device.process_index, device)
    return [first[rank] for rank in sorted(first)]


def _gather(own: bytes, devices: list[Any]) -> list[bytes]:
    """What every process has, in order: as many bytes on each."""
    mesh = jax.sharding.Mesh(np.array(devices), ('process',))
    rows, whole = (jax.NamedSharding(mesh, spec) for spec in (jax.P('process'), jax.P()))
    row = np.frombuffer(own, np.uint8)[None]
    everyones = jax.make_array_from_process_local_data(rows, row, (len(devices), row.size))
    gathered = jax.jit(lambda x: x, out_shardings=whole)(everyones)
    return [one.tobytes() for one in np.asarray(gathered.addressable_data(0))]
