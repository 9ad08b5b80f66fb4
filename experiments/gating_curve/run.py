"""What do the two unpublished shares of Envision decide: energy that zeros gate, and energy that idle lanes draw?

1. The published gains of 2.4 and 1.6 from dense to sparse come without a zero rate. For each share of the power that
   zeros in both operands would gate (moved by the split of SRAM against control), the zero rates that give them.
2. For an idle lane at 0, 0.1, 0.5 and 1 of a busy one (the reference power held at 300 mW), energy of the digits CNN
   at 16 bit over that at 4 bit, each on its best legal hardware within the 16-bit latency, without zeros and with
   half of all words zero.

    python experiments/gating_curve/run.py
Writes curve.csv, idle.csv and gating_curve.png beside this file.
"""

import csv
import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
HERE = pathlib.Path(__file__).parent

import cooptim  # noqa: E402
from cooptim.descent.assign import assign_hardware  # noqa: E402
from cooptim.descent.price import Pricer  # noqa: E402
from cooptim.descent.references import wide_design  # noqa: E402
from cooptim.design.space import DesignSpace  # noqa: E402
from cooptim.hardware import MachineFile, load_machine_file  # noqa: E402
from cooptim.hardware.reference import sparse_gain  # noqa: E402
from cooptim.network.examples import digits_cnn, example_input  # noqa: E402
from cooptim.network.stats import Stats  # noqa: E402
from experiments.calibrate.run import with_numbers, zero_rate_for  # noqa: E402

GAINS = (2.4, 1.6)
IDLE = (0.0, 0.1, 0.5, 1.0)
COLORS = ("#0072b2", "#d55e00")


def gated_share(file: MachineFile) -> float:
    """Share of the four-lane power that disappears when every word is zero."""
    return 1.0 - 1.0 / float(sparse_gain(file.machine, file.reference, 0.0, 0.0))


def curve(file: MachineFile) -> list[dict[str, float | None]]:
    """Zero rate of both operands that gives each gain, against the gated share; None where none does."""
    rows = []
    for sram in np.linspace(0.0, 0.34, 18):
        other = with_numbers(file, {"reference.shares.sram": float(sram)})
        row: dict[str, float | None] = {"sram_share": float(sram), "gated_share": gated_share(other)}
        rows.append(row | {f"zero_rate_{gain}": zero_rate_for(other, gain) for gain in GAINS})
    return rows


def best_pj(space: DesignSpace, pricer: Pricer, bits: float, density: float, deadline_ns: float) -> tuple[float, float]:
    """(energy [pJ], latency [ns]) at this width everywhere; a deadline of infinity asks for the 16-bit reference."""
    layers = len(space.workload.layers)
    one = jnp.ones(layers)
    design = dataclasses.replace(wide_design(space, one, one), weight_bits=bits * one, input_bits=bits * one)
    stats = Stats(density * one, density * one)
    nominal = not np.isfinite(deadline_ns)
    design = assign_hardware(space, pricer, design, stats, deadline_ns, nominal=nominal)
    latency = float(pricer.report(design, stats, 0.0).total_latency_ns)
    report = pricer.report(design, stats, latency if nominal else deadline_ns)
    return float(report.total_energy_pj), latency


def idle_sweep(file: MachineFile) -> list[dict[str, float]]:
    """Energy at 16 and 4 bit and their ratio for each idle share and density."""
    workload = cooptim.trace(digits_cnn(nnx.Rngs(0)), example_input("digits_cnn")).workload
    rows = []
    for idle in IDLE:
        machine = with_numbers(file, {"datapath.idle_share": idle}).machine
        table = cooptim.tilings(workload, machine)
        space = DesignSpace(workload, machine, table, (False,) * len(workload.layers))
        pricer = Pricer(space)
        for density in (1.0, 0.5):
            wide, latency = best_pj(space, pricer, 16.0, density, float("inf"))
            narrow, _ = best_pj(space, pricer, 4.0, density, latency)
            rows.append(
                {
                    "idle_share": idle, "density": density, "energy_16b_nj": wide / 1e3, "energy_4b_nj": narrow / 1e3,
                    "ratio": wide / narrow,
                }
            )  # fmt: skip
    return rows


def plot(rows: list[dict], sweep: list[dict], here: dict[str, float | None]) -> None:
    """Both results as one figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for gain, color in zip(GAINS, COLORS, strict=True):
        found = [(row["gated_share"], row[f"zero_rate_{gain}"]) for row in rows if row[f"zero_rate_{gain}"] is not None]
        left.plot(*zip(*found, strict=True), color=color, label=f"gain {gain}")
        if here[f"zero_rate_{gain}"] is not None:
            left.plot(here["gated_share"], here[f"zero_rate_{gain}"], "o", color=color)
    left.set(xlabel="share of the power that zeros gate", ylabel="zero rate of both operands", ylim=(0, 1))
    left.set_title("published gains from dense to sparse\n(dots: the machine file)", fontsize=10)
    left.legend(frameon=False)
    for density, color in zip((1.0, 0.5), COLORS, strict=True):
        some = [row for row in sweep if row["density"] == density]
        label = "no zeros" if density == 1.0 else "half of all words zero"
        right.plot([r["idle_share"] for r in some], [r["ratio"] for r in some], "o-", color=color, label=label)
    right.set(xlabel="power of an idle lane over a busy one", ylabel="energy at 16 bit over 4 bit", ylim=(0, None))
    right.set_title("digits CNN on Envision, equal latency", fontsize=10)
    right.legend(frameon=False)
    figure.savefig(HERE / "gating_curve.png", dpi=120)
    plt.close(figure)


def write(name: str, rows: list[dict]) -> None:
    """One CSV beside this file, numbers to five digits."""
    with open(HERE / name, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows([{k: "" if v is None else f"{v:.5g}" for k, v in row.items()} for row in rows])


def main() -> None:
    """Prints both tables and writes the files."""
    jax.config.update("jax_enable_x64", True)
    file = load_machine_file("envision")
    here: dict[str, float | None] = {"gated_share": gated_share(file)}
    here |= {f"zero_rate_{gain}": zero_rate_for(file, gain) for gain in GAINS}
    rows, sweep = curve(file), idle_sweep(file)
    write("curve.csv", rows)
    write("idle.csv", sweep)
    plot(rows, sweep, here)
    for title, table in (("curve", [*rows, {"sram_share": "machine file", **here}]), ("idle lanes", sweep)):
        print(title + ": " + ", ".join(table[0]))
        for row in table:
            print(
                "  " + "  ".join("none" if v is None else v if isinstance(v, str) else f"{v:.4g}" for v in row.values())
            )


if __name__ == "__main__":
    main()
