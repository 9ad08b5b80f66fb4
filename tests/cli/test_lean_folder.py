"""A folder whose network has lost channels is read with the model that was traced: its own sizes count."""

import jax
import jax.numpy as jnp
import pytest

import cooptim
from cooptim.export import save_design, save_weights
from cooptim.integer import load_integer
from cooptim.network.shrink import without_dead
from tests.cli.two_layers import MODEL


@pytest.mark.float32
def test_a_network_without_dead_channels_goes_to_integers(run, tmp_path, monkeypatch):
    (tmp_path / "fewer.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import fewer

    params, apply = fewer.make(None)
    data, machine = cooptim.load_data("digits"), cooptim.load_machine("envision")
    params["b"] = params["b"].at[jnp.asarray([2, 3, 11])].set(0.0)
    small = without_dead(cooptim.trace(apply, params, data.sample), params, {}, data.x_train[:8]).network
    design = cooptim.calibrate(small, small.params, {}, data.x_train[:300], machine, 6)
    stats = jax.jit(small.apply)(small.params, {}, data.x_train[:300], design)[2]
    (tmp_path / "made").mkdir()
    save_weights("made/weights.npz", small.params, {})
    save_design("made/design.json", small.workload, machine, design, stats)
    code, out, err = run("export", "integer", "made", "--model", "fewer:make", "--out", "whole")
    assert code == 0, err
    assert float(out.split("same prediction ")[1].split(" %")[0]) > 99.0
    whole = load_integer("whole")
    code, out, err = run("evaluate", "--model", "fewer:make", "--design", "made/design.json", "--input-shape", "8x8x1")
    total_pj = float(cooptim.evaluate(small.workload, machine, design, stats).total_energy_pj)
    assert code == 0 and out.startswith(f"{total_pj / 1e3:.3g} nJ an inference"), err
    (tmp_path / "made" / "weights.npz").write_bytes(b"something else of this name")
    (tmp_path / "made" / "design.json").unlink()
    whole_network = cooptim.trace(apply, params, data.sample)
    design = cooptim.calibrate(whole_network, params, {}, data.x_train[:300], machine, 6)
    save_design("made/design.json", whole_network.workload, machine, design)
    code, out, err = run("evaluate", "--model", "fewer:make", "--design", "made/design.json", "--input-shape", "8x8x1")
    assert code == 0 and "nJ an inference" in out, err
    sizes = [max(array.size for array in whole.nodes[layer.node].arrays.values()) for layer in whole.layers]
    assert sizes == [64 * 13, 13 * 10]
