"""Timeloop's golden cases, the closed form against walked loop nests, and every message of the reader."""

import copy
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cooptim.hardware.strict_json import read_json
from cooptim.mapping.nest import Mapping, nest_of
from cooptim.mapping.timeloop import timeloop_counts
from cooptim.validate.timeloop import cases_of, counts_of
from cooptim.validate.timeloop_rows import case_rows
from tests.oracle import timeloop_walk

TENSORS = ["Weights", "Inputs", "Outputs"]
ONES = dict.fromkeys("RSPQCKN", 1)


def directive(target, kind, factors, permutation="RSPQCKN", **more):
    spelled = " ".join(f"{dim}={n}" for dim, n in {**ONES, **factors}.items())
    return {"target": target, "type": kind, "factors": spelled, "permutation": permutation, **more}


def case_dict(levels, strides=(1, 1)):
    """A case in the golden format; levels innermost first: (temporal factors, permutation, units, permutation, keeps).

    The answers are placeholders.
    """
    bounds, mapping, entries, instances = dict(ONES), [], [], 1
    for i, (factors, order, units, unit_order, keeps) in enumerate(reversed(levels)):
        name = f"L{len(levels) - 1 - i}"
        children = math.prod(units.values())
        entries.append(
            {
                "name": name, "capacity_words": None if i == 0 else 1 << 40, "word_bits": 8, "words_per_access": 1,
                "instances": instances, "children_per_instance": children, "keeps": [t for t in TENSORS if t in keeps],
                "read_pJ": 1.0, "write_pJ": 1.0, "shared_bandwidth_words_per_cycle_per_instance": None,
            }
        )  # fmt: skip
        instances *= children
        for dim, n in (*factors.items(), *units.items()):
            bounds[dim] *= n
        mapping.append(directive(name, "temporal", factors, order))
        mapping.append(directive(name, "spatial", units, unit_order, split=7))
        bypass = [t for t in TENSORS if t not in keeps]
        mapping.append({"target": name, "type": "bypass", "keep": [t for t in TENSORS if t in keeps], "bypass": bypass})
    counts = [f"{q}_per_instance" for q in ("reads", "fills", "updates", "temporal_reductions")]
    answer = dict.fromkeys(["tile_words", "instances_used", *counts], 1)
    energy = {"energy_total_pJ": 0.0, "energy_recomputed_pJ": 0.0}
    return {
        "id": "made", "arch_kind": "made", "layer_name": "conv", "mac_pJ": 1.0, "multipliers": instances,
        "mesh_xy": [instances, 1], "levels": entries, "mapping": mapping,
        "layer": {**bounds, "Wstride": strides[0], "Hstride": strides[1]},
        "expected": {
            "per_level_tensor": [
                {"level": entry["name"], "tensor": t, **answer, **energy} for entry in entries for t in entry["keeps"]
            ],
            "macs": 1, "mac_energy_pJ": 0.0, "storage_plus_mac_energy_pJ": 0.0, "network_energy_pJ": 0.0, "cycles": 1,
            "compute_cycles": 1, "multipliers_used": 1, "utilization": 1.0,
            "timeloop_printed": {"energy_uJ": 0.0, "utilization_pct_or_frac": 1.0},
            "level_cycles": {"MACC": 1, **{entry["name"]: 1 for entry in entries}},
        },
    }  # fmt: skip


def walked(levels, strides):
    nest = tuple(
        timeloop_walk.Level(
            tuple((dim, factors[dim]) for dim in order if factors.get(dim, 1) > 1),
            tuple((dim, units[dim]) for dim in unit_order if units.get(dim, 1) > 1),
            frozenset(keeps),
        )
        for factors, order, units, unit_order, keeps in levels
    )
    return timeloop_walk.counts(nest, *strides)


def assert_equal_to_walk(levels, strides):
    (case,) = cases_of([case_dict(levels, strides)], "made")
    counts, oracle = counts_of(case), walked(levels, strides)
    assert {(int(level[1:]), tensor) for level, tensor in counts} == set(oracle)
    for (i, tensor), expected in oracle.items():
        found = counts[f"L{i}", tensor]
        ours = {name: float(getattr(found, name)) for name in expected}
        assert ours == {name: float(n) for name, n in expected.items()}, (i, tensor)


