"""Learned ranks: how many singular components each layer keeps, by gradient on the loss and on the energy."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from cooptim.cost.evaluate import evaluate
from cooptim.data import Dataset
from cooptim.descent.compile import compiled
from cooptim.descent.constraint import penalty, raise_multipliers, travelling
from cooptim.design.legal import snap
from cooptim.design.space import DesignSpace
from cooptim.hardware.machine import Machine
from cooptim.mapping.frontier import tilings
from cooptim.network.low_rank import halves, low_rank, parameters, rank_limits, split_of, whole
from cooptim.network.trace import Network
from cooptim.workload import Workload

_GRID = 6  # ranks of a layer that are priced, geometric; between them the price is linear
_TRAVEL = 0.6  # share of the descent in which the budget travels
_WIDE, _SHARP = 1 / 8, 0.25  # width of the gates at first, over the layer's largest rank, and in the end [components]


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
    """Energy of one inference as a function of one layer's rank, the others at their largest."""

    limit: int
    ranks: np.ndarray  # [point]
    energy_pj: np.ndarray  # [point]
    whole_pj: float  # with the layer not split

    def more_pj(self, rank: Float[ArrayLike, ""]) -> Float[Array, ""]:
        """Energy over that at the largest rank, linear between the points [pJ]."""
        return jnp.interp(rank, jnp.asarray(self.ranks), jnp.asarray(self.energy_pj - self.energy_pj[-1]))


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
    edge gives the rank a gradient from the loss. The energy is `evaluate` at a grid of ranks, linear between, and holds
    the budget by an augmented Lagrangian. At the end ranks are whole numbers within the budget (or 1, where it cannot
    be met), and a layer that costs less in one piece stays whole.

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
    prices = rank_prices(network, full, machine, {name: limits[name] for name in chosen}, bits)
    before_pj, most_pj = (plain_pj(one.workload, machine, bits) for one in (network, full))
    relaxed = _Relaxed(network, full, prices, most_pj)
    params, ranks, state = _descend(
        relaxed, data, before_pj / energy_ratio, steps, batch, weight_rate, rank_rate, seed
    )  # fmt: skip
    legal = whole_ranks(prices, ranks, before_pj / energy_ratio - most_pj)
    kept = {name: rank for name, rank in legal.items() if _at(prices[name], rank) < prices[name].whole_pj}
    made = dataclasses.replace(_settled(network, params, chosen, kept), state=state)
    return LearnedRanks(kept, made, plain_pj(made.workload, machine, bits), before_pj)


@dataclasses.dataclass(frozen=True, eq=False)
class _Relaxed:
    """The network split at full rank, and what its ranks cost."""

    network: Network
    full: Network
    prices: dict[str, RankPrice]
    most_pj: float  # at full rank

    def gated(self, params: Any, ranks: dict[str, Any], progress: Float[ArrayLike, ""]) -> Any:
        """Parameters with each layer's components gated."""
        leaves, tree = parameters(self.network, params)
        for name, (leaf, limit) in _places(self.network, self.prices).items():
            width = _WIDE * limit * (_SHARP / (_WIDE * limit)) ** progress
            gate = gates(ranks[name] * limit, limit, width)
            leaves[leaf] = {"u": leaves[leaf]["u"] * gate.astype(leaves[leaf]["u"].dtype), "v": leaves[leaf]["v"]}
        return jax.tree.unflatten(tree, leaves)

    def energy_pj(self, ranks: dict[str, Any]) -> Float[Array, ""]:
        """Energy at these shares of the largest ranks [pJ]."""
        more = [p.more_pj(ranks[name] * p.limit) for name, p in self.prices.items()]
        return self.most_pj + jnp.sum(jnp.stack(more))

    def objective(
        self, moving: Any, state: Any, x: Any, labels: Any, key: Any, progress: Any, log_budget: Any, dual: Any
    ) -> tuple[Float[Array, ""], Any]:  # fmt: skip
        """(cross-entropy and penalty of the budget, (new state, excess)) of weights and shares of ranks, `moving`."""
        params, ranks = moving
        logits, state, _ = self.full.apply(self.gated(params, ranks, progress), state, x, train=True, rngs=key)
        labels = jnp.broadcast_to(labels, logits.shape[:-1])
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        c = (jnp.log(self.energy_pj(ranks)) - log_budget)[None]
        return loss + penalty(c, dual, 1.0), (state, c)


def _descend(relaxed, data, budget_pj, steps, batch, weight_rate, rank_rate, seed):  # type: ignore[no-untyped-def]
    """(weights, shares of the largest ranks, state) at the end of the descent."""
    adam = optax.scale_by_adam()
    ranks = {name: jnp.ones(()) for name in relaxed.prices}

    def step(carry, x, labels, key, progress, log_budget):  # type: ignore[no-untyped-def]
        moving, state, moments, dual = carry
        (_, (state, c)), slope = jax.value_and_grad(relaxed.objective, has_aux=True)(
            moving, state, x, labels, key, progress, log_budget, dual
        )
        update, moments = adam.update(slope, moments)
        params = jax.tree.map(lambda p, u: p - weight_rate * u, moving[0], update[0])
        shares = {n: jnp.clip(r - rank_rate * update[1][n], 1.0 / relaxed.prices[n].limit, 1.0)
                  for n, r in moving[1].items()}  # fmt: skip
        return (params, shares), state, moments, raise_multipliers(dual, c, 2e-2)

    moving = (relaxed.full.params, ranks)
    carry = (moving, relaxed.full.state, adam.init(moving), jnp.zeros(1))
    run, start = compiled(step), np.log(relaxed.most_pj)
    for n in range(steps):
        progress = n / max(steps - 1, 1)
        goal = travelling(float(start), float(np.log(budget_pj)), progress / _TRAVEL)
        keys = jax.random.fold_in(jax.random.key(seed), n)
        carry = run(carry, *data.batch(seed, n, batch), keys, np.float32(progress), np.float32(goal))
    return *carry[0], carry[1]


def whole_ranks(prices: dict[str, RankPrice], shares: dict[str, Any], more_pj: float) -> dict[str, int]:
    """Nearest whole ranks, then one component less where that saves most until `more_pj` holds (or all are 1)."""
    ranks = {n: int(np.clip(round(float(shares[n]) * p.limit), 1, p.limit)) for n, p in prices.items()}

    def over() -> float:
        return sum(_at(p, ranks[n]) - float(p.energy_pj[-1]) for n, p in prices.items()) - more_pj

    while over() > 0 and any(rank > 1 for rank in ranks.values()):
        saved = {n: _at(prices[n], r) - _at(prices[n], r - 1) for n, r in ranks.items() if r > 1}
        ranks[max(saved, key=lambda n: saved[n])] -= 1
    return ranks


def _at(price: RankPrice, rank: int) -> float:
    return float(np.interp(rank, price.ranks, price.energy_pj))


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
    network: Network, full: Network, machine: Machine, limits: dict[str, int], bits: float
) -> dict[str, RankPrice]:
    """What each layer's rank costs, the others at their largest; `full` is the network split at the largest ranks."""
    found = {}
    for name, limit in limits.items():
        two = halves(network, name)
        ranks = np.unique(np.rint(np.geomspace(1, limit, _GRID)).astype(int))
        energy = [plain_pj(_at_rank(full.workload, two, int(rank)), machine, bits) for rank in ranks]
        others = {n: rank for n, rank in limits.items() if n != name}
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
