"""Laws that any machine file must keep, whatever chip it describes; each with the numbers that decide.

They are statements about `evaluate` on a small network, at random relaxed designs and at legal ones: no number of the
machine is taken to be right, but a price that falls when work is added, or a knob without a gradient, is a fault.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.compile import compiled_once
from cooptim.cost.evaluate import evaluate
from cooptim.cost.report import CostReport
from cooptim.design.design import Design
from cooptim.design.legal import snap, violations
from cooptim.design.space import DesignSpace
from cooptim.hardware.dvafs import critical_path, max_clock_ghz
from cooptim.hardware.load import MachineFile
from cooptim.hardware.machine import Machine
from cooptim.hardware.restate import in_other_units
from cooptim.mapping.frontier import tilings
from cooptim.mapping.tilings import Tilings
from cooptim.network.stats import Stats
from cooptim.workload import INPUT, Bounds, Layer, Workload

POINTS = 16  # random relaxed designs
_ROWS = 3  # tilings of each layer that they mix
_ENERGIES = ("energy", "energy_per_bit", "power")  # quantities that every price is proportional to
_PERIOD_NS = 1e7  # long enough for standby, so that leakage between inferences counts, too


@dataclasses.dataclass(frozen=True)
class Law:
    """One law, whether the machine keeps it, and the numbers that decide."""

    name: str
    holds: bool
    found: str


def machine_laws(file: MachineFile, *, seed: int = 0) -> tuple[Law, ...]:
    """Every law, in a fixed order; in float64 where jax computes in it, else to float32's digits.

    Args:
      seed: of the random designs.
    """
    bench = _Bench.of(file.machine, seed)
    return (
        *(_never_less(bench, what) for what in ("weight bits", "input bits", "supply", "weight density",
                                                "input density")),
        _more_macs(file.machine),
        _doubled(bench, file),
        _other_units(bench, file),
        _legal_designs(file.machine),
        *_gradients(bench),
    )  # fmt: skip


def small_network() -> Workload:
    """Three layers with feature maps, weights and an output."""
    pad = ((1, 1), (1, 1))
    return Workload(
        "small",
        (
            Layer("conv", "conv", Bounds(K=24, C=8, OY=12, OX=12, FY=3, FX=3), padding=pad, inputs=(INPUT,)),
            Layer("point", "conv", Bounds(K=40, C=24, OY=12, OX=12), padding=((0, 0), (0, 0)), inputs=("conv",)),
            Layer("head", "dense", Bounds(K=20, C=40), inputs=("point",)),
        ),
        ("head",),
        8 * 144,
    )


@dataclasses.dataclass(frozen=True)
class _Bench:
    """Random relaxed designs on a machine, stacked on a first axis.

    Attributes:
      priced: (machine, designs, stats) -> (slopes of the three by log energy x latency x area, report); compiled.
    """

    machine: Machine
    designs: Design
    stats: Stats
    priced: Callable[[Machine, Design, Stats], tuple[Any, CostReport]]
    rng: np.random.Generator

    @classmethod
    def of(cls, machine: Machine, seed: int) -> "_Bench":
        workload, rng = small_network(), np.random.default_rng(seed)
        table = _few_rows(tilings(workload, machine), _ROWS)
        designs = _random_designs(machine, len(workload.layers), _ROWS, rng)
        shape = (POINTS, len(workload.layers))
        stats = Stats(jnp.asarray(rng.uniform(0.1, 0.8, shape)), jnp.asarray(rng.uniform(0.1, 0.8, shape)))

        def price(machine: Machine, design: Design, stats: Stats) -> tuple[jax.Array, CostReport]:
            report = evaluate(workload, machine, design, stats, period_ns=_PERIOD_NS, tilings=table)
            logs = [jnp.log(x) for x in (report.total_energy_pj, report.total_latency_ns, report.area_mm2)]
            return logs[0] + logs[1] + logs[2], report

        slopes = jax.vmap(jax.grad(price, argnums=(0, 1, 2), has_aux=True), in_axes=(None, 0, 0))
        return cls(machine, designs, stats, compiled_once(slopes), rng)

    def report(self, machine: Machine | None = None) -> CostReport:
        """Of all designs, on this machine or on another of the same structure."""
        return self.priced(self.machine if machine is None else machine, self.designs, self.stats)[1]


def _few_rows(table: Tilings, rows: int) -> Tilings:
    """The untiled row and others from the whole of each layer's set."""
    picks = [np.linspace(0, n - 1, rows).astype(int) for n in table.valid.sum(axis=1).astype(int)]
    few = {name: np.stack([x[i][pick] for i, pick in enumerate(picks)]) for name, x in table.columns.items()}
    return Tilings(**few)


