"""Whether a collective sends anything: which devices exchange, read from its attributes in HLO.

XLA writes the groups of devices that exchange with each other in several forms:

    replica_groups={{0,1},{2,3}}                   lists of devices
    replica_groups={}, or no such attribute        one group of all devices
    replica_groups=[2,4]<=[8]                      2 groups of 4 devices each, in order
    replica_groups=[2,4]<=[4,2]T(1,0)              the same, of a transposed array of devices
    replica_groups=mesh['a'=2,'b'=4] {'b'}         groups along axes of a mesh
    replica_groups=mesh['a'=8] {'a':(2)4}          along a part of an axis: 4 devices, after a
                                                   part of size 2
    replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}
                                                   a mesh whose devices are in another order

Before version 0.12, JAX writes `shard_map` with lists, and the mesh form only where the compiler
inserts a collective; since then both are in the mesh form. A permutation has
`source_target_pairs={{0,1},{1,0}}` instead of groups.

Reference: openxla/xla, xla/hlo/ir/replica_group.cc and mesh_and_axis.cc.
"""

from __future__ import annotations

import math
import re

_ID_LISTS = r'\{\s*(?:\{[\d,\s]*\}(?:,\s*\{[\d,\s]*\})*)?\s*\}'
_LISTS = re.compile(rf'{_ID_LISTS}(?![^,\s])')
_IOTA = re.compile(r'\[\d+,(?P<size>\d+)\]<=\[[\d,]+\](?:T\([\d,]+\))?(?![^,\s])')
_MESH = re.compile(
    r"mesh\[(?P<mesh>'[^']*'=\d+(?:,'[^']*'=\d+)*)\]"
    r'(?:, device_ids=\((?:[^(){}]|\([^(){}]*\))*\))?'
    r" \{(?P<over>(?:'[^']*'(?::\(\d+\)\d+)?(?:,(?='))?)*)\}(?![^,\s])"
)
_MESH_AXIS = re.compile(r"'([^']*)'=(\d+)")
_GROUP_AXIS = re.compile(r"'([^']*)'(?::\(\d+\)(\d+))?")


def communicates(op: str, attributes: str) -> bool:
    """Returns whether a collective sends anything from one device to another.

    It sends nothing if each device is a group of its own, or if a permutation leaves everything in
    its place.

    Args:
      op: the opcode of the collective, without '-start'.
      attributes: what stands behind the operands of the instruction in HLO text.

    Raises:
      ValueError: the groups are written in a form that is none of those above.
    """
    if op == 'collective-permute':
        pairs = _lists_of(attributes, 'source_target_pairs')
        return any(len(set(pair)) > 1 for pair in pairs)
    return _largest_group(attributes) != 1


def _largest_group(attributes: str) -> int | None:
    """Devices in the largest group; None for one group of all devices."""
    start = attributes.find('replica_groups=')
    if start < 0:
        return None
    value = attributes[start + len('replica_groups=') :]
    if m := _IOTA.match(value):
        return int(m['size'])
    if m := _MESH.match(value):
        sizes = {name: int(size) for name, size in _MESH_AXIS.findall(m['mesh'])}
        over = _GROUP_AXIS.findall(m['over'])
        if all(name in sizes for name, _ in over):
            return math.prod(int(part) if part else sizes[name] for name, part in over)
    elif _LISTS.match(value):
        return max(map(len, _lists_of(attributes, 'replica_groups')), default=None)
    raise _unknown('replica_groups', value)


def _lists_of(attributes: str, name: str) -> list[list[str]]:
    """The device ids of an attribute that is a list of lists."""
    start = attributes.find(f'{name}=')
    value = attributes[start + len(name) + 1 :]
    m = _LISTS.match(value)
    if start < 0 or m is None:
        raise _unknown(name, value)
    return [re.findall(r'\d+', ids) for ids in re.findall(r'\{([\d,\s]*)\}', m[0][1:-1])]


def _unknown(name: str, value: str) -> ValueError:
    shown = value[:120]
    return ValueError(
        f'gradzip cannot read {name}={shown!r} in this HLO, so it cannot count what the collective '
        'sends. It knows lists such as {{0,1},{2,3}}, iota groups such as [2,4]<=[8], and groups '
        "by mesh axes such as mesh['a'=2,'b'=4] {'b'}. This version of XLA may be newer than this "
        'version of gradzip: count with step_bytes, which reads traced shapes and no HLO.'
    )
