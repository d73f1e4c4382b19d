"""How many times a donated `g + e`, the memory limit, selection and memory cost; all interleaved.

Other work on the machine moves every time, so only ratios within a round are formed, and the
median over rounds is printed (with the quartiles). `python -m experiments.bench_selection [n ...]`
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import gradzip as gz
from gradzip.kernels import selection as select

FRACTIONS = (0.001, 0.01, 0.1)
ROUNDS = {10_000_000: 15, 1_000_000: 40, 65_536: 200}
WHOLE = 'error_feedback(TopK(0.01))'
KEY, KEYS = jax.random.key(0), jax.random.split(jax.random.key(0), 2)
SLOW = 5  # lax.top_k runs in the first so many rounds only


def plain_top_k(x, k):
    """What gradzip would do without us; its indices are in the order of magnitude."""
    _, indices = jax.lax.top_k(jnp.abs(x), k)
    return x[indices], indices


def alone(top_k, k):
    """The selection by itself."""
    return lambda g, e: (top_k(g, k), e)


def memory_step(top_k, k):
    """Gradient plus memory, the payload out, the remainder left in place."""

    def step(g, e):
        y = g + e
        values, indices = top_k(y, k)
        return (values, indices), select.remove(y, indices)

    return step


def compressor_step(compressor):
    """The same through a compressor: the payload as it is sent, the remainder left in place."""

    def step(g, e):
        y = g + e
        payload = compressor.encode(y, KEY)
        return payload, compressor.remainder(y, payload, KEY)

    return step


def dense_step(compressor):
    """The remainder by subtracting a dense copy of what was sent."""

    def step(g, e):
        y = g + e
        payload = compressor.encode(y, KEY)
        return payload, y - compressor.decode(payload, y, KEY)

    return step


def whole_step(compressor):
    """`error_feedback` of one worker: the last update and the memory are given up for the next."""
    tx = gz.error_feedback(compressor)
    return lambda g, buffers: ((), tx.update(g, buffers[1]))


def receive(compressor, like):
    """The mean of two workers' payloads, into a buffer that is given up."""
    return lambda payloads, e: ((), compressor.decode_mean(payloads, like, KEYS))


