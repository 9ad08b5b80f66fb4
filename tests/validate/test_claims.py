"""Published claims: their classes against the reference data, their predictions by hand."""

import csv
import math

import pytest

from cooptim.validate import predictions
from cooptim.validate.claims import CLASSES, claim_of, published_claims
from cooptim.validate.predictions import not_yet_modelled, predicted_rows


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
    }


def test_an_unknown_claim_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="claim 'speed' of 'YodaNN' is not known; .*core area"):
        claim_of("YodaNN", "speed")
