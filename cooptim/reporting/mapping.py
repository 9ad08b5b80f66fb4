"""Mappings of a network as a table: what each layer costs, what is proven, how far it is from that."""

import dataclasses
from collections.abc import Mapping as AbstractMapping

from rich import box
from rich.table import Table

from cooptim.mapping.nest import Mapping
from cooptim.mapping.search import Certificate
from cooptim.reporting.spell import digits

_OPTIMAL = 1e-9  # relative distance from the bound below which a mapping is proven optimal


@dataclasses.dataclass(frozen=True)
class Own:
    """A mapping that somebody wrote, priced."""

    mapping: Mapping
    energy_pj: float
    cycles: float


def mapping_table(
    title: str,
    found: AbstractMapping[str, Certificate],
    repeats: AbstractMapping[str, int],
    own: AbstractMapping[str, Own] | None = None,
) -> Table:
    """One row a layer; with `own`, the cost of those mappings, the best that was found, and their gap to the bound."""
    edp = next(iter(found.values())).objective == "edp"
    goal = "energy x cycles of the network, in pJ x cycle" if edp else "energy of each layer, in pJ"
    heading = f"{title}: {'your mappings beside the least' if own else 'least'} {goal}"
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("unrolled", overflow="fold")
    costs = ("yours", "best", "bound") if own else ("chosen", "bound")
    for heading in (*costs, "gap", "cycles", *(() if own else ("space", "CPU s"))):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in found.items():
        mapping, energy, cycles = one.mapping, one.energy_pj, one.cycles
        if own:
            mapping, energy, cycles = own[name].mapping, own[name].energy_pj, own[name].cycles
        value = energy * cycles if edp else energy
        table.add_row(
            name if repeats[name] == 1 else f"{name} x{repeats[name]}",
            " ".join(f"{d}{n}" for pairs in mapping.spatial.values() for d, n in pairs if n > 1) or "-",
            *(digits(x) for x in ((value, one.value, one.bound) if own else (value, one.bound))),
            _gap(value / one.bound - 1.0, "optimal" if own else "proven"),
            digits(cycles),
            *(() if own else (f"1e{one.space_log10:.0f}", f"{one.cpu_s:.2f}")),
        )
    return table


def _gap(gap: float, none: str) -> str:
    return none if abs(gap) < _OPTIMAL else f"{100 * gap:.1f} %"


def totals_line(
    found: AbstractMapping[str, Certificate],
    repeats: AbstractMapping[str, int],
    bound: float,
    own: AbstractMapping[str, Own] | None = None,
) -> str:
    """Energy, cycles and their product of the network, and how far the objective is above its bound.

    Args:
      bound: of the sum of energies, or of energy x cycles of the network.
    """
    costs: AbstractMapping[str, Certificate | Own] = own or found
    energy = sum(repeats[n] * cost.energy_pj for n, cost in costs.items())
    cycles = sum(repeats[n] * cost.cycles for n, cost in costs.items())
    edp = next(iter(found.values())).objective == "edp"
    value = energy * cycles if edp else energy
    goal, unit = ("energy x cycles", "pJ x cycle") if edp else ("energy", "pJ")
    gap = value / bound - 1.0
    proof = f"at its bound, {digits(bound)} {unit}: proven least" if gap < _OPTIMAL else (
        f"{100 * gap:.2f} % above its bound, {digits(bound)} {unit}"
    )  # fmt: skip
    line = (
        f"Together {digits(energy)} pJ, {digits(cycles)} cycles, energy x cycles {digits(energy * cycles)} pJ x cycle"
    )
    best = ""
    if own:
        least_energy = sum(repeats[n] * one.energy_pj for n, one in found.items())
        least_cycles = sum(repeats[n] * one.cycles for n, one in found.items())
        least = least_energy * least_cycles if edp else least_energy
        best = f" The best found has {digits(least)} {unit}; yours is {value / least:.3g} times that."
    return f"{line}; its {goal} is {proof}.{best}"
