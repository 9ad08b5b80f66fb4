"""Timeloop's answers for a golden case beside ours."""

import math

from cooptim.mapping.timeloop import Counts
from cooptim.validate.compare import GoldenRow
from cooptim.validate.timeloop import OPERAND_OF, Level, TimeloopCase, counts_of

ENERGY_TOLERANCE = 1e-6
_PRINTED_UTILIZATION = 0.5e-8  # Timeloop prints eight decimals


def level_cycles(case: TimeloopCase, counts: dict[tuple[str, str], Counts], compute_cycles: float) -> dict[str, int]:
    """Cycles of every level if it were the only limit, and of the MACs ('MACC').

    A level slows the computation down by bandwidth / demand, demand being the words that an instance reads, fills and
    updates in a cycle without stalls. The quotients are taken one after another in double precision as Timeloop takes
    them: the exact ratio of words to bandwidth is at times one cycle less.
    """
    found = {"MACC": int(compute_cycles)}
    for level in case.levels:
        here = [counts[level.name, tensor] for tensor in OPERAND_OF if tensor in level.keeps]
        read = sum(float(count.reads) / compute_cycles for count in here)
        written = sum(float(count.updates + count.fills) / compute_cycles for count in here)
        bandwidth, slowdown = level.shared_bandwidth_words_per_cycle_per_instance, 1.0
        if bandwidth is not None and bandwidth < written + read:
            slowdown = bandwidth / (written + read)
        found[level.name] = math.ceil(compute_cycles / slowdown)
    return found


def energy_pj(level: Level, count: Counts) -> float:
    """Energy of one tensor in all instances of a level [pJ]; words are rounded up to whole accesses once, in total."""
    reads, fills, updates = (math.ceil(n / level.words_per_access) for n in (count.reads, count.fills, count.updates))
    return float(count.instances) * (reads * level.read_pJ + (fills + updates) * level.write_pJ)


def case_rows(case: TimeloopCase) -> list[GoldenRow]:
    """Everything Timeloop answers for a case beside our answer: counts and cycles equal, energies to 1e-6."""
    counts, results, rows = counts_of(case), case.results, []
    levels = {level.name: level for level in case.levels}

    def row(quantity: str, expected: float, ours: float, tolerance: float = 0.0) -> None:
        rows.append(GoldenRow(case.id, quantity, float(expected), float(ours), tolerance))

    for result in results.per_level_tensor:
        count, place = counts[result.level, result.tensor], f"levels.{result.level}.{result.tensor}"
        row(f"{place}.tile_words", result.tile_words, count.tile)
        row(f"{place}.instances_used", result.instances_used, count.instances)
        row(f"{place}.reads_per_instance", result.reads_per_instance, count.reads)
        row(f"{place}.fills_per_instance", result.fills_per_instance, count.fills)
        row(f"{place}.updates_per_instance", result.updates_per_instance, count.updates)
        row(f"{place}.temporal_reductions_per_instance", result.temporal_reductions_per_instance,
            count.temporal_reductions)  # fmt: skip
        ours = energy_pj(levels[result.level], count)
        row(f"{place}.energy_total_pJ", result.energy_total_pJ, ours, ENERGY_TOLERANCE)
        row(f"{place}.energy_recomputed_pJ", result.energy_recomputed_pJ, ours, ENERGY_TOLERANCE)
    compute = math.prod(factor for _, factor in case.mapping.loops)
    units = math.prod(n for pairs in case.mapping.spatial.values() for _, n in pairs)
    cycles = level_cycles(case, counts, float(compute))
    mac_pj = case.shape.macs * float(case.machine.mac_pj)
    total_pj = mac_pj + sum(energy_pj(levels[name], count) for (name, _), count in counts.items())
    share = units / case.machine.units * compute / max(cycles.values())
    row("macs", results.macs, case.shape.macs)
    row("mac_energy_pJ", results.mac_energy_pJ, mac_pj, ENERGY_TOLERANCE)
    row("network_energy_pJ", results.network_energy_pJ, 0.0)  # wires cost nothing in this format
    row("storage_plus_mac_energy_pJ", results.storage_plus_mac_energy_pJ, total_pj, ENERGY_TOLERANCE)
    row("compute_cycles", results.compute_cycles, compute)
    row("multipliers_used", results.multipliers_used, units)
    for name, found in cycles.items():
        row(f"level_cycles.{name}", results.level_cycles[name], found)
    row("cycles", results.cycles, max(cycles.values()))
    row("utilization", results.utilization, share, max(ENERGY_TOLERANCE, _PRINTED_UTILIZATION / results.utilization))
    return rows
