"""The closed form of transfers against sets of elements, moved cycle by cycle."""

import collections
import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings

from cooptim.mapping.nest import nest_of
from cooptim.mapping.rules import HARDWARE, ZIGZAG
from cooptim.mapping.transfers import accesses, traffic
from tests.mapping.random_nests import cases
from tests.oracle import nest_walk

TRIPLES = 2000
# The walk counts no gaps between the taps of a dilated filter, and its numbers are whole.
RULES = (HARDWARE, dataclasses.replace(ZIGZAG, count_gaps=False, exact_words=True))


def _features(case):
    """What a triple has that another may not have."""
    b = dict(zip("B G K C OY OX FY FX".split(), case.shape.bounds, strict=True))
    levels = {op: sum(op in m.operands for m in case.machine.memories) for op in "WIO"}
    units = [d for pairs in case.walk.units for d, _ in pairs]
    yield f"{max(levels.values())} levels"
    if len(set(levels.values())) > 1:
        yield "bypass"
    if any(len(m.operands) > 1 for m in case.machine.memories[:-1]):
        yield "shared memory"
    if len(set(case.mapping.cuts.values())) > 1:
        yield "uneven"
    if b["G"] > 1:
        yield "depthwise" if b["K"] == b["C"] == 1 else "groups"
    if b["B"] > 1:
        yield "batch"
    for axis, s, d in zip("YX", case.shape.stride, case.shape.dilation, strict=True):
        if b[f"F{axis}"] > 1 and b[f"O{axis}"] > 1:
            yield "halo"
            if s > 1:
                yield "stride"
            if d > 1:
                yield "dilation"
    if case.padded:
        yield "padding"
    if len([pairs for pairs in case.walk.units if pairs]) > 1:
        yield "array of several dims"
    if {"C", "FY", "FX"} & set(units):
        yield "spatial reduction"
    if {"B", "OY", "OX"} & set(units) and {"K"} & set(units):
        yield "multicast"
    if any(not set(case.machine.array_dims) <= set(m.served_dims) for m in case.machine.memories[:-1]) and units:
        yield "replication"
    if any(port.bw_min_bits != port.bw_max_bits for m in case.machine.memories for port in m.ports):
        yield "granules"


def _disagreements(case):
    """(rules, operand, level, what, closed form, walk) of all that is not equal.

    Of padded inputs the closed form may count more than there is, of others exactly what there is.
    """
    counts = nest_walk.count(case.walk)
    nest = nest_of("layer", case.shape, case.mapping, case.machine)
    for rules in RULES:
        moved = traffic(nest, case.shape, case.machine, rules)
        if moved.cycles != counts.cycles:
            yield rules.name, "cycles", moved.cycles, counts.cycles
        for (operand, m), held in counts.held.items():
            level = moved.levels[operand][m]
            found = ({int(level.elements)}, int(level.instances))
            if found != (held.elements, held.instances):
                yield rules.name, operand, m, "held", found, (held.elements, held.instances)
            filled = int(level.elements * moved.cycles / level.period * level.instances)
            if operand == "I" and (filled < held.real or (not case.padded and filled > held.real)):
                yield rules.name, operand, m, "real inputs", filled, held.real
        if set(moved.transfers) != set(counts.links):
            yield rules.name, "directions", set(moved.transfers) ^ set(counts.links)
        for key, link in counts.links.items():
            transfer, level = moved.transfers[key], moved.levels[key[0]][key[1]]
            back = key[0] == "O" and key[2] in ("read_to_low", "write_from_high")
            if back and not rules.charge_first_psum_read:
                link = link.elided()
            bits = {"W": case.shape.w_bits, "I": case.shape.i_bits, "O": case.shape.o_bits}[key[0]]
            bits = case.shape.psum_bits if link.unfinished else bits
            port = case.machine.memories[case.machine.levels(key[0])[key[1]]].port(key[0], key[2])
            elements = transfer.elements * transfer.count * level.instances if transfer.active else 0.0
            whole = accesses(transfer, key, level, case.machine, rules)
            walked = link.accesses(bits, int(port.bw_min_bits), int(port.bw_max_bits))
            if (elements, whole) != (link.elements, walked) or (link.elements and transfer.bits != bits):
                yield rules.name, *key, (elements, whole, transfer.bits), (link.elements, walked, bits)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the type checker samples containers
def test_traffic_and_accesses_are_those_of_a_walk():
    met = collections.Counter()

    @settings(
        max_examples=TRIPLES, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(cases())
    def agree(case):
        assert list(_disagreements(case)) == []
        met.update({"triples", *_features(case)})

    agree()
    assert met["triples"] >= TRIPLES
    rare = {"2 levels", "3 levels", "4 levels", "bypass", "shared memory", "uneven", "depthwise", "groups", "batch",
            "halo", "stride", "dilation", "padding", "array of several dims", "spatial reduction", "multicast",
            "replication", "granules"}  # fmt: skip
    assert {feature: met[feature] for feature in rare if met[feature] < 50} == {}
