"""Effects combine as factors and additions; a machine without mechanisms has none; the section is read strictly."""

import jax
import numpy as np
import pytest

from cooptim.hardware import MachineError, load_machine
from cooptim.hardware.mechanisms import Effect, combine
from tests.hardware.mechanisms.files import choice, number, with_mechanisms


def test_factors_multiply_and_additions_add_up():
    one = Effect(cycles=0.5, executed=0.5, extra_cycles=3.0, extra_datapath_pj=1.0, words_w=0.25)
    two = Effect(cycles=0.5, datapath=2.0, extra_cycles=4.0, entry_datapath_pj=7.0, extra_words_w=0.1)
    both = combine([one, two])
    expected = Effect(
        cycles=0.25, executed=0.5, extra_cycles=7.0, extra_datapath_pj=1.0, words_w=0.25, datapath=2.0,
        entry_datapath_pj=7.0, extra_words_w=0.1,
    )  # fmt: skip
    assert both == expected
    assert combine([]) == Effect() == combine([Effect(), Effect()])


def test_words_moved_and_read_by_hand():
    # Half the words are zero; a stored word takes a quarter of a slot and each word, zero or not, a sixteenth more.
    stored = Effect(words_w=0.25, extra_words_w=1 / 16, fetches_w=0.5, zero_fetches_w=0.0)
    assert stored.moved(0.5, "W") == pytest.approx(1.0 * 0.25 + 1 / 16)  # zeros are stored
    assert stored.read(0.5, "W") == pytest.approx(0.5 * (0.5 * 0.25 + 1 / 16))  # but not fetched
    assert stored.entries(0.5) == pytest.approx(0.5 * 0.5)  # a weight counts once, however many share a word
    assert Effect(stored_zeros_w=0.0, words_w=0.5, extra_words_w=9.0, fillers_w=0.1).entries(0.3) == pytest.approx(0.4)
    coded = Effect(words_i=0.25, stored_zeros_i=0.0)
    assert coded.moved(0.5, "I") == coded.read(0.5, "I") == pytest.approx(0.5 * 0.25)
    assert Effect().moved(0.3, "I") == Effect().read(0.3, "W") == 1.0


def test_zeros_that_nobody_gates_are_seen_as_other_words():
    assert Effect().seen(0.3, "W") == pytest.approx(0.3)
    assert Effect(gated_i=0.0).seen(0.3, "I") == 1.0


def test_machines_without_the_section_have_no_leaf_of_it():
    machine = load_machine("envision")
    assert machine.mechanisms.names == () and jax.tree.leaves(machine.mechanisms) == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"zero_gating": {"operands": choice("X")}}, ("mechanisms.zero_gating.operands", "'X'", "both, W, I, none")),
        ({"zero_gating": {"operands": number(1)}}, ("mechanisms.zero_gating.operands",)),
        ({"zero_gating": {"operands": choice("W"), "more": choice("W")}}, ("zero_gating.more", "unknown field")),
        ({"zero_gate": {"operands": choice("W")}}, ("mechanisms.zero_gate", "unknown field")),
    ],
)
def test_a_fault_of_the_section_names_the_field_and_what_is_legal(tmp_path, sections, said):
    with pytest.raises(MachineError) as caught:
        load_machine(with_mechanisms(tmp_path, sections))
    assert [part for part in said if part not in str(caught.value)] == [], str(caught.value)
    assert "\n" not in str(caught.value) and "mine.yaml" in str(caught.value)


def test_leaves_are_scalars_of_the_default_type(tmp_path):
    machine = load_machine(with_mechanisms(tmp_path, {"zero_gating": {"operands": choice("I")}}))
    assert machine.mechanisms.names == ("zero_gating",)
    assert {np.shape(leaf) for leaf in jax.tree.leaves(machine)} == {()}
