"""The two named sets of conventions by hand, option by option, and the parts of the cycles."""

import dataclasses

import pytest

from cooptim.hardware.hierarchy import DIRECTIONS, Hierarchy, Memory, Port
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import HARDWARE, ZIGZAG
from cooptim.mapping.stalls import Cycles

BOTH = pytest.mark.parametrize("rules", ["hardware", "zigzag"])


def _machine(width, granule):
    """One MAC beside one memory with one port for everything."""
    serves = tuple((operand, direction) for operand in "WIO" for direction in DIRECTIONS)
    port = Port("rw", "read_write", serves, float(width), float(granule))
    memory = Memory("m", ("W", "I", "O"), (), "room", (port,), 1e6, 1.0, 1.0, 1e6, 0.0, 1e6, 1e6, 1.0, 0.0, 0.0)
    return Hierarchy("one", (("D", 1),), (), (memory,), 1.0, 1.0)


def _priced(loops, rules, width=8, granule=8, bits=8, **shape):
    bounds = dict.fromkeys(("B", "G", "K", "C", "OY", "OX", "FY", "FX"), 1) | dict(loops)
    layer = LayerShape(tuple(bounds.values()), (1, 1), (1, 1), (1, 1), bits, bits, 24, 8)
    layer = dataclasses.replace(layer, **shape)
    machine = _machine(width, granule)
    return price(nest_of("x", layer, Mapping(loops, {}, dict.fromkeys("WIO", (len(loops),))), machine), layer, machine,
                 HARDWARE if rules == "hardware" else ZIGZAG)  # fmt: skip


READ = ("I", 0, "read_to_low"), ("W", 0, "read_to_low")


@BOTH
def test_an_operand_that_does_not_change_at_the_macs_is_not_read_again(rules):
    assert [float(_priced((("K", 4),), rules).accesses[key]) for key in READ] == [1, 4]
    assert [float(_priced((("OX", 4),), rules, input_size=(1, 4)).accesses[key]) for key in READ] == [4, 1]


@BOTH
def test_tiles_of_inputs_are_clipped_to_the_unpadded_input(rules):
    # Four windows of three taps span 6 positions; the input has 4, the rest is padding.
    assert float(_priced((("FX", 3), ("OX", 4)), rules, input_size=(1, 4)).traffic.levels["I"][0].elements) == 4


@BOTH
def test_each_transfer_is_rounded_up_to_granules(rules):
    # Five weights of 4 bit, one a cycle, fill a granule of 8 bit each: 40 bit are two words of 16 and a half.
    assert float(_priced((("C", 5),), rules, width=16, granule=8, bits=4).accesses["W", 0, "read_to_low"]) == 2


@pytest.mark.parametrize(("rules", "positions"), [("hardware", 6), ("zigzag", 10)])
def test_a_dilated_filter_counts_its_gaps_where_zigzag_does(rules, positions):
    # Two outputs, three taps of dilation 4 touch 0 4 8 and 1 5 9; ZigZag counts 6 - 2 x (2 - 4).
    found = _priced((("FX", 3), ("OX", 2)), rules, input_size=(1, 10), dilation=(1, 4))
    assert float(found.traffic.levels["I"][0].elements) == positions


@pytest.mark.parametrize(("rules", "words"), [("hardware", 1), ("zigzag", 0)])
def test_words_are_whole_or_as_zigzags_float_has_them(rules, words):
    # 49 weights of a 49th of a word each: one word, or floor(49 * (8 / 392)) = floor(0.9999999999999999).
    assert float(_priced((("C", 49),), rules, width=392).accesses["W", 0, "read_to_low"]) == words


@pytest.mark.parametrize(("rules", "reads"), [("hardware", 3), ("zigzag", 4)])
def test_the_first_read_of_a_sum_is_charged_where_zigzag_does(rules, reads):
    assert float(_priced((("C", 4),), rules, width=24).accesses["O", 0, "read_to_low"]) == reads


def test_the_total_is_the_sum_of_temporal_and_what_is_added_to_it():
    assert Cycles(7.0, 1.0, 20.0, 300.0, 4000.0, 50000.0, {}, {}, {}, {}).total == 54321.0
