"""One option a layer where a change between consecutive layers costs, too, the last to the first included."""

import itertools

import numpy as np

_HALVINGS = 60


class InfeasibleDeadline(ValueError):
    """No legal design is fast enough; the message says demand, bound and levers."""


def choose_ring(
    energy: np.ndarray,
    latency: np.ndarray,
    change_pj: np.ndarray,
    change_ns: np.ndarray,
    deadline_ns: float,
    names: tuple[str, ...],
) -> np.ndarray:
    """Option [layer] of least energy, changes included, whose time, changes included, meets the deadline.

    For a price on time the ring is solved exactly (`cheapest_ring`); the price is bisected, and the best that was on
    time is polished by exchanges of two layers at once. So the result is optimal up to the gap of that price.

    Args:
      energy, latency: [option, layer]; infinite where an option is not legal.
      change_pj, change_ns: [from option, to option] of consecutive layers, not negative.

    Raises InfeasibleDeadline when even the fastest ring misses the deadline.
    """
    legal = np.isfinite(energy) & np.isfinite(latency)
    time = np.where(legal, latency, 0.0)

    def at(price: float) -> np.ndarray:
        return cheapest_ring(np.where(legal, energy + price * time, np.inf), change_pj + price * change_ns)

    def late(pick: np.ndarray) -> bool:
        return ring_sum(latency, change_ns, pick) > deadline_ns

    fastest = cheapest_ring(np.where(legal, time, np.inf), change_ns)
    if late(fastest):
        whole = ring_sum(latency, change_ns, fastest)
        slow = names[int(np.argmax(latency[fastest, np.arange(latency.shape[1])]))]
        raise InfeasibleDeadline(
            f"deadline {deadline_ns:.0f} ns: the fastest legal design takes {whole:.0f} ns with its changes of mode "
            f"and supply, most of it in {slow}; narrow its widths, raise the supply ceiling or allow more time"
        )
    best, low, high = at(0.0), 0.0, 1.0
    if late(best):
        best = fastest
        while late(at(high)) and high < 1e12:
            low, high = high, 4.0 * high
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            pick = at(middle)
            low, high = (middle, high) if late(pick) else (low, middle)
            if not late(pick) and ring_sum(energy, change_pj, pick) < ring_sum(energy, change_pj, best):
                best = pick
    return _exchanged(energy, latency, change_pj, change_ns, deadline_ns, best)


def ring_sum(node: np.ndarray, change: np.ndarray, pick: np.ndarray) -> float:
    """Sum over the layers of an option each, and of what lies between one and the next, around the ring."""
    return float(node[pick, np.arange(len(pick))].sum() + change[np.roll(pick, 1), pick].sum())


def cheapest_ring(node: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Option [layer] whose `ring_sum` is least; exact.

    A chain is solved backwards for one option of the first layer after the other, those first whose chain without the
    way back is cheapest; where that alone exceeds the best ring, no later one can be better. `change` >= 0.
    """
    open_end, _ = _chain(node, change, np.zeros(len(node)))
    best, found = np.inf, np.zeros(node.shape[1], int)
    for start in np.argsort(open_end, kind="stable"):
        if not open_end[start] < best:
            break
        value, after = _chain(node, change, change[:, start])
        if value[start] < best:
            best, found[0] = value[start], start
            for layer, following in enumerate(after, 1):
                found[layer] = following[found[layer - 1]]
    return found


def _chain(node: np.ndarray, change: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(least sum from the first layer on [option], best next option [option] of every layer but the last)."""
    value, after = node[:, -1] + end, []
    for layer in range(node.shape[1] - 2, -1, -1):
        onward = change + value[None, :]
        after.append(np.argmin(onward, axis=1))
        value = node[:, layer] + onward[np.arange(len(onward)), after[-1]]
    return value, after[::-1]


def _exchanged(
    energy: np.ndarray,
    latency: np.ndarray,
    change_pj: np.ndarray,
    change_ns: np.ndarray,
    deadline_ns: float,
    pick: np.ndarray,
) -> np.ndarray:
    """`pick` after changes of two layers at once (or of the only one), while one saves energy on time."""
    layers = energy.shape[1]
    pairs = list(itertools.combinations(range(layers), 2)) or [(0, 0)]
    pick, least = pick.copy(), 1e-9 * abs(ring_sum(energy, change_pj, pick))
    improved = True
    while improved:
        improved = False
        for a, b in pairs:
            time, cost = _pair(latency, change_ns, pick, a, b), _pair(energy, change_pj, pick, a, b)
            slack = deadline_ns - ring_sum(latency, change_ns, pick)
            on_time = time - time[pick[a], pick[b]] <= slack
            saved = np.where(on_time, cost[pick[a], pick[b]] - cost, -np.inf)
            one, two = np.unravel_index(int(np.argmax(saved)), saved.shape)
            if saved[one, two] > least:
                pick[a], pick[b], improved = one, two, True
    return pick


def _pair(node: np.ndarray, change: np.ndarray, pick: np.ndarray, a: int, b: int) -> np.ndarray:
    """What depends on the options of layers a and b in `ring_sum` [option of a, option of b], all others at `pick`."""
    layers = len(pick)
    if a == b:  # a ring of one layer
        return np.diag(node[:, a] + np.diagonal(change)) + np.where(np.eye(len(node)) > 0, 0.0, np.inf)
    total = node[:, a][:, None] + node[:, b][None, :]
    for i in {(a - 1) % layers, a, (b - 1) % layers, b}:
        j = (i + 1) % layers
        if (i, j) == (a, b):
            total = total + change
        elif (i, j) == (b, a):
            total = total + change.T
        elif a in (i, j):
            total = total + (change[:, pick[j]] if i == a else change[pick[i]])[:, None]
        else:
            total = total + (change[:, pick[j]] if i == b else change[pick[i]])[None, :]
    return total
