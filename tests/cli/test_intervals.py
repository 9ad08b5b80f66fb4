"""`cooptim evaluate --intervals` and `cooptim machines check`, as a user sees them."""

import re

import pytest

from cooptim.hardware.hierarchy_file import hierarchy_source

NET = ("evaluate", "--model", "cooptim.network.examples:digits_cnn", "--input-shape", "8x8x1", "--intervals")


def test_evaluate_prints_what_the_assumptions_do_and_whether_a_ranking_survives(run):
    code, out, err = run(*NET, "--samples", "30", "--seed", "2", "--against", "dvafs_sized")
    assert (code, err) == (0, "") and "30 draws" in out and "95 %" in out
    assert re.search(r"datapath\.idle_share +0 to 1 +-0\.\d\d", out) and "broke a rule of the schema" in out
    # One design and one set of constants: what both files assume moves together, so nothing separates them.
    words = " ".join(out.split())
    assert "energy: the same in every sample" in words and "27 assumptions that both files state alike" in words


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((*NET, "--samples", "1"), "1 samples say nothing about a spread"),
        ((*NET, "--against", "tpu9"), "neither a file nor a known name"),
        ((*NET[:-1], "--against", "dvafs_sized"), "add --intervals"),
    ],
)
def test_bad_input_is_one_message(run, argv, words):
    code, _, err = run(*argv)
    assert code == 2 and words in err and err.count("\n") == 1


def test_machines_check_says_which_laws_hold(run, tmp_path):
    code, out, err = run("machines", "check", "eyeriss")
    assert (code, err) == (0, "") and "none of 4 laws broken" in out
    assert run("machines", "check", "nothing")[0] == 2
    broken = tmp_path / "mine.yaml"
    broken.write_bytes(hierarchy_source("tpu_like").replace(b"name: tpu_like", b"name: mine"))
    code, out, _ = run("machines", "check", broken)
    assert code == 0 and "hierarchy: none of 5 laws broken" in " ".join(out.split())


def test_machines_schema_prints_the_description(run):
    code, out, _ = run("machines", "schema")
    assert code == 0 and "| `floor_v` | voltage | mV, V | above 0, at most 10 V | lowest supply" in out