@st.composite
def small_nests(draw):
    """Levels as `case_dict` takes them, dense in loops of P, Q, R and S; at most some thousand tiles walked."""
    windows = st.sampled_from("RSPQRSPQCKN")
    n = draw(st.integers(2, 4))
    levels, steps = [], 1
    for i in range(n):
        factors: dict[str, int] = {}
        for dim in draw(st.lists(windows, min_size=0 if i else 1, max_size=3, unique=True)):
            factors[dim] = draw(st.integers(2, 4))
        units: dict[str, int] = {}
        for dim in draw(st.lists(windows, max_size=2, unique=True)):
            units[dim] = draw(st.integers(2, 3))
        keeps = set(TENSORS) if i == n - 1 else draw(st.sets(st.sampled_from(TENSORS), min_size=1))
        order, unit_order = ("".join(draw(st.permutations("RSPQCKN"))) for _ in range(2))
        levels.append((factors, order, units, unit_order, keeps))
        steps *= math.prod(factors.values())
    assume(steps <= 400 and math.prod(math.prod(level[2].values()) for level in levels) <= 60)
    return levels, (draw(st.integers(1, 3)), draw(st.integers(1, 3)))


@settings(max_examples=600, deadline=None, derandomize=True)
@given(small_nests())
def test_counts_of_random_nests_equal_the_walk(nest):
    assert_equal_to_walk(*nest)


ORDER = "RSPQCKN"
KEEP = set(TENSORS)
SLIDES = {
    # 4 rows slide by 1 twice (R), then on by 4 - 2 (P), which is another vector.
    "taps inside outputs": [({"P": 4}, ORDER, {}, ORDER, KEEP), ({"R": 3, "P": 3}, "RPSQCKN", {}, ORDER, KEEP)],
    # 3 rows slide by 1 over the loops of P in two levels without a seam.
    "one dim in two levels": [
        ({"R": 3}, ORDER, {}, ORDER, KEEP),
        ({"P": 3}, ORDER, {}, ORDER, KEEP),
        ({"P": 4, "C": 2}, "PCKNQRS", {}, ORDER, KEEP),
    ],
    # P returns by what R advances: the tile is where it was.
    "a step that stays": [({"C": 2}, ORDER, {}, ORDER, KEEP), ({"P": 2, "R": 2, "K": 2}, "PRKCNQS", {}, ORDER, KEEP)],
    # Units (p, r) at p + r: 3 x 3 units hold 5 tiles.
    "diagonal units": [({}, ORDER, {}, ORDER, KEEP), ({"C": 2}, ORDER, {"P": 3, "R": 3}, ORDER, KEEP)],
    # Inputs go from the outermost level through a fan-out of P past a fan-out of R.
    "bypassed fan-outs": [
        ({}, ORDER, {}, ORDER, {"Weights"}),
        ({"K": 2}, ORDER, {"R": 3}, ORDER, {"Outputs"}),
        ({"C": 2}, ORDER, {"P": 2, "K": 2}, ORDER, KEEP),
        ({"Q": 2}, ORDER, {}, ORDER, KEEP),
    ],
}


@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (3, 2)])
def test_counts_where_slides_meet_equal_the_walk(name, strides):
    assert_equal_to_walk(SLIDES[name], strides)


def test_a_slide_is_charged_its_new_rows_once_a_step_and_the_whole_tile_at_every_return():
    """Hand arithmetic: 4 rows and twice 1 new one, and all again for each of 3 steps of P, which moves by 4 - 2."""
    (case,) = cases_of([case_dict(SLIDES["taps inside outputs"])], "made")
    inputs = counts_of(case)["L0", "Inputs"]
    assert (inputs.tile, inputs.fills) == (4, 3 * (4 + 1 + 1))
    # One dim in two levels: 3 rows, then 1 new row for each of 11 outputs, never the whole tile, twice for 2 channels.
    (case,) = cases_of([case_dict(SLIDES["one dim in two levels"])], "made")
    assert counts_of(case)["L0", "Inputs"].fills == 2 * (3 + 11)
    # Diagonal units: 3 + 3 - 1 rows are read for 9 units.
    (case,) = cases_of([case_dict(SLIDES["diagonal units"])], "made")
    assert counts_of(case)["L1", "Inputs"].reads == 2 * 5


@pytest.fixture(scope="module")
def golden(shared):
    return read_json(shared / "golden" / "timeloop" / "cases.json")


def test_every_quantity_of_all_thirty_golden_cases_holds(golden):
    cases = cases_of(golden, "cases.json")
    rows = [row for case in cases for row in case_rows(case)]
    assert len(cases) == 30 and len(rows) > 2000
    assert [row for row in rows if row.holds is not True] == []
    # What is counted is asked for exactly; only energies and a printed quotient have a tolerance.
    loose = {row.quantity.rsplit(".", 1)[-1] for row in rows if row.tolerance}
    assert loose == {
        "energy_total_pJ", "energy_recomputed_pJ", "mac_energy_pJ", "storage_plus_mac_energy_pJ", "utilization",
    }  # fmt: skip


