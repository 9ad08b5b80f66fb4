"""Gradient descent on a chip: array sides, memory sizes and port widths together with the tilings of its networks.

A size is what the tilings ask for: the smooth maximum over all layers of the tiles that a memory holds. A side likewise
is the smooth maximum of the units that layers use along it, up to its cap. So neither can be too small, and a tiling
pays for what it makes the chip: in area, in leakage over the whole run, and in the energy of every access of that
memory by every layer. Widths of ports are knobs of their own. What may be chosen, and between which limits, the file of
the machine says (`cooptim.hardware.chip`); other numbers stay, and their memories bind as constraints.

Budgets (area, latency of each network, limits of sizes, memories that are given) enter by an augmented Lagrangian on
log(cost / budget). One chip may serve several networks: their costs are added, with weights, or the worst one counts.

Relaxed besides (as in `continuous`): factors are real, several loops share an array dimension, and every refill
overlaps with computation, however little room is left beside the tiles. `chip_build` ends with whole numbers.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cooptim.compile import compiled_once
from cooptim.hardware.chip import Chip, Ranges, chip_area_mm2, chip_leakage_mw, chip_ranges, with_chip
from cooptim.hardware.hierarchy import Hierarchy, Memory
from cooptim.mapping.continuous import RelaxedPrice, footprints, relaxed_price
from cooptim.mapping.nest import LayerShape
from cooptim.mapping.rules import HARDWARE, Rules
from cooptim.mapping.stack import Stack, Tiling, TilingKnobs, random_knobs, stack_layers, tiling, usable_room
from cooptim.mapping.tile_descent import CLIP, PENALTY, lagrangian

OBJECTIVES: tuple[str, ...] = ("energy", "edp", "latency")
COMBINATIONS: tuple[str, ...] = ("sum", "worst")
SHARPNESS = (20.0, 200.0)  # of the maxima over layers and ports, first to last step; n layers read n^(1/s) too large


@dataclasses.dataclass(frozen=True)
class Load:
    """A network that the chip runs.

    Attributes:
      shapes: of its layers. repeats: executions of each in one inference; 1 where left out.
      weight: in the sum over networks, or in the comparison that finds the worst.
    """

    name: str
    shapes: AbstractMapping[str, LayerShape]
    repeats: AbstractMapping[str, int] = dataclasses.field(default_factory=dict)
    weight: float = 1.0

    def repeat(self, layer: str) -> int:
        """Executions of a layer in one inference."""
        return self.repeats.get(layer, 1)


@dataclasses.dataclass(frozen=True)
class Goal:
    """What to bring down, and what may not be exceeded.

    Attributes:
      objective: of one network: 'energy' [pJ, leakage included], 'latency' [ns] or 'edp' [pJ x ns].
      combine: 'sum' (weighted) of the networks or their 'worst' (the largest weighted one).
      area_mm2: of the chip. latency_ns: of one inference of every network.
    """

    objective: str = "edp"
    combine: str = "sum"
    area_mm2: float | None = None
    latency_ns: float | None = None

    def __post_init__(self) -> None:
        for what, value, legal in (
            ("objective", self.objective, OBJECTIVES),
            ("combine", self.combine, COMBINATIONS),
        ):
            if value not in legal:
                raise ValueError(f"goal: {what} '{value}' is unknown; use one of {', '.join(legal)}")
        for what, budget in (("area_mm2", self.area_mm2), ("latency_ns", self.latency_ns)):
            if budget is not None and not 0 < budget < math.inf:
                raise ValueError(f"goal: {what} {budget}; legal: above 0 and finite, or None for no limit")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ChipKnobs:
    """What is descended: tilings (with free unrolling), and a logit of each free port width by 'memory.port'."""

    tilings: TilingKnobs
    widths: dict[str, Float[Array, ""]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelaxedChip:
    """A chip with real numbers and what its networks cost on it.

    Attributes:
      energy_pj, latency_ns: by network, one inference, leakage included.
      excess: log(demand / limit) of every constraint that may bind; positive is broken.
    """

    chip: Chip
    tile: Tiling
    energy_pj: Float[Array, "network"]
    latency_ns: Float[Array, "network"]
    area_mm2: Float[Array, ""]
    leakage_mw: Float[Array, ""]
    excess: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Loads:
    """Networks side by side: equal layers of a network are one, with the sum of their repeats, unless kept apart.

    Attributes:
      members: the layers of a network that an entry of the stack stands for, by entry.
      share: executions of each entry in one inference of each network.
    """

    names: tuple[str, ...]
    stack: Stack
    members: tuple[tuple[str, ...], ...]
    owners: tuple[str, ...]
    share: Float[np.ndarray, "network layer"]
    weights: Float[np.ndarray, "network"]


def together(loads: Sequence[Load], *, merge: bool = True) -> Loads:
    """The networks as one stack of layers.

    Args:
      merge: equal layers of a network share an entry; without, each has its own, so that its bits can differ.

    Raises ValueError for none, equal names, no layers, and weights that are not positive.
    """
    names = [load.name for load in loads]
    if not loads or len(set(names)) < len(names):
        raise ValueError(f"networks {', '.join(names) or 'none'}: legal: one or more, each name once")
    shapes: list[LayerShape] = []
    owners: list[int] = []
    members: list[list[str]] = []
    counts: list[float] = []
    for n, load in enumerate(loads):
        if not load.shapes or not 0 < load.weight < math.inf:
            raise ValueError(
                f"network {load.name}: {len(load.shapes)} layers, weight {load.weight}; legal: at least one layer and "
                "a weight above 0"
            )
        place: dict[object, int] = {}
        for layer, shape in load.shapes.items():
            key = shape if merge else layer
            if key not in place:
                place[key] = len(shapes)
                shapes.append(shape)
                owners.append(n)
                members.append([])
                counts.append(0.0)
            members[place[key]].append(layer)
            counts[place[key]] += load.repeat(layer)
    share = np.zeros((len(loads), len(shapes)))
    share[owners, np.arange(len(shapes))] = counts
    stack = stack_layers([m[0] for m in members], shapes, counts)
    owned = tuple(names[n] for n in owners)
    return Loads(tuple(names), stack, tuple(map(tuple, members)), owned, share, np.array([x.weight for x in loads]))


def largest(values: Any, sharpness: Any) -> Float[Array, "*n"]:
    """Smooth maximum over the last axis of n positive numbers, above the largest by at most n^(1/sharpness)."""
    return jnp.exp(jax.nn.logsumexp(sharpness * jnp.log(values), axis=-1) / sharpness)


def random_chip(key: Array, loads: Loads, machine: Hierarchy, spread: float = 1.0) -> ChipKnobs:
    """Normal logits."""
    tilings, widths = jax.random.split(key)
    free = sorted(".".join(k) for k in chip_ranges(machine).width_bits)
    noise = spread * jax.random.normal(widths, (len(free),))
    return ChipKnobs(random_knobs(tilings, loads.stack, machine, spread), dict(zip(free, noise, strict=True)))


def _widths(knobs: ChipKnobs, ranges: Ranges) -> dict[tuple[str, str], Any]:
    """Between least and largest, evenly in logs."""
    return {
        key: kind.low * (kind.high / kind.low) ** jax.nn.sigmoid(knobs.widths[".".join(key)])
        for key, kind in ranges.width_bits.items()
    }


def _copies(memory: Memory) -> float:
    return 2.0 if memory.double_buffered == "always" else 1.0


def relaxed_chip(
    knobs: ChipKnobs,
    loads: Loads,
    machine: Hierarchy,
    goal: Goal,
    rules: Rules = HARDWARE,
    sharpness: Any = SHARPNESS[1],
    stack: Stack | None = None,
) -> RelaxedChip:
    """The chip that the knobs ask for, and what every network costs on it; differentiable in all of them.

    Args:
      machine: as its file says; where a number is free it is replaced.
      sharpness: of the maxima over layers and ports.
      stack: in place of the loads' own, to trace widths and densities of data (its `shape` bits) that are learned, too.
    """
    ranges = chip_ranges(machine)
    stack = loads.stack if stack is None else stack
    caps = [ranges.sides[name].high if name in ranges.sides else float(size) for name, size in machine.array]
    tile = tiling(knobs.tilings, stack, machine, caps)
    held = footprints(tile, stack, machine, rules)
    spans = jnp.exp(jnp.sum(tile.units, axis=1))  # [axis, layer]
    sides: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    excess: dict[str, Any] = {}
    for axis, (name, _) in enumerate(machine.array):
        if name in ranges.sides:
            sides[name] = jnp.clip(largest(spans[axis], sharpness), ranges.sides[name].low, ranges.sides[name].high)
    for memory in machine.memories:
        demand = held[memory.name] * _copies(memory)
        if memory.name in ranges.size_bits:
            kind, wanted = ranges.size_bits[memory.name], largest(demand, sharpness)
            sizes[memory.name] = jnp.maximum(wanted, kind.low)
            excess[memory.name] = jnp.log(wanted / kind.high)
        elif math.isfinite(float(memory.size_bits)):
            excess[memory.name] = jnp.log(held[memory.name] / usable_room(memory))
    chip = Chip(sides, sizes, _widths(knobs, ranges))
    sized = with_chip(machine, chip)
    found = relaxed_price(tile, stack, sized, rules, sharpness)
    leakage, area = chip_leakage_mw(sized, sides), chip_area_mm2(sized, sides)
    energy, latency = _per_inference(found, loads, sized, leakage)
    if goal.area_mm2 is not None:
        excess["area"] = jnp.log(area / goal.area_mm2)
    if goal.latency_ns is not None:
        excess["latency"] = jnp.log(latency / goal.latency_ns)
    return RelaxedChip(chip, tile, energy, latency, jnp.asarray(area), jnp.asarray(leakage), excess)


def _per_inference(found: RelaxedPrice, loads: Loads, machine: Hierarchy, leakage_mw: Any) -> tuple[Any, Any]:
    """(energy [pJ], latency [ns]) of each network."""
    share = jnp.asarray(loads.share)
    latency = share @ found.cycles / machine.clock_ghz
    return share @ found.energy_pj + leakage_mw * latency, latency


def log_cost(
    energy_pj: Any, latency_ns: Any, weights: Any, goal: Goal, sharpness: Any = math.inf
) -> Float[Array, ""] | Any:
    """Logarithm of the goal's objective over all networks; smooth where the worst one counts."""
    value = {"energy": energy_pj, "latency": latency_ns, "edp": energy_pj * latency_ns}[goal.objective] * weights
    if goal.combine == "sum":
        return jnp.log(jnp.sum(value))
    if isinstance(sharpness, float) and math.isinf(sharpness):
        return jnp.log(jnp.max(value))
    return jnp.log(largest(value, sharpness))


