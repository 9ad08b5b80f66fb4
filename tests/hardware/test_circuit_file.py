import pytest

from cooptim.hardware.circuit_file import circuit_names, load_circuit_file, load_gated_array, load_multiplier
from cooptim.hardware.load import MachineError


@pytest.fixture
def edited(root, tmp_path):
    def write(name, old, new):
        text = (root / "cooptim" / "hardware" / "circuits" / f"{name}.yaml").read_text()
        assert text.count(old) == 1
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace(old, new))
        return path

    return write


def test_every_packaged_circuit_loads_under_its_name_and_states_its_sources():
    assert circuit_names() == ("dvafs_multiplier_40nm", "eyeriss")
    for name in circuit_names():
        file = load_circuit_file(name)
        assert file.name == name and file.model.name == name
        assert all(number.source for number in file.numbers.values())
        for field, number in file.numbers.items():
            assert not number.assumed or number.interval is not None, field


def test_numbers_arrive_in_coherent_units():
    array = load_gated_array("eyeriss")
    assert float(array.clock_ghz) == pytest.approx(0.2) and (array.rows, array.cols) == (12, 14)
    multiplier = load_multiplier("dvafs_multiplier_40nm")
    assert float(multiplier.clock_ghz) == pytest.approx(0.5) and float(multiplier.word_pj) == 2.63


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("eyeriss", "value: 200, unit: MHz", "value: 200, unit: mW", "clock: unit 'mW'.*legal: kHz, MHz, GHz"),
        ("eyeriss", "kind: gated_array", "kind: systolic", "kind.*gated_array.*scalable_multiplier"),
        ("eyeriss", "threshold: {value: 0.4", "threshold: {value: 1.2", "outside its own interval"),
        ("eyeriss", "value: 6.092, unit: pJ", "value: -1, unit: pJ", "busy_mac: -1 pJ; legal: .* at least 0"),
        ("eyeriss", "value: 24, unit: B", "value: 0, unit: B", "row_stationary.input_pad: 0 bit; legal: .*above 0"),
        ("eyeriss", "value: 1.0, unit: V", "value: 0.35, unit: V", "threshold 0.4 V, supply 0.35 V; legal"),
        ("dvafs_multiplier_40nm", "path_share:", "path_shore:", "path_share: missing; add it"),
    ],
)
def test_a_faulty_file_is_named_with_field_and_what_is_legal(edited, name, old, new, message):
    with pytest.raises(MachineError, match=message) as caught:
        load_circuit_file(edited(name, old, new))
    assert "mine.yaml" in str(caught.value)


def test_sizes_of_a_row_stationary_array_are_words_and_their_absence_is_named(root, tmp_path):
    # JSSC 2017, secs. III and V.
    sizes = load_circuit_file("eyeriss").row_array
    assert (sizes.rows, sizes.cols, sizes.banks, sizes.diagonals) == (12, 14, 25, 32)
    assert (sizes.filter_words, sizes.input_words, sizes.psum_words) == (224, 12, 24)
    assert (sizes.bank_words, sizes.filter_bank_words) == (4 * 512, 2 * 4 * 512)
    assert (sizes.filter_bus, sizes.input_bus, sizes.psum_bus) == (4, 1, 4)
    text = (root / "cooptim" / "hardware" / "circuits" / "eyeriss.yaml").read_text()
    (tmp_path / "plain.yaml").write_text(text[: text.index("row_stationary:")])
    file = load_circuit_file(tmp_path / "plain.yaml")
    assert float(file.model.clock_ghz) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="eyeriss: row_stationary is missing; add its fields: filter_pad, .*bank"):
        _ = file.row_array


def test_a_missing_file_and_the_wrong_kind_are_refused():
    with pytest.raises(MachineError, match="nowhere.yaml: cannot be read.*or one of dvafs_multiplier_40nm, eyeriss"):
        load_circuit_file("nowhere.yaml")
    with pytest.raises(MachineError, match="kind scalable_multiplier; legal here: gated_array"):
        load_gated_array("dvafs_multiplier_40nm")
    with pytest.raises(MachineError, match="kind gated_array; legal here: scalable_multiplier"):
        load_multiplier("eyeriss")