def _random_designs(machine: Machine, layers: int, rows: int, rng: np.random.Generator) -> Design:
    s, b, d = machine.supply, machine.buffer, machine.datapath
    shape = (POINTS, layers)
    bits = [jnp.asarray(rng.uniform(2.0, 0.9 * d.width_bits, shape)) for _ in range(2)]
    low, high = float(s.floor_v), max(float(s.ceiling_v), 1.05 * float(s.floor_v))
    volts = jnp.asarray(rng.uniform(low, 0.95 * low + 0.05 * high if low == high else high, shape))
    path = critical_path(s, d.width_bits, jnp.maximum(*bits))
    clock = jnp.maximum(max_clock_ghz(s, volts, path), s.step_ghz) * rng.uniform(0.5, 1.0, shape)
    sizes = rng.uniform(float(b.min_bits), float(b.max_bits), POINTS) if b.free else np.full(POINTS, float(b.size_bits))
    one = jnp.ones(shape)
    return Design(
        (True,) * layers, bits[0], one, one, 0.0 * one, bits[1], one, one,
        jnp.asarray(rng.dirichlet(np.ones(len(machine.modes)), shape)),
        jnp.asarray(rng.dirichlet(np.ones(rows), shape)), volts, clock, jnp.asarray(sizes),
    )  # fmt: skip


def _slack() -> float:
    """Rounding that a sum of many terms may show, as a share."""
    return 200.0 * float(jnp.finfo(jnp.result_type(float)).eps)


def _total(report: CostReport) -> tuple[np.ndarray, np.ndarray]:
    energy = sum(np.asarray(part, np.float64).sum(axis=-1) for part in report.energy_pj.values())
    return energy + np.asarray(report.standby_pj), np.asarray(report.latency_ns, np.float64).sum(axis=-1)


def _never_less(bench: _Bench, what: str) -> Law:
    """More of one kind in one layer never lowers energy or latency, and raises the energy somewhere."""
    field, step, top = {
        "supply": ("supply_v", 0.03, np.inf),
        "weight density": ("weight_density", 0.15, 1.0),
        "input density": ("input_density", 0.15, 1.0),
        "weight bits": ("weight_bits", 1.0, float(bench.machine.datapath.width_bits)),
        "input bits": ("input_bits", 1.0, float(bench.machine.datapath.width_bits)),
    }[what]
    tree: Design | Stats = bench.stats if "density" in field else bench.designs
    held = getattr(tree, field)
    one = np.arange(POINTS), bench.rng.integers(0, held.shape[1], POINTS)
    changed: dict[str, Any] = {field: jnp.minimum(held.at[one].add(step), top)}
    raised: Any = dataclasses.replace(tree, **changed)
    trees = (raised, bench.stats) if isinstance(raised, Design) else (bench.designs, raised)
    before, after = _total(bench.report()), _total(bench.priced(bench.machine, *trees)[1])
    energy, time = (100.0 * (b / a - 1.0) for a, b in zip(before, after, strict=True))
    least = -100.0 * _slack()
    # Supply may save the cycles that timing errors take.
    holds = bool(energy.min() >= least and (what == "supply" or time.min() >= least))
    idle = "density" in field and not _uses_zeros(bench.machine, field[0].upper())
    holds = holds and bool(idle or energy.max() > 0.0)
    found = f"energy {energy.min():+.2g} to {energy.max():+.2g} %, latency {time.min():+.2g} to {time.max():+.2g} %"
    clock = " at constant clock" if what == "supply" else ""
    return Law(f"more {what}{clock} never costs less", holds, f"{found}; {POINTS} designs")


