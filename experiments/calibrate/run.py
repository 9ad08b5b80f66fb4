"""Fits of Envision to its ratios at all assumptions, and of it and the 40 nm multiplier to six rows, with profiles."""

import dataclasses
import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq, least_squares
from six_rows import Calibration, show, study  # beside this file

from cooptim.hardware import MachineFile, load_machine_file
from cooptim.hardware.circuit_file import load_multiplier
from cooptim.hardware.dvafs import critical_path, supply_for_clock
from cooptim.hardware.reference import PUBLISHED, dvafs_ratios, operating_power_mw, sparse_gain

HERE = pathlib.Path(__file__).parent
FITTED = ("reference.shares.datapath", "supply.path_share", "supply.threshold_v")
ASSUMED = (  # what the ratios depend on beside the fitted three; both ends of each interval are tried
    "reference.shares.leakage", "supply.alpha", "supply.nominal_v", "supply.floor_v", "supply.leakage_exponent",
    "supply.fixed_share", "datapath.gating_exponent", "datapath.subword_exponent",
)  # fmt: skip
VOLTAGES = ("supply.floor_v", "supply.ceiling_v", "supply.retention_v")  # scale with the nominal supply
LOW, HIGH = np.array([0.3, 0.0, 0.1]), np.array([0.84, 0.94, 0.66])  # of the fitted three, threshold at 1.03 V nominal
STARTS = np.array([[0.64, 0.3, 0.3], [0.64, 0.5, 0.5], [0.64, 0.65, 0.55]])
TARGETS = np.array(list(PUBLISHED.values()))


def with_numbers(file: MachineFile, numbers: dict[str, float]) -> MachineFile:
    """The machine file with other numbers, by path."""
    return file.with_values(**{path.replace(".", "__"): value for path, value in numbers.items()})


def ratios(file: MachineFile) -> np.ndarray:
    """Model values in the order of PUBLISHED."""
    found = dvafs_ratios(file.machine, file.reference)
    return np.array([float(found[name]) for name in PUBLISHED])


@functools.partial(jax.jit, static_argnames="point")
def _model(x, machine, shares, point):
    """Ratios when the fitted three are x; the machine was built with these shares (datapath, sram, leakage)."""
    datapath = dataclasses.replace(
        machine.datapath,
        busy_pj=machine.datapath.busy_pj * x[0] / shares[0],
        control_pj=(1.0 - x[0] - shares[1] - shares[2]) * point.power_mw / point.freq_ghz,
    )
    supply = dataclasses.replace(machine.supply, path_share=x[1], threshold_v=x[2])
    found = dvafs_ratios(dataclasses.replace(machine, datapath=datapath, supply=supply), point)
    return jnp.stack([found[name] for name in PUBLISHED])


def fit(file: MachineFile) -> dict[str, float]:
    """The fitted three that come nearest to the published ratios, in logarithms, from several starts."""
    scale = np.array([1.0, 1.0, file.numbers["supply.nominal_v"].value / 1.03])
    shares = jnp.array([file.numbers[f"reference.shares.{name}"].value for name in ("datapath", "sram", "leakage")])
    machine, point = file.machine, file.reference

    def miss(x):
        return np.log(np.asarray(_model(jnp.asarray(x * scale), machine, shares, point)) / TARGETS)

    trials = [least_squares(miss, start, bounds=(LOW, HIGH), xtol=1e-12) for start in STARTS]
    best = min(trials, key=lambda trial: trial.cost)
    return dict(zip(FITTED, (best.x * scale).tolist(), strict=True))


def variants(file: MachineFile) -> list[tuple[str, MachineFile]]:
    """The file as it is, and at both ends of each assumed interval."""
    out = [("as assumed", file)]
    for path in ASSUMED:
        number = file.numbers[path]
        for value in number.interval or ():
            changed = {path: value}
            if path == "supply.nominal_v":
                changed |= {v: file.numbers[v].value * value / number.value for v in VOLTAGES}
            out.append((f"{path} = {value:g}", with_numbers(file, changed)))
    return out


