"""Two rails, body bias and the sections of a file that ask for them, by hand arithmetic."""

import dataclasses
import importlib.resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.hardware import BodyBias, MachineError, dvafs, load_machine, load_machine_file
from cooptim.hardware.body_bias import at_body_bias, leakage_factor, threshold_at_bias

ENVISION = load_machine("envision")
S, SIZE = ENVISION.supply, ENVISION.buffer.size_bits
V = jnp.linspace(0.6, 1.03, 30)
TEXT = (importlib.resources.files("cooptim.hardware") / "machines" / "envision.yaml").read_text()
RAILS = """\
  fixed_v: {value: 0.9, unit: V, interval: [0.8, 1.1], assumed: true, source: test}
  fixed_leakage_share: {value: 0.4, unit: "1", interval: [0, 1], assumed: true, source: test}
"""
BIAS = """
body_bias:
  bias: {value: 0.5, unit: V, interval: [0, 1.3], assumed: true, source: test}
  min_bias: {value: 0, unit: V, interval: [-0.3, 0], assumed: true, source: test}
  max_bias: {value: 1.3, unit: V, interval: [1, 2], assumed: true, source: test}
  shift: {value: 0.085, unit: "1", interval: [0.06, 0.1], assumed: true, source: "FDSOI, recalled, not verified"}
  swing: {value: 90, unit: mV, interval: [70, 120], assumed: true, source: test}
"""
SWITCHING = """
switching:
  rail: {value: 2, unit: nF, interval: [0.1, 100], assumed: true, source: test}
  mode_settle: {value: 0.05, unit: us, interval: [0, 1], assumed: true, source: test}
  step_settle: {value: 20, unit: ns, interval: [0, 1000], assumed: true, source: test}
"""


def _file(tmp_path, *, supply="", more=""):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace("\nbuffer:\n", supply + "\nbuffer:\n") + more)
    return path


def _rails(**fields):
    supply = dataclasses.replace(S, **{name: jnp.asarray(value) for name, value in fields.items()})
    return dataclasses.replace(ENVISION, supply=supply)


def test_one_rail_gives_the_same_numbers_to_the_last_bit_however_it_is_written():
    for share in (0.0, 0.2):
        plain = _rails(fixed_share=share)
        spelled = _rails(fixed_share=share, fixed_v=1.03, fixed_leakage_share=0.0)
        for law in (
            lambda m: dvafs.dynamic_scale(m.supply, V),
            lambda m: dvafs.leakage_mw(m, V, SIZE),
            lambda m: dvafs.max_clock_ghz(m.supply, V, 0.7),
            lambda m: dvafs.standby_mw(m, SIZE),
        ):
            np.testing.assert_array_equal(law(plain), law(spelled))
    # ... and those of one rail as they have always been: C V^2, and a power law of the supply.
    np.testing.assert_array_equal(dvafs.dynamic_scale(S, V), (V / S.nominal_v) ** 2)
    np.testing.assert_array_equal(dvafs.standby_mw(ENVISION, SIZE), dvafs.leakage_mw(ENVISION, S.retention_v, SIZE))


def test_each_rail_has_its_own_supply_and_its_share_of_switching_and_leakage():
    two = _rails(fixed_share=0.3, fixed_v=0.9, fixed_leakage_share=0.4)
    scale = dvafs.dynamic_scale(two.supply, jnp.array(0.7))
    assert float(scale) == pytest.approx(0.7 * (0.7 / 1.03) ** 2 + 0.3 * (0.9 / 1.03) ** 2)
    leak = dvafs.leakage_mw(two, jnp.array(0.7), SIZE)  # 1 % of 300 mW, cubes of the supplies
    assert float(leak) == pytest.approx(3.0 * (0.6 * (0.7 / 1.03) ** 3 + 0.4 * (0.9 / 1.03) ** 3))
    assert float(dvafs.standby_mw(two, SIZE)) == pytest.approx(3.0 * (0.59 / 1.03) ** 3)  # both at retention
    assert float(dvafs.standby_mw(_rails(fixed_leakage_share=0.4, retention_v=0.0), SIZE)) == 0.0
    assert float(dvafs.leakage_mw(_rails(fixed_leakage_share=0.4), jnp.array(0.0), SIZE)) == pytest.approx(1.2)


def test_the_fixed_rail_bounds_no_clock_and_moves_energy_and_leakage():
    def of(fixed_v):
        machine = _rails(fixed_share=0.3, fixed_leakage_share=0.4)
        machine = dataclasses.replace(machine, supply=dataclasses.replace(machine.supply, fixed_v=fixed_v))
        clock = dvafs.max_clock_ghz(machine.supply, 0.8, 0.7)
        volts = dvafs.supply_for_clock(machine.supply, 0.1, 0.7)
        return jnp.stack([clock, volts, dvafs.dynamic_scale(machine.supply, 0.8), dvafs.leakage_mw(machine, 0.8, SIZE)])

    slope = jax.jacfwd(of)(jnp.array(0.9))
    # d/dV of 0.3 (V/1.03)^2 and of 0.4 * 3 mW (V/1.03)^3
    by_hand = [0.0, 0.0, 0.6 * 0.9 / 1.03**2, 1.2 * 3 * 0.9**2 / 1.03**3]
    np.testing.assert_allclose(slope, by_hand, rtol=1e-12)


BIASED = dataclasses.replace(
    ENVISION, supply=dataclasses.replace(S, body=BodyBias(*map(jnp.asarray, (0.0, 0.0, 1.3, 0.085, 0.09))))
)