def _uses_zeros(machine: Machine, operand: str) -> bool:
    """Whether zeros of `W` or `I` are gated or coded, so that they have to save something."""
    gating = machine.mechanisms.zero_gating
    flags = "both" if gating is None else gating.operands
    return machine.dram.coded or flags in ("both", operand)


def _more_macs(machine: Machine) -> Law:
    """More output channels, untiled at full width and nominal supply and clock, never cost less.

    The layers are priced as one network; no weight stays between inferences, so that they share nothing.
    """
    sizes = (20, 24, 25, 64)
    report = compiled_once(lambda machine: _side_by_side(machine, sizes))(machine)
    energies = np.sum([np.asarray(part, np.float64) for part in report.energy_pj.values()], axis=0)
    times = np.asarray(report.latency_ns, np.float64)
    holds = all(np.all(x[1:] >= x[:-1] * (1 - _slack())) for x in (energies, times))
    found = ", ".join(f"{energy / energies[0]:.3g}" for energy in energies)
    return Law("more MACs never cost less", holds and bool(energies[-1] > energies[0]), f"energy at K {sizes}: {found}")


def _side_by_side(machine: Machine, sizes: Sequence[int]) -> CostReport:
    """The price of layers of so many output channels, all on the network's input."""
    layers = tuple(
        Layer(f"conv{wide}", "conv", Bounds(K=wide, C=8, OY=12, OX=12, FY=3, FX=3), padding=((1, 1), (1, 1)),
              inputs=(INPUT,))
        for wide in sizes
    )  # fmt: skip
    workload = Workload("side_by_side", layers, tuple(layer.name for layer in layers), 8 * 144)
    forgetful = dataclasses.replace(machine.supply, retention_v=0.0 * machine.supply.retention_v)
    machine = dataclasses.replace(machine, supply=forgetful)
    s, one = machine.supply, jnp.ones(len(sizes))
    top = float(machine.datapath.width_bits) * one
    widest = int(np.argmax([mode.slot_bits for mode in machine.modes]))
    mode = jnp.tile(jnp.eye(len(machine.modes))[widest], (len(sizes), 1))
    design = Design(
        (True,) * len(sizes), top, one, one, 0.0 * one, top, one, one, mode, one[:, None],
        s.nominal_v * one, s.nominal_ghz * one, machine.buffer.size_bits * jnp.ones(()),
    )  # fmt: skip
    table = _few_rows(tilings(workload, machine), 1)
    return evaluate(workload, machine, design, period_ns=_PERIOD_NS, tilings=table)


def _doubled(bench: _Bench, file: MachineFile) -> Law:
    """Twice every energy and power of the file is twice every component of the report."""
    twice = {path: 2.0 * q.value for path, q in file.stated_numbers.items() if q.quantity in _ENERGIES}
    machine = file.with_values(**{path.replace(".", "__"): value for path, value in twice.items()}).machine
    once, doubled = bench.report(), bench.report(machine)
    off = {name: _apart(2.0 * part, doubled.energy_pj[name]) for name, part in once.energy_pj.items()}
    off["standby"] = _apart(2.0 * once.standby_pj, doubled.standby_pj)
    off["latency"] = _apart(once.latency_ns, doubled.latency_ns)
    worst = max(off, key=lambda name: off[name])
    found = f"{', '.join(twice)} doubled; worst {worst}, off by {off[worst]:.1g}"
    return Law("twice the energies is twice the report", off[worst] <= _slack(), found)


def _other_units(bench: _Bench, file: MachineFile) -> Law:
    """The same file with every number in another unit costs the same."""
    name = "the units of the file do not matter"
    try:
        other = in_other_units(file)
    except ValueError as error:
        return Law(name, False, f"refused when respelled: {' '.join(str(error).split())[:200]}")
    pairs = zip(jax.tree.leaves(bench.report()), jax.tree.leaves(bench.report(other.machine)), strict=True)
    off = max(_apart(a, b) for a, b in pairs)
    numbers = other.stated_numbers
    changed = sum(q.unit != file.stated_numbers[path].unit for path, q in numbers.items())
    return Law(name, off <= _slack(), f"{changed} of {len(numbers)} numbers respelled, report off by {off:.1g}")


