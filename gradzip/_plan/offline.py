"""The step of one worker without its network, so that its computation can be timed.

A step is traced with an axis of workers and run without one: every collective is replaced by the
result that it has on the first worker. So this worker encodes what it would encode and decodes the
payloads that it would receive, at the speed of this machine. What the other workers send is
computed beforehand, by the same program on other arguments: if all payloads were equal, the second
would be decoded from a warm cache.
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

from gradzip import _axes as axes
from gradzip._traffic import COLLECTIVES

Values = list[jax.Array]


class Offline:
    """A step as one of many workers takes it, callable where no axis is mapped.

    Args:
      step: a function that communicates over the axes.
      axis_sizes: the number of workers on each axis.
      args: the arguments of the first worker, trees of arrays.
      peers: the arguments of all others; by default those of the first, rolled to other places.

    Raises:
      NotImplementedError: for a collective in a loop, or one that has no stand-in here.
    """

    def __init__(
        self,
        step: Callable,
        axis_sizes: Mapping[str, int],
        args: tuple,
        peers: list[tuple] | None = None,
    ) -> None:
        self.sizes = dict(axis_sizes)
        workers = math.prod(self.sizes.values())
        trace = jax.make_jaxpr(step, axis_env=list(self.sizes.items()), return_shape=True)
        with axes.traced_for_devices():
            self.closed, shapes = trace(*args)
        self.form = jax.tree.structure(shapes)
        others = (moved(args, i, workers) for i in range(1, workers)) if peers is None else peers
        sent = jax.jit(self._sent)
        self.received = [sent(*own) for own in others]  # for each peer what it sends, in order

    def __call__(self, received: list[Values], *args: Any) -> Any:
        """Takes the step. `received` is `self.received`: an argument, so it is no constant."""
        others = [list(column) for column in zip(*received, strict=True)]
        out = self._run(args, Network(self.sizes, others))
        return jax.tree.unflatten(self.form, out)

    def _sent(self, *args: Any) -> Values:
        network = Network(self.sizes, None)
        self._run(args, network)
        return network.sent

    def _run(self, args: Any, network: Network) -> Values:
        return _evaluate(self.closed.jaxpr, self.closed.consts, jax.tree.leaves(args), network)


def moved(args: Any, i: int, workers: int) -> Any:
    """The same numbers at other places, which stand for another worker's data."""

    def roll(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or x.size < workers:
            return x
        return jnp.roll(x.ravel(), i * x.size // workers + i).reshape(x.shape)

    return jax.tree.map(roll, args)


class Network:
    """The collectives of one run: their results from what the others sent.

    With `others` None every other worker sends what this one sends.
    """

    def __init__(self, sizes: dict[str, int], others: list[Values] | None) -> None:
        self.sizes, self.others = sizes, others
        self.sent: Values = []

    def collective(self, name: str, x: jax.Array, params: dict) -> jax.Array:
        """The result of a collective on the first worker."""
        turn = len(self.sent)
        self.sent.append(x)
        names: Any = params.get('axes', params.get('axis_name'))
        names = names if isinstance(names, tuple) else (names,)
        count = math.prod(self.sizes[name] for name in names) - 1
        others = [x] * count if self.others is None else self.others[turn][:count]
        # The barrier stops XLA from simplifying the exchange by what it knows of the payloads.
        return lax.optimization_barrier(RESULTS[name](x, others, params))


def _gathered(x: jax.Array, others: Values, params: dict) -> jax.Array:
    joined = jnp.concatenate if params['tiled'] else jnp.stack
    return joined([x, *others], axis=params['all_gather_dimension'])


def _swapped(x: jax.Array, others: Values, params: dict) -> jax.Array:
    del params
    return jnp.stack([x[0], *(other[0] for other in others)])


RESULTS: dict[str, Callable[[jax.Array, Values, dict], jax.Array]] = {
    'psum': lambda x, others, params: functools.reduce(jnp.add, others, x),
    'all_gather': _gathered,
    'all_to_all': _swapped,
}
AXIS_INDEX = 'axis_index'


def _evaluate(jaxpr: Jaxpr, consts: Values, args: Values, network: Network) -> Values:
    known: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
    )

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        results = _equation(equation, [read(v) for v in equation.invars], network)
        known |= zip(equation.outvars, results, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _equation(equation: JaxprEqn, operands: Values, network: Network) -> Values:
    name, params = _name(equation), equation.params
    if name == AXIS_INDEX:
        return [lax.optimization_barrier(jnp.zeros([], jnp.int32))]  # the first worker
    if name in RESULTS:
        return [network.collective(name, x, params) for x in operands]
    if name in COLLECTIVES:
        raise NotImplementedError(
            f'{name!r} has no stand-in off the network; known are {", ".join(RESULTS)}.'
        )
    if not any(_communicates(inner.jaxpr) for inner in _inner(equation)):
        out = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(params))
        return out if equation.primitive.multiple_results else [out]
    if name == 'cond':
        branches = [functools.partial(_branch, branch, network) for branch in params['branches']]
        return lax.switch(operands[0], branches, *operands[1:])
    if name == 'jit':
        return _evaluate(params['jaxpr'].jaxpr, params['jaxpr'].consts, operands, network)
    raise NotImplementedError(f'A collective inside {name!r} cannot be taken off the network.')


def _branch(closed: Any, network: Network, *operands: jax.Array) -> Values:
    """One branch of a schedule. What peers send there was not recorded: they send the same."""
    alone = Network(network.sizes, None)
    return _evaluate(closed.jaxpr, closed.consts, list(operands), alone)


def _communicates(jaxpr: Jaxpr) -> bool:
    return any(
        _name(equation) in (*COLLECTIVES, AXIS_INDEX)
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