def zero_rate_for(file: MachineFile, gain: float) -> float | None:
    """Zero rate of both operands that gives this gain over dense data; None where no rate does."""
    machine, point = file.machine, file.reference

    def excess(zeros: float) -> float:
        return float(sparse_gain(machine, point, 1.0 - zeros, 1.0 - zeros)) - gain

    return None if excess(1.0) < 0 else float(brentq(excess, 0.0, 1.0, xtol=1e-6))


def sparse_curve(file: MachineFile) -> list[dict[str, float | None]]:
    """Zero rate that gives 2.4 and 1.6 against the gated share, moved by the split of SRAM against control."""
    rows = []
    for sram in np.linspace(0.0, 0.32, 9):
        other = with_numbers(file, {"reference.shares.sram": float(sram)})
        gated = 1.0 - 1.0 / float(sparse_gain(other.machine, other.reference, 0.0, 0.0))
        rows.append({"gated_share": gated, **{f"zero_rate_{g}": zero_rate_for(other, g) for g in (2.4, 1.6)}})
    return rows


def two_by_eight(file: MachineFile) -> float:
    """Power of 2x8b at constant throughput (100 MHz) [mW]; not published."""
    machine = file.machine
    path = critical_path(machine.supply, 16, jnp.asarray(8.0))
    volts = supply_for_clock(machine.supply, 0.5 * machine.supply.nominal_ghz, path)
    return float(operating_power_mw(machine, file.reference, machine.modes[1], 8.0, 0.1, volts))


def main() -> int:
    """Prints the tables, writes expected.json and profiles.json; 1 if a fit misses a published row by more than 5 %."""
    jax.config.update("jax_enable_x64", True)
    file = load_machine_file("envision")
    rows, worst = [], 0.0
    print(f"{'variant':38s} {'share':>7s} {'path':>7s} {'V_t':>7s}   errors % of {', '.join(PUBLISHED)}   2x8b mW")
    for title, variant in variants(file):
        fitted = fit(variant)
        final = with_numbers(variant, fitted)
        errors = ratios(final) / TARGETS - 1.0
        worst = max(worst, float(np.abs(errors).max()))
        middle_mw = two_by_eight(final)
        rows.append({"variant": title, "fitted": fitted, "errors": errors.tolist(), "two_by_eight_mw": middle_mw})
        numbers = " ".join(f"{x:7.4f}" for x in fitted.values())
        print(f"{title:38s} {numbers}   " + " ".join(f"{100 * e:6.2f}" for e in errors) + f"   {middle_mw:.1f}")
    carried = {path: file.numbers[path].value for path in FITTED}
    shape = {"dense_over_zero": float(sparse_gain(file.machine, file.reference, 0.0, 0.0))}
    shape |= {f"zero_rate_{gain}": zero_rate_for(file, gain) for gain in (2.4, 1.6)}
    curve = sparse_curve(file)
    span = [f(row["two_by_eight_mw"] for row in rows) for f in (min, max)]
    print(f"worst error {100 * worst:.2f} %; 2x8b at 100 MHz between {span[0]:.1f} and {span[1]:.1f} mW")
    print("gated share, zero rate (both operands) for 2.4 and for 1.6:")
    for row in curve:
        print("  " + "  ".join("  none" if x is None else f"{x:6.3f}" for x in row.values()))
    print(f"the machine file: gated share {1 - 1 / shape['dense_over_zero']:.3f}, zero rates {shape}")
    result = {"rows": rows, "carried": carried, "worst_error": worst, "two_by_eight_mw": span, "curve": curve}
    result["machine_file"] = shape
    (HERE / "expected.json").write_text(json.dumps(result, indent=1) + "\n")
    six = study(Calibration(file, load_multiplier("dvafs_multiplier_40nm")))
    show(six)
    (HERE / "profiles.json").write_text(json.dumps(six, indent=1) + "\n")
    return int(max(worst, *(abs(error) for error in six["errors"] + six["errors_carried"])) > 0.05)


if __name__ == "__main__":
    sys.exit(main())
