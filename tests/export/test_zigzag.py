import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import sys

import numpy as np
import pytest
import yaml

from cooptim.export import zigzag_replay
from cooptim.export.zigzag import UNLIMITED_BITS, write_zigzag
from cooptim.export.zigzag_folder import is_export, read_export, replay
from cooptim.hardware.hierarchy import Hierarchy, Memory, Port
from cooptim.mapping.nest import LayerShape, Mapping, nest_of
from cooptim.mapping.price import price
from cooptim.mapping.rules import ZIGZAG
from cooptim.validate.zigzag import cases_of
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.validate.zigzag_case import golden_file

FILES = ["accelerator.yaml", "mapping.yaml", "replay.py", "temporal.json", "workload.yaml"]


def memory(name, operands, served, ports, size=4096.0, **changes):
    plain = Memory(name, operands, served, "room", ports, size, 2.0, 3.0, size, 0.0, size, size, 1.0, 0.0, 0.0)
    return dataclasses.replace(plain, **changes)


def machine(**changes):
    """Rows and columns of MACs, a register for weights, a shared buffer and a DRAM, with names of its own."""
    down = ("read_to_low", "write_from_low")
    up = ("read_to_high", "write_from_high")
    register = (
        Port("out", "read", (("W", "read_to_low"),), 8.0, 8.0),
        Port("in", "write", (("W", "write_from_high"),), 8.0, 4.0),
    )
    inputs = (("I", "read_to_low"), ("I", "write_from_high"))
    buffer = (Port("all", "read_write", (*inputs, *(("O", d) for d in (*down, *up))), 64.0, 16.0),)
    top = (
        Port("bus", "read_write", (("W", "read_to_low"), ("I", "read_to_low"), *(("O", d) for d in down)), 32.0, 8.0),
    )
    memories = (
        memory("reg", ("W",), (), register, 64.0),
        memory("buf", ("I", "O"), ("row", "column"), buffer),
        memory("dram", ("W", "I", "O"), ("row", "column"), top, float("inf")),
    )
    plain = Hierarchy("own", (("row", 4), ("column", 3)), ("column",), memories, 0.5, 1.0)
    return dataclasses.replace(plain, **changes)


# Ten outputs over four rows in three steps, stride 2 and 1, dilation 1 and 2, five inputs unpadded a side.
SHAPE = LayerShape((1, 2, 10, 6, 3, 4, 3, 2), (2, 1), (1, 2), (6, 5), 8, 4, 20, 8)
MAPPING = Mapping(
    (("FX", 2), ("OX", 4), ("C", 2), ("K", 3), ("G", 2), ("FY", 3), ("OY", 3), ("B", 1)),
    {"row": (("K", 4),), "column": (("C", 3),)},
    {"W": (3, 8), "I": (5, 8), "O": (4, 8)},
)


@pytest.fixture
def folder(tmp_path):
    return write_zigzag(tmp_path / "out", machine(), [("conv", SHAPE, MAPPING)])


