"""Mappings by name: what is refused and how, what is overfilled, and small mappings by hand."""

import dataclasses
import math

import numpy as np
import pytest

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port
from cooptim.hardware.hierarchy_file import load_hierarchy
from cooptim.mapping.legal import demand_bits, require_legal
from cooptim.mapping.nest import LayerShape, Mapping, layer_shape, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import HARDWARE, ZIGZAG
from cooptim.mapping.transfers import traffic, window
from cooptim.workload import Bounds, Layer


def _memory(name, operands, served, size, buffering="room", largest=None):
    pairs = tuple((op, d) for op in operands for d in DIRECTIONS)
    port = Port("rw", "read_write", pairs, 64.0, 8.0)
    return Memory(
        name, operands, served, buffering, (port,), float(size), 1.0, 1.0, float(size), 0.5, 8.0,
        float(largest or size), 8.0, 0.0, 0.0,
    )  # fmt: skip


def _machine(**changed):
    memories = (
        _memory("reg", ("O",), (), 32),
        _memory("sram", ("W", "I", "O"), ("rows", "cols"), 4096),
        _memory("dram", ("W", "I", "O"), ("rows", "cols"), math.inf),
    )
    machine = Hierarchy("toy", (("rows", 4), ("cols", 2)), (), memories, 1.0, 1.0)
    return dataclasses.replace(machine, **changed)


# K 8 over 4 rows, C 6 over 2 cols, 5 x 5 outputs of a 3 x 3 filter.
SHAPE = LayerShape((1, 1, 8, 6, 5, 5, 3, 3), (1, 1), (1, 1), (7, 7), 8, 8, 24, 8)
LOOPS = (("FX", 3), ("FY", 3), ("C", 3), ("OX", 5), ("OY", 5), ("K", 2))
SPATIAL = {"rows": (("K", 4),), "cols": (("C", 2),)}
CUTS = {"W": (5, 6), "I": (4, 6), "O": (3, 5, 6)}
MAPPING = Mapping(LOOPS, SPATIAL, CUTS)


def test_a_legal_mapping_becomes_arrays():
    nest = nest_of("conv1", SHAPE, MAPPING, _machine())
    assert nest.dims.tolist() == [7, 6, 3, 5, 4, 2]
    assert nest.factors.tolist() == [3, 3, 3, 5, 5, 2]
    assert nest.cuts == ((5, 6), (4, 6), (3, 5, 6))
    assert (nest.unroll[0][2], nest.unroll[1][3], nest.span) == (4.0, 2.0, (4.0, 2.0))
    assert MAPPING.level_loops("I") == (LOOPS[:4], LOOPS[4:])


