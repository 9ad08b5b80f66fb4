"""What stays on chip, and how many even mappings compete, as tables."""

from collections.abc import Mapping as AbstractMapping

from rich import box
from rich.table import Table

from cooptim.mapping.even_frontier import Sizes
from cooptim.mapping.resident_network import ResidentNetwork
from cooptim.reporting.spell import digits, percent, spell


def residency_table(found: ResidentNetwork, joint: bool) -> Table:
    """One row a layer: shares of its tensors on chip, and its energy and working set.

    Args:
      joint: mappings were chosen together with what stays.
    """
    title = "What stays on chip, " + ("chosen together with the mappings" if joint else "beside these mappings")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    for heading in ("input", "output", "weights", "pJ before", "pJ after", "tiles", "with maps"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found.layers:
        shares = (one.input_share, one.map_share, one.weight_share)
        table.add_row(
            one.name,
            *(percent(share, 0) if share > 0 else "-" for share in shares),
            digits(one.energy_before_pj),
            digits(one.energy_after_pj),
            spell(one.map_tile_bits, "size"),
            spell(one.map_demand_bits, "size"),
        )
    return table


def residency_lines(found: ResidentNetwork) -> list[str]:
    """Where tensors stay, and what the network costs before and after."""
    homes = [f"maps stay in {found.map_home} ({spell(found.map_room_bits, 'size')})" if found.map_home else
             "no memory on chip holds inputs and outputs, so that no map stays"]  # fmt: skip
    homes.append(
        f"weights in {found.weight_home} ({spell(found.weight_room_bits, 'size')}, of it "
        f"{spell(found.resident_bits, 'size')} taken)" if found.weight_home else "no memory on chip holds weights"
    )  # fmt: skip
    proof = "proven least" if found.gap < 1e-9 else f"{100 * found.gap:.2f} % above its bound"
    share = found.energy_after_pj / found.energy_before_pj
    return [
        "In steady state " + ", ".join(homes) + ".",
        f"Energy {digits(found.energy_before_pj)} to {digits(found.energy_after_pj)} pJ ({percent(share)}), {proof}; "
        f"cycles {digits(found.cycles_before)} to {digits(found.cycles_after)}.",
    ]


def sizes_table(sizes: AbstractMapping[str, Sizes]) -> Table:
    """One row a layer: even mappings, those that are distinct and fit, those that compete."""
    title = "Even mappings of each layer at its unrolling (one cut a tier for all operands)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    for heading in ("all", "distinct", "compete"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in sizes.items():
        table.add_row(name, digits(one.mappings), digits(one.distinct), digits(one.kept))
    return table
