"""Machine files that switch these mechanisms on: priced, differentiable, legal, bounded; faults by their field."""

import dataclasses
import functools
import importlib.resources
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.compile import compiled_once
from cooptim.cost.bound import energy_bound_pj
from cooptim.cost.evaluate import evaluate
from cooptim.design.legal import snap, violations
from cooptim.design.space import DesignSpace
from cooptim.hardware.load import MachineError, load_machine_file
from cooptim.hardware.mechanisms.error_prone_supply import replay_share
from cooptim.mapping.frontier import tilings
from cooptim.network.stats import Stats
from tests.cost.cases import DIGITS
from tests.hardware.mechanisms.files import choice, number, with_mechanisms

NAMES = ("cnvlutin", "dnn_engine", "dnpu", "dvas_40nm", "eie", "isaac", "rd_sec", "simd_40nm", "yodann", "zena")
ILLUSTRATIVE = {"cnvlutin", "dnn_engine", "dnpu", "eie", "isaac", "rd_sec", "zena"}


def text_of(name):
    return (importlib.resources.files("cooptim.hardware") / "machines" / f"{name}.yaml").read_text()


@functools.cache
def space_of(name):
    """The digits' layers on a machine."""
    machine = load_machine_file(name).machine
    return DesignSpace(DIGITS, machine, tilings(DIGITS, machine, most=2), (False,) * 3)


@functools.cache
def legal(name):
    """A legal design from weights of four bits and inputs of six, at the nominal supply."""
    space = space_of(name)
    start = jax.tree.map(jnp.asarray, space.init(jnp.ones(3), jnp.ones(3), 4.0, 6.0))
    return compiled_once(lambda knobs: snap(space, space.decode(knobs, 0.05)))(start)


FIELDS = ("weight_bits", "input_bits", "supply_v")


@functools.cache
def pricer(name):
    """(widths, supplies, densities) to ((total energy, report), gradients), compiled once a machine."""
    space, design = space_of(name), legal(name)

    def energy(bits_w, bits_i, volts, density_w, density_i):
        own = dataclasses.replace(design, **dict(zip(FIELDS, (bits_w, bits_i, volts), strict=True)))
        stats = Stats(density_w, density_i)
        found = evaluate(DIGITS, space.machine, own, stats, period_ns=1e8, tilings=space.tilings)
        return found.total_energy_pj, found

    return compiled_once(jax.value_and_grad(energy, argnums=tuple(range(5)), has_aux=True))


def priced(name, density=0.7, **changes):
    """(report, gradients) of the legal design with some of its fields changed."""
    at = [jnp.asarray(changes.get(field, getattr(legal(name), field))) for field in FIELDS]
    (_, found), slopes = pricer(name)(*at, jnp.full(3, density), jnp.full(3, density))
    return found, slopes


@pytest.mark.parametrize("name", NAMES)
def test_a_legal_design_exists_and_costs_a_finite_amount(name):
    design, file = legal(name), load_machine_file(name)
    assert violations(space_of(name), design) == []
    found, _ = priced(name)
    for part, energy in found.energy_pj.items():
        still = (name == "isaac" and part == "sram_w") or part.startswith("dram")  # weights stay in their cells
        assert np.all(np.isfinite(energy)) and np.all(np.asarray(energy) >= 0), part
        assert still or np.all(np.asarray(energy) > 0), part
    assert 0 < float(found.total_latency_ns) < np.inf and 0 < float(found.total_energy_pj) < np.inf
    assert file.spec.illustrative == (name in ILLUSTRATIVE)
    assert [path for path, q in file.numbers.items() if q.assumed and q.interval is None] == []


@pytest.mark.parametrize("name", ["eie", "gemmini", "isaac", "rd_sec", "yodann"])
def test_no_design_is_cheaper_than_the_bound(name):
    bound = energy_bound_pj(DIGITS, space_of(name).machine, 1e8, tilings=space_of(name).tilings)
    for density in (0.2, 1.0):
        assert bound.bound_pj <= float(priced(name, density)[0].total_energy_pj)


@pytest.mark.parametrize("name", NAMES)
def test_energy_has_a_gradient_in_every_choice_that_the_chip_has(name):
    _, slopes = priced(name)
    live = {"cnvlutin": "I", "dvas_40nm": "WI", "dnn_engine": "I", "eie": "WI", "zena": "WI"}.get(
        name, ""
    )  # gated or skipped
    dead = (False, False, False, "W" not in live, "I" not in live)
    for field, slope, still in zip((*FIELDS, "zeros of W", "zeros of I"), slopes, dead, strict=True):
        assert np.all(np.asarray(slope) == 0 if still else np.isfinite(slope) & (np.asarray(slope) != 0)), (
            field,
            slope,
        )