def test_small_golden_cases_equal_the_walk(golden):
    """The walk knows nothing of the closed form: it must find Timeloop's own numbers."""
    found = 0
    for raw, case in zip(golden, cases_of(golden, "cases.json"), strict=True):
        macs = math.prod(raw["layer"][dim] for dim in "RSPQCKN")
        if raw["layer"]["R"] == 1 or macs > 100_000:
            continue
        levels = []
        for level in case.levels:
            entries = {d["type"]: d for d in raw["mapping"] if d["target"] == level.name}
            loops, orders = {}, {}
            for kind in ("temporal", "spatial"):
                entry = entries.get(kind, {"factors": "", "permutation": ORDER})
                pairs = (text.split("=") for text in entry["factors"].split())
                loops[kind], orders[kind] = {dim: int(n) for dim, n in pairs}, entry["permutation"]
            levels.append(
                (loops["temporal"], orders["temporal"], loops["spatial"], orders["spatial"], set(level.keeps))
            )
        oracle = walked(levels, (raw["layer"]["Wstride"], raw["layer"]["Hstride"]))
        for answer in case.results.per_level_tensor:
            index = [level.name for level in case.levels].index(answer.level)
            ours = oracle[index, answer.tensor]
            assert ours["reads"] == answer.reads_per_instance and ours["fills"] == answer.fills_per_instance
        found += 1
    assert found >= 3


def test_a_batch_under_jit_counts_each_mapping_as_alone():
    """Same slots, other factors; the bounds of each mapping follow from its factors."""
    slots = [("OX", 2), ("FX", 3), ("K", 2), ("OX", 3), ("FX", 2), ("C", 2)]
    (case,) = cases_of([case_dict([({"P": 2}, ORDER, {}, ORDER, KEEP), ({"P": 2}, ORDER, {}, ORDER, KEEP)])], "made")
    cuts = {op: (3, 6) for op in "WIO"}
    columns = np.array([[n for _, n in slots], [3, 2, 1, 2, 3, 4], [1, 4, 2, 2, 1, 1]], dtype=float).T

    def shape_of(factors):
        bounds = [1.0] * 8
        for (dim, _), n in zip(slots, factors, strict=True):
            i = ("B", "G", "K", "C", "OY", "OX", "FY", "FX").index(dim)
            bounds[i] = bounds[i] * n
        return dataclasses.replace(case.shape, bounds=tuple(bounds), stride=(1, 2))

    mapping = Mapping(tuple(slots), {}, cuts)
    nest = nest_of("batch", shape_of(columns[:, 0]), mapping, case.machine)

    @jax.jit
    def count(factors):
        counts = timeloop_counts(
            dataclasses.replace(nest, factors=factors), shape_of(list(factors)), case.machine, xp=jnp
        )
        return {key: (c.reads, c.fills, c.updates) for key, c in counts.items()}

    together = count(columns)
    for column in range(columns.shape[1]):
        factors = columns[:, column]
        alone = timeloop_counts(dataclasses.replace(nest, factors=factors), shape_of(factors), case.machine)
        for key, found in together.items():
            expected = (alone[key].reads, alone[key].fills, alone[key].updates)
            assert [float(np.broadcast_to(n, (3,))[column]) for n in found] == [float(n) for n in expected]


def test_gradients_of_the_counts_reach_every_factor():
    (case,) = cases_of([case_dict(SLIDES["one dim in two levels"])], "made")

    nest = nest_of(case.layer_name, case.shape, case.mapping, case.machine)

    def words(factors):
        counts = timeloop_counts(dataclasses.replace(nest, factors=factors), case.shape, case.machine, xp=jnp)
        return sum(c.reads + c.fills for (op, _), c in counts.items() if op == "I")

    factors = jnp.array([float(n) for _, n in case.mapping.loops])
    grads = jax.grad(words)(factors)
    assert bool(jnp.all(jnp.isfinite(grads))) and bool(jnp.all(grads > 0))


def valid():
    levels = [
        ({"P": 2, "C": 3}, ORDER, {}, ORDER, KEEP),
        ({"R": 3}, ORDER, {"K": 2}, ORDER, {"Weights", "Outputs"}),
        ({"Q": 2}, ORDER, {}, ORDER, KEEP),
    ]
    return case_dict(levels, (2, 2))


def set_at(entry, path, value):
    *parents, last = path
    for step in parents:
        entry = entry[step]
    if value is None and isinstance(entry, dict) and last != "capacity_words":
        del entry[last]
    else:
        entry[last] = value


