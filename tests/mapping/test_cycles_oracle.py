"""Cycles of random mappings against whole-number arithmetic and windows laid out cycle by cycle."""

import collections
import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cooptim.mapping.nest import nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import HARDWARE, ZIGZAG
from cooptim.mapping.stalls import _union
from tests.mapping.random_nests import DIMS, cases, unfilled
from tests.oracle import cycles_plain

ALL = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": [*HealthCheck]}


def _setting(case, rules):
    """The case as the oracle reads it: mean units where the array is not filled."""
    temporal = collections.Counter()
    for dim, n in case.mapping.loops:
        temporal[dim] = (temporal[dim] or 1) * n
    units = []
    for axis in case.machine.array_dims:
        row = {}
        for dim, n in case.mapping.spatial.get(axis, ()):
            others = [m for pairs in case.mapping.spatial.values() for d, m in pairs if d == dim]
            whole = math.prod(others) * (temporal[dim] or 1) == case.shape.bounds[DIMS.index(dim)]
            row[dim] = Fraction(n) if whole else Fraction(case.shape.bounds[DIMS.index(dim)], temporal[dim] or 1)
        units.append(row)
    stores = tuple(
        cycles_plain.Store(
            memory.name, memory.operands, tuple(case.machine.array_dims.index(d) for d in memory.served_dims),
            int(memory.size_bits), memory.double_buffered,
            tuple(cycles_plain.Port(p.name, p.serves, int(p.bw_max_bits), int(p.bw_min_bits)) for p in memory.ports),
        )
        for memory in case.machine.memories
    )  # fmt: skip
    built = tuple(math.prod(n for _, n in case.mapping.spatial.get(a, ())) for a in case.machine.array_dims)
    return cycles_plain.Setting(
        macs=math.prod(case.shape.bounds), loops=case.mapping.loops, units=tuple(units), built=built,
        array=tuple(n for _, n in case.machine.array),
        systolic=tuple(case.machine.array_dims.index(d) for d in case.machine.systolic_dims), stores=stores,
        cuts=case.mapping.cuts, stride=case.shape.stride, dilation=case.shape.dilation,
        input_size=case.shape.input_size,
        bits={"W": case.shape.w_bits, "I": case.shape.i_bits, "psum": case.shape.psum_bits, "O": case.shape.o_bits},
        charge_first_read=rules.charge_first_psum_read,
    )  # fmt: skip


def _disagreements(case, rules):
    nest = nest_of("layer", case.shape, case.mapping, case.machine)
    priced = price(nest, case.shape, case.machine, rules)
    found, plain = priced.cycles, cycles_plain.cycles(_setting(case, rules))
    counts = cycles_plain.accesses(_setting(case, rules))
    for key, count in priced.accesses.items():
        if count != counts.get(key, 0):
            yield rules.name, "accesses", key, float(count), counts.get(key, 0)
    for name in ("ideal", "temporal", "stall", "onload", "offload", "drain"):
        ours, theirs = float(getattr(found, name)), float(getattr(plain, name))
        if not math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-9):
            yield rules.name, name, ours, theirs
    for port, value in found.stall_per_port.items():
        if not math.isclose(float(value), float(plain.per_port.get(port, 0)), rel_tol=1e-12, abs_tol=1e-9):
            yield rules.name, port, float(value), float(plain.per_port.get(port, 0))
    if {key: bool(value) for key, value in found.double_buffered.items()} != plain.buffered:
        yield rules.name, "double-buffered", found.double_buffered, plain.buffered


pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the type checker samples containers
RULES = (HARDWARE, dataclasses.replace(ZIGZAG, exact_words=True))


def test_cycles_and_accesses_are_those_of_plain_arithmetic():
    met = collections.Counter()

    @settings(max_examples=300, **ALL)
    @given(st.one_of(cases(), unfilled()))
    def agree(case):
        for rules in RULES:
            assert list(_disagreements(case, rules)) == []
        plain = cycles_plain.cycles(_setting(case, HARDWARE))
        met.update(["triples"])
        met.update([name for name in ("stall", "onload", "offload", "drain") if getattr(plain, name)])
        met.update([f"buffered {b}" for b in set(plain.buffered.values())])
        met.update(["unfilled"] if math.prod(case.shape.bounds) < math.prod(_factors(case)) else [])

    agree()
    assert met["triples"] >= 300
    wanted = ("stall", "onload", "offload", "drain", "buffered True", "buffered False", "unfilled")
    assert {name: met[name] for name in wanted if met[name] < 40} == {}


def _factors(case):
    """Loops and units; their product is the MACs of a filled array."""
    return [n for _, n in case.mapping.loops] + [n for pairs in case.mapping.spatial.values() for _, n in pairs]


@st.composite
def _windows(draw):
    """Periods that divide one another, each open for part of itself, in any order."""
    periods = [draw(st.integers(1, 4))]
    for _ in range(draw(st.integers(0, 4))):
        periods.append(periods[-1] * draw(st.integers(1, 3)))
    windows = [(p, draw(st.integers(0, p))) for p in periods]
    return draw(st.permutations(windows)), periods[-1] * draw(st.integers(1, 3))


def test_the_union_of_windows_is_that_counted_cycle_by_cycle():
    @settings(max_examples=400, **ALL)
    @given(_windows())
    def agree(drawn):
        windows, cycles = drawn
        found = _union([float(p) for p, _ in windows], [float(w) for _, w in windows], float(cycles), np)
        assert float(found) == cycles_plain._open_cycles(windows, cycles)

    agree()


def test_a_port_of_three_transfers_by_hand():
    # Windows of 1 in 2, 1 in 4 and 3 in 8 cycles: open at 0 1 2 4 6, five of eight.
    assert float(_union([2.0, 4.0, 8.0], [1.0, 1.0, 3.0], 16.0, np)) == 10.0
    assert cycles_plain._open_cycles([(2, 1), (4, 1), (8, 3)], 16) == 10
    one = cycles_plain.Move(4, 8, 4, 4, Fraction(8))
    # Needs 6 of 4 allowed cycles, three times late; alone on its port.
    assert cycles_plain._stall([(one, 6, 4)], 16) == 6
    assert dataclasses.replace(one, count=1).count == 1
