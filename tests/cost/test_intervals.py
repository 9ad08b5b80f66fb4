"""Prices over the intervals of a machine file: draws, spreads, rankings, each against hand arithmetic."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.evaluate import evaluate
from cooptim.cost.intervals import design_on, influences, ranking, spread
from cooptim.hardware.intervals import draw_machines, drawn_numbers
from cooptim.hardware.load import MachineFile, load_machine_file, machine_names
from cooptim.hardware.restate import in_other_units
from cooptim.hardware.schema import MachineSchema
from cooptim.hardware.written import as_written
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats
from tests.cost.cases import DIGITS, design_of

ENVISION = load_machine_file("envision")


def with_intervals(**intervals):
    """Envision with these intervals and no other; '__' for the dot."""
    spans = {path.replace("__", "."): span for path, span in intervals.items()}

    def only(path, q):
        return dataclasses.replace(q, interval=spans.get(path))

    return MachineFile("mine.yaml", MachineSchema.model_validate(as_written(ENVISION.spec, only)))


def design(supply_v, bits, freq_ghz=0.02):
    """A legal-looking design of DIGITS on one lane, untiled."""
    machine, layers = ENVISION.machine, len(DIGITS.layers)
    rows = jnp.eye(tilings(DIGITS, machine).rows)[jnp.zeros(layers, int)]
    one = jnp.ones(layers)
    mode = jnp.eye(3)[jnp.zeros(layers, int)]
    return design_of(machine, mode, rows, bits * one, bits * one, supply_v * one, freq_ghz * one, jnp.asarray(2.0**20))


def dense():
    return Stats(jnp.ones(len(DIGITS.layers)), jnp.ones(len(DIGITS.layers)))


PRICE = compiled_once(lambda machine, made, stats: evaluate(DIGITS, machine, made, stats).total_energy_pj)


def energy(file, made, stats):
    return float(PRICE(file.machine, made, stats))


@pytest.fixture(scope="module")
def draws():
    return draw_machines([ENVISION], 40, seed=3)


def test_every_draw_is_legal_within_the_intervals_and_completes_the_power(draws):
    draw = draws.each[0]
    for path, q in drawn_numbers(ENVISION).items():
        assert q.interval[0] <= draw.values[path].min() and draw.values[path].max() <= q.interval[1], path
        assert len(set(draw.values[path])) > 3, path
    value = draw.values
    assert np.all(value["supply.threshold_v"] < value["supply.floor_v"])
    assert np.all(value["supply.retention_v"] <= value["supply.floor_v"])
    assert np.all(value["supply.nominal_v"] <= value["supply.ceiling_v"])
    shares = sum(value[f"reference.shares.{name}"] for name in ("datapath", "sram", "control", "leakage"))
    np.testing.assert_allclose(shares, 1.0, rtol=1e-12)
    assert 0.0 <= value["reference.shares.control"].min() and value["reference.shares.control"].max() <= 0.25
    for name in ("C", "FY", "FX"):
        assert np.all(value[f"reference.layer.{name}"] % 1 == 0)
    assert np.all(value["reference.layer.OX"] % 16 == 0)
    assert 0.3 < draws.refused < 0.9


def test_energies_are_derived_anew_for_every_draw(draws):
    value, machines = draws.each[0].values, draws.each[0].machines
    cycle_pj = value["reference.power"] / 0.2
    # 16 weights, (16 + FX - 1) / FX inputs a row of taps, 256 outputs once in C FY FX cycles; busy 0.7421875 of them.
    c, fy, fx = (value[f"reference.layer.{name}"] for name in ("C", "FY", "FX"))
    words = 16 + np.minimum((15 + fx) / fx, 16) + 256 / (c * fy * fx)
    np.testing.assert_allclose(
        machines.buffer.access_pj, value["reference.shares.sram"] * cycle_pj / (0.7421875 * words), rtol=1e-12
    )
    np.testing.assert_allclose(machines.datapath.control_pj, value["reference.shares.control"] * cycle_pj, atol=1e-9)
    lanes = 0.7421875 + 0.2578125 * value["datapath.idle_share"]
    np.testing.assert_allclose(
        machines.datapath.busy_pj, value["reference.shares.datapath"] * cycle_pj / lanes, rtol=1e-12
    )


def test_the_seed_makes_the_draw_and_what_changes_the_program_is_held(draws):
    again, other = (draw_machines([ENVISION], 40, seed=seed) for seed in (3, 4))
    for path, value in draws.each[0].values.items():
        np.testing.assert_array_equal(value, again.each[0].values[path])
    assert np.any(other.each[0].values["supply.alpha"] != draws.each[0].values["supply.alpha"])
    assert draws.each[0].held == ("datapath.accumulator",)
    assert "datapath.accumulator" not in draws.each[0].values
    with pytest.raises(ValueError, match="ask for at least 2"):
        draw_machines([ENVISION], 1)


def test_a_report_linear_in_one_number_has_the_quantiles_of_a_line():
    file = with_intervals(dram__access=(4.0, 40.0))
    draw = draw_machines([file], 100).each[0]
    found = spread(DIGITS, draw, design(0.9, 8.0), dense())
    ends = [energy(file.with_values(dram__access=x), design(0.9, 8.0), dense()) for x in (4.0, 40.0)]
    # Even in [4, 40] and stratified: quantile q lies within a stratum of 4 + 36 q.
    for q in (0.05, 0.5, 0.95):
        line = ends[0] + q * (ends[1] - ends[0])
        assert np.quantile(found.energy_pj, q) == pytest.approx(line, abs=(ends[1] - ends[0]) / 100)
    on_line = ends[0] + (draw.values["dram.access"] - 4) / 36 * (ends[1] - ends[0])
    np.testing.assert_allclose(found.energy_pj, on_line, rtol=1e-9)
    (one,) = influences(draw.values, found.energy_pj)
    assert one.correlation == pytest.approx(1.0) and one.path == "dram.access"
    assert one.low == pytest.approx(ends[0] + 0.1 * (ends[1] - ends[0]), rel=1e-2)  # middle of the lowest fifth
    assert found.stated_pj == pytest.approx(energy(file, design(0.9, 8.0), dense()), rel=1e-9)
    assert np.ptp(found.latency_ns) == 0 and found.slowed == 0
    np.testing.assert_allclose(found.tops_per_w, 2 * DIGITS.macs / found.energy_pj)


def test_a_ranking_flips_at_the_value_where_two_lines_cross():
    file = with_intervals(dram__access=(4.0, 40.0))
    draw = draw_machines([file], 100).each[0]
    # Narrow words against wide ones, which cost more for each pJ a DRAM bit takes. A fixed cost on the narrow ones
    # puts the crossing of the two lines at 13 pJ/bit, a quarter of the way from 4 to 40.
    narrow, wide = design(1.03, 8.0), design(0.75, 16.0)

    def line(made):
        at_0, at_1 = (energy(file.with_values(dram__access=x), made, dense()) for x in (0.0, 1.0))
        return at_0, at_1 - at_0

    one, two = (spread(DIGITS, draw, made, dense()) for made in (narrow, wide))
    (a0, a1), (b0, b1) = line(narrow), line(wide)
    offset = (b0 + 13.0 * b1) - (a0 + 13.0 * a1)
    assert b1 > a1
    found = ranking(one.energy_pj + offset, two.energy_pj, (one.stated_pj + offset, two.stated_pj))
    assert found.share == pytest.approx(0.75, abs=1 / 100 + 1e-9)
    np.testing.assert_array_equal(one.energy_pj + offset < two.energy_pj, draw.values["dram.access"] > 13.0)
    assert found.stated and found.agreeing == found.share  # 20.3 pJ/bit as stated
    turned = ranking(two.energy_pj, one.energy_pj + offset, (two.stated_pj, one.stated_pj + offset))
    assert not turned.stated and turned.agreeing == found.agreeing


def test_the_supply_follows_the_drawn_law_and_the_clock_falls_only_at_the_ceiling():
    stated, made = ENVISION.machine, design(0.9, 8.0, 0.2)
    same = design_on(stated, made, stated)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(made), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    slower = ENVISION.with_values(supply__path_share=0.5).machine
    moved = design_on(slower, made, stated)

    def needed(share):  # V with (V - 0.588)^1.5 / V = path * (1.03 - 0.588)^1.5 / 1.03, by bisection
        wanted = (1 - share * 0.5) * 0.442**1.5 / 1.03
        low, high = 0.588, 2.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if (middle - 0.588) ** 1.5 / middle < wanted else (low, middle)
        return high

    np.testing.assert_allclose(moved.supply_v, 0.9 * needed(0.5) / needed(0.7443), rtol=1e-6)
    np.testing.assert_allclose(moved.freq_ghz, 0.2)
    weak = ENVISION.with_values(supply__path_share=0.0).machine
    fast = design(1.03, 8.0, 0.25)  # a path of 0.628 allows 0.318 GHz at 1.03 V; a full path 0.2
    slowed = design_on(weak, fast, stated)
    np.testing.assert_allclose(slowed.supply_v, 1.03)
    np.testing.assert_allclose(slowed.freq_ghz, 0.2, rtol=1e-5)


def test_an_assumption_that_two_files_share_is_drawn_once_and_others_apart():
    sized = load_machine_file("dvafs_sized")
    both = draw_machines([ENVISION, sized], 20)
    a, b = (draw.values for draw in both.each)
    assert set(both.shared) == set(drawn_numbers(ENVISION))
    for path in both.shared:
        np.testing.assert_array_equal(a[path], b[path])
    one, two = with_intervals(dram__access=(4.0, 40.0)), with_intervals(dram__access=(4.0, 30.0))
    apart = draw_machines([one, two], 20)
    assert apart.shared == ()
    x, y = (draw.values["dram.access"] for draw in apart.each)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.9 and y.max() <= 30.0


def test_intervals_that_exclude_each_other_are_named():
    file = with_intervals(reference__shares__sram=(0.15, 0.99), reference__shares__control=(0.0563, 0.0565))
    with pytest.raises(ValueError, match="draws keep the rules of the schema; narrow the intervals"):
        draw_machines([file], 5)


def test_equal_ranks_share_their_mean_and_a_constant_has_no_influence():
    values = {"up": np.array([1.0, 2.0, 3.0, 4.0]), "still": np.ones(4), "down": np.array([4.0, 3.0, 3.0, 1.0])}
    found = {one.path: one.correlation for one in influences(values, np.array([1.0, 2.0, 2.0, 9.0]))}
    assert found["still"] == 0.0
    # Ranks 0 1 2 3 against 0 1.5 1.5 3: covariance 4.5, variances 5 and 4.5.
    assert found["up"] == pytest.approx(4.5 / (5 * 4.5) ** 0.5)
    assert found["down"] == pytest.approx(-1.0)


def test_a_file_in_other_units_is_the_same_machine():
    other = in_other_units(ENVISION)
    assert other.numbers["dram.access"].unit == "fJ/bit" and other.numbers["dram.access"].stated == 20312.5
    for path, q in ENVISION.numbers.items():
        assert other.numbers[path].value == pytest.approx(q.value, rel=1e-12)
        if q.interval:
            assert other.numbers[path].interval == pytest.approx(q.interval, rel=1e-12)


@pytest.mark.parametrize("name", machine_names())
def test_every_machine_of_the_package_can_be_drawn_and_states_one_number_once(name):
    file = load_machine_file(name)
    drawn = draw_machines([file], 8, seed=1).each[0]
    numbers = file.numbers
    for twin, path in (
        ("buffer.min_size", "buffer.size"), ("mechanisms.error_prone_supply.floor_v", "supply.floor_v"),
    ):  # fmt: skip
        if twin in drawn.values and numbers[twin].interval == numbers[path].interval:
            np.testing.assert_array_equal(drawn.values[twin], drawn.values[path])
    for path, values in drawn.values.items():
        low, high = numbers[path].interval
        assert np.all((values >= low - 1e-9) & (values <= high + 1e-9)), path
        if path == "mechanisms.analog_array.adc":
            assert set(values) <= {8.0, 9.0}