def test_units_that_do_not_divide_a_bound_are_counted_as_their_mean():
    loops = (*LOOPS[:5], ("K", 3))
    shape = dataclasses.replace(SHAPE, bounds=(1, 1, 10, 6, 5, 5, 3, 3))
    nest = nest_of("conv1", shape, Mapping(loops, SPATIAL, CUTS), _machine())
    assert nest.unroll[0][2] == pytest.approx(10 / 3)
    assert (nest.whole[0][2], nest.span[0]) == (3.0, 4.0)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"spatial": {"D9": (("K", 4),)}}, "array dimension 'D9' is not in toy; it has rows, cols"),
        ({"spatial": {"rows": (("Q", 4),)}}, "loop 'Q' on rows is unknown; legal: B, G, K, C, OY, OX, FY, FX"),
        ({"spatial": {"rows": (("K", 0),)}}, "0 units of K on rows; legal: 1 to its bound 8"),
        ({"spatial": {"rows": (("C", 7),)}}, "7 units of C on rows; legal: 1 to its bound 6"),
        (
            {"spatial": {"rows": (("K", 4), ("C", 2))}},
            "rows unrolls K 4 x C 2 = 8 units beyond the array's 4; legal: at most 4 units along rows",
        ),
        ({"loops": (("Z", 3), *LOOPS[1:])}, r"loop \(Z, 3\); legal: a factor of at least 1 of B, G, K"),
        ({"loops": (("FX", 0), *LOOPS[1:])}, r"loop \(FX, 0\); legal: a factor of at least 1"),
        (
            {"loops": (*LOOPS[:5], ("K", 3))},
            "loop K has temporal factors of 3 and 4 units, which do not make its bound 8; legal: temporal factors of 2",
        ),
        ({"loops": LOOPS[1:]}, "loop FX has temporal factors of 1 and 1 units.*bound 3; legal: temporal factors of 3"),
        ({"cuts": {"W": (5, 6), "I": (4, 6)}}, r"cuts for \['I', 'W'\]; legal: one list for each of W, I, O"),
        (
            {"cuts": {**CUTS, "W": (1, 5, 6)}},
            "operand W is cut into 3 levels; toy has 2: sram, dram; give one cut a level",
        ),
        (
            {"cuts": {**CUTS, "O": (5, 3, 6)}},
            r"operand O has cuts \(5, 3, 6\) over reg, sram, dram; legal: never falling, the last \(of dram\) the "
            "number of loops, 6",
        ),
        ({"cuts": {**CUTS, "I": (4, 5)}}, r"operand I has cuts \(4, 5\) over sram, dram; legal: never falling"),
        ({"cuts": {**CUTS, "I": (-1, 6)}}, r"operand I has cuts \(-1, 6\)"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_with_layer_finding_and_what_is_legal(changed, says):
    with pytest.raises(ValueError, match=says) as caught:
        nest_of("conv1", SHAPE, dataclasses.replace(MAPPING, **changed), _machine())
    assert str(caught.value).startswith("conv1: ") and "\n" not in str(caught.value)


def _priced(mapping, machine):
    return price(nest_of("conv1", SHAPE, mapping, machine), SHAPE, machine)


def test_tiles_and_their_bits_by_hand():
    demand = demand_bits(_priced(MAPPING, _machine()), SHAPE, _machine())
    # sram: W 4 K x 6 C x 9 taps; I 6 C x 3 x 7; O 4 K x 25. reg: one output, at its final width because no loop outside
    # brings it back (as ZigZag counts: what a level itself accumulates is not wider).
    assert demand["sram"] == {"W": 4 * 6 * 9 * 8, "I": 6 * 3 * 7 * 8, "O": 4 * 25 * 8}
    assert demand["reg"] == {"O": 8}


def test_a_mapping_that_fits_is_legal_to_the_last_bit():
    demand = 1728 + 1008 + 800
    for size, buffering in ((demand, "room"), (2 * demand, "always")):
        memories = list(_machine().memories)
        memories[1] = _memory("sram", ("W", "I", "O"), ("rows", "cols"), size, buffering)
        machine = _machine(memories=tuple(memories))
        require_legal("conv1", _priced(MAPPING, machine), SHAPE, machine)
        memories[1] = _memory("sram", ("W", "I", "O"), ("rows", "cols"), size - 1, buffering)
        machine = _machine(memories=tuple(memories))
        with pytest.raises(ValueError, match="conv1: memory sram must hold 3536 bit"):
            require_legal("conv1", _priced(MAPPING, machine), SHAPE, machine)


@pytest.mark.parametrize(
    ("size", "buffering", "largest", "says"),
    [
        (
            3000, "room", None,
            "conv1: memory sram must hold 3536 bit (W 1728, I 1008, O 800); legal: at most 3000; move loops of W "
            "outward past sram, or narrow its data",
        ),
        (
            4096, "always", 8192,
            "conv1: memory sram must hold 3536 bit (W 1728, I 1008, O 800); legal: at most 2048 (half of 4096: "
            "double-buffered); move loops of W outward past sram, or narrow its data, or build sram with 7072 bit (at "
            "most 8192)",
        ),
    ],
)  # fmt: skip
def test_an_overfilled_memory_is_named_with_demand_bound_and_lever(size, buffering, largest, says):
    memories = list(_machine().memories)
    memories[1] = _memory("sram", ("W", "I", "O"), ("rows", "cols"), size, buffering, largest)
    machine = _machine(memories=tuple(memories))
    with pytest.raises(ValueError) as caught:
        require_legal("conv1", _priced(MAPPING, machine), SHAPE, machine)
    assert str(caught.value) == says


def test_the_first_read_of_a_sum_is_elided_in_each_replica_that_a_reduction_adds_up():
    # C 2 over the columns, all other loops inside the register: its sums pass once; nothing is ever read back.
    inside = Mapping(LOOPS, SPATIAL, {**CUTS, "O": (3, 3, 6)})
    found = _priced(inside, _machine())
    assert float(found.accesses["O", 0, "write_from_high"]) == 0.0
    assert float(found.accesses["O", 1, "read_to_low"]) == 0.0
    # C outermost of three visits: each of 8 registers reads two of three times. 200 outputs, 2 replicas.
    loops = (LOOPS[0], LOOPS[1], *LOOPS[3:], LOOPS[2])
    outside = Mapping(loops, SPATIAL, {"W": (5, 6), "I": (4, 6), "O": (2, 2, 6)})
    moved = traffic(nest_of("conv1", SHAPE, outside, _machine()), SHAPE, _machine(), HARDWARE)
    back, level = moved.transfers["O", 0, "write_from_high"], moved.levels["O"][0]
    assert float(back.elements * back.count * level.instances) == 200 * 2 * (3 - 1)
    charged = traffic(nest_of("conv1", SHAPE, outside, _machine()), SHAPE, _machine(), ZIGZAG)
    back = charged.transfers["O", 0, "write_from_high"]
    assert float(back.elements * back.count * level.instances) == 200 * 2 * 3


def test_a_dilated_filter_under_few_outputs_touches_only_its_taps():
    # Two outputs, three taps of dilation 4: 0 4 8 and 1 5 9.
    assert float(window(2, 3, 1, 4)) == 6
    assert float(window(2, 3, 1, 4, count_gaps=True)) == 10  # as ZigZag has it
    for outputs, taps, stride, dilation in ((1, 3, 1, 2), (5, 3, 2, 3), (4, 2, 3, 1), (6, 3, 2, 4), (3, 3, 6, 4)):
        touched = {o * stride + f * dilation for o in range(outputs) for f in range(taps)}
        assert float(window(outputs, taps, stride, dilation)) == len(touched)


def test_an_activation_product_has_weights_of_its_own_in_each_image():
    layer = Layer("attention", "matmul", Bounds(B=3, G=2, K=4, C=5))
    assert layer_shape(layer, 8, 8, 24, 8).bounds == (1, 6, 4, 5, 1, 1, 1, 1)


def test_envision_reads_the_words_of_its_reference_point():
    """16 weights, (16 + 2) / 3 inputs, 256 / (32 x 9) outputs a cycle: machines/envision.yaml is derived from them."""
    machine = load_hierarchy("envision")
    shape = LayerShape((1, 1, 16, 32, 1, 64, 3, 3), (1, 1), (1, 1), (3, 66), 16, 16, 48, 16)
    spatial = {"rows": (("K", 16),), "cols": (("OX", 16),)}
    cuts = {"W": (3, 4), "I": (1, 3, 4), "O": (3, 3, 4)}
    mapping = Mapping((("FX", 3), ("FY", 3), ("C", 32), ("OX", 4)), spatial, cuts)
    found = price(nest_of("reference", shape, mapping, machine), shape, machine)
    words = [float(found.accesses[key]) * 512 / 16 / (9 * 32 * 4)
             for key in (("W", 0, "read_to_low"), ("I", 1, "read_to_low"), ("O", 1, "write_from_low"))]  # fmt: skip
    assert words == pytest.approx([16, 6, 256 / 288])
    require_legal("reference", found, shape, machine)
    assert np.isclose(float(found.mac_pj) / (9 * 32 * 4), 0.6436 * 300 / 0.2 / (0.7421875 + 0.2578125 * 0.1))
