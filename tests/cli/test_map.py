"""`cooptim map` as a user runs it."""

import pytest

from cooptim.cli.main import main

CSV = "layer,K,C,OY,OX,FY,FX\nconv1,8,4,6,6,3,3\nconv2,8,4,6,6,3,3\nfc,10,32,1,1,1,1\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text(CSV)
    return str(path)


def test_every_layer_is_proven_and_equal_layers_are_searched_once(table, capsys):
    assert main(["map", "--network", table, "--machine", "eyeriss_like"]) == 0
    said = capsys.readouterr().out
    assert said.count("proven") == 3
    assert "2 different layers of 3" in said


def test_energy_delay_states_a_gap_over_its_bound(table, capsys):
    assert main(["map", "--network", table, "--machine", "tpu_like", "--objective", "edp"]) == 0
    assert "above its bound" in capsys.readouterr().out


def test_an_unknown_network_and_machine_are_named(table, capsys):
    assert main(["map", "--network", "resnet19"]) == 2
    assert "resnet18" in capsys.readouterr().err
    assert main(["map", "--network", table, "--machine", "tpu"]) == 2
    assert "tpu_like" in capsys.readouterr().err