class _Task:
    """What a descent is compiled for; equal where its numbers are."""

    def __init__(self, loads: Loads, machine: Hierarchy, goal: Goal, rules: Rules) -> None:
        self.loads, self.machine, self.goal, self.rules = loads, machine, goal, rules
        leaves, structure = jax.tree.flatten(machine)
        arrays = (*jax.tree.leaves(loads.stack), loads.share, loads.weights)
        self.key = (structure, tuple(map(float, leaves)), goal, rules, tuple(np.asarray(x).tobytes() for x in arrays))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Task) and self.key == other.key


@dataclasses.dataclass(frozen=True)
class DescendedChips:
    """Ends of every start (leading axis).

    Attributes:
      log_cost: of the objective alone. excess: the largest log(demand / limit).
      trace: of both over the steps, at the sharpness of each step.
    """

    knobs: ChipKnobs
    chips: RelaxedChip
    log_cost: Float[np.ndarray, "start"]
    excess: Float[np.ndarray, "start"]
    trace: Float[np.ndarray, "start step 2"]

    def best(self, most_excess: float = 0.02) -> list[int]:
        """Starts, best first: those within their limits (to `most_excess`, in logs) before the others."""
        order = np.lexsort((self.log_cost, np.maximum(self.excess, most_excess)))
        return [int(i) for i in order]