def inputs(n):
    """Gaussian and adversarial gradients."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(n, np.float32)
    rows = np.repeat(rng.random(n // 64 + 1) < 0.02, 64)[:n]
    aligned = x.copy()
    aligned[:: select._plan(n, n // 100).stride] *= 100
    return {
        'all zero': np.zeros(n, np.float32),
        'all equal': np.ones(n, np.float32),
        '0.3 % non-zero': np.where(rng.random(n) < 0.003, x, np.float32(0)),
        '2 % of rows non-zero': np.where(rows, x, np.float32(0)),
        'bfloat16 ties': x.astype(jnp.bfloat16).astype(np.float32),
        'six levels': np.round(3 * x) * np.float32(0.1),
        'cauchy': rng.standard_cauchy(n).astype(np.float32),
        'sorted': np.sort(x),
        'sample misled (full count)': aligned,
    }


def cases(n):
    """Name to (function of g and e, its g, whether it is slow)."""
    g = jnp.asarray(np.random.default_rng(1).standard_normal(n, np.float32))
    table: dict[str, tuple] = {'g + e': (lambda g, e: ((), g + e), g, False)}
    for fraction in FRACTIONS:
        k, name = round(fraction * n), f'{100 * fraction:g} %'
        table[f'top_k {name}'] = (alone(select.top_k, k), g, False)
        table[f'memory step {name}'] = (memory_step(select.top_k, k), g, False)
        table[f'lax.top_k {name}'] = (alone(plain_top_k, k), g, n > 100_000)
        table[f'memory step, lax, {name}'] = (memory_step(plain_top_k, k), g, n > 100_000)
        for form in ('packed', 'plain'):
            compressor = gz.TopK(fraction, indices=form)
            table[f'TopK, {form}, {name}'] = (compressor_step(compressor), g, False)
            payload = jax.jit(compressor.encode)(g, KEY)
            two = jax.tree.map(lambda a: jnp.stack([a, a]), payload)
            table[f'decode 2, {form}, {name}'] = (receive(compressor, g), two, False)
    table['TopK 1 %, dense sent'] = (dense_step(gz.TopK(0.01)), g, False)
    table['TopK >> QSGD 1 %'] = (compressor_step(gz.TopK(0.01) >> gz.QSGD(7)), g, False)
    table['BlockTopK(10, 1024)'] = (compressor_step(gz.BlockTopK(10, 1024)), g, False)
    table['Threshold(0.5, 0.02)'] = (compressor_step(gz.Threshold(0.5, 0.02)), g, False)
    table['Energy(0.1, 0.02)'] = (compressor_step(gz.Energy(0.1, 0.02)), g, False)
    table[WHOLE] = (whole_step(gz.TopK(0.01)), g, False)
    for name, x in inputs(n).items():
        table[f'top_k 1 %, {name}'] = (alone(select.top_k, n // 100), jnp.asarray(x), False)
    return table


def measure(n):
    """Times of every case, in rounds, and its temporary bytes."""
    table, runs, state, times, temporary = cases(n), {}, {}, {}, {}
    for name, (function, g, _) in table.items():
        e = jnp.full(n, 0.1, jnp.float32)
        if name == WHOLE:
            e = (jnp.zeros(n), gz.error_feedback(gz.TopK(0.01)).init(e))
        jitted = jax.jit(function, donate_argnums=1, keep_unused=True)
        runs[name] = jitted.lower(g, e).compile()
        temporary[name] = runs[name].memory_analysis().temp_size_in_bytes / 2**20
        state[name], times[name] = e, []
    for turn in range(ROUNDS.get(n, 20) + 1):
        for name, (_, g, slow) in table.items():
            for again in range(1 if slow else 2):
                if slow and turn > SLOW:
                    continue
                start = time.perf_counter()
                out, state[name] = runs[name](g, state[name])
                jax.block_until_ready((out, state[name]))
                if turn and (again or slow):
                    times[name].append(time.perf_counter() - start)
    return {name: np.array(t) for name, t in times.items()}, temporary


def ratio(times, name, unit):
    """Median and quartiles of the ratio of two cases, round by round."""
    size = min(times[name].size, times[unit].size)
    return np.percentile(times[name][:size] / times[unit][:size], [50, 25, 75])


def report(n):
    """One table."""
    times, temporary = measure(n)
    unit = times['g + e']
    print(f'\nn = {n:,}; g + e takes {np.median(unit) * 1e3:.3f} ms (min {unit.min() * 1e3:.3f})')
    print(f'{"":42}{"x g+e":>8} {"quartiles":>14} {"min/min":>8} {"ms":>9} {"temp MiB":>9}')
    for name, t in times.items():
        middle, low, high = ratio(times, name, 'g + e')
        print(
            f'{name:42}{middle:8.2f} {f"{low:.1f}-{high:.1f}":>14} {t.min() / unit.min():8.2f}'
            f' {np.median(t) * 1e3:9.3f} {temporary[name]:9.1f}'
        )
    for fraction in FRACTIONS:
        name = f'{100 * fraction:g} %'
        alone_ = ratio(times, f'lax.top_k {name}', f'top_k {name}')[0]
        step = ratio(times, f'memory step, lax, {name}', f'memory step {name}')[0]
        print(f'faster than lax.top_k at {name:7} {alone_:6.1f} x alone, {step:6.1f} x memory step')
    for name in inputs(n):
        print(f'{name:42}{ratio(times, f"top_k 1 %, {name}", "top_k 1 %")[0]:8.2f} x normal')


if __name__ == '__main__':
    for size in [int(a) for a in sys.argv[1:]] or ROUNDS:
        report(size)
