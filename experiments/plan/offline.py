"""A worker's step without its network: what it computes, for timing.

`offline` traces a step where an axis of workers is mapped and runs it where none is: every
collective is replaced by what it leaves behind when all workers send the same. So a worker among W
encodes what it would encode, and decodes the W payloads that it would receive, at the speed of this
machine and in no time on any link.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

Values = list[jax.Array]
Sizes = dict[str, int]


def offline(step: Callable, axis_sizes: Mapping[str, int], *args: Any) -> Callable:
    """The same function of the same arguments, for any place; args may be shapes and dtypes.

    Raises:
      NotImplementedError: for a collective in a loop, or one that is not known here.
    """
    sizes = dict(axis_sizes)
    trace = jax.make_jaxpr(step, axis_env=list(sizes.items()), return_shape=True)
    closed, shapes = trace(*args)
    form = jax.tree.structure(shapes)

    def run(*args: Any) -> Any:
        out = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), sizes)
        return jax.tree.unflatten(form, out)

    return run


def _index(operands: Values, params: dict, sizes: Sizes) -> Values:
    """This is the first worker."""
    del operands, params, sizes
    return [_received(jnp.zeros([], jnp.int32))]


def _sum(operands: Values, params: dict, sizes: Sizes) -> Values:
    workers = math.prod(sizes[name] for name in params['axes'])
    return [_received(x) * workers for x in operands]


def _same(operands: Values, params: dict, sizes: Sizes) -> Values:
    """The largest of equal things, or chunks exchanged for equal ones."""
    del params, sizes
    return [_received(x) for x in operands]


def _gathered(operands: Values, params: dict, sizes: Sizes) -> Values:
    del sizes
    joined = jnp.concatenate if params['tiled'] else jnp.stack
    copies, axis = params['axis_size'], params['all_gather_dimension']
    return [_received(joined([x] * copies, axis=axis)) for x in operands]


def _received(x: jax.Array) -> jax.Array:
    """As from the network: the compiler must not see that it is what was sent."""
    return lax.optimization_barrier(x)


STAND_INS: dict[str, Callable[[Values, dict, Sizes], Values]] = {
    'axis_index': _index,
    'psum': _sum,
    'pmax': _same,
    'pmin': _same,
    'all_gather': _gathered,
    'all_to_all': _same,
}


def _evaluate(jaxpr: Jaxpr, consts: Values, args: Values, sizes: Sizes) -> Values:
    known: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
    )

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        results = _equation(equation, [read(v) for v in equation.invars], sizes)
        known |= zip(equation.outvars, results, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _equation(equation: JaxprEqn, operands: Values, sizes: Sizes) -> Values:
    name, params = _name(equation), equation.params
    if name in STAND_INS:
        return STAND_INS[name](operands, params, sizes)
    if not any(_communicates(inner.jaxpr) for inner in _inner(equation)):
        out = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(params))
        return out if equation.primitive.multiple_results else [out]
    if name == 'cond':
        branches = [functools.partial(_branch, branch, sizes) for branch in params['branches']]
        return lax.switch(operands[0], branches, *operands[1:])
    if name == 'jit':
        return _evaluate(params['jaxpr'].jaxpr, params['jaxpr'].consts, operands, sizes)
    raise NotImplementedError(f'A collective inside {name!r} cannot be taken off the network.')


def _branch(closed: Any, sizes: Sizes, *operands: jax.Array) -> Values:
    return _evaluate(closed.jaxpr, closed.consts, list(operands), sizes)


def _communicates(jaxpr: Jaxpr) -> bool:
    return any(
        _name(equation) in STAND_INS
        or any(_communicates(inner.jaxpr) for inner in _inner(equation))
        for equation in jaxpr.eqns
    )


def _inner(equation: JaxprEqn) -> Iterator[Any]:
    """The closed jaxprs inside an equation."""
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, 'jaxpr') and hasattr(item, 'consts'):
                yield item


def _name(equation: JaxprEqn) -> str:
    return equation.primitive.name.removesuffix('_invariant')
