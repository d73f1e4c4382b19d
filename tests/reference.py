"""Slow NumPy, straight from the papers, loops and all.

Where a compressor draws, the reference takes the draws as an argument.
"""

import numpy as np


def top_k(x: np.ndarray, k: int) -> np.ndarray:
    """Stich et al., arXiv 1809.07599, definition 2.1; NaN is largest, then the lower index."""
    order = sorted(range(x.size), key=lambda i: (-np.inf if np.isnan(x[i]) else -abs(x[i]), i))
    nans = [i for i in range(x.size) if np.isnan(x[i])]
    order = nans + [i for i in order if i not in set(nans)]
    out = np.zeros_like(x)
    for i in order[:k]:
        out[i] = x[i]
    return out


def block_top_k(x: np.ndarray, k: int, block: int) -> np.ndarray:
    """Peng et al., arXiv 2411.19870: the same of every block."""
    blocks = [x[i : i + block] for i in range(0, x.size, block)]
    return np.concatenate([top_k(b, min(k, b.size)) for b in blocks] or [x])


def threshold(x: np.ndarray, relative: float, places: int) -> np.ndarray:
    """Entries that are not below a share of the largest; no more than there are places for."""
    out = top_k(x, places)
    limit = np.float32(relative) * np.max(np.abs(out), initial=0)
    return np.array([0 if abs(v) < limit else v for v in out], x.dtype)


def energy(x: np.ndarray, share: float, places: int) -> np.ndarray:
    """Khirirat et al., arXiv 2003.06377: the smallest T with |v_T|^2 >= share |v|^2."""
    whole = np.sum(x.astype(np.float64) ** 2)
    for count in range(places + 1):
        out = top_k(x, count)
        if np.sum(out.astype(np.float64) ** 2) >= share * whole:
            break
    return out


def dct(x: np.ndarray) -> np.ndarray:
    """Orthonormal DCT-II of one block, by its definition."""
    n = x.size
    y = [sum(x[i] * np.cos(np.pi * (2 * i + 1) * j / (2 * n)) for i in range(n)) for j in range(n)]
    return np.array(y) * np.sqrt(np.where(np.arange(n) == 0, 1, 2) / n)


