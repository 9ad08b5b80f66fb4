"""Which whole feature maps stay on chip, and which of several mappings each layer takes for it: least energy, proven.

A map is kept from its producer to its last use or not at all; an input is found where all maps it takes are kept; maps
and tiles fit together at every layer; weights fill what is left, in parts (`residency.resident_weights`).

Dynamic program over the layers in order. State: which of the maps alive are kept. Label: energy so far without
resident weights, and the least room that any layer so far left for weights. Of two labels of a state, one that is worse
in both can be dropped: all that follows costs the same after either, and resident weights save no more in less room.
Any graph is covered; the number of states doubles with each map alive at once, and beyond `most` labels those of least
energy go on and the bound says what the others could have become.

Weights. V(room left), the knapsack of each layer's greatest saving and least size over its mappings, is the most that
weights save; so is, for any price a bit, that price of all the room left if each layer also saves what its weights are
worth beyond it (`weight_price_pj`, the knapsack's dual). Either way no choice costs less than the least of energy and
that saving over the final labels. The program runs with V, and with several mappings a layer at some prices; the bound
is the greatest, the choice the best of all labels, priced exactly. With one mapping a layer V is what the weights save
and the choice is optimal.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cooptim.mapping.residency import Needs, Stay, stay
from cooptim.workload.graph import Facts

MOST_LABELS = 20_000  # a layer
WEIGHT_PRICES = 12  # of a bit tried where layers choose among mappings
_OF_A_MAPPING = ("energy_pj", "input_pj", "output_pj", "weight_pj", "weight_bits", "map_tile_bits", "weight_tile_bits")
_ROUND = 1.0 + 1e-12  # relative room for rounding where maps just fit


@dataclasses.dataclass(frozen=True)
class Keeping:
    """What stays, chosen whole.

    Attributes:
      options: index of the mapping that each layer takes. needs: of these.
      stays: the maps that stay have share 1, others 0; weights are shared.
      energy_pj: of the network with what stays. bound_pj: no choice of the same mappings costs less.
    """

    options: tuple[int, ...]
    needs: Needs
    stays: Stay
    energy_pj: float
    bound_pj: float


class Label(NamedTuple):
    """A partial choice: energy and fullest layer so far, and how it was made."""

    energy_pj: float
    peak_bits: float
    kept: int
    before: "Label | None"
    option: int


@dataclasses.dataclass(frozen=True)
class Costs:
    """What the dynamic program asks of the mappings of a network.

    Attributes:
      energy_pj: by whether the input is found and the output kept.
      map_tile_bits: beside which maps must fit into map_room_bits. weight_tile_bits: reserved where weights stay;
        with `shared` that is the same memory, and maps take room there too.
      weight_pj, weight_bits: at most saved, at least taken by a layer's weights, over its mappings.
      weight_price_pj: of a bit of the weights' room, where energy_pj counts weights worth more as resident; else None.
    """

    energy_pj: Float[np.ndarray, "option layer found kept"]
    map_tile_bits: Float[np.ndarray, "option layer"]
    weight_tile_bits: Float[np.ndarray, "option layer"]
    map_bits: Float[np.ndarray, "layer"]
    weight_pj: Float[np.ndarray, "layer"]
    weight_bits: Float[np.ndarray, "layer"]
    map_room_bits: float
    weight_room_bits: float
    shared: bool
    weight_price_pj: float | None = None

    def weights_save(self, peak_bits: float) -> float:
        """The most that weights save, besides what energy_pj counts, in what the fullest layer leaves."""
        if self.weight_price_pj is not None:
            return self.weight_price_pj * max(self.weight_room_bits - peak_bits, 0.0)
        some = (self.weight_bits > 0) & (self.weight_pj > 0)
        bits, value = self.weight_bits[some], self.weight_pj[some]
        order = np.argsort(-value / bits, kind="stable")
        sizes, savings = (np.concatenate([[0.0], np.cumsum(x[order])]) for x in (bits, value))
        return float(np.interp(max(self.weight_room_bits - peak_bits, 0.0), sizes, savings))


def costs_of(options: Sequence[Needs]) -> Costs:
    """The costs of a network that was mapped in several ways, of which each layer takes one."""
    first = options[0]
    rows: dict[str, Any] = {
        name: np.stack([np.asarray(getattr(o, name), dtype=np.float64) for o in options]) for name in _OF_A_MAPPING
    }
    saved = np.stack([np.zeros_like(rows["input_pj"]), rows["input_pj"]], axis=-1)[..., :, None]
    saved = saved + np.stack([np.zeros_like(rows["output_pj"]), rows["output_pj"]], axis=-1)[..., None, :]
    return Costs(
        energy_pj=rows["energy_pj"][..., None, None] - saved,
        map_tile_bits=rows["map_tile_bits"],
        weight_tile_bits=rows["weight_tile_bits"],
        map_bits=np.asarray(first.map_bits, dtype=np.float64),
        weight_pj=rows["weight_pj"].max(axis=0),
        weight_bits=rows["weight_bits"].min(axis=0),
        map_room_bits=float(first.map_room_bits),
        weight_room_bits=float(first.weight_room_bits),
        shared=first.shared,
    )


def final_labels(known: Facts, costs: Costs, most: int = MOST_LABELS) -> tuple[list[Label], float]:
    """(labels of whole choices, bound on those that were dropped for their number; inf where none was)."""
    layers = len(costs.map_bits)
    lives = [np.flatnonzero(row) for row in known.alive]
    producers = [sum(1 << int(p) for p in np.flatnonzero(column)) for column in known.produces.T]
    rest = np.append(np.cumsum(costs.energy_pj.min(axis=(0, 2, 3))[::-1])[::-1], 0.0)
    dropped = np.inf
    front: list[Label] = [Label(0.0, 0.0, 0, None, -1)]
    alive = 0
    for j in range(layers):
        new = [p for p, life in enumerate(lives) if life.size and life[0] == j]
        ended = sum(1 << p for p, life in enumerate(lives) if life.size and life[-1] == j)
        alive |= sum(1 << p for p in new)
        grown: dict[int, list[Label]] = {}
        for label in front:
            for chosen in itertools.chain.from_iterable(itertools.combinations(new, n) for n in range(len(new) + 1)):
                kept = label.kept | sum(1 << p for p in chosen)
                for after in _placed(label, kept, kept & alive, j, producers[j], known, costs):
                    grown.setdefault(kept & alive & ~ended, []).append(after)
        alive &= ~ended
        front = [label for labels in grown.values() for label in _undominated(labels)]
        if len(front) > most:
            # A label that keeps nothing alive always has a successor; others may find no room.
            front.sort(key=lambda label: (label.kept & alive != 0, label.energy_pj))
            safe = front[:1]
            others = sorted(front[1:], key=lambda label: label.energy_pj)
            for label in others[most:]:
                dropped = min(dropped, label.energy_pj + float(rest[j + 1]) - costs.weights_save(label.peak_bits))
            front = safe + others[:most]
    return front, dropped


def _placed(label: Label, kept: int, alive: int, layer: int, producers: int, known: Facts, costs: Costs) -> list[Label]:
    """The label with each mapping of a layer that fits beside the maps kept."""
    held = sum(float(bits) for p, bits in enumerate(costs.map_bits) if alive >> p & 1)
    found = int(not known.from_input[layer] and producers & ~kept == 0)
    grown = []
    for option, tile in enumerate(costs.map_tile_bits[:, layer]):
        if alive and tile + held > costs.map_room_bits * _ROUND:
            continue
        beside = tile + held if costs.shared else costs.weight_tile_bits[option, layer]
        energy = label.energy_pj + float(costs.energy_pj[option, layer, found, kept >> layer & 1])
        grown.append(Label(energy, max(label.peak_bits, float(beside)), kept, label, option))
    return grown


def _undominated(labels: list[Label]) -> list[Label]:
    """Labels that no other undercuts in both energy and peak."""
    front: list[Label] = []
    for label in sorted(labels, key=lambda x: (x.energy_pj, x.peak_bits)):
        if not front or label.peak_bits < front[-1].peak_bits:
            front.append(label)
    return front


def least_energy_pj(known: Facts, costs: Costs, most: int = MOST_LABELS) -> float:
    """A bound below the energy of every choice."""
    labels, dropped = final_labels(known, costs, most)
    return min([dropped, *(label.energy_pj - costs.weights_save(label.peak_bits) for label in labels)])


def keep_best(known: Facts, options: Sequence[Needs], most: int = MOST_LABELS) -> Keeping:
    """The maps that stay whole, and the mapping of each layer, of least energy.

    Args:
      options: the network mapped in one or several ways; each layer may take any of them.

    Raises ValueError for no options, or options of different machines or widths.
    """
    _require_alike(options)
    costs, bound = costs_of(options), -np.inf
    several = len(options) > 1
    priced = [_with_weights(costs, options, price) for price in _weight_prices(options)] if several else []
    runs = [(now, *final_labels(known, now, most)) for now in (costs, *priced)]
    # Never worse than the first mapping of every layer alone.
    best = keep_best(known, options[:1], most) if several else _whole(known, options, runs[0][1][0])
    for now, labels, dropped in runs:
        ranked = sorted((label.energy_pj - now.weights_save(label.peak_bits), i) for i, label in enumerate(labels))
        bound = max(bound, min(dropped, ranked[0][0]))
        for least, i in ranked:
            if least >= best.energy_pj:
                break
            found = _whole(known, options, labels[i])
            best = found if found.energy_pj < best.energy_pj else best
    return dataclasses.replace(best, bound_pj=float(min(bound, best.energy_pj)))


def _weight_prices(options: Sequence[Needs]) -> list[float]:
    """Values of a bit of weights at which the choice may turn, the least, the largest and some between."""
    bits, saved = (np.concatenate([np.asarray(getattr(o, f)) for o in options]) for f in ("weight_bits", "weight_pj"))
    values = np.unique(saved[bits > 0] / bits[bits > 0])
    if not values.size or float(options[0].weight_room_bits) == 0.0:
        return []
    return sorted({0.0, *(float(v) for v in np.quantile(values, np.linspace(0.0, 1.0, WEIGHT_PRICES)))})


def _with_weights(costs: Costs, options: Sequence[Needs], price_pj: float) -> Costs:
    """The costs with the weights that are worth more than a price a bit resident."""
    worth = np.stack([np.maximum(o.weight_pj - price_pj * o.weight_bits, 0.0) for o in options])
    return dataclasses.replace(costs, energy_pj=costs.energy_pj - worth[..., None, None], weight_price_pj=price_pj)


def _whole(known: Facts, options: Sequence[Needs], label: Label) -> Keeping:
    chosen: list[int] = []
    step = label
    while step.before is not None:
        chosen.insert(0, step.option)
        step = step.before
    needs = _taken(options, chosen)
    kept = np.array([float(label.kept >> p & 1) for p in range(len(chosen))])
    stays = stay(known, needs, kept, np)
    energy = float(np.sum(stays.energy_pj))
    return Keeping(tuple(chosen), needs, stays, energy, energy)


def _taken(options: Sequence[Needs], chosen: Sequence[int]) -> Needs:
    """The needs of one mapping a layer."""
    rows: dict[str, Any] = {
        f: np.array([float(getattr(options[o], f)[j]) for j, o in enumerate(chosen)]) for f in _OF_A_MAPPING
    }
    return dataclasses.replace(options[0], **rows)


def _require_alike(options: Sequence[Needs]) -> None:
    if not options:
        raise ValueError("no mapping to keep maps beside; give the needs of one mapping of the network, or of several")
    first = options[0]
    for number, one in enumerate(options):
        same = one.shared == first.shared and np.array_equal(one.map_bits, first.map_bits)
        if not same or (one.map_room_bits, one.weight_room_bits) != (first.map_room_bits, first.weight_room_bits):
            raise ValueError(
                f"mapping {number} is of homes of {one.map_room_bits:g} and {one.weight_room_bits:g} bit, mapping 0 of "
                f"{first.map_room_bits:g} and {first.weight_room_bits:g}, or their maps differ in width; give mappings "
                "of one network on one machine"
            )
