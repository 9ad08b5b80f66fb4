"""The priced chip is the published one: components add up to 300 mW and the DVAFS ratios survive `evaluate`."""

import numpy as np
import pytest

from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import COMPONENTS
from cooptim.hardware import load_machine_file
from cooptim.hardware.dvafs import critical_path, supply_for_clock
from cooptim.hardware.reference import PUBLISHED
from cooptim.mapping.tilings import Tilings
from cooptim.workload import Bounds, Layer, Workload
from tests.cost.cases import design_of

import jax.numpy as jnp  # isort: skip

FILE = load_machine_file("envision")
MACHINE = FILE.machine
LAYER = Layer("ref", "conv", Bounds(K=16, C=32, OX=64, FY=3, FX=3))
BUSY = 76 / 102.4


def _by_hand(lanes):
    """Counts of the reference layer in one mode by hand: cycles, and W, I and O words.

    288 cycles a pass of 16 x 16 N outputs, 4/N passes; 16 weights a cycle; 16 N + 2 pixels, N a word, for 3 taps of
    each of 32 x 3 channel rows; 1024 outputs, N a word. The lanes are idle in the other 26 % of the cycles.
    """
    passes = 4 // lanes
    return 288 * passes / BUSY, 16 * 288 * passes, passes * 96 * (16 * lanes + 2) / lanes, 1024 / lanes


def _price(mode, bits, freq, volts):
    counts = np.array([_by_hand(m.lanes) for m in MACHINE.modes])  # [mode, count]
    none, by_mode = np.zeros((1, 1)), counts.T[:, None, None, :]
    table = Tilings(
        np.ones((1, 1)), none, none, none, none, none, none, none, by_mode[0], by_mode[1], by_mode[2], by_mode[3],
        0 * by_mode[0], np.zeros((1, 1, 5), int),
    )  # fmt: skip
    one = jnp.ones(1)
    shares = jnp.eye(3)[mode][None]
    design = design_of(
        MACHINE, shares, one[:, None], bits * one, bits * one, volts * one, freq * one, MACHINE.buffer.size_bits
    )
    return evaluate(Workload("reference", (LAYER,)), MACHINE, design, tilings=table)


def test_on_chip_components_add_up_to_the_published_power():
    report = _price(0, 16.0, 0.2, 1.03)
    power = {name: float(report.energy_pj[name][0] / report.latency_ns[0]) for name in COMPONENTS}
    assert sum(power.values()) == pytest.approx(300, rel=1e-6)
    assert 1 / float(report.latency_ns[0]) * LAYER.macs * 2 == pytest.approx(76)  # GOPS
    # the machine file's split: 0.6436, 0.29, 0.0564 and 0.01 of 300 mW
    assert power["datapath"] == pytest.approx(193.08)
    assert power["sram_w"] + power["sram_i"] + power["sram_o"] == pytest.approx(87)
    assert power["sram_w"] / power["sram_i"] == pytest.approx(16 / 6)
    assert power["control"] == pytest.approx(16.92) and power["leakage"] == pytest.approx(3)
    assert power["dram_w"] + power["dram_i"] + power["dram_o"] == 0


def test_the_published_ratios_hold_through_evaluate_within_five_percent():
    s = MACHINE.supply
    path = critical_path(s, 16, jnp.array(4.0))
    fast, slow = (supply_for_clock(s, jnp.array(f), path) for f in (0.2, 0.05))

    def power(*point):
        report = _price(*point)
        return float(report.total_energy_pj / report.total_latency_ns)

    dvafs = power(2, 4.0, 0.05, slow)
    ratios = {
        "dvafs_over_16b": power(0, 16.0, 0.2, s.nominal_v) / dvafs,
        "dvafs_over_das": power(0, 4.0, 0.2, s.nominal_v) / dvafs,
        "dvafs_over_dvas": power(0, 4.0, 0.2, fast) / dvafs,
        "dvafs_200_over_50_mhz": power(2, 4.0, 0.2, fast) / dvafs,
    }
    assert ratios == pytest.approx(PUBLISHED, rel=0.05)


def test_utilization_is_the_busy_fraction():
    assert float(_price(0, 16.0, 0.2, 1.03).utilization[0]) == pytest.approx(BUSY)