def rand_k(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The same definition, scaled by n / k to be unbiased."""
    out = np.zeros_like(x)
    for i in positions:
        out[i] = x[i] * x.size / len(positions)
    return out


def bernoulli(x: np.ndarray, mask: np.ndarray, p: float) -> np.ndarray:
    """Khirirat et al., arXiv 1806.06573: Q(v)_i = (v_i / p) xi_i."""
    return np.array([v / p if kept else 0 for v, kept in zip(x, mask, strict=True)], x.dtype)


def qsgd(x: np.ndarray, levels: int, norm: str, noise: np.ndarray) -> np.ndarray:
    """Alistarh et al., arXiv 1610.02132, section 3.1, one block: noise is uniform in [0, 1).

    Q(v)_i = N sign(v_i) xi_i / s, where xi_i is l + 1 with probability s |v_i| / N - l, else l.
    """
    size = np.max(np.abs(x)) if norm == 'max' else np.sqrt(np.sum(x.astype(np.float64) ** 2))
    out = np.zeros_like(x)
    for i, v in enumerate(x):
        if size == 0:
            continue
        scaled = levels * abs(v) / size
        low = np.floor(scaled)
        up = noise[i] < scaled - low
        out[i] = size * np.sign(v) * (low + up) / levels
    return out


def scaled_sign(x: np.ndarray) -> np.ndarray:
    """Karimireddy et al., arXiv 1901.09847: (|v|_1 / n) sign(v), zeros by their sign bit."""
    scale = sum(abs(float(v)) for v in x) / x.size
    return np.array([-scale if np.signbit(v) else scale for v in x], x.dtype)


def natural(x: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Horvath et al., arXiv 1905.10988, definition 1: (1 + m) 2^e goes up with probability m.

    Denormal entries become zero. Infinity and NaN, of which the paper says nothing, stay.
    """
    out = np.zeros_like(x)
    for i, v in enumerate(x):
        if not np.isfinite(v):
            out[i] = v
        elif abs(v) >= np.finfo(x.dtype).smallest_normal:
            half, e = np.frexp(abs(v))  # v = half 2^e, half in [1/2, 1)
            up = draws[i] < 0 if half == 0.5 else 1 - draws[i] <= 2 * half - 1
            out[i] = np.sign(v) * 2.0 ** (e - 1 + up)
    return out


def nearest_integers(x: np.ndarray, levels: int) -> np.ndarray:
    """One block: the nearest multiple of max / levels."""
    step = np.max(np.abs(x)) / levels
    return np.array([np.sign(v) * np.ceil(abs(v) / step - 0.5) * step for v in x], x.dtype)


def one_bit(x: np.ndarray) -> np.ndarray:
    """Seide et al., 2014: one block, every entry the mean of those with its sign."""
    high = [float(v) for v in x if v >= 0]
    low = [float(v) for v in x if v < 0]
    return np.array([np.mean(low) if v < 0 else np.mean(high) for v in x], x.dtype)


def eden(x: np.ndarray, signs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Vargaftik et al., arXiv 2108.08842, algorithm 1: one block of a power of two."""
    n = x.size
    rotation = np.ones((n, n))
    for i in range(n):
        for j in range(n):
            rotation[i, j] = (-1) ** bin(i & j).count('1') * signs[j] / np.sqrt(n)
    rotated = rotation @ x
    unit = rotated * np.sqrt(n) / np.sqrt(x @ x)
    c = np.array([values[np.argmin(np.abs(u - values))] for u in unit])
    return rotation.T @ c * (x @ x) / (rotated @ c)


def probabilities(x: np.ndarray, expected: int) -> np.ndarray:
    """Wangni et al., arXiv 1710.09854: min(1, |v| / t) that sum to `expected`, by bisection."""
    if np.count_nonzero(x) <= expected:
        return (x != 0).astype(float)
    low, high = 0.0, float(np.sum(np.abs(x)))
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if np.minimum(1, np.abs(x) / t).sum() > expected else (low, t)
    return np.minimum(1, np.abs(x) / high)


def error_feedback(
    gradients: np.ndarray, compress, decay: float = 1.0, drop: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Karimireddy et al., algorithm 2, over (steps, workers, n): updates and memories.

    With decay 1 and drop 1 - mu this is the buffer of Dion (Ahn et al., arXiv 2504.05295).
    """
    steps, workers, n = gradients.shape
    errors, updates = np.zeros((workers, n)), np.zeros((steps, n))
    for t in range(steps):
        for w in range(workers):
            target = gradients[t, w] + decay * errors[w]
            sent = compress(target)
            updates[t] += sent / workers
            errors[w] = target - drop * sent
    return updates, errors


def hessian_feedback(
    hessian: np.ndarray, linear: np.ndarray, compress, step: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Khirirat et al., arXiv 1909.10327: the last point and memories, from zero.

    Worker w has the loss x' H x / 2 - linear[w]' x.
    """
    x, errors = np.zeros(len(hessian)), np.zeros(linear.shape)
    for _ in range(count):
        update = np.zeros_like(x)
        for w, b in enumerate(linear):
            target = hessian @ x - b + errors[w] - step * hessian @ errors[w]
            sent = compress(target)
            update += sent / len(linear)
            errors[w] = target - sent
        x = x - step * update
    return x, errors


def double_squeeze(gradients: np.ndarray, compress) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tang et al., arXiv 1905.05957, algorithm 1: updates, the workers' memories, the server's."""
    means, errors = error_feedback(gradients, compress)
    updates, server = error_feedback(means[:, None], compress)
    return updates, errors, server[0]


def ef21(gradients: np.ndarray, compress) -> tuple[np.ndarray, np.ndarray]:
    """Richtarik et al., arXiv 2106.05203, algorithm 2, from estimates of zero."""
    steps, workers, n = gradients.shape
    estimates, updates = np.zeros((workers, n)), np.zeros((steps, n))
    for t in range(steps):
        for w in range(workers):
            estimates[w] = estimates[w] + compress(gradients[t, w] - estimates[w])
        updates[t] = estimates.mean(0)
    return updates, estimates


def ef21_momentum(gradients: np.ndarray, compress, etas) -> tuple[np.ndarray, np.ndarray]:
    """Fatkhullin et al., arXiv 2305.15155, algorithm 1: updates, and the momenta of the workers.

    v starts at the first gradient, and there is no correction of its bias.
    """
    momenta = np.zeros_like(gradients)
    for t, gradient in enumerate(gradients):
        momenta[t] = gradient if t == 0 else (1 - etas[t]) * momenta[t - 1] + etas[t] * gradient
    return ef21(momenta, compress)[0], momenta[-1]


def dgc(
    gradients: np.ndarray, compress, momentum: float, nesterov: bool, masking: bool, clip: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lin et al., arXiv 1712.01887, algorithm 4: updates, velocities U, accumulations V."""
    steps, workers, n = gradients.shape
    u, v, updates = np.zeros((workers, n)), np.zeros((workers, n)), np.zeros((steps, n))
    for t in range(steps):
        for w in range(workers):
            g = gradients[t, w]
            norm = np.sqrt(np.sum(g**2))
            if norm > clip * workers**-0.5:
                g = g * clip * workers**-0.5 / norm
            if nesterov:
                u[w] = momentum * (u[w] + g)
                v[w] = v[w] + u[w] + g
            else:
                u[w] = momentum * u[w] + g
                v[w] = v[w] + u[w]
            sent = compress(v[w])
            mask = sent != 0
            v[w] = np.where(mask, 0, v[w])
            if masking:
                u[w] = np.where(mask, 0, u[w])
            updates[t] += sent / workers
    return updates, u, v


def one_bit_adam(
    gradients: np.ndarray, compress, warmup: int, b1: float, b2: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tang et al., arXiv 2102.02888, algorithm 1, with Adam's bias corrections: updates, memories.

    The server's compression is left out. An entry without a variance is not moved.
    """
    steps, workers, n = gradients.shape
    m, v, errors = np.zeros(n), np.zeros(n), np.zeros((workers, n))
    updates = np.zeros((steps, n))
    for t in range(steps):
        if t < warmup:
            g = gradients[t].mean(0)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
        else:
            sent = np.zeros((workers, n))
            for w in range(workers):
                target = b1 * m + (1 - b1) * gradients[t, w] + errors[w]
                sent[w] = compress(target)
                errors[w] = target - sent[w]
            m = sent.mean(0)
        m_hat = m / (1 - b1 ** (t + 1))
        v_hat = v / (1 - b2 ** min(t + 1, warmup))
        updates[t] = np.where(v > 0, m_hat / (np.sqrt(v_hat) + eps), 0)
    return updates, errors


def zero_one_adam(
    gradients: np.ndarray,
    compress,
    rates,
    warmup: int,
    refresh: int,
    double_every: int,
    longest: int,
    b1: float,
    b2: float,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Lu et al., arXiv 2202.06009, algorithm 1 with its policies.

    The k-th refresh is followed by the next 2^(k / refresh) steps later, rounded down in the
    exponent. Adam's corrections of both biases are added, and one memory a worker; the server's
    compression is left out. An entry without a variance has nothing to send. Returns updates,
    offsets, and the steps of refreshes and exchanges.
    """
    steps, workers, n = gradients.shape
    refreshes, at = [], 0
    while at < warmup:
        refreshes.append(at)
        at += 2 ** ((len(refreshes) - 1) // refresh)
    m, u, errors = (np.zeros((workers, n)) for _ in range(3))
    v, updates, offsets, exchanges, weights, since = np.zeros(n), np.zeros((steps, n)), [], [], 0, 0
    for t in range(steps):
        m = b1 * m + (1 - b1) * gradients[t]
        if t in refreshes:
            v = b2 * v + (1 - b2) * gradients[t].mean(0) ** 2
        used = sum(r <= t for r in refreshes)
        scale = np.where(v > 0, 1 / (np.sqrt(v / (1 - b2**used)) + eps), 0)
        weight = rates[t] / (1 - b1 ** (t + 1))
        u, weights, since = np.where(v > 0, u + weight * m, 0), weights + weight, since + 1
        if since >= min(2 ** (max(t - warmup, 0) // double_every), longest):
            sent = np.stack([compress(x) for x in u + errors])
            errors = u + errors - sent
            updates[t] = -sent.mean(0) * scale
            m = np.tile(sent.mean(0) / weights, (workers, 1))
            u, weights, since = np.zeros((workers, n)), 0, 0
            exchanges.append(t)
        offsets.append(-u * scale)
    return updates, np.stack(offsets), refreshes, exchanges


def econtrol(gradients: np.ndarray, compress, eta: float) -> tuple[np.ndarray, ...]:
    """Gao et al., arXiv 2311.05645, algorithm 2: updates, memories, estimates."""
    steps, workers, n = gradients.shape
    errors, estimates = np.zeros((workers, n)), np.zeros((workers, n))
    updates = np.zeros((steps, n))
    for t in range(steps):
        for w in range(workers):
            sent = compress(eta * errors[w] + gradients[t, w] - estimates[w])
            estimates[w] = estimates[w] + sent
            errors[w] = errors[w] + gradients[t, w] - estimates[w]
        updates[t] = estimates.mean(0)
    return updates, errors, estimates


def diana(gradients: np.ndarray, quantize, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Mishchenko et al., arXiv 1901.09269, algorithm 1 with beta = 0: updates, and the shifts.

    `quantize(t, w, x)` is what worker w sends for x at step t.
    """
    steps, workers, n = gradients.shape
    shifts, updates = np.zeros((workers, n)), np.zeros((steps, n))
    for t in range(steps):
        for w in range(workers):
            message = quantize(t, w, gradients[t, w] - shifts[w])
            updates[t] += (shifts[w] + message) / workers
            shifts[w] = shifts[w] + alpha * message
    return updates, shifts


def marina(gradients: np.ndarray, previous: np.ndarray, quantize, coins) -> np.ndarray:
    """Gorbunov et al., arXiv 2102.07845, algorithm 1; coins[0] is 1, as g^0 is exact."""
    updates = np.zeros((gradients.shape[0], gradients.shape[2]))
    workers = range(gradients.shape[1])
    for t, gradient in enumerate(gradients):
        if coins[t]:
            updates[t] = gradient.mean(0)
        else:
            each = [quantize(t, w, gradient[w] - previous[t, w]) for w in workers]
            updates[t] = updates[t - 1] + np.mean(each, 0)
    return updates


def power_sgd(matrices: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vogels et al., arXiv 1905.13727, algorithm 1, over (workers, rows, columns).

    Returns the mean's approximation, what each worker sent, and the next q.
    """
    p = sum(m @ q for m in matrices) / len(matrices)
    for j in range(p.shape[1]):  # Gram-Schmidt, as in the paper
        for i in range(j):
            p[:, j] -= (p[:, i] @ p[:, j]) * p[:, i]
        p[:, j] /= np.sqrt(p[:, j] @ p[:, j])
    q_each = [m.T @ p for m in matrices]
    q = sum(q_each) / len(matrices)
    return p @ q.T, np.stack([p @ each.T for each in q_each]), q


def constant_delay(gradients: np.ndarray, tau: int) -> np.ndarray:
    """u_t = g_{t - tau}, zero before the first arrives."""
    return np.stack(
        [gradients[t - tau] if t >= tau else gradients[t] * 0 for t in range(len(gradients))]
    )


def drawn_delay(gradients: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """u_{t, w} = g_{t - min(d_{t, w}, t), w} over (steps, workers, n)."""
    out = np.zeros_like(gradients)
    for t in range(gradients.shape[0]):
        for w in range(gradients.shape[1]):
            out[t, w] = gradients[t - min(draws[t, w], t), w]
    return out


def iag(gradients: np.ndarray, messages: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """Q-IAG: a table of messages, the one of worker w made at step t - age; over (steps, W, n).

    `messages[s, w]` is what worker w's gradient of step s was compressed to, once.
    """
    steps, workers, n = gradients.shape
    updates = np.zeros((steps, n))
    for t in range(steps):
        for w in range(workers):
            updates[t] += messages[t - min(ages[t, w], t), w] / workers
    return updates


def newton_linesearch(along, slope: float, curvature: float) -> tuple[float, int]:
    """The minimum of the parabola at 0, halved until Armijo's rule holds; and the halvings."""
    step, halvings = (0.0 if curvature == 0 else -slope / abs(curvature)), 0
    while not along(step) <= along(0.0) + step * slope / 4:
        step, halvings = step / 2, halvings + 1
    return step, halvings
