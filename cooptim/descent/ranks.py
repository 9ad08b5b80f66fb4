"""Learned ranks: how many singular components each layer keeps, by gradient on the loss and on the energy."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.compile import compiled
from cooptim.cost.evaluate import evaluate
from cooptim.data import Dataset
from cooptim.descent.constraint import penalty, raise_multipliers, travelling
from cooptim.descent.retrain import Lesson, Trainer, free_weights
from cooptim.design.legal import snap
from cooptim.design.space import DesignSpace
from cooptim.hardware.machine import Machine
from cooptim.mapping.frontier import tilings
from cooptim.network.low_rank import halves, low_rank, parameters, rank_limits, split_of, whole
from cooptim.network.trace import Network
from cooptim.workload import Workload

_GRID = 6  # ranks of a layer that are priced, geometric, beside the one it has; between them the price is linear
_POINTS = _GRID + 2  # at most of a layer's curve
_TRAVEL = 0.6  # share of the descent in which the budget travels
_LOOKS = 3  # at the prices, which change with the ranks of the other layers
_FREE = 0.7  # share of the steps in which ranks move; weights learn at the whole ranks in the others
_WIDE, _SHARP = 1 / 8, 0.25  # width of the gates at first, over the layer's largest rank, and in the end [components]
_BISECTIONS = 7
_STRIDE = 16  # of so many components one leaves at a time
_FAINT = 1e-3  # share of what is left of a layer that may go as if it were nothing
_LEAST = 1e-30

Curves = Mapping[str, tuple[Float[ArrayLike, "point"], Float[ArrayLike, "point"]]]  # ranks, log of the energy over now


@dataclasses.dataclass(frozen=True)
class LearnedRanks:
    """What `learn_ranks` hands back; energies are those of `evaluate` at the asked widths, nothing pruned [pJ].

    Attributes:
      ranks: by layer; one that is missing is cheaper whole, and stays so.
      network: split at these ranks, with the trained weights; descend from it with `cooptim.optimize`.
      energy_pj, before_pj: of that network, and of the one that was given.
    """

    ranks: dict[str, int]
    network: Network
    energy_pj: float
    before_pj: float


@dataclasses.dataclass(frozen=True)
class RankPrice:
    """Energy of one inference as a function of one layer's rank, the other layers as they are at the moment."""

    limit: int
    ranks: np.ndarray  # [point], rising to the limit
    energy_pj: np.ndarray  # [point], with the layer split
    whole_pj: float  # with the layer not split

    def curve(self, now_pj: float) -> tuple[Float[np.ndarray, "point"], Float[np.ndarray, "point"]]:
        """Ranks and the log of the least energy over `now_pj` that a mixture of designs has there, padded to `_POINTS`.

        At full rank the layer is whole where that is cheaper, so the curve is the lower convex hull of the priced ranks
        and of that point: no flat part holds a rank where splitting does not pay yet. Exact where it touches a design.
        """
        energy = self.energy_pj.astype(float)
        energy[-1] = min(energy[-1], self.whole_pj)
        hull: list[int] = []
        for n in range(len(energy)):
            while len(hull) > 1 and _above(self.ranks, energy, hull[-2], hull[-1], n):
                hull.pop()
            hull.append(n)
        ranks, logs = self.ranks[hull].astype(float), np.log(energy[hull] / now_pj)
        more = np.arange(1, _POINTS - len(hull) + 1)  # no rank comes there, but the slope at the limit is that of both
        slope = (logs[-1] - logs[-2]) / (ranks[-1] - ranks[-2]) if len(hull) > 1 else 0.0
        return (
            np.concatenate([ranks, ranks[-1] + more]).astype(np.float32),
            np.concatenate([logs, logs[-1] + slope * more]).astype(np.float32),
        )

    def least_pj(self, rank: int) -> float:
        """Energy with the layer split at this rank, or whole where that is less."""
        return min(float(np.interp(rank, self.ranks, self.energy_pj)), self.whole_pj)

    def saves(self, rank: int) -> bool:
        """Whether the layer split at this rank takes less than whole."""
        return float(np.interp(rank, self.ranks, self.energy_pj)) < self.whole_pj