def test_forward_bias_lowers_the_threshold_and_speeds_and_leaks_by_hand():
    assert float(threshold_at_bias(BIASED.supply, 1.0)) == pytest.approx(0.588 - 0.085)
    assert float(leakage_factor(BIASED.supply, 1.0)) == pytest.approx(10 ** (0.085 / 0.09))
    fast = at_body_bias(BIASED, 1.0)

    def speed(volts, threshold):
        return (volts - threshold) ** 1.5 / volts

    for volts in (0.7, 1.03):
        gain = speed(volts, 0.503) / speed(volts, 0.588)
        found = dvafs.max_clock_ghz(fast.supply, volts, 1.0) / dvafs.max_clock_ghz(BIASED.supply, volts, 1.0)
        assert float(found) == pytest.approx(gain)
    leak = dvafs.leakage_mw(fast, 0.7, SIZE) / dvafs.leakage_mw(BIASED, 0.7, SIZE)
    assert float(leak) == pytest.approx(10 ** (0.085 / 0.09))
    assert float(dvafs.supply_for_clock(fast.supply, 0.1, 1.0)) < float(dvafs.supply_for_clock(S, 0.1, 1.0))


def test_biases_add_up_and_none_changes_no_bit():
    same = at_body_bias(BIASED, 0.0)
    for old, new in zip(jax.tree.leaves(BIASED), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(old, new)
    twice, once = at_body_bias(at_body_bias(BIASED, 0.4), 1.0), at_body_bias(BIASED, 1.0)
    for old, new in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-12)


def test_clock_and_leakage_have_the_gradient_of_finite_differences_in_the_bias():
    def of(bias_v):
        machine = at_body_bias(BIASED, bias_v)
        return jnp.stack([
            dvafs.max_clock_ghz(machine.supply, 0.75, 0.7), dvafs.supply_for_clock(machine.supply, 0.15, 0.7),
            dvafs.leakage_mw(machine, 0.75, SIZE),
        ])  # fmt: skip

    for bias in (0.1, 0.6, 1.2):
        numeric = (of(bias + 1e-5) - of(bias - 1e-5)) / 2e-5
        np.testing.assert_allclose(jax.jacrev(of)(jnp.array(bias)), numeric, rtol=1e-6)


def test_biases_that_cannot_be_are_named_with_the_range():
    with pytest.raises(
        ValueError, match=r"envision: body bias 1\.5 V; legal: body_bias\.min_bias 0 to .* 1\.3 V; stay"
    ):
        at_body_bias(BIASED, 1.5)
    with pytest.raises(ValueError, match="envision has no body bias; add a section body_bias"):
        at_body_bias(ENVISION, 0.1)
    deep = dataclasses.replace(BIASED.supply.body, min_v=jnp.array(-2.0))
    reverse = dataclasses.replace(BIASED, supply=dataclasses.replace(BIASED.supply, body=deep))
    with pytest.raises(ValueError, match=r"bias of -1 V the threshold is 0\.673 V; legal: below supply\.floor_v 0\.59"):
        at_body_bias(reverse, -1.0)


def test_a_file_may_have_rails_bias_and_switching_and_envision_has_none(tmp_path):
    file = load_machine_file(_file(tmp_path, supply=RAILS, more=BIAS + SWITCHING))
    machine = file.machine
    assert (float(machine.supply.fixed_v), float(machine.supply.fixed_leakage_share)) == (0.9, 0.4)
    assert [float(x) for x in dataclasses.astuple(machine.switching)] == pytest.approx([2000.0, 50.0, 20.0])
    # at 0.5 V of bias
    assert float(machine.supply.threshold_v) == pytest.approx(0.588 - 0.0425)
    assert float(machine.supply.leakage_mw) == pytest.approx(3.0 * 10 ** (0.0425 / 0.09))
    assert {"supply.fixed_v", "body_bias.shift", "switching.rail"} <= set(file.numbers)
    swept = file.with_values(body_bias__bias=0.0, switching__rail=0.0).machine
    assert float(swept.supply.threshold_v) == pytest.approx(0.588) and float(swept.switching.rail_pf) == 0.0
    bare = ENVISION.supply
    assert (ENVISION.switching, bare.body, bare.fixed_v, bare.fixed_leakage_share) == (None,) * 4


FAULTS = {
    "a fixed rail below its threshold": (
        RAILS.replace("0.9", "0.5").replace("[0.8", "[0.4"), "", r"supply: found fixed_v 0\.5; legal: above thr",
    ),
    "a share above all": (
        RAILS.replace("value: 0.4", "value: 1.4"), "", r"supply\.fixed_leakage_share: found 1\.4 1; .* at most 1",
    ),
    "a bias outside its range": ("", BIAS.replace("value: 0.5", "value: 1.31").replace("1.3]", "1.5]"),
        r"body_bias: found min_bias 0, bias 1\.31, max_bias 1\.3 V; legal: min <= bias <= max"),
    "a threshold that rises to the floor": ("", BIAS.replace("min_bias: {value: 0,", "min_bias: {value: -0.2,"),
        r"body_bias\.min_bias -0\.2 V lifts the threshold to 0\.605 V; legal: below supply\.floor_v 0\.59 V: raise"),
    "a rail in volts": ("", SWITCHING.replace("nF", "V"), r"switching\.rail: found unit 'V'.* legal: fF, pF, nF, uF"),
    "a time below zero": ("", SWITCHING.replace("value: 20", "value: -20").replace("[0, 1000]", "[-20, 0]"),
        r"switching\.step_settle: found -20 ns; legal: a finite number at least 0"),
    "half a section": ("", SWITCHING[: SWITCHING.index("  step")], r"switching\.step_settle: missing; add it"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_path_and_what_is_legal(tmp_path, fault):
    supply, more, message = FAULTS[fault]
    with pytest.raises(MachineError, match=message):
        load_machine_file(_file(tmp_path, supply=supply, more=more))
