import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.export import load_design, load_stats, save_design
from cooptim.network.stats import Stats
from tests.reporting import fake_run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("design") / "design.json"
    stats = Stats(jnp.array([0.5, 0.25]), jnp.array([0.75, 1.0]))
    save_design(path, fake_run.workload(), fake_run.machine(), fake_run.design(), stats)
    return path


def _load(path):
    return load_design(path, fake_run.workload(), fake_run.machine())


def _changed(saved, tmp_path, layer=None, **changes):
    content = json.loads(saved.read_text())
    (content if layer is None else content["layers"][layer]).update(changes)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    return path


def test_a_design_comes_back_to_the_last_bit(saved):
    wanted, back = fake_run.design(), _load(saved)
    assert jax.tree.structure(back) == jax.tree.structure(wanted)
    assert [a.tolist() for a in jax.tree.leaves(back)] == [np.asarray(a).tolist() for a in jax.tree.leaves(wanted)]


@pytest.mark.float32
def test_a_narrow_design_comes_back_to_the_last_bit(tmp_path):
    wanted = fake_run.design()
    assert wanted.supply_v.dtype == jnp.float32
    save_design(tmp_path / "d.json", fake_run.workload(), fake_run.machine(), wanted)
    assert _load(tmp_path / "d.json").supply_v.tolist() == wanted.supply_v.tolist()


def test_the_file_says_by_layer_name_what_a_designer_would_say(saved):
    content = json.loads(saved.read_text())
    assert content["schema"] == "cooptim-design/1" and list(content["layers"]) == list(fake_run.LAYERS)
    conv, dense = (content["layers"][name] for name in fake_run.LAYERS)
    assert (conv["weight_bits"], conv["input_bits"], conv["input_signed"]) == (4.0, 3.0, False)
    assert (dense["weight_bits"], dense["threshold"], dense["weight_density"]) == (6.0, 0.25, 0.25)
    # 4 and 3 bits fit 4-bit subwords, 6 and 5 bits need 8-bit ones; the first row of the table is untiled.
    assert (conv["mode"], dense["mode"]) == ("4x4b", "2x8b")
    assert conv["tile"] == {"K": 16, "C": 1, "OY": 8, "OX": 8} and dense["tile"]["C"] == 64


def test_densities_come_back_and_are_1_where_none_were_stored(saved, tmp_path):
    stats = load_stats(saved, fake_run.workload())
    assert stats.weight_density.tolist() == [0.5, 0.25] and stats.input_density.tolist() == [0.75, 1.0]
    save_design(tmp_path / "d.json", fake_run.workload(), fake_run.machine(), fake_run.design())
    assert load_stats(tmp_path / "d.json", fake_run.workload()).weight_density.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("layer", "changes", "words"),
    [
        (None, {"schema": "cooptim-design/9"}, "reads 'cooptim-design/1'"),
        (None, {"layers": {"conv9.kernel": {}}}, "unknown layer conv9.kernel and missing layer conv1.kernel, fc"),
        (None, {"buffer_bits": -1}, "buffer_bits is -1"),
        (None, {"buffer_bits": 8.0}, "not buildable"),
        ("fc.kernel", {"mode": "8x2"}, r"layer fc.kernel: mode '8x2' .* use 1x16b, 2x8b, 4x4b"),
        ("fc.kernel", {"mode": "4x4b"}, "cannot hold"),
        ("fc.kernel", {"weight_bits": 4.5}, "not a whole number"),
        ("fc.kernel", {"weight_bits": "six"}, "weight_bits is 'six'"),
        ("fc.kernel", {"supply_v": float("nan")}, "supply_v is nan"),
        ("fc.kernel", {"supply_v": 9.0}, "not on the grid"),
        ("fc.kernel", {"freq_ghz": 2.0}, "exceeds"),
        ("fc.kernel", {"threshold": -0.1}, "threshold is -0.1"),
        ("fc.kernel", {"input_signed": 1}, "input_signed is 1"),
        ("fc.kernel", {"stationary": "X"}, "use one of W, I, O"),
        ("fc.kernel", {"tile": {"K": 10, "C": 63, "OY": 1, "OX": 1}}, "not among the"),
        ("fc.kernel", {"tile": [10, 64, 1, 1]}, "whole numbers for K, C, OY, OX"),
        ("fc.kernel", {"wieght_bits": 3}, "unknown field wieght_bits"),
    ],
)
def test_a_wrong_design_file_is_refused_with_what_is_legal(saved, tmp_path, layer, changes, words):
    with pytest.raises(ValueError, match=words):
        _load(_changed(saved, tmp_path, layer, **changes))


