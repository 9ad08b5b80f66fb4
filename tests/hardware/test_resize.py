"""Machines of another size by their name: what stays, what follows, what cannot be, and what intervals mean there."""

import importlib.resources

import jax
import numpy as np
import pytest

from cooptim.hardware.intervals import draw_machines, drawn_numbers
from cooptim.hardware.load import MachineError, MachineFile, load_machine, load_machine_file, machine_names
from cooptim.hardware.reference import derived_energies, reference_point


def a_mac_pj(machine):
    """Energy of a busy MAC [pJ]."""
    return machine.datapath.busy_pj / (machine.datapath.rows * machine.datapath.cols)


@pytest.mark.parametrize("name", machine_names())
def test_a_machine_of_its_own_size_is_itself(name):
    own = load_machine_file(name)
    d = own.spec.datapath
    other = load_machine_file(f"{name}@{d.rows.value:g}x{d.cols.value:g}")
    pairs = zip(jax.tree.leaves(own.machine), jax.tree.leaves(other.machine), strict=True)
    for one, again in pairs:
        np.testing.assert_allclose(again, one, rtol=1e-9, atol=1e-15)
    assert other.spec.reference.power.value == pytest.approx(own.spec.reference.power.value, rel=1e-12)


def test_a_reference_of_narrow_sparse_data_stays_itself():
    # Inputs of 8 bit divide a lane's energy by the root of 2, fewer entries let more lanes wait, look-ups are on top.
    narrow = {"reference__data__input_bits": 8.0, "reference__data__weight_density": 0.05}
    own = load_machine_file("eie").with_values(**narrow, reference__busy_fraction=0.9)
    assert own.reference.divisor == pytest.approx(2.0**0.5) and own.reference.extra_pj > 1.0
    other = MachineFile(own.origin, own.stated, (64, 1))
    assert float(a_mac_pj(other.machine)) == pytest.approx(float(a_mac_pj(own.machine)), rel=1e-9)
    assert other.spec.reference.power.value == pytest.approx(own.spec.reference.power.value, rel=1e-12)


def test_twice_the_lanes_of_eie_do_not_change_a_mac_a_word_or_the_cycles_law():
    own, twice = load_machine_file("eie"), load_machine_file("eie@128x1")
    a, b = derived_energies(own.spec), derived_energies(twice.spec)
    assert b.busy_pj / 128 == pytest.approx(a.busy_pj / 64) and b.access_pj == pytest.approx(a.access_pj)
    # K grows with the rows, so each lane keeps its 64 rows of a column and 128 lanes wait for each other.
    assert twice.machine.mechanisms.zero_skipping.units == 128
    assert float(twice.machine.mechanisms.zero_skipping.lanes) == 128.0
    assert reference_point(twice.spec).active < reference_point(own.spec).active  # more lanes wait longer


REFUSED = {
    "cnvlutin@128x8": r"cnvlutin@128x8: .*zero_skipping.lanes: 16 belong to the 256x16 of the file; legal: 256x16 al",
    "systolic@999999x999999": r"systolic@999999x999999: reference.layer.*at most 1e\+06.*; take another size",
}


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_a_file_cannot_have_are_one_message(name):
    with pytest.raises(MachineError, match=REFUSED[name]) as caught:
        load_machine(name)
    assert "\n" not in str(caught.value) and "write a file of your own" in str(caught.value)


def test_lanes_that_queue_stay_whole(tmp_path):
    text = (importlib.resources.files("cooptim.hardware") / "machines" / "eie.yaml").read_text()
    before = 'lanes: {value: 64, unit: "1", assumed: false'
    assert text.count(before) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(before, before.replace("64", "32")))
    assert load_machine_file(f"{path}@96x1").machine.mechanisms.zero_skipping.units == 48
    assert load_machine_file(f"{path}@64x2").machine.mechanisms.zero_skipping.units == 32
    with pytest.raises(MachineError, match="lanes: 32 of 64x1 are 16.5 of 33x1; legal: a whole number; take another"):
        load_machine_file(f"{path}@33x1")


@pytest.fixture(scope="module")
def drawn():
    files = [load_machine_file(name) for name in ("systolic", "systolic@256x256", "systolic@16x64")]
    return draw_machines(files, 6, seed=1)


def test_a_mac_of_another_size_costs_the_same_in_every_draw(drawn):
    sizes = [(draw.machines.datapath.rows, draw.machines.datapath.cols) for draw in drawn.each]
    assert sizes == [(32, 32), (256, 256), (16, 64)]
    one, large, flat = (a_mac_pj(draw.machines) for draw in drawn.each)
    np.testing.assert_allclose(large, one, rtol=1e-9)
    np.testing.assert_allclose(flat, one, rtol=1e-9)
    assert np.ptp(np.asarray(one)) > 0.05
    words = [draw.machines.buffer.access_pj for draw in drawn.each]
    np.testing.assert_allclose(words[1], words[0], rtol=1e-9)


def test_sizes_of_one_file_share_every_assumption(drawn):
    assert set(drawn.shared) == set(drawn_numbers(drawn.each[0].file))
    for draw in drawn.each[1:]:
        assert draw.values.keys() == drawn.each[0].values.keys()
        for path, values in draw.values.items():
            np.testing.assert_array_equal(values, drawn.each[0].values[path])


def test_values_are_set_in_the_file_before_it_takes_its_size():
    own = load_machine_file("systolic").with_values(reference__shares__datapath=0.3)
    other = load_machine_file("systolic@64x16").with_values(reference__shares__datapath=0.3)
    assert float(a_mac_pj(other.machine)) == pytest.approx(float(a_mac_pj(own.machine)))
    assert other.name == "systolic_64x16"
