"""The notebooks run from top to bottom, are stored without outputs, and end where their text says."""

import json
import pathlib

import jax
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
LONGEST_LINE = 120


def run(name, monkeypatch, tmp_path, probe):
    """The executed notebook and what `probe`, an expression over its variables, is at the end."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    for variable in ("XDG_CONFIG_HOME", "MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({probe}))"))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    return notebook, json.loads(notebook.cells[-1].outputs[0].text)


def outputs(notebook, kind):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
            if output.output_type == kind]  # fmt: skip


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert [line for cell in notebook.cells for line in cell.source.splitlines() if len(line) > LONGEST_LINE] == []


@pytest.mark.slow
def test_the_own_training_step_reaches_its_budget_with_a_legal_design(monkeypatch, tmp_path):
    probe = """{
        "energies": [float(e) for e in history["energy_pj"]], "legal": float(hard.total_energy_pj), "gap": gap,
        "budget": budget_pj, "bound": bound.bound_pj, "reference": float(reference.total_energy_pj),
        "late": float(hard.total_latency_ns) / deadline_ns, "broken": broken,
        "float": float_accuracy, "final": final_accuracy,
    }"""
    notebook, found = run("01_your_own_training_step.ipynb", monkeypatch, tmp_path, probe)
    assert (
        outputs(notebook, "error") == [] and [o.text for o in outputs(notebook, "stream") if o.name == "stderr"] == []
    )
    assert len(outputs(notebook, "display_data")) == 1  # the figure
    assert found["broken"] == []
    assert found["energies"][-1] < found["energies"][0] / 5
    assert found["bound"] < found["legal"] <= found["budget"] < found["reference"]
    assert found["late"] <= 1 and abs(found["gap"] - 1) < 0.1
    assert found["float"] > 0.9 and found["final"] > found["float"] - 0.05


@pytest.mark.slow
def test_a_chip_sized_while_training_is_built_within_its_area_and_beats_the_one_for_eight_bits(monkeypatch, tmp_path):
    probe = """{
        "bits": [[float(b) for b in getattr(learned[1][3], k)] for k in ("weight_bits", "input_bits")],
        "area": [r["chip"].area_mm2 for r in results.values()], "legal": [r["chip"].legal for r in results.values()],
        "budget": budget.area_mm2, "aim": aim.area_mm2, "found": float(learned[1][2].area_mm2[best]),
        "gap": [r["energy gap"] for r in results.values()], "gain": gain, "float": float_accuracy,
        "accuracy": [r["accuracy"] for r in results.values()],
        "costs": [float(c[best]) for c in costs],
    }"""
    notebook, found = run("02_size_a_chip_while_training.ipynb", monkeypatch, tmp_path, probe)
    assert outputs(notebook, "error") == []
    assert [o.text for o in outputs(notebook, "stream") if o.name == "stderr"] == []
    assert len(outputs(notebook, "display_data")) == 1
    widths = np.array(found["bits"])
    assert np.all((widths == np.round(widths)) & (widths >= 2) & (widths <= 8)) and widths.mean() < 7
    assert all(found["legal"]) and max(found["area"]) <= found["budget"]
    assert found["found"] < 1.03 * found["aim"] and found["costs"][-1] < found["costs"][0] - 2
    assert all(0.8 < gap < 1.25 for gap in found["gap"]) and found["gain"] > 1.3
    assert found["float"] > 0.9 and min(found["accuracy"]) > found["float"] - 0.05


def test_the_notebook_of_eyeriss_says_what_it_prints(monkeypatch, tmp_path):
    probe = """{
        "given": {kind: rms(error) for kind, error in given.items()},
        "own": {kind: rms(error) for kind, error in errors.items()},
        "alexnet": {kind: rms(error[alexnet]) for kind, error in errors.items()},
        "hand": [sums_by_hand + inputs, int(counts.buffer_words)], "share": share,
    }"""
    notebook, found = run("chips/eyeriss_jssc_2017.ipynb", monkeypatch, tmp_path, probe)
    assert outputs(notebook, "error") == []
    assert [o.text for o in outputs(notebook, "stream") if o.name == "stderr"] == []
    assert len(outputs(notebook, "display_data")) == 1
    assert found["given"]["power"] <= 0.05 and found["given"]["processing"] <= 0.05 and found["given"]["total"] <= 0.10
    assert found["own"]["link"] == pytest.approx(0.068, abs=0.001) and found["own"]["processing"] > 0.20  # the miss
    assert found["alexnet"]["active"] == 0 and found["share"] == pytest.approx(0.88, abs=0.01)
    assert found["hand"][0] == found["hand"][1]
