import dataclasses
import io

import jax.numpy as jnp
import pytest
from rich.console import Console

from cooptim.descent.summary import layer_rows, summary
from cooptim.mapping.frontier import tilings
from cooptim.relax.method import PLAIN, Method
from cooptim.reporting import cost_table, layer_table, network_table, notes, summary_table
from tests.reporting import fake_run


def _text(*parts, width=80):
    file = io.StringIO()
    console = Console(file=file, width=width)
    for part in parts:
        console.print(part)
    return file.getvalue()


def _row(text, start):
    return next(line.split() for line in text.splitlines() if line.strip().startswith(start))


@pytest.fixture(scope="module")
def run():
    return fake_run.result()


@pytest.fixture(scope="module")
def rows(run):
    return layer_rows(run, tilings(run.workload, run.machine))


@pytest.mark.parametrize("width", [80, 120])
def test_summary_compares_every_design_with_16_bit_guarded_and_not(run, width):
    text = _text(summary_table(summary(run)), width=width)
    assert _row(text, "float network")[-7:] == ["98.0", "%", "-", "-", "-", "-", "-"]
    # 150 nJ over 6 nJ; 240 nJ unguarded over 6 nJ; 5 nJ of bound over 6 nJ.
    assert _row(text, "joint") == ["joint", "97.2", "%", "6", "nJ", "25x", "40x", "3", "us", "83", "%"]
    assert _row(text, "best uniform + pruning")[4:] == ["97.2", "%", "7.5", "nJ", "20x", "32x", "3", "us", "67", "%"]
    assert _row(text, "16 b")[4:8] == ["150", "nJ", "1x", "1.6x"]


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_and_lose_nothing_to_ellipses(run, rows, width):
    parts = [summary_table(summary(run)), layer_table(rows), cost_table(run.relaxed), network_table(run.workload)]
    text = _text(*parts, width=width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width and "…" not in text


def test_a_design_that_was_not_made_has_no_row(run):
    designs = {key: run.designs[key] for key in ("reference_16b", "final")}
    text = _text(summary_table(summary(fake_run.result(designs=designs))))
    assert "best uniform" not in text and "joint" in text


def test_notes_say_budget_bound_gap_and_local_optimality(run):
    lines = "\n".join(notes(summary(run)))
    assert "energy 6 nJ, latency 3 us, accuracy drop 0.5 points" in lines
    assert "bound: 5 nJ, 30x below 16 b" in lines
    assert "gap: legal over relaxed energy 1.053; the snap cost 0.20 points" in lines
    assert "best of 240 single moves saves 1.1 % (fc.kernel: weight width 6 -> 5)" in lines


def test_the_factors_are_those_of_the_bound_that_the_run_computed(run):
    # 72 of the reference's 150 nJ are DRAM; on chip the bound takes 4 nJ, 8 with nothing gated, and 1 nJ of DRAM.
    want = {"mode_gain": 78 / 8, "gating_ceiling": 8 / 4, "dram_gain": 150 / 78 * 4 / 5, "total": 150 / 5}
    assert summary(run)["bound_factors"] == pytest.approx(want)
    assert "mode gain 9.75 x gating ceiling 2 x DRAM share 1.54" in "\n".join(notes(summary(run)))
    unknown = summary(fake_run.result(bound=None))
    assert unknown["bound_factors"] is None and not any("mode gain" in line for line in notes(unknown))


@pytest.mark.parametrize("width", [80, 120])
def test_exits_are_told_with_the_mean_latency_and_how_often_each_layer_runs(run, rows, width):
    final = run.designs["final"]
    report = dataclasses.replace(final.report, reach=jnp.array([1.0, 0.25]), mean_busy_ns=jnp.asarray(1500.0))
    early = fake_run.result(
        designs=run.designs | {"final": dataclasses.replace(final, report=report)},
        workload=dataclasses.replace(run.workload, exits=("conv1.kernel",)),
    )
    told = summary(early)
    assert told["exits"] == {"conv1.kernel": pytest.approx(0.75)} and told["latency_ns"]["mean"] == 1500.0
    assert told["latency_ns"]["final"] == 3000.0  # the deadline's: of an input that runs all
    assert "mean latency 1.5 us; 75.0 % leave at conv1.kernel" in notes(told)
    text = _text(layer_table(layer_rows(early, tilings(run.workload, run.machine))), width=width)
    assert "runs" in text and "…" not in text and max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert _row(text, "fc.k")[-2:] == ["25", "3.6"]  # runs [%], energy [nJ]
    # The widest cells there are: rich would cut what does not fit without a sign.
    widest = {"macs": 123_456, "weight_bits": 16, "input_bits": 16, "tile_K": 100, "tile_C": 256, "reach": 1.0}
    text = _text(
        layer_table([row | widest for row in layer_rows(early, tilings(run.workload, run.machine))]), width=width
    )
    assert "energy" in text and _row(text, "fc.k")[-2:] == ["100", "3.6"]
    assert "runs" not in _text(layer_table(rows), width=width)
    plain = summary(run)
    assert plain["exits"] is None and plain["latency_ns"]["mean"] is None
    assert not any("leave at" in line or "widths held" in line for line in notes(plain))


def test_labels_of_a_table_are_told_from_weights_of_that_width(run, rows):
    final = run.designs["final"]
    methods = (Method("codebook", label_bits=4), PLAIN)
    shared = fake_run.result(
        designs=run.designs
        | {"final": dataclasses.replace(final, design=dataclasses.replace(final.design, methods=methods))}
    )
    found = layer_rows(shared, tilings(run.workload, run.machine))
    assert [row["table_values"] for row in found] == [16, 0] and "table_values" not in rows[0]
    text = _text(layer_table(found))
    assert _row(text, "conv1")[2] == "4t/4" and _row(text, "fc.k")[2] == "6/6" and "t: labels of a table" in text
    assert _row(_text(layer_table([{k: str(v) for k, v in row.items()} for row in found])), "conv1")[2] == "4t/4"
    assert "t: labels" not in _text(layer_table(rows))
    told = summary(shared)
    assert told["label_bits"] == 4 and summary(run)["label_bits"] is None
    assert "weights: labels of 4 b in every design but 16 b; uniform and learned widths are the inputs'" in notes(told)
    widest = {"macs": 123_456, "weight_bits": 8, "input_bits": 16, "tile_K": 100, "tile_C": 256}
    text = _text(layer_table([row | widest for row in found]))
    assert "8t/16" in text and "…" not in text and max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_held_widths_are_said(run):
    assert "widths held: joint = uniform + pruning held to the energy that was asked for" in notes(
        summary(fake_run.result(widths_held=True))
    )
    same = run.designs | {"final": run.designs["best_uniform_pruned"]}
    told = summary(fake_run.result(widths_held=True, designs=same))
    assert told["widths_held"] and "widths held: joint = uniform + pruning" in notes(told)


def test_a_joint_design_that_is_the_pruned_one_is_said(run):
    line = "joint = uniform + pruning, which no search for widths of each layer has beaten"
    same = run.designs | {"final": run.designs["best_uniform_pruned"]}
    assert line in notes(summary(fake_run.result(designs=same)))
    assert line not in notes(summary(run))
    same |= {"best_uniform_pruned": run.designs["best_uniform"], "final": run.designs["best_uniform"]}
    assert "joint = best uniform, which no pruning that keeps the accuracy has beaten" in notes(
        summary(fake_run.result(designs=same))
    )


def test_layer_table_says_what_each_layer_chose(rows):
    text = _text(layer_table(rows), width=120)
    assert _row(text, "conv1.kernel")[:6] == ["conv1.kernel", "9216", "4/4", ".50/.75", "4x4b", "16,1,8,8"]
    assert _row(text, "fc.kernel")[-2:] == ["50", "3.6"]  # utilization [%] and energy [nJ]


def test_rows_read_from_csv_print_the_same(rows):
    assert _text(layer_table([{k: str(v) for k, v in row.items()} for row in rows])) == _text(layer_table(rows))


def test_cost_table_adds_up_with_standby(run):
    text = _text(cost_table(run.relaxed))
    # Scale 38: SRAM of layer 1 is 2 + 3 + 4, DRAM 7 + 8 + 9; all of it 3 * 45 + 15 = 150.
    assert _row(text, "conv1.kernel")[1:7] == ["0.038", "0.342", "0.19", "0.228", "0.912", "1.71"]
    assert _row(text, "standby") == ["standby", "0.57", "0.57"]
    # Leakage is component 6: 3 * 6 * 38 = 684 pJ in the layers and 570 between inferences.
    assert _row(text, "all") == ["all", "0.114", "1.03", "0.57", "1.25", "2.74", "5.7"]


def test_network_table_lists_bounds_macs_and_weights(run):
    text = _text(network_table(run.workload))
    assert _row(text, "conv1.kernel")[1:] == ["conv", "K16", "OY8", "OX8", "FY3", "FX3", "9,216", "144"]
    assert "9,856 MACs" in text