def test_a_folder_holds_zigzags_files_and_says_what_they_cannot(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES and is_export(folder)
    accelerator = yaml.safe_load((folder / "accelerator.yaml").read_text())
    assert accelerator["operational_array"] == {
        "unit_energy": 0.5, "unit_area": 0, "dimensions": ["D1", "D2"], "sizes": [4, 3], "systolic_dimensions": ["D2"],
    }  # fmt: skip
    assert list(accelerator["memories"]) == ["reg", "buf", "dram"]
    register, top = accelerator["memories"]["reg"], accelerator["memories"]["dram"]
    assert (register["size"], register["operands"], register["served_dimensions"]) == (64, ["I2"], [])
    assert [port["name"] for port in register["ports"]] == ["r_port_1", "w_port_1"]
    assert register["ports"][1] == {
        "name": "w_port_1", "type": "write", "bandwidth_min": 4, "bandwidth_max": 8, "allocation": ["I2, fh"],
    }  # fmt: skip
    assert (top["size"], top["ports"][0]["allocation"]) == (UNLIMITED_BITS, ["I2, tl", "I1, tl", "O, tl", "O, fl"])
    (layer,) = yaml.safe_load((folder / "workload.yaml").read_text())
    assert dict(zip(layer["loop_dims"], layer["loop_sizes"], strict=True)) == {
        "B": 1, "G": 2, "K": 10, "C": 6, "OY": 3, "OX": 4, "FY": 3, "FX": 2,
    }  # fmt: skip
    assert layer["dimension_relations"] == ["ix=1*ox+2*fx", "iy=2*oy+1*fy"]
    assert dict(zip(layer["pr_loop_dims"], layer["pr_loop_sizes"], strict=True)) == {"IX": 5, "IY": 6}
    assert layer["operand_precision"] == {"W": 8, "I": 4, "O": 20, "O_final": 8}
    mapped, default = yaml.safe_load((folder / "mapping.yaml").read_text())
    assert mapped["spatial_mapping"] == {"D1": ["K, 4"], "D2": ["C, 3"]} and default == {"name": "default"}
    loops = json.loads((folder / "temporal.json").read_text())["layers"]["conv"]
    assert loops["W"] == [[["FX", 2], ["OX", 4], ["C", 2]], [["K", 3], ["G", 2], ["FY", 3], ["OY", 3]]]
    assert loops["O"][0][-1] == ["K", 3] and sum(loops["I"], []) == sum(loops["W"], [])


def test_what_is_read_back_has_the_same_price(folder):
    back, ((name, shape, mapping),) = read_export(folder)
    own, again = (price(nest_of("l", s, m, h), s, h, ZIGZAG) for s, m, h in
                  ((SHAPE, MAPPING, machine()), (shape, mapping, back)))  # fmt: skip
    assert name == "conv" and float(own.energy_pj) == float(again.energy_pj) > 0
    assert {key: float(n) for key, n in own.accesses.items()} == {key: float(n) for key, n in again.accesses.items()}
    assert float(own.cycles.total) == float(again.cycles.total)


def test_every_golden_case_is_read_back_with_the_same_price(shared, tmp_path):
    cases = cases_of(json.loads((shared / "golden" / "zigzag" / "cases.json").read_text()), "cases.json")
    for i, case in enumerate(cases):
        write_zigzag(tmp_path / str(i), case.machine, [(case.id, case.shape, case.mapping)])
        back, ((name, shape, mapping),) = read_export(tmp_path / str(i))
        prices = [
            price(nest_of(name, s, m, h), s, h, ZIGZAG)
            for s, m, h in ((case.shape, case.mapping, case.machine), (shape, mapping, back))
        ]
        assert float(prices[0].energy_pj) == float(prices[1].energy_pj)
        assert [float(p.cycles.total) for p in prices] == [case.results.latency.total_cycles] * 2


def test_energies_are_those_at_the_present_size_and_double_buffers_are_asked_for(tmp_path):
    own = machine()
    grown = dataclasses.replace(own.memories[1], size_bits=4 * 4096.0, size_exponent=0.5, double_buffered="always")
    own = dataclasses.replace(own, memories=(own.memories[0], grown, own.memories[2]))
    write_zigzag(tmp_path, own, [("conv", SHAPE, MAPPING)])
    written = yaml.safe_load((tmp_path / "accelerator.yaml").read_text())["memories"]["buf"]
    assert (written["r_cost"], written["w_cost"], written["force_double_buffering"]) == (4.0, 6.0, True)
    assert read_export(tmp_path)[0].memories[1].double_buffered == "always"


def _with(place, **changes):
    memories = list(machine().memories)
    memories[place] = dataclasses.replace(memories[place], **changes)
    return machine(memories=tuple(memories))


REFUSED = {
    "five array dimensions": (machine(array=(("row", 4), ("column", 3), ("a", 1), ("b", 1), ("c", 1))), "conv",
                              ("array dimensions row, column, a, b, c", "know 4", "merge")),
    "never double-buffered": (_with(1, double_buffered="never"), "conv", ("memory buf: never", "use 'room'")),
    "half a bit": (_with(1, size_bits=100.5), "conv", ("memory buf: size: 100.5 bit", "whole numbers", "round")),
    "two memories of a name": (_with(0, name="buf"), "conv", ("two memories of one name", "rename")),
    "a reserved name": (machine(), "default", ("layer 'default'", "a name of its own")),
    "no path": (_with(2, operands=("W", "O")), "conv", ("operand I has no path",)),
    "an illegal mapping": (machine(array=(("row", 2), ("column", 3))), "conv", ("conv: row unrolls K 4",)),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_zigzag_cannot_say_is_refused_and_nothing_is_written(tmp_path, what):
    found, name, parts = REFUSED[what]
    with pytest.raises(ValueError) as error:
        write_zigzag(tmp_path / "out", found, [(name, SHAPE, MAPPING)])
    assert [part for part in parts if part not in str(error.value)] == [], error.value
    assert not (tmp_path / "out").exists()


def test_two_layers_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="layer 'conv': used twice"):
        write_zigzag(tmp_path, machine(), [("conv", SHAPE, MAPPING)] * 2)


EDITS = {
    "an unknown field": (
        "workload.yaml",
        "  name: conv",
        "  name: conv\n  padding: 1",
        r"\[0\]\.padding: unknown field",
    ),
    "another equation": ("workload.yaml", "O[b]", "O[k]", r"layer conv: equation: found O\[k\]"),
    "a bound of zero": ("workload.yaml", "[1, 2, 10", "[1, 0, 10", r"\[0\]\.loop_sizes\[1\]: found int 0"),
    "a bound too few": ("workload.yaml", "[1, 2, 10", "[2, 10", "7 loop_sizes; legal: one a loop dim"),
    "text for units": ("mapping.yaml", "K, 4", "K, four", r"\[0\]\.spatial_mapping\.D1\[0\]: found 'K, four'"),
    "another layer": ("mapping.yaml", "name: conv", "name: other", "mapping.yaml: layer conv: missing"),
    "loops of another order": (
        "temporal.json",
        '["FX", 2], ["OX", 4]',
        '["OX", 4], ["FX", 2]',
        r"temporal\.[WIO]: loops",
    ),
    "another format": ("temporal.json", "temporal-1", "temporal-2", "cooptim-zigzag-temporal-1"),
    "a memory of no size": ("accelerator.yaml", "size: 64", "size: none", r"memories\.reg\.size: found 'none'"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_folder_is_read_strictly(folder, what):
    file, old, new, part = EDITS[what]
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=part) as error:
        read_export(folder)
    assert file in str(error.value)


def fake_python(path, code):
    """A program in the place of Python that runs `code` with $2.. the folders."""
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_without_zigzag_is_told_what_to_install(folder, tmp_path):
    lacking = fake_python(tmp_path / "py", f"echo six >&2; exit {zigzag_replay.MISSING}")
    with pytest.raises(ValueError, match=r"no module 'six'.*py -m pip install zigzag-dse==3\.9\.1 six.*--python"):
        replay([folder], lacking)
    if importlib.util.find_spec("zigzag") is None:
        with pytest.raises(ValueError, match="no module 'zigzag'"):
            replay([folder], sys.executable)


def test_a_python_that_fails_or_is_none_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="exit code 7: out of luck"):
        replay([folder], fake_python(tmp_path / "py", "echo 'a line\nout of luck' >&2; exit 7"))
    with pytest.raises(ValueError, match=r"--python .*nowhere: cannot be run \(No such file"):
        replay([folder], str(tmp_path / "nowhere"))


def _answer(path, content):
    """A stand-in for the replay that puts this content in place of ZigZag's answer."""
    saved = path.parent / "answer.json"
    saved.write_text(json.dumps(content))
    return fake_python(path, f'cp "{saved}" "$2/results.json"')


def test_replayed_answers_are_compared_and_a_refusal_is_named(run, tmp_path):  # noqa: F811
    given = tmp_path / "cases.json"
    given.write_text(json.dumps(golden_file()))
    results = golden_file()["cases"][0]["results"]
    content = {"format": "x", "zigzag_version": "3.9.1", "cpu_seconds": 1.0, "layers": {"by_hand": results}}
    call = ("validate", "--with", "zigzag", given, "--python")
    code, out, err = run(*call, _answer(tmp_path / "py", content))
    said = " ".join(out.split())  # a title as long as the folder's path is wrapped
    assert (code, err) == (0, "") and "zigzag-dse 3.9.1" in said and "116 quantities checked, 0 differ" in said
    results["latency"]["stall_cycles"] += 1
    assert run(*call, _answer(tmp_path / "py", content))[0] == 1
    content["layers"]["by_hand"] = {"refused": "AssertionError: Reduction"}
    code, _, err = run(*call, _answer(tmp_path / "py", content))
    assert code == 2 and "layer by_hand: ZigZag stopped with AssertionError: Reduction" in err
    content["layers"]["by_hand"] = {"mac_count": 6}
    code, _, err = run(*call, _answer(tmp_path / "py", content))
    assert code == 2 and "results.json: layer by_hand: mac_energy_pj: missing" in err


def test_export_writes_a_folder_a_case(run, tmp_path):  # noqa: F811
    given, out = tmp_path / "cases.json", tmp_path / "out"
    given.write_text(json.dumps(golden_file()))
    code, printed, err = run("export", "zigzag", given, "--out", out)
    assert (code, err) == (0, "") and "cooptim validate --with zigzag" in printed
    assert sorted(path.name for path in (out / "by_hand").iterdir()) == FILES
    code, _, err = run("export", "zigzag", given, "--case", "other", "--out", out)
    assert code == 2 and "--case other: not in" in err and "by_hand" in err
    code, _, err = run("validate", "--with", "zigzag", tmp_path)
    assert code == 2 and "no exported mapping in it" in err and "cooptim export zigzag" in err
    code, _, err = run("validate", "--with", "zigzag")
    assert code == 2 and "nothing to replay" in err


def test_the_script_imports_nothing_but_the_standard_library_until_it_runs():
    text = pathlib.Path(zigzag_replay.__file__).read_text()
    modules = re.findall(r"^(?:from|import) (\w+)", text, flags=re.MULTILINE)
    assert set(modules) <= sys.stdlib_module_names and "cooptim" not in re.sub(r'"[^"]*"', "", text.split('"""')[2])


def _zigzag_python():
    """A Python with ZigZag: this one, or the one that COOPTIM_ZIGZAG_PYTHON names."""
    if all(importlib.util.find_spec(name) for name in ("zigzag", "six")):
        return sys.executable
    return os.environ.get("COOPTIM_ZIGZAG_PYTHON") or pytest.skip(
        "no zigzag-dse here; COOPTIM_ZIGZAG_PYTHON may name one"
    )


def test_zigzag_answers_a_replay_as_we_do(run, folder, tmp_path):  # noqa: F811
    python = _zigzag_python()
    given = tmp_path / "cases.json"
    given.write_text(json.dumps(golden_file()))
    code, out, err = run("validate", "--with", "zigzag", folder, given, "--python", python)
    assert (code, err) == (0, "") and out.count(" 0 differ") == 2
    answer = json.loads((folder / "results.json").read_text())
    own = price(nest_of("conv", SHAPE, MAPPING, machine()), SHAPE, machine(), ZIGZAG)
    assert np.isclose(answer["layers"]["conv"]["energy_total_pj"], float(own.energy_pj), rtol=1e-9)
