"""Published claims: their classes against the reference data, their predictions by hand."""

import csv
import math

import numpy as np
import pytest

from cooptim.validate import predictions
from cooptim.validate.claims import CLASSES, SHARE_ASKED, claim_of, published_claims
from cooptim.validate.predictions import not_yet_modelled, predicted_rows
from cooptim.validate.predictions_dataflow import dataflow_ratios
from cooptim.validate.predictions_sparse import eie_shape


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in predicted_rows()}


def test_every_verified_claim_that_a_model_could_reproduce_is_classed_once(shared):
    with open(shared / "reference" / "claims.csv", newline="") as file:
        wanted = [r for r in csv.DictReader(file) if r["verified"] == "yes" and r["reproducible_by_model"]]
    claims = published_claims()
    assert [(c.system, c.claim, c.value, c.unit, c.source) for c in claims] == [
        (r["system"], r["claim"], r["value"], r["unit"], r["source"]) for r in wanted
    ]
    assert {c.kind for c in claims} == set(CLASSES) and all(c.reason for c in claims)


def test_only_predicted_claims_have_a_tolerance_and_it_is_ten_or_twenty_five_percent():
    for claim in published_claims():
        if claim.kind != "predicted":
            assert claim.tolerance is None, claim
        elif claim.relation == "true":
            assert claim.tolerance == 0
        else:
            assert claim.tolerance in (0.10, 0.25), claim
        assert claim.reason.startswith("missing") == (claim.kind == "no public inputs"), claim


def test_what_is_predicted_is_either_run_or_listed(rows):
    predicted = {f"{c.system}: {c.claim}" for c in published_claims() if c.kind == "predicted"}
    later = {f"{c.system}: {c.claim}" for c in not_yet_modelled()}
    assert set(rows) | later == predicted and not set(rows) & later
    assert not later and len(predicted) == 32
    inside = [row for row in rows.values() if row.holds]
    assert len(inside) >= SHARE_ASKED * len(rows)


@pytest.mark.parametrize(
    ("name", "hand", "rel"),
    [
        ("Eyeriss chip: AlexNet efficiency at 0.82 V", 83.1 / 0.82**2, 1e-6),
        ("Eyeriss chip: zero data gating saves PE power", 57.53 * (1 - 0.201 / 6.092), 1e-6),
        ("YodaNN: power at 0.6 V", 153 * (61.2 * 0.895 / 1510) / 4, 1e-9),
        ("YodaNN: efficiency at 0.6 V", 4 * 1510 / 153, 1e-9),
        ("DVAFS: energy saving printed for 0.75 V", 100 * (1 - (0.75 / 1.1) ** 2), 0.02),
        ("DVAFS: energy saving by 1.1 -> 0.9 V", 100 * (1 - (0.9 / 1.1) ** 2), 0.05),
        ("EIE: saving DRAM to SRAM", 128, 1e-9),
        ("EIE: saving sparsity", 61 / 6.7, 1e-9),
    ],
)
def test_predictions_by_hand(rows, name, hand, rel):
    assert rows[name].model == pytest.approx(hand, rel=rel)


def test_compressed_storage_by_hand():
    # 6.7 of 61 million weights stay: 5 bit each, and a gap of geometric length of H(d) / d bits.
    d = 6.7 / 61
    gap = -math.log2(d) - (1 - d) / d * math.log2(1 - d)
    assert predictions.compressed_mb("AlexNet") == pytest.approx(6.7 * (5 + gap) / 8)
    assert predictions.compression("AlexNet").model == pytest.approx(61 * 4 / (6.7 * (5 + gap) / 8))


def test_the_alu_share_by_hand(rows):
    # 0.783 + 0.05 pJ at 45 nm and 0.9 V make 1.486 pJ at 65 nm and 1 V; 278 mW for 115.3 ms.
    macs = [(0.4217, 0.0001), (0.8958, 0.387), (0.5981, 0.725), (0.4486, 0.793), (0.2990, 0.776)]
    alu = sum(m * (1 - z) for m, z in macs) * (0.78333 + 0.05) * 65 / 45 / 0.81
    assert rows["Eyeriss chip: ALU share of power, below"].model == pytest.approx(
        100 * alu / (0.278 * 115.3), rel=0.005
    )


def test_wider_operands_are_less_efficient_and_full_width_is_the_published_point():
    found = [predictions.envision_efficiency(bits, 16.0) for bits in (1.0, 2.0, 4.0, 5.0, 8.0, 9.0)]
    assert [one.high for one in found] == sorted((one.high for one in found), reverse=True)
    assert all(one.low == pytest.approx(76 / 300, rel=1e-6) for one in found)
    # 4x4b at 76 GOPS takes the published 18 mW within the calibration's 1 %.
    assert found[2].high == pytest.approx(76 / 18, rel=0.02)


def test_wide_intervals_count_neither_as_reproduced_nor_as_missed(rows):
    vague = [row for row in rows.values() if not row.informative]
    assert {row.name for row in vague} == {"Envision: AlexNet", "Envision: VGG-16 average", "Envision: LeNet-5"}
    assert all(row.holds is None and row.low <= row.published <= row.high for row in vague)


