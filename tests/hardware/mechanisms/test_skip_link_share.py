"""Skipping, link codes and shared weights by hand arithmetic, their gradients by differences, and inside `evaluate`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.bound import energy_bound_pj
from cooptim.cost.evaluate import evaluate
from cooptim.design.legal import snap, violations
from cooptim.design.space import DesignSpace
from cooptim.hardware import MachineError, load_machine
from cooptim.hardware.load_imbalance import queued_cycles
from cooptim.hardware.mechanisms import array_bits, held_bits, layer_effect, most_bits
from cooptim.hardware.mechanisms.link import code_bits
from cooptim.hardware.mechanisms.link import effect as link_effect
from cooptim.hardware.mechanisms.shared_weights import effect as share_effect
from cooptim.hardware.mechanisms.zero_skipping import effect as skip_effect
from cooptim.mapping.frontier import tilings
from tests.cost.cases import DIGITS, as_design, random_choice
from tests.hardware.mechanisms.files import choice, number, with_mechanisms
from tests.hardware.mechanisms.points import point

RAW = ("coded: {value: true", "coded: {value: false")
SKIP_I = {
    "operands": choice("I"),
    "common": choice("none"),
    "lanes": number(2),
    "words": number(2),
    "offset": number(4, "bit"),
}
SKIP_EIE = {
    "operands": choice("both"),
    "common": choice("I"),
    "lanes": number(64),
    "queue": number(2),
    "offset": number(0, "bit"),
}
COLUMNS = {
    "weights": choice("columns"), "inputs": choice("raw"), "run": number(4, "bit"), "pointer": number(16, "bit"),
    "stored": choice("W"),
}  # fmt: skip
MASK = {"weights": choice("zero_flag"), "inputs": choice("bitmask"), "stored": choice("none")}
SHARE = {"index": number(4, "bit"), "decoded": number(16, "bit"), "lookup": number(0.5, "pJ")}
ALL = {"zero_skipping": SKIP_EIE, "link": COLUMNS, "shared_weights": SHARE}


def machine_with(folder, sections):
    return load_machine(with_mechanisms(folder, sections, *([RAW] if "link" in sections else [])))


def test_lanes_that_skip_inputs_wait_for_the_slowest(tmp_path):
    machine = machine_with(tmp_path, {"zero_skipping": SKIP_I})
    found = skip_effect(machine.mechanisms.zero_skipping, machine.datapath, point())
    # Two lanes of two words, half of them zero: the larger of two counts is 0 in 1/16, 1 in 8/16, 2 in 7/16.
    np.testing.assert_allclose(found.cycles, (8 / 16 + 2 * 7 / 16) / 2, atol=1e-6)
    np.testing.assert_allclose(found.executed, 0.5)
    np.testing.assert_allclose(found.words_i, 1 + 4 / np.array([16, 8, 4]))  # four bits of place beside a word
    # A weight serves 16, 32 or 64 pixels and is left out where all of them are zero.
    np.testing.assert_allclose(found.fetches_w, 1 - 0.5 ** np.array([16, 32, 64]))
    assert (found.zero_fetches_i, found.gated_i, found.gated_w, found.fetches_i) == (0.0, 0.0, 1.0, 1.0)


def test_common_zeros_are_skipped_without_waiting_and_lanes_queue_for_the_rest(tmp_path):
    machine = machine_with(tmp_path, {"zero_skipping": SKIP_EIE})
    found = skip_effect(machine.mechanisms.zero_skipping, machine.datapath, point())
    # 128 outputs on 64 lanes: two weights an input, both there at 1/16, and a cycle at least. In lock-step the slowest
    # takes two cycles unless no lane has both; long queues idle c^2 log2(64) / 2 over their places; here there are two.
    mean, both = 17 / 16, 1 / 16
    lock_step = (2 - (15 / 16) ** 64) / mean - 1
    long = both * (1 - both) / mean**2 * 6 / 2
    cycles = mean * (1 + 1 / (1 / lock_step + 1 / long))
    np.testing.assert_allclose(found.cycles, 0.5 * cycles / 2, rtol=1e-5)
    np.testing.assert_allclose(found.executed, 0.125)
    np.testing.assert_allclose(found.fetches_i, 16 / 128)  # once for all outputs, of which the array holds 16 at a time
    # Each lane has inputs of its own: half of the weights that are left meet a zero.
    own = dataclasses.replace(machine.mechanisms.zero_skipping, common="none")
    apart = skip_effect(own, machine.datapath, point())
    np.testing.assert_allclose(apart.cycles, queued_cycles(0.125, 64.0, 2, 2.0) / 2, rtol=1e-6)


def test_fillers_of_compressed_columns_take_a_cycle_and_a_look_up(tmp_path):
    machine = machine_with(tmp_path, ALL)
    on, path, few = machine.mechanisms, machine.datapath, jnp.array([0.05])
    at = point(bounds={"K": np.array([4096])}, weight_density=few, weight_bits=jnp.array([4.0]))
    found = layer_effect(on, path, at)
    # 64 rows a lane, fillers after 16, 32 and 48 zeros before a weight: the lanes' columns.
    entries = 0.05 * (64 + 0.95**16 * 48 + 0.95**32 * 32 + 0.95**48 * 16)
    np.testing.assert_allclose(found.cycles[0], 0.5 * queued_cycles(entries / 64, 64.0, 64, 2.0) / 64, rtol=1e-6)
    # Stored: 256 rows in each of the array's 16, so more fillers; a pair of 4 + 4 bits is half a word of 16.
    stored = 0.05 * sum(0.95 ** (16 * j) * (256 - 16 * j) for j in range(16)) / 256
    np.testing.assert_allclose(found.moved(few, "W")[0], stored / 2 + 16 * 16 / 4096 / 16, rtol=1e-6)
    # A look-up each, none for a pointer; a weight serves 16 pixels and is left out where all of their inputs are zero.
    looked_up = found.entries(few)[0] * found.entry_datapath_pj[0]
    np.testing.assert_allclose(looked_up, 0.5 * stored * (1 - 0.5**16), rtol=1e-6)
    wider = layer_effect(on, path, at._replace(weight_bits=jnp.array([3.0])))
    np.testing.assert_allclose(wider.entries(few) * wider.entry_datapath_pj, found.entries(few) * 0.5, rtol=1e-12)


def test_codes_by_hand(tmp_path):
    machine = machine_with(tmp_path, {"link": COLUMNS})
    link, path = machine.mechanisms.link, machine.datapath
    # Eight words a row, so no run of 16 zeros: a pair of 4 + 8 bits a weight; a pointer in 16 rows over 128 weights.
    weights = 12 * 0.25 + 16 * 16 / 128
    assert float(code_bits(link, path, "W", 8.0, 0.25, 128)) == pytest.approx(weights)
    assert float(code_bits(link, path, "W", 8.0, 0.25)) == pytest.approx(3.0)  # the least, without pointers and fillers
    assert float(code_bits(link, path, "I", 6.0, 0.5)) == 6.0
    stored = link_effect(link, path, point())
    np.testing.assert_allclose(stored.moved(0.25, "W"), weights / np.array([16, 8, 4]))
    np.testing.assert_allclose(stored.read(0.25, "W"), weights / np.array([16, 8, 4]))
    np.testing.assert_allclose(stored.words_w, (8 + 4) / np.array([16, 8, 4]))  # a weight and the run before it
    # Runs of one bit: a pair takes a zero before a weight or none, so half of the words begin one that spans two.
    runs = {"weights": choice("run_length"), "inputs": choice("raw"), "run": number(1, "bit"), "stored": choice("W")}
    pairs = machine_with(tmp_path, {"link": runs}).mechanisms.link
    found = link_effect(pairs, path, point(weight_density=jnp.array([0.5])))
    np.testing.assert_allclose(found.entries(0.5), 1 / 1.5)
    np.testing.assert_allclose(found.read(0.5, "W"), (8 + 1) / 1.5 / np.array([16, 8, 4]))
    mask = machine_with(tmp_path, {"link": MASK}).mechanisms.link
    assert float(code_bits(mask, path, "I", 6.0, 0.5)) == 4.0  # a flag and half of six bits
    assert float(code_bits(mask, path, "W", 8.0, 1.0)) == 8.0  # raw is shorter than 9
    assert link_effect(mask, path, point()) == type(stored)()


def test_shared_weights_are_short_in_the_buffer_and_wide_in_the_array(tmp_path):
    machine = machine_with(tmp_path, {"shared_weights": SHARE})
    on, path = machine.mechanisms, machine.datapath
    found = share_effect(on.shared_weights, path, point(weight_bits=jnp.array([3.0])))
    np.testing.assert_allclose(found.words_w, 3 / np.array([16, 8, 4]))
    np.testing.assert_allclose(found.entry_datapath_pj * found.entries(0.25), 0.5)  # one a weight, zeros too
    w, i = array_bits(on, path, np.array([3.0, 4.0]), np.array([5.0, 6.0]))
    np.testing.assert_array_equal(w, [16.0, 16.0])
    np.testing.assert_array_equal(i, [5.0, 6.0])
    assert most_bits(on, 16) == (4.0, 16.0)
    np.testing.assert_array_equal(held_bits(on, path), [[4.0, 4.0, 4.0], [16.0, 8.0, 4.0]])


def test_reports_add_up_stay_above_the_bound_and_obey_the_laws(tmp_path):
    machine = machine_with(tmp_path, ALL)
    table = tilings(DIGITS, machine)
    chosen = random_choice(DIGITS, machine, table, np.random.default_rng(2))
    base = {
        "mode": [0] * 3,
        "weight_bits": [3.0] * 3,
        "input_bits": [6.0] * 3,
        "supply_v": [0.8] * 3,
        "freq_ghz": [0.02] * 3,
    }
    base |= {"weight_density": [0.3] * 3, "input_density": [0.4] * 3}
    run = compiled_once(lambda d, s: evaluate(DIGITS, machine, d, s, period_ns=1e7))
    report = run(*as_design(machine, table, chosen | base))
    total = float(report.total_energy_pj)
    assert total == pytest.approx(sum(float(jnp.sum(x)) for x in report.energy_pj.values()) + float(report.standby_pj))
    assert np.all(np.asarray(report.utilization) <= 1 + 1e-9)
    for name, up in (
        ("weight_density", 0.4), ("input_density", 0.5), ("weight_bits", 4.0), ("input_bits", 7.0), ("supply_v", 0.9),
    ):  # fmt: skip
        other = run(*as_design(machine, table, chosen | base | {name: [up] * 3}))
        assert float(other.total_energy_pj) > total * (1 - 1e-12), name
        assert float(other.total_latency_ns) >= float(report.total_latency_ns) * (1 - 1e-12), name
    bound = energy_bound_pj(DIGITS, machine, 1e7).bound_pj
    for density in (0.0, 0.01, 1.0):
        few = chosen | base | {"weight_density": [density] * 3, "input_density": [density] * 3}
        few |= {"weight_bits": [2.0] * 3, "input_bits": [2.0] * 3, "row": [0] * 3}
        assert bound <= float(run(*as_design(machine, table, few)).total_energy_pj)


def test_the_bound_counts_look_ups_where_they_are_nearly_all(tmp_path):
    dear = SHARE | {"lookup": number(1e4, "pJ")}
    machine = machine_with(tmp_path, {"zero_gating": {"operands": choice("none")}, "shared_weights": dear})
    table = tilings(DIGITS, machine)
    cheap = random_choice(DIGITS, machine, table, np.random.default_rng(2))
    cheap |= {"weight_bits": [2.0] * 3, "input_bits": [2.0] * 3, "row": [0] * 3, "mode": [0] * 3}
    cheap |= {"weight_density": [0.0] * 3, "input_density": [0.0] * 3, "supply_v": [0.65] * 3, "freq_ghz": [0.016] * 3}
    design, stats = as_design(machine, table, cheap)
    assert violations(DesignSpace(DIGITS, machine, table, (False,) * 3), design) == []
    report = compiled_once(lambda d, s: evaluate(DIGITS, machine, d, s, period_ns=1e6))(design, stats)
    total, bound = float(report.total_energy_pj), energy_bound_pj(DIGITS, machine, 1e6).bound_pj
    assert float(jnp.sum(report.energy_pj["datapath"])) > 0.9 * total and float(report.total_latency_ns) <= 1e6
    assert 0.8 * total < bound <= total  # the bound's supply is lower


def test_slopes_in_widths_densities_supply_and_size_are_those_of_differences(tmp_path):
    machine = machine_with(tmp_path, ALL)
    table = tilings(DIGITS, machine)
    chosen = random_choice(DIGITS, machine, table, np.random.default_rng(2))
    chosen |= {"mode": [0] * 3, "freq_ghz": [0.02] * 3}
    at = {"weight_bits": 3.1, "input_bits": 6.2, "weight_density": 0.3, "input_density": 0.4, "supply_v": 0.8}

    def cost(x):
        design, stats = as_design(machine, table, chosen | {k: jnp.full(3, v) for k, v in x.items() if k != "size"})
        design = type(design)(**{**vars(design), "buffer_bits": x["size"]})
        report = evaluate(DIGITS, machine, design, stats, period_ns=1e7)
        return jnp.stack([jnp.sum(v) for v in report.energy_pj.values()] + [report.total_latency_ns])

    at = {k: jnp.asarray(v) for k, v in at.items()} | {"size": jnp.asarray(float(machine.buffer.size_bits))}
    slopes, run = compiled_once(jax.jacfwd(cost))(at), compiled_once(cost)
    backward = compiled_once(jax.jacrev(cost))(at)
    for name, value in at.items():
        step = 1e-6 * value
        apart = (run(at | {name: value + step}) - run(at | {name: value - step})) / (2 * step)
        scale = 1e-7 * run(at) / value  # a component that does not move
        np.testing.assert_allclose(slopes[name], apart, rtol=1e-4, atol=float(jnp.max(scale)), err_msg=name)
        np.testing.assert_allclose(backward[name], slopes[name], rtol=1e-9, atol=1e-9)
        assert np.any(np.asarray(slopes[name]) > 0), name


def test_widths_that_no_index_names_are_refused_and_snapped(tmp_path):
    machine = machine_with(tmp_path, ALL)
    space = DesignSpace(DIGITS, machine, tilings(DIGITS, machine), (True,) * 3)
    design = space.decode(space.init(jnp.ones(3), jnp.ones(3), 8.0, 6.0), 0.1)
    legal = snap(space, design)
    np.testing.assert_array_equal(legal.weight_bits, [4.0] * 3)
    np.testing.assert_array_equal(legal.mode, [[1.0, 0.0, 0.0]] * 3)  # entries of 16 bit fit one subword alone
    assert violations(space, legal) == []
    wide = type(legal)(**{**vars(legal), "weight_bits": legal.weight_bits + 1})
    assert "weight width 5 b is not a whole number in 2..4" in violations(space, wide)[0]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"shared_weights": SHARE | {"decoded": number(32, "bit")}}, ("shared_weights.decoded", "32 bit", "16 bit")),
        ({"shared_weights": SHARE | {"index": number(9, "bit"), "decoded": number(8, "bit")}},
         ("shared_weights.index", "9 bit", "8 bit")),
        ({"zero_skipping": SKIP_I | {"queue": number(3)}}, ("zero_skipping.words", "exactly one")),
        ({"zero_skipping": SKIP_I | {"operands": choice("W"), "common": choice("I")}}, ("zero_skipping.common",)),
        ({"zero_gating": {"operands": choice("W")}, "zero_skipping": SKIP_I},
         ("zero_skipping.operands", "zeros of I", "add I to mechanisms.zero_gating.operands")),
        ({"link": MASK | {"run": number(4, "bit")}}, ("mechanisms.link.run",)),
        ({"link": COLUMNS | {"stored": choice("both")}}, ("mechanisms.link.stored", "I is raw")),
    ],
)  # fmt: skip
def test_faults_name_the_field_what_is_legal_and_the_remedy(tmp_path, sections, said):
    with pytest.raises(MachineError) as caught:
        machine_with(tmp_path, sections)
    assert [part for part in said if part not in str(caught.value)] == [], str(caught.value)
    assert "legal" in str(caught.value) and "\n" not in str(caught.value)


def test_two_codes_of_one_link_are_refused(tmp_path):
    with pytest.raises(MachineError, match=r"mechanisms.link: given beside dram.coded true; legal: one of them"):
        load_machine(with_mechanisms(tmp_path, {"link": MASK}))