FAULTS = {
    "missing field": (("levels", 1, "word_bits"), None, ["levels[1].word_bits", "missing"]),
    "missing answer": (("expected", "cycles"), None, ["expected.cycles", "missing"]),
    "missing count": (
        ("expected", "per_level_tensor", 2, "reads_per_instance"), None,
        ["expected.per_level_tensor[2].reads_per_instance", "missing"],
    ),
    "unknown field": (("layer", "dilation"), 1, ["layer.dilation", "unknown field"]),
    "a number as text": (("layer", "K"), "8", ["layer.K", "'8' (text)"]),
    "no whole number": (("layer", "K"), 2.5, ["layer.K", "2.5"]),
    "unknown type": (("mapping", 0, "type"), "skew", ["mapping[0]", "skew"]),
    "unknown level": (
        ("mapping", 3, "target"), "SRAM", ["mapping[3]", "layer conv", "level 'SRAM' is unknown", "L2, L1, L0"],
    ),
    "second entry": (("mapping", 3, "target"), "L2", ["mapping[3]", "second entry", "L2"]),
    "bad factors": (("mapping", 0, "factors"), "R=1 S=1", ["mapping[0]", "factors", "'R=1 S=1'", "R, S, P, Q, C"]),
    "bad permutation": (("mapping", 0, "permutation"), "RSPQCK", ["mapping[0]", "permutation", "'RSPQCK'"]),
    "bad split": (("mapping", 1, "split"), 8, ["mapping[1]", "split", "found 8", "0 to 7"]),
    "factors off the bound": (
        ("layer", "P"), 5, ["layer conv", "dimension P", "2 (loops of L0)", "make 2", "its bound is 5"],
    ),
    "overfilled": (
        ("levels", 2, "capacity_words"), 10,
        ["layer conv", "level L0", "Weights 3 + Inputs 9 + Outputs 2 = 14", "capacity of 10"],
    ),
    "beyond the array": (
        ("mapping", 4, "factors"), "R=1 S=1 P=1 Q=1 C=1 K=4 N=1",
        ["mapping[4]", "layer conv", "L1", "K 4 = 4 units", "beyond the 2 children"],
    ),
    "too few instances": (("levels", 2, "instances"), 3, ["levels[1] (L1)", "2 children", "below it are 3"]),
    "level that keeps nothing": (("levels", 1, "keeps"), [], ["levels[1] (L1).keeps", "no tensor"]),
    "outermost without inputs": (("levels", 0, "keeps"), ["Weights", "Outputs"], ["operand I", "no path", "L2"]),
    "bypass of another level": (("mapping", 5, "keep"), ["Weights"], ["mapping[5]", "keeps Weights", "L1"]),
    "two levels of one name": (("levels", 1, "name"), "L0", ["names L2, L0, L0", "each once"]),
    "answer of a bypassed level": (
        ("expected", "per_level_tensor", 4, "tensor"), "Inputs", ["expected.per_level_tensor", "Inputs of L1"],
    ),
    "level without cycles": (("expected", "level_cycles", "MACC"), None, ["expected.level_cycles", "MACC"]),
    "infinite price": (("mac_pJ",), math.inf, ["mac_pJ", "finite"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_message_that_names_case_and_place(name):
    path, value, parts = FAULTS[name]
    entry = copy.deepcopy(valid())
    cases_of([entry], "some.json")  # the case is whole before it is broken
    set_at(entry, path, value)
    with pytest.raises(ValueError) as caught:
        cases_of([entry], "some.json")
    text = str(caught.value)
    assert text.startswith("some.json: case made: ") and "\n" not in text
    assert [part for part in parts if part not in text] == [], text


def test_levels_without_loops_must_say_so():
    entry = valid()
    entry["mapping"] = [d for d in entry["mapping"] if (d["target"], d["type"]) != ("L1", "temporal")]
    with pytest.raises(ValueError, match=r"layer conv, level L1: no temporal entry"):
        cases_of([entry], "some.json")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "some.json: found dict; legal: a list"),
        ([], "some.json: found an empty list"),
        ([3], r"some.json: cases\[0\]: "),
        ([valid(), valid()], "some.json: case made: id: used by two cases"),
    ],
)
def test_a_file_of_another_form_is_refused(content, text):
    with pytest.raises(ValueError, match=text):
        cases_of(content, "some.json")


def test_a_wrong_answer_is_found_in_the_row_of_its_quantity(golden):
    broken = copy.deepcopy(golden[3])
    broken["expected"]["per_level_tensor"][1]["reads_per_instance"] += 1
    (case,) = cases_of([broken], "cases.json")
    off = [row for row in case_rows(case) if not row.holds]
    assert [row.quantity for row in off] == ["levels.DRAM.Inputs.reads_per_instance"]
    assert off[0].case == broken["id"] and off[0].relative_error == pytest.approx(-1 / off[0].expected)