def _above(ranks: np.ndarray, energy: np.ndarray, left: int, middle: int, right: int) -> bool:
    """Whether the middle point lies on or above the line between the other two."""
    share = (ranks[middle] - ranks[left]) / (ranks[right] - ranks[left])
    return bool(energy[middle] >= energy[left] + share * (energy[right] - energy[left]))


def gates(
    rank: Float[ArrayLike, ""], limit: int, temperature: Float[ArrayLike, ""]
) -> Float[Array, "component"]:  # fmt: skip
    """Share of each component that a relaxed rank keeps, the largest first: 1/2 for the one at the rank's edge."""
    place = jnp.arange(limit) + 0.5
    return jax.nn.sigmoid((jnp.asarray(rank) - place) / temperature)


def learn_ranks(
    network: Network,
    machine: Machine,
    data: Dataset,
    layers: Sequence[str] | None = None,
    *,
    energy_ratio: float,
    bits: float = 8.0,
    steps: int = 400,
    batch: int = 64,
    weight_rate: float = 1e-3,
    rank_rate: float = 1e-2,
    seed: int = 0,
) -> LearnedRanks:
    """Ranks of some layers, learned with the weights so that an inference takes 1/energy_ratio of its energy.

    Each layer is split at full rank; a gate keeps a prefix of its components, ordered by singular value, and its soft
    edge gives the rank a gradient from the loss. The energy is `evaluate` at a grid of one layer's ranks, the others as
    they are (looked at again twice, for layers share the buffer), and its change with several ranks the product of
    theirs; an augmented Lagrangian holds the budget. At the end ranks are whole numbers within the budget by `evaluate`
    of the whole network (or 1, where it cannot be met), a layer that costs less in one piece stays whole, and the
    weights learn on at these ranks for the rest of the steps.

    Args:
      layers: names; None takes all that `low_rank` can split.
      bits: width of weights and inputs at which energy is priced, at nominal supply.
      rank_rate: Adam's rate of a rank over the layer's largest.

    Raises ValueError for layers that cannot be split, and for a ratio that is not above 1.
    """
    if not energy_ratio > 1.0:
        raise ValueError(f"learn_ranks: energy_ratio {energy_ratio:g} asks for no saving; give more than 1")
    limits = rank_limits(network)
    chosen = tuple(limits) if layers is None else tuple(layers)
    full = low_rank(network, {name: limits.get(name, 1) for name in chosen})  # names what cannot be split
    limits = {name: limits[name] for name in chosen}
    price = _Pricer(network, machine, bits)
    before_pj = price({})
    descent, kept = _Descent(network, full, limits, data, batch, weight_rate, rank_rate, seed), dict[str, int]()
    free = min(steps, max(_LOOKS, round(_FREE * steps)))
    for look in range(_LOOKS):
        prices, now_pj = rank_prices(network, machine, limits, kept, bits), price(kept)
        curves = {name: found.curve(now_pj) for name, found in prices.items()}
        stops = (free * look // _LOOKS, free * (look + 1) // _LOOKS, free)
        descent.run(curves, np.log(now_pj), (np.log(before_pj), np.log(before_pj / energy_ratio)), stops)
        wanted = descent.ranks()
        kept = saving(prices, wanted, 1.0)
    kept = within(prices, wanted, before_pj / energy_ratio, price, descent.held())
    made = dataclasses.replace(_settled(network, descent.params, chosen, kept), state=descent.state)
    lesson = Lesson("ranks", steps - free, 0.5 * weight_rate, order=1)
    weights, state = Trainer(made, data, batch, seed).train(free_weights(made.params), made.state, lesson)
    made = dataclasses.replace(made, params=weights.params, state=state)
    return LearnedRanks(kept, made, price(kept), before_pj)


class _Pricer:
    """Energy of the network split at some ranks, the other layers whole [pJ]; each is priced once."""

    def __init__(self, network: Network, machine: Machine, bits: float) -> None:
        self._network, self._machine, self._bits = network, machine, bits
        self._known: dict[tuple[tuple[str, int], ...], float] = {}

    def __call__(self, ranks: Mapping[str, int]) -> float:
        key = tuple(sorted(ranks.items()))
        if key not in self._known:
            made = low_rank(self._network, ranks) if ranks else self._network
            self._known[key] = plain_pj(made.workload, self._machine, self._bits)
        return self._known[key]


@dataclasses.dataclass(frozen=True, eq=False)
class _Relaxed:
    """The network split at full rank, with gates."""

    network: Network
    full: Network
    limits: Mapping[str, int]

    def gated(self, params: Any, shares: Mapping[str, Any], progress: Float[ArrayLike, ""]) -> Any:
        """Parameters with each layer's components gated at these shares of its largest rank."""
        leaves, tree = parameters(self.network, params)
        for name, (leaf, limit) in _places(self.network, self.limits).items():
            width = _WIDE * limit * (_SHARP / (_WIDE * limit)) ** progress
            gate = gates(shares[name] * limit, limit, width)
            leaves[leaf] = {"u": leaves[leaf]["u"] * gate.astype(leaves[leaf]["u"].dtype), "v": leaves[leaf]["v"]}
        return jax.tree.unflatten(tree, leaves)

    def log_energy(self, shares: Mapping[str, Any], curves: Curves, log_now: Float[ArrayLike, ""]) -> Float[Array, ""]:
        """Log of the energy at these shares of the largest ranks, given the curves of each and the log of it now."""
        more = [jnp.interp(shares[name] * self.limits[name], *curve) for name, curve in curves.items()]
        return jnp.asarray(log_now) + jnp.sum(jnp.stack(more))

    def objective(
        self, moving: Any, state: Any, x: Any, labels: Any, key: Any, progress: Any, curves: Curves, log_now: Any,
        log_budget: Any, dual: Any,
    ) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """(cross-entropy and penalty of the budget, (new state, excess)) of weights and shares of ranks, `moving`."""
        params, shares = moving
        logits, state, _ = self.full.apply(self.gated(params, shares, progress), state, x, train=True, rngs=key)
        labels = jnp.broadcast_to(labels, logits.shape[:-1])
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        c = (self.log_energy(shares, curves, log_now) - log_budget)[None]
        return loss + penalty(c, dual, 1.0), (state, c)


class _Descent:
    """Weights and shares of ranks on their way down, in stretches with prices of their own; compiled once."""

    def __init__(self, network, full, limits, data, batch, weight_rate, rank_rate, seed):  # type: ignore[no-untyped-def]
        self._relaxed = _Relaxed(network, full, limits)
        self._data, self._batch, self._seed = data, batch, seed
        adam = optax.scale_by_adam()

        def step(carry, x, labels, key, progress, curves, log_now, log_budget):  # type: ignore[no-untyped-def]
            moving, state, moments, dual = carry
            (_, (state, c)), slope = jax.value_and_grad(self._relaxed.objective, has_aux=True)(
                moving, state, x, labels, key, progress, curves, log_now, log_budget, dual
            )
            update, moments = adam.update(slope, moments)
            params = jax.tree.map(lambda p, u: p - weight_rate * u, moving[0], update[0])
            shares = {n: jnp.clip(r - rank_rate * update[1][n], 1.0 / limits[n], 1.0) for n, r in moving[1].items()}
            return (params, shares), state, moments, raise_multipliers(dual, c, 2e-2)

        self._step = compiled(step)
        moving = (full.params, {name: jnp.ones(()) for name in limits})
        self._carry = (moving, full.state, adam.init(moving), jnp.zeros(1))

    @property
    def params(self) -> Any:
        """Weights of the moment, split at full rank and not gated."""
        return self._carry[0][0]

    @property
    def state(self) -> Any:
        """State of the network at the moment."""
        return self._carry[1]

    def ranks(self) -> dict[str, float]:
        """Relaxed ranks; FloatingPointError where the training ran away."""
        found = {n: float(share) * self._relaxed.limits[n] for n, share in self._carry[0][1].items()}
        if not all(math.isfinite(rank) for rank in found.values()):
            raise FloatingPointError("learn_ranks: the loss is not a number; lower weight_rate or rank_rate")
        return found

    def held(self) -> dict[str, Float[np.ndarray, "rank"]]:
        """For each layer the share of its squared components that 0, 1, 2 and so on of them hold; 0 where all are 0."""
        leaves, _ = parameters(self._relaxed.network, self.params)
        found = {}
        for name, (leaf, _) in _places(self._relaxed.network, self._relaxed.limits).items():
            u, v = (np.asarray(leaves[leaf][part], np.float64) for part in ("u", "v"))
            square = np.sum(u.reshape(-1, u.shape[-1]) ** 2, axis=0) * np.sum(v.reshape(len(v), -1) ** 2, axis=1)
            found[name] = np.concatenate([[0.0], np.cumsum(square)]) / max(float(np.sum(square)), _LEAST)
        return found

    def run(self, curves: Curves, log_now: float, ends: tuple[float, float], stops: tuple[int, int, int]) -> None:
        """Steps `stops[0]` to `stops[1]` of `stops[2]`, towards a log budget that travels between the ends."""
        first, end, steps = stops
        for n in range(first, end):
            progress = n / max(steps - 1, 1)
            goal = travelling(*ends, progress / _TRAVEL)
            key = jax.random.fold_in(jax.random.key(self._seed), n)
            self._carry = self._step(
                self._carry, *self._data.batch(self._seed, n, self._batch), key, np.float32(progress), curves,
                np.float32(log_now), np.float32(goal),
            )  # fmt: skip


def saving(prices: Mapping[str, RankPrice], wanted: Mapping[str, float], factor: float) -> dict[str, int]:
    """Whole ranks next to `factor` times these, of the layers that take less split at them than in one piece."""
    ranks = {name: int(np.clip(round(factor * rank), 1, prices[name].limit)) for name, rank in wanted.items()}
    return {name: rank for name, rank in ranks.items() if prices[name].saves(rank)}


def within(
    prices: Mapping[str, RankPrice], wanted: Mapping[str, float], budget_pj: float,
    energy_pj: Callable[[Mapping[str, int]], float], held: Mapping[str, Float[np.ndarray, "rank"]],
) -> dict[str, int]:  # fmt: skip
    """Whole ranks near these within the budget, of the layers that are split; 1 where it cannot be met.

    What is left of the budget raises all ranks by one factor. What is missing is taken where a few components save most
    for the factor by which what their layer holds shrinks (`held` by so many), by the prices of single layers;
    `energy_pj` has the last word.
    """
    best = saving(prices, wanted, 1.0)
    if energy_pj(best) > budget_pj:
        return _fewer(prices, wanted, budget_pj, energy_pj, held)
    low, high = 0.0, max(math.log(prices[name].limit / rank) for name, rank in wanted.items())
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        found = saving(prices, wanted, math.exp(middle))
        if energy_pj(found) <= budget_pj:
            low, best = middle, found
        else:
            high = middle
    return best


def _fewer(prices, wanted, budget_pj, energy_pj, held):  # type: ignore[no-untyped-def]
    ranks = {name: int(np.clip(round(rank), 1, prices[name].limit)) for name, rank in wanted.items()}
    while True:
        kept = {name: rank for name, rank in ranks.items() if prices[name].saves(rank)}
        over = math.log(energy_pj(kept) / budget_pj)
        while over > 0.0:
            ways = []
            for name, rank in ranks.items():
                less = _next_below(prices[name], rank)
                saved = math.log(prices[name].least_pj(rank) / prices[name].least_pj(less))
                fades = math.log(max(held[name][rank], _LEAST) / max(held[name][less], _LEAST))
                ways.append((saved / (_FAINT + fades), saved, name, less))
            _, saved, name, less = max(ways)
            if saved <= 0.0:
                break  # each is at 1, or saves nothing
            over, ranks[name] = over - saved, less
        fewer = {name: rank for name, rank in ranks.items() if prices[name].saves(rank)}
        if fewer == kept:
            return kept
        if energy_pj(fewer) <= budget_pj:
            while name in fewer and prices[name].saves(fewer[name] + 1):  # the prices of single layers may ask too much
                more = {**fewer, name: fewer[name] + 1}
                if energy_pj(more) > budget_pj:
                    break
                fewer = more
            return fewer


def _next_below(price: RankPrice, rank: int) -> int:
    """A few components less; of a layer in one piece, the largest rank that saves."""
    if not price.saves(rank):
        return next((r for r in range(rank - 1, 0, -1) if price.saves(r)), rank)
    return max(rank - max(1, rank // _STRIDE), 1)


def _places(network: Network, names: Any) -> dict[str, tuple[int, int]]:
    """(position among the leaves, largest rank) of the weights of each layer."""
    traced, _, _ = network.traced(network.params, network.state, *network.example, False)
    found = {name: split_of(traced, name) for name in names}
    return {name: (split.leaf, split.limit) for name, split in found.items()}


def _settled(network: Network, params: Any, chosen: Sequence[str], kept: dict[str, int]) -> Network:
    """The network split at the kept ranks, the other layers whole again, with the trained weights."""
    leaves, tree = parameters(network, params)
    for name, (leaf, _) in _places(network, chosen).items():
        u, v = leaves[leaf]["u"], leaves[leaf]["v"]
        leaves[leaf] = {"u": u[..., : kept[name]], "v": v[: kept[name]]} if name in kept else whole(network, name, u, v)
    made = low_rank(network, kept) if kept else network
    return dataclasses.replace(made, params=jax.tree.unflatten(tree, leaves))


def rank_prices(
    network: Network, machine: Machine, limits: Mapping[str, int], kept: Mapping[str, int], bits: float
) -> dict[str, RankPrice]:
    """What each layer's rank costs while the others are split at what is `kept`, or whole where that names none."""
    found = {}
    for name, limit in limits.items():
        others = {n: rank for n, rank in kept.items() if n != name}
        split, two = low_rank(network, {**others, name: limit}).workload, halves(network, name)
        grid = np.rint(np.geomspace(1, limit, _GRID)).astype(int)
        ranks = np.unique([*grid, kept.get(name, limit)])
        energy = [plain_pj(_at_rank(split, two, int(rank)), machine, bits) for rank in ranks]
        apart = low_rank(network, others) if others else network
        found[name] = RankPrice(limit, ranks, np.asarray(energy), plain_pj(apart.workload, machine, bits))
    return found


def _at_rank(workload: Workload, two: tuple[str, str], rank: int) -> Workload:
    """The workload with the two layers of a split leaf at another rank."""
    layers = list(workload.layers)
    for name, dim in zip(two, "KC", strict=True):
        at = workload.index(name)
        layers[at] = dataclasses.replace(layers[at], bounds=layers[at].bounds._replace(**{dim: rank}))
    return dataclasses.replace(workload, layers=tuple(layers))


def plain_pj(workload: Workload, machine: Machine, bits: float) -> float:
    """Energy of a workload at one width, nominal supply, in the tilings that move least through DRAM, no zeros [pJ]."""
    table, n = tilings(workload, machine), len(workload.layers)
    space = DesignSpace(workload, machine, table, (True,) * n)
    wanted = space.decode(space.init(jnp.ones(n), jnp.ones(n), bits, bits), 0.05)
    return float(evaluate(workload, machine, snap(space, wanted), tilings=table).total_energy_pj)
