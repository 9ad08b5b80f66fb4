"""The laws of `conformance` that apply to memory hierarchies and to circuits: a lighter set."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.hardware import gated_array, multiplier
from cooptim.hardware.circuit_file import GatedArrayFile, ScalableMultiplierFile
from cooptim.hardware.gated_array import GatedArray
from cooptim.hardware.hierarchy import Hierarchy
from cooptim.hardware.multiplier import ScalableMultiplier
from cooptim.mapping.nest import LayerShape, Mapping, layer_shape, nest_of
from cooptim.mapping.price import Price, price
from cooptim.mapping.search import Certificate, Spatial, best_mapping, spatial_options
from cooptim.validate.conformance import Law
from cooptim.workload import INPUT, Bounds, Layer

_BITS = (8.0, 8.0, 24.0, 8.0)  # weights, inputs, partial sums, outputs
_OPTIONS = (2, 8, 32)  # unrollings searched
_ROUNDING = 1e-5  # float32 of a sum of a few terms


def hierarchy_laws(machine: Hierarchy) -> tuple[Law, ...]:
    """Laws of mappings on a hierarchy: energy by bits, MACs and energies, a legal mapping, gradients of the energies.

    Raises ValueError where no mapping of a small layer fits at all.
    """
    sizes = (16, 32)
    found = [_best(_shape(size), machine) for size in sizes]
    shape, mapping = _shape(sizes[1]), found[1].mapping
    prices = [_priced(_shape(sizes[1], bits), mapping, machine) for bits in (1, 2, 3, 4)]
    one = prices[0]
    energies = [float(p.energy_pj) for p in prices]
    fits = bool(one.fits(1).all())
    bound = all(c.bound <= c.energy_pj * (1 + 1e-9) for c in found)
    best = [c.energy_pj for c in found]
    twice = float(_priced(shape, mapping, _scaled(machine, 2.0)).energy_pj)
    return (
        Law("a legal mapping exists, above its bound", fits and bound, f"{len(found)} layers"),
        _rising("more bits never cost less", energies, "energy at 8, 16, 24, 32 b"),
        _rising("more MACs never cost less", best, f"best energy at K {sizes}"),
        Law("twice the energies is twice the price", abs(twice / energies[0] - 2) < _ROUNDING,
            f"{twice / energies[0]:.9g}"),
        *_slopes(machine, shape, mapping),
    )  # fmt: skip


def circuit_laws(file: GatedArrayFile | ScalableMultiplierFile) -> tuple[Law, ...]:
    """Laws of a published circuit: energy by zeros or bits, by MACs and supply, and clock by supply."""
    model = file.model
    return _array_laws(model) if isinstance(model, GatedArray) else _multiplier_laws(model)


def _array_laws(array: GatedArray) -> tuple[Law, ...]:
    def energy(macs: float, zeros: float, latency_ns: float = 1e6, chip: GatedArray = array) -> float:
        return float(gated_array.energy_pj(chip, jnp.asarray(macs), jnp.asarray(zeros), jnp.asarray(latency_ns)))

    volts = [float(array.supply_v) * share for share in (0.9, 1.0, 1.1)]
    chips = [gated_array.at_supply(array, jnp.asarray(v)) for v in volts]
    return (
        _rising("fewer zeros never cost less", [energy(1e6, z) for z in (1.0, 0.5, 0.0)], "energy at 1, 0.5, 0 zeros"),
        _rising("more MACs never cost less", [energy(m, 0.5) for m in (1e6, 2e6, 3e6)], "energy at 1, 2, 3 M MACs"),
        _rising("more supply never costs less", [float(c.busy_mac_pj) for c in chips], "energy a MAC at 0.9 to 1.1 V0"),
        _rising("more supply is faster", [float(c.clock_ghz) for c in chips], "clock at 0.9 to 1.1 V0"),
    )


def _multiplier_laws(part: ScalableMultiplier) -> tuple[Law, ...]:
    def energy(lanes: float, bits: float, share: float = 1.0) -> float:
        return float(multiplier.word_energy_pj(part, jnp.asarray(lanes), jnp.asarray(bits), part.supply_v * share))

    width = float(part.width_bits)
    speeds = [float(multiplier.lowest_supply_v(part, jnp.asarray(bits), part.clock_ghz)) for bits in (4.0, 8.0, 16.0)]
    return (
        _rising("more bits never cost less", [energy(1.0, bits) for bits in (4.0, 8.0, width)], "at 4, 8, all b"),
        _rising("subwords never cost more", [energy(n, width / n) for n in (4.0, 2.0, 1.0)], "in 4, 2, 1 lanes"),
        _rising("more supply never costs less", [energy(1.0, width, v) for v in (0.9, 1.0, 1.1)], "at 0.9 to 1.1 V0"),
        _rising("more bits need no lower supply", speeds, "supply at 4, 8, 16 b"),
    )


def _rising(name: str, values: Sequence[float], what: str) -> Law:
    holds = all(b >= a * (1.0 - _ROUNDING) for a, b in itertools.pairwise(values)) and values[-1] > values[0] > 0
    return Law(name, bool(holds), f"{what}: {', '.join(f'{value / values[0]:.3g}' for value in values)}")


def _best(shape: LayerShape, machine: Hierarchy) -> Certificate:
    """The best mapping among few unrollings that keep most of the array busy; among more where none of these fits."""

    def units(option: Spatial) -> int:
        return math.prod(factor for row in option.values() for _, factor in row)

    options = sorted(spatial_options(shape, machine), key=units, reverse=True)
    for few in _OPTIONS:
        try:
            return best_mapping("conv", shape, machine, spatial=options[:few])
        except ValueError:
            continue
    return best_mapping("conv", shape, machine)


def _shape(wide: int, times: float = 1.0) -> LayerShape:
    bounds = Bounds(K=wide, C=8, OY=2, OX=4, FY=1, FX=3)
    layer = Layer("conv", "conv", bounds, padding=((0, 0), (1, 1)), inputs=(INPUT,))
    return layer_shape(layer, *(times * bits for bits in _BITS))


def _priced(shape: LayerShape, mapping: Mapping, machine: Hierarchy, xp: Any = np) -> Price:
    return price(nest_of("conv", shape, mapping, machine), shape, machine, xp=xp)


def _scaled(machine: Hierarchy, by: Any) -> Hierarchy:
    memories = tuple(
        dataclasses.replace(memory, read_pj=by * memory.read_pj, write_pj=by * memory.write_pj)
        for memory in machine.memories
    )
    return dataclasses.replace(machine, mac_pj=by * machine.mac_pj, memories=memories)


def _slopes(machine: Hierarchy, shape: LayerShape, mapping: Mapping) -> tuple[Law]:
    """Every energy above 0 of a memory that the layer uses, and the MAC's, moves the price."""

    def energy(numbers: dict[str, Any]) -> Any:
        memories = tuple(
            dataclasses.replace(
                memory, read_pj=numbers[f"{memory.name} read"], write_pj=numbers[f"{memory.name} write"]
            )
            for memory in machine.memories
        )
        changed = dataclasses.replace(machine, mac_pj=numbers["mac"], memories=memories)
        bits = dataclasses.replace(shape, w_bits=numbers["weight bits"], i_bits=numbers["input bits"])
        return _priced(bits, mapping, changed, jnp).energy_pj

    numbers = {"mac": machine.mac_pj, "weight bits": shape.w_bits, "input bits": shape.i_bits}
    for memory in machine.memories:
        numbers |= {f"{memory.name} read": memory.read_pj, f"{memory.name} write": memory.write_pj}
    slopes = jax.grad(energy)({name: jnp.asarray(float(value)) for name, value in numbers.items()})
    wild = [name for name, slope in slopes.items() if not bool(jnp.isfinite(slope))]
    dead = [name for name, slope in slopes.items() if not float(jnp.abs(slope)) > 0 and "bits" not in name]
    text = f"{len(slopes)} numbers" if not wild + dead else ", ".join(wild + dead)
    return (Law("every energy has a finite gradient above 0", not wild + dead, text),)