def _apart(wanted: Any, found: Any) -> float:
    """Largest relative distance of two arrays."""
    a, b = np.asarray(wanted, np.float64), np.asarray(found, np.float64)
    return float(np.max(np.abs(b - a) / np.maximum(np.abs(a), 1e-30)))


def _legal_designs(machine: Machine) -> Law:
    """At several widths the descent's first design snaps to one that can be built; snapped again it stays as it is."""
    name = "legal designs exist, and snapping is idempotent"
    workload = small_network()
    layers = len(workload.layers)
    space = DesignSpace(workload, machine, tilings(workload, machine), (True,) * layers)
    widths = sorted({2.0, 4.0, 0.5 * machine.datapath.width_bits, float(machine.datapath.width_bits)})
    widths = [bits for bits in widths if 2.0 <= bits <= machine.datapath.width_bits]
    one = jnp.ones(layers)

    def twice(bits: jax.Array) -> tuple[Design, Design]:
        once = snap(space, space.decode(space.init(one, one, bits, bits), 1.0))
        return once, snap(space, once)

    snapped_twice = compiled_once(twice)
    found = []
    for bits in widths:
        legal, again = snapped_twice(jnp.asarray(bits))
        broken = violations(space, legal)
        if broken:
            return Law(name, False, f"{bits:g} b: {broken[0]}")
        moved = [jax.tree_util.keystr(path) for (path, a), b in
                 zip(jax.tree_util.tree_leaves_with_path(legal), jax.tree.leaves(again), strict=True)
                 if not np.array_equal(np.asarray(a), np.asarray(b))]  # fmt: skip
        if moved:
            return Law(name, False, f"{bits:g} b: snapped again, {', '.join(moved)} changed")
        found.append(f"{bits:g} b")
    return Law(name, True, ", ".join(found))


def _gradients(bench: _Bench) -> tuple[Law, Law]:
    """Every knob of a design and every energy of the machine moves the price; no gradient is NaN or infinite."""
    of_machine, of_design, of_stats = bench.priced(bench.machine, bench.designs, bench.stats)[0]
    wild, dead, energies, knobs = [], [], 0, 0
    report = bench.report()
    bounded = ~np.isclose(report.latency_ns, report.cycles / bench.designs.freq_ghz, rtol=1e-4).any(
        axis=0
    )  # by the link
    free = bench.machine.buffer.free
    scaled = bool(bench.machine.supply.ceiling_v > bench.machine.supply.floor_v)
    used = {"weight_bits", "input_bits", "mode", "tiling", "freq_ghz"}
    used |= {f"{name}_density" for name in ("weight", "input") if _uses_zeros(bench.machine, name[0].upper())}
    used |= ({"buffer_bits"} if free else set()) | ({"supply_v"} if scaled else set())
    for kind, tree in (("machine", of_machine), ("design", of_design), ("stats", of_stats)):
        for path, slope in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path).lstrip(".")
            moves = np.abs(np.asarray(slope))
            if not np.isfinite(moves).all():
                wild.append(f"{kind} {name}")
            priced = name.endswith(("_pj", "_mw", "_pj_per_bit")) if kind == "machine" else name in used
            energies, knobs = energies + (priced and kind == "machine"), knobs + (priced and kind != "machine")
            excused = bounded if name == "freq_ghz" else np.zeros((), bool)
            if priced and not ((moves.max(axis=0) > 0) | excused).all():
                dead.append(f"{kind} {name}")
    count = f"{energies} energies, {knobs} kinds of knob, {POINTS} designs"
    return (
        Law("no gradient is NaN or infinite", not wild, ", ".join(wild) or count),
        Law("every knob and energy has a gradient", not dead, ", ".join(dead) or count),
    )