def test_the_price_of_a_mechanism_is_its_factor(tmp_path):
    """Serial MACs at the rate of parallel ones: the datapath's energy in proportion to the weights' bits, times 3.3."""
    one = ("lanes: {value: [1, 2, 4]", "lanes: {value: [1]")
    fields = {"operand": choice("W"), "digit": number(1, "bit"), "units": number(16), "energy_ratio": number(3.3)}
    flat = ("gating_exponent: {value: 1.8219280948873623", "gating_exponent: {value: 0")
    span = ('[1.6, 2.0], assumed: false, source: "log 12.5', '[0, 2.0], assumed: false, source: "log 12.5')
    idle = ("idle_share: {value: 0.1", "idle_share: {value: 0")
    plain, serial = (
        load_machine_file(with_mechanisms(folder, sections, one, flat, span, idle)).machine
        for folder, sections in ((_folder(tmp_path, "a"), {"zero_gating": {"operands": choice("both")}}),
                                 (_folder(tmp_path, "b"), {"bit_serial": fields}))
    )  # fmt: skip
    table = tilings(DIGITS, plain, most=2)
    space = DesignSpace(DIGITS, plain, table, (False,) * 3)
    design = snap(space, space.decode(space.init(jnp.ones(3), jnp.ones(3), 4.0, 6.0), 0.05))
    stats = Stats(jnp.ones(3), jnp.ones(3))
    base, found = (evaluate(DIGITS, machine, design, stats, tilings=table) for machine in (plain, serial))
    np.testing.assert_allclose(found.cycles, base.cycles * 4 / 16, rtol=1e-12)
    np.testing.assert_allclose(found.energy_pj["datapath"], base.energy_pj["datapath"] * 3.3 * 4 / 16, rtol=1e-12)
    np.testing.assert_allclose(found.energy_pj["control"], base.energy_pj["control"] * 4 / 16, rtol=1e-12)
    np.testing.assert_allclose(found.energy_pj["sram_i"], base.energy_pj["sram_i"], rtol=1e-12)


def test_replays_add_their_share_of_cycles_and_lanes():
    space, design = space_of("rd_sec"), dataclasses.replace(legal("rd_sec"), supply_v=jnp.array([0.46, 0.5, 0.55]))
    machine, stats = space.machine, Stats(jnp.ones(3), jnp.ones(3))
    chip = machine.mechanisms.error_prone_supply
    none = dataclasses.replace(machine.mechanisms, error_prone_supply=None)
    bare = dataclasses.replace(machine, mechanisms=none)
    base, found = (evaluate(DIGITS, m, design, stats, tilings=space.tilings) for m in (bare, machine))
    more = 1 + np.asarray(replay_share(chip, design.supply_v))
    assert np.all(more > 1.0001) and np.all(np.diff(more) < 0)
    np.testing.assert_allclose(found.cycles, base.cycles * more, rtol=1e-12)
    for part in ("datapath", "control"):
        np.testing.assert_allclose(found.energy_pj[part], base.energy_pj[part] * more, rtol=1e-9)


@pytest.mark.parametrize(("name", "lanes"), [("cnvlutin", 16), ("zena", 12)])
def test_lanes_skip_zeros_and_wait_for_the_slowest(name, lanes):
    """The mean largest of `lanes` counts of 144 words, each non-zero by chance, over 144; dense data gain nothing."""
    space, design = space_of(name), legal(name)
    bare = dataclasses.replace(space.machine, mechanisms=type(space.machine.mechanisms)())

    def cycles(machine, w, i):
        return np.asarray(
            evaluate(DIGITS, machine, design, Stats(jnp.full(3, w), jnp.full(3, i)), tilings=space.tilings).cycles
        )

    def slowest(chance):
        counts = [math.comb(144, k) * chance**k * (1 - chance) ** (144 - k) for k in range(145)]
        return np.diff(np.cumsum(counts) ** lanes, prepend=0.0) @ np.arange(145) / 144

    dense = cycles(bare, 1.0, 1.0)
    np.testing.assert_allclose(cycles(space.machine, 1.0, 1.0), dense, rtol=1e-5)
    np.testing.assert_allclose(cycles(space.machine, 1.0, 0.5) / dense, slowest(0.5), rtol=1e-5)
    assert 0.5 < slowest(0.5) < 0.6  # more than half of the cycles: lanes wait
    both = slowest(0.25) if name == "zena" else slowest(0.5)  # zeros of weights take cycles in Cnvlutin
    np.testing.assert_allclose(cycles(space.machine, 0.5, 0.5) / dense, both, rtol=1e-5)