def _worst(excess: AbstractMapping[str, Any]) -> Any:
    """The largest of all constraints; -inf without any."""
    return jnp.max(jnp.concatenate([jnp.full(1, -jnp.inf), *(jnp.ravel(x) for x in excess.values())]))


def _descend(key: Any, rate: Any, *, task: _Task, starts: int, steps: int) -> tuple[ChipKnobs, RelaxedChip, Any]:
    loads, goal = task.loads, task.goal
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))  # 0 at the end: the last chip is that of the last knobs

    def priced(knobs: ChipKnobs, sharpness: Any) -> RelaxedChip:
        return relaxed_chip(knobs, loads, task.machine, goal, task.rules, sharpness)

    def loss(knobs: ChipKnobs, multiplier: Any, sharpness: Any) -> tuple[Any, tuple[RelaxedChip, Any]]:
        found = priced(knobs, sharpness)
        cost = log_cost(found.energy_pj, found.latency_ns, jnp.asarray(loads.weights), goal, sharpness)
        penalty = sum((lagrangian(found.excess[k], multiplier[k]) for k in found.excess), 0.0)
        return cost + penalty, (found, cost)

    def step(carry: Any, progress: Any) -> tuple[Any, Any]:
        knobs, moments, multiplier, _ = carry
        sharpness = SHARPNESS[0] * (SHARPNESS[1] / SHARPNESS[0]) ** progress
        slope, (found, cost) = jax.grad(loss, has_aux=True)(knobs, multiplier, sharpness)
        update, moments = adam.update(slope, moments)
        multiplier = {
            k: jnp.maximum(0.0, multiplier[k] + PENALTY * jnp.clip(x, -CLIP, CLIP)) for k, x in found.excess.items()
        }
        return (optax.apply_updates(knobs, update), moments, multiplier, found), jnp.stack([cost, _worst(found.excess)])

    def one(key: Any) -> Any:
        knobs = random_chip(key, loads, task.machine)
        none = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda k: priced(k, SHARPNESS[1]), knobs)
        )
        start = (knobs, adam.init(knobs), none.excess, none)
        (knobs, _, _, found), trace = jax.lax.scan(step, start, jnp.linspace(0.0, 1.0, steps))
        return knobs, found, trace

    found: tuple[ChipKnobs, RelaxedChip, Any] = jax.vmap(one)(jax.random.split(key, starts))
    return found