def test_what_is_off_stays_off(rows):
    # Honest misses: f V^2 cannot give YodaNN's 171 times; gating is a bound without the always-on part of the PEs.
    missed = {row.name for row in rows.values() if row.holds is False}
    assert missed == {
        "YodaNN: power at 0.6 V",
        "YodaNN: efficiency at 0.6 V",
        "Eyeriss chip: zero data gating saves PE power",
        "EIE: VGG16 FC6 theoretical / actual time",
    }


def test_a_range_and_a_pair_are_read_and_other_values_are_refused(rows):
    assert claim_of("Cnvlutin", "speed-up range").pair == (1.24, 1.55)
    assert claim_of("EIE", "NT- We theoretical / actual time").pair == (5.2, 8.0)
    row = rows["Cnvlutin: speed-up range"]
    assert (row.relation, row.published, row.published_high) == ("range", 1.24, 1.55)
    assert rows["EIE: NT- We theoretical / actual time"].published == 8.0
    with pytest.raises(ValueError, match="could not convert|not enough values"):
        _ = claim_of("YodaNN", "power at 0.6 V").pair


def test_cnvlutins_speedup_on_alexnet_by_hand(rows):
    # Sixteen lanes take sixteen channels of a tap, 256 filters share them; the images' three channels leave 13 idle.
    # Conv2 and 4, 5 in two groups; the most of sixteen binomial counts of a window's words, by their distribution.
    layers = [(0.01, 55, 121 * 1, 1), (38.7, 27, 25 * 3, 2), (72.5, 13, 9 * 16, 2), (79.3, 13, 9 * 12, 2),
              (77.6, 13, 9 * 12, 2)]  # fmt: skip
    dense = left = 0.0
    for zeros, side, words, passes in layers:
        d = 1 - zeros / 100
        counts = [math.comb(words, k) * d**k * (1 - d) ** (words - k) for k in range(words + 1)]
        slowest = words - sum(sum(counts[: k + 1]) ** 16 for k in range(words))
        dense, left = dense + side**2 * words * passes, left + side**2 * slowest * passes
    assert rows["Cnvlutin: speed-up range"].low == pytest.approx(dense / left, rel=1e-4)


def queued(outputs, density, columns, lanes=64, queue=8, run=16):
    """Time over that of equal lanes, every entry and filler of every column counted; the rows are dealt out in turn."""
    rng, total, entered = np.random.default_rng(0), 0, -1.0
    done, freed = np.zeros(lanes), np.zeros((queue, lanes))
    for j in range(columns):
        rows = np.full(-(-outputs // lanes) * lanes, False)
        rows[:outputs] = rng.random(outputs) < density
        work = np.zeros(lanes)
        for lane, column in enumerate(rows.reshape(-1, lanes).T):
            places = np.flatnonzero(column)
            work[lane] = places.size + ((np.diff(places, prepend=-1) - 1) // run).sum()
        total += work.sum()
        entered = max(entered + 1.0, freed[j % queue].max())
        done = np.maximum(done, entered) + np.maximum(work, 1)
        freed[j % queue] = done
    return done.max() / (total / lanes)


@pytest.mark.parametrize(("layer", "sparsest"), [("AlexNet FC7", 0.04), ("NT- We", None)])
def test_times_of_eie_are_those_of_a_random_matrix_walked_entry_by_entry(rows, layer, sparsest):
    row = rows[f"EIE: {layer} theoretical / actual time"]
    given, _ = claim_of("EIE", f"{layer} theoretical / actual time").pair
    outputs, inputs = eie_shape(layer)
    # NeuralTalk's ten rows a lane hold no run of sixteen zeros, so 5.2 us of 64 lanes at 0.8 GHz is the density.
    density = sparsest or given * 1e3 * 0.8 * 64 / (outputs * inputs)
    assert row.high / given == pytest.approx(queued(outputs, density, 300), rel=0.04)
    assert row.low / given == pytest.approx(queued(outputs, 0.25, 150), rel=0.04)
    assert row.low <= row.model <= row.high


def test_the_other_dataflows_in_the_order_of_what_they_reuse(rows):
    # Per MAC at 1, 1, 2, 6: an output-stationary one takes 1 + 2 + 4, one without reuse 1 + 6 + 6, and more; on
    # Eyeriss's array row stationary takes 1 + 4 and what the network, buffer and DRAM add.
    ratios = dataflow_ratios()
    assert ratios["output"] <= min(ratios["output of one filter"], ratios["output of one pixel"])
    assert max(ratios, key=ratios.get) == "none" and min(ratios.values()) > 1
    row = rows["Eyeriss dataflow: row stationary vs other dataflows, conv layers"]
    assert (row.low, row.high) == (min(ratios.values()), max(ratios.values()))
    assert 7 / 5 * 0.75 < ratios["output"] < 2 and 13 / 7 < ratios["none"] < 15 / 5


def test_an_unknown_claim_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="claim 'speed' of 'YodaNN' is not known; .*core area"):
        claim_of("YodaNN", "speed")