def test_weights_of_one_bit_take_a_twelfth_of_the_words():
    design = legal("yodann")
    assert design.weight_bits.tolist() == [1.0, 1.0, 1.0] and design.threshold.tolist() == [0.0, 0.0, 0.0]
    twelve = jnp.full(3, 12.0)
    (one, _), (wide, _) = priced("yodann"), priced("yodann", weight_bits=twelve)
    np.testing.assert_allclose(one.energy_pj["sram_w"] * 12, wide.energy_pj["sram_w"], rtol=1e-9)
    found = violations(space_of("yodann"), dataclasses.replace(design, weight_bits=twelve))
    assert "conv1: weight width 12 b is not 1, as yodann asks" in found


# (machine, line of its file, value there, value instead, what the message holds)
FAULTS = [
    ("dnpu", "    table_width:", "16", "8",
     ".lut_multiplier.table_width: tables of 8 bit for operands of up to 16 bit (datapath.width); legal: 16 to 64"),
    ("dnpu", "    saving_4b:", "41", "37", None),
    ("isaac", "    adc:", "8", "7",
     ".analog_array.adc: 7 bit, too coarse for a column of 128 rows, 2 bit a cell and 1 bit a read, encoded; "
     "legal: 8 to 24; take a finer ADC, or fewer rows, cell or DAC bits"),
    ("isaac", "    cols:", "128", "7",
     ".analog_array.cols: 7 columns, and a weight of 16 bit takes 8 of 2 bit; legal: 8 or more"),
    ("isaac", "  lanes:", "[1]", "[1, 2]",
     ".analog_array: subwords (datapath.lanes [1, 2]) in a crossbar; legal: datapath.lanes [1]"),
    ("yodann", "  lanes:", "[1]", "[1, 3]",
     ".binary_weights: subwords (datapath.lanes [1, 3]) in an adder; legal: datapath.lanes [1]"),
    ("rd_sec", "    floor_v:", "0.45", "0.48",
     ".error_prone_supply.floor_v: 0.48 V, and supply.floor_v lets layers run at 0.45 V; legal: a supply.floor_v of "
     "0.48 V or more; raise it"),
    ("dnn_engine", "    tolerated_rate:", "0.1", "0.01",
     ".error_prone_supply.tolerated_rate: 0.01, and at supply.floor_v = 0.65 V 0.0952 of the results are wrong; legal: "
     "a supply.floor_v of 0.6999 V or more, or a tolerated_rate of 0.0952 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "old", "new", "message"), FAULTS)
def test_a_fault_is_named_with_its_field_the_legal_set_and_the_remedy(tmp_path, name, field, old, new, message):
    lines = text_of(name).splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(field)]
    assert f"{{value: {old}," in lines[at]
    cut = re.sub(r" interval: \[[^]]*\],", "", lines[at])  # a value outside its interval is another fault
    lines[at] = cut.replace(f"{{value: {old},", f"{{value: {new},")
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    if message is None:
        load_machine_file(tmp_path / "mine.yaml")  # the change by itself is no fault
        return
    with pytest.raises(MachineError) as caught:
        load_machine_file(tmp_path / "mine.yaml")
    assert f"mechanisms{message}" in str(caught.value)


def test_savings_that_grow_with_the_width_are_refused(tmp_path):
    text = text_of("dnpu")
    (line,) = [line for line in text.splitlines() if line.startswith("    saving_8b:")]
    changed = re.sub(r" interval: \[[^]]*\],", "", line).replace("value: 27.2", "value: 45")
    (tmp_path / "mine.yaml").write_text(text.replace(line, changed))
    with pytest.raises(
        MachineError, match=r"mechanisms.lut_multiplier.*53.6 %, 41 %, 45 %, 23.1 % .*legal: none above"
    ):
        load_machine_file(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("first", "second"),
    [("dnpu", "yodann"), ("isaac", "yodann"), ("dnpu", "isaac")],
)
def test_two_multipliers_exclude_each_other(tmp_path, first, second):
    sections = []
    for name in (first, second):
        lines = text_of(name).split("mechanisms:\n")[1].splitlines(keepends=True)
        start = next(i for i, line in enumerate(lines) if not line.startswith("    ") and "zero_gating" not in line)
        stop = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith("    ")), len(lines))
        sections.append("".join(lines[start:stop]))
    text = text_of(first).split("mechanisms:\n")[0] + "mechanisms:\n" + "".join(sections)
    (tmp_path / "both.yaml").write_text(text)
    names = [section.strip().split(":")[0] for section in sections]
    with pytest.raises(MachineError) as caught:
        load_machine_file(tmp_path / "both.yaml")
    assert all(name in str(caught.value) for name in names) and "legal: one of them" in str(caught.value)


def _folder(path, name):
    (path / name).mkdir()
    return path / name