# Compiling outweighs running, though steps take twice as long without optimizations.
@functools.cache
def _program() -> Any:
    return compiled_once(_descend, static_argnames=("task", "starts", "steps"))


def descend_chips(
    loads: Loads,
    machine: Hierarchy,
    goal: Goal,
    rules: Rules = HARDWARE,
    starts: int = 8,
    steps: int = 400,
    rate: float = 0.1,
    seed: int = 0,
) -> DescendedChips:
    """Descends `starts` random starts at once, each a chip of its own with its tilings; one program for all.

    Raises ValueError where the machine leaves nothing free.
    """
    require_free(machine)
    task = _Task(loads, machine, goal, rules)
    knobs, chips, trace = _program()(jax.random.key(seed), rate, task=task, starts=starts, steps=steps)
    costs = [log_cost(e, t, loads.weights, goal) for e, t in zip(chips.energy_pj, chips.latency_ns, strict=True)]
    excess = np.array([float(_worst({k: x[i] for k, x in chips.excess.items()})) for i in range(starts)])
    return DescendedChips(knobs, chips, np.array(costs), excess, np.asarray(trace))


def require_free(machine: Hierarchy) -> None:
    """Raises ValueError where a machine's file leaves nothing to choose."""
    if not chip_ranges(machine).free:
        raise ValueError(
            f"machine {machine.name}: its file frees no number; give array sides, sizes or port widths a min and a max "
            "(min_size, max_size; min_width, max_width), or take edge_45nm or gemmini"
        )
