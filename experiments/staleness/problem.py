"""Workers with different quadratics, and a chain that descends on them, in float64.

    f_i(x) = (s_i / 2) (x - c_i)' A (x - c_i),   F = mean of f_i

The scales s_i and the minimisers c_i differ between the workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradzip as gz
from gradzip import theory

AXIS = 'worker'
WORKERS, SIZE = 8, 20
SMALLEST, LARGEST = 1.0, 20.0  # eigenvalues of A
SCALES = 0.5, 1.5  # between which the s_i lie


class Quadratics(NamedTuple):
    """The losses of all workers, and the constants of their mean."""

    curvature: np.ndarray  # f64[workers, n, n]
    linear: np.ndarray  # f64[workers, n], s_i A c_i
    optimum: np.ndarray  # f64[n]
    constants: theory.Problem


def quadratics(seed: int = 0) -> Quadratics:
    """Random ones, whose minimisers differ; the first point is 0."""
    rng = np.random.default_rng(seed)
    curvature, linear = np.zeros((WORKERS, SIZE, SIZE)), np.zeros((WORKERS, SIZE))
    basis = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    common = basis * np.geomspace(SMALLEST, LARGEST, SIZE) @ basis.T
    scales = np.linspace(*SCALES, WORKERS)
    for i, scale in enumerate(scales):
        curvature[i] = scale * common
        linear[i] = curvature[i] @ rng.normal(size=SIZE)
    mean = curvature.mean(0)
    optimum = np.linalg.solve(mean, linear.mean(0))
    ends = np.linalg.eigvalsh(mean)
    gradients = np.einsum('ijk,k->ij', curvature, optimum) - linear
    constants = theory.Problem(
        n=WORKERS, L=ends[-1], mu=ends[0], L_max=scales[-1] * ends[-1], L_mean=ends[-1],
        G=float(np.sum(gradients**2)), V0=float(np.sum(optimum**2)),
        F0=float(optimum @ mean @ optimum / 2),
    )  # fmt: skip
    return Quadratics(curvature, linear, optimum, constants)


def run(
    problem: Quadratics,
    make: Callable[[Any], optax.GradientTransformation],
    keys: Any,
    steps: int,
    record: Callable[[jax.Array], jax.Array],
    start: np.ndarray | None = None,
) -> np.ndarray:
    """record(x_k - x*) for k = 0 .. steps and every key: f64[keys, steps + 1].

    Args:
      problem: what is minimised.
      make: from a key to a chain that exchanges over AXIS and descends.
      keys: one for each run.
      steps: of each run.
      record: a number, from the distance to the minimum.
      start: the first point; 0 by default.
    """
    x = jnp.zeros(SIZE) if start is None else jnp.asarray(start)
    own = jnp.asarray(problem.curvature), jnp.asarray(problem.linear)
    optimum = jnp.asarray(problem.optimum)
    tx = make(keys[0])  # the key that a run uses is in its state
    specs = gz.state_specs(jax.eval_shape(tx.init, x), 0, None)

    def worker(x: Any, state: Any, curvature: Any, linear: Any) -> tuple[Any, Any]:
        updates, state = tx.update(curvature @ x - linear, state, x)
        return optax.apply_updates(x, updates), state

    step: Callable = jax.vmap(worker, (None, specs, 0, 0), (None, specs), axis_name=AXIS)

    def one(key: Any) -> Any:
        init = jax.vmap(lambda _: make(key).init(x), out_axes=specs, axis_name=AXIS)

        def body(carry: tuple, _: None) -> tuple:
            return step(*carry, *own), record(carry[0] - optimum)

        return jax.lax.scan(body, (x, init(jnp.arange(WORKERS))), length=steps + 1)[1]

    return np.asarray(jax.jit(jax.vmap(one))(keys))