def test_a_design_that_does_not_fit_says_which_machine_it_was_made_for(saved, tmp_path):
    for layer, changes in (("fc.kernel", {"mode": "1x12b"}), ("fc.kernel", {"freq_ghz": 2.0})):
        own = _changed(saved, tmp_path, layer, **changes)
        with pytest.raises(ValueError, match="layer") as same:
            _load(own)
        assert "the file is of machine" not in str(same.value)
        content = json.loads(own.read_text()) | {"machine": "yodann"}
        own.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"envision.* \(the file is of machine 'yodann': give that one\)$"):
            _load(own)


def test_a_missing_field_and_a_wrong_density_are_named(saved, tmp_path):
    content = json.loads(saved.read_text())
    del content["layers"]["fc.kernel"]["supply_v"]
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="layer fc.kernel: supply_v missing"):
        _load(tmp_path / "d.json")
    with pytest.raises(ValueError, match="weight_density is 1.5"):
        load_stats(_changed(saved, tmp_path, "fc.kernel", weight_density=1.5), fake_run.workload())


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": "cooptim-design/1", "layers": [1]}'])
def test_a_file_that_is_no_design_is_refused(tmp_path, content):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(ValueError, match="design file"):
        _load(tmp_path / "d.json")


def test_a_design_that_is_not_finite_is_not_written(tmp_path):
    broken = dataclasses.replace(fake_run.design(), supply_v=jnp.array([jnp.nan, 1.0]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        save_design(tmp_path / "d.json", fake_run.workload(), fake_run.machine(), broken)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.json: cannot be read"):
        _load(tmp_path / "none.json")


def test_margins_of_early_exits_and_the_reach_of_layers_come_back(tmp_path):
    path, first = tmp_path / "staged.json", fake_run.LAYERS[0]
    workload = dataclasses.replace(fake_run.workload(), exits=(first,))
    design = dataclasses.replace(fake_run.design(), exit_margin=jnp.array([-0.75]))
    stats = Stats(jnp.array([0.5, 0.25]), jnp.array([0.75, 1.0]), reach=jnp.array([1.0, 0.125]))
    save_design(path, workload, fake_run.machine(), design, stats)
    assert load_design(path, workload, fake_run.machine()).exit_margin.tolist() == [-0.75]
    assert load_stats(path, workload).reach.tolist() == [1.0, 0.125]
    for odd in ({}, {first: "sure"}, {first: 1.0, "other": 2.0}):
        content = json.loads(path.read_text()) | {"exit_margin": odd}
        (tmp_path / "odd.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"exit_margin is .*; write a finite log-odds for each of {first} exits"):
            load_design(tmp_path / "odd.json", workload, fake_run.machine())
    del content["exit_margin"]
    (tmp_path / "none.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"exit_margin: 0 exit margins for 1 .*: write one for each of {first}"):
        load_design(tmp_path / "none.json", workload, fake_run.machine())


GRID = "is not on the grid 0.59..1.03 V in steps of 0.01 V"  # Envision's
WIDTHS = "is not a whole number in 2..16, as envision asks"
ENTRIES = {  # entry, what it says and what is legal, what to write instead
    "supply below the floor": ({"supply_v": 0.3}, f"supply_v: supply 0.3000 V {GRID}: write 0.59;"),
    "supply off the grid": ({"supply_v": 0.704}, rf"supply_v: supply 0.7040 V {GRID}: write 0\.7\b"),
    "a width that the datapath lacks": (
        {"weight_bits": 20.0}, f"weight_bits: weight width 20 b {WIDTHS}: write 16 or take a machine with a wider",
    ),
    "a mode that is too narrow": ({"mode": "4x4b"}, "mode: mode 4x4b cannot hold 6 b: use 1x16b or 2x8b, or narrower"),
}  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_that_cannot_be_built_is_named_by_its_path_with_the_remedy(saved, tmp_path, entry):
    changes, words = ENTRIES[entry]
    with pytest.raises(ValueError, match=rf"not buildable on envision: layers\.fc\.kernel\.{words}"):
        _load(_changed(saved, tmp_path, "fc.kernel", **changes))


def test_what_a_message_says_to_write_can_be_built(saved, tmp_path):
    wrong = {
        "mode": "1x16b",
        "weight_bits": 20.0,
        "input_bits": 5.4,
        "supply_v": 0.3,
        "freq_ghz": 0.0123,
        "threshold": 0.0,
    }
    for _ in range(6):
        try:
            _load(_changed(saved, tmp_path, "fc.kernel", **wrong))
            break
        except ValueError as error:
            said = re.findall(r"layers\.fc\.kernel\.(\w+): [^;]*?: write ([0-9.]+)", str(error))
            assert said, error
            wrong |= {field: float(value) for field, value in said}
    else:
        pytest.fail(f"never buildable: {wrong}")
