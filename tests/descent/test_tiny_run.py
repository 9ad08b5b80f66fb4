"""A whole run at toy length: everything that the main job does, in seconds; accuracies mean nothing here."""

import dataclasses
import inspect
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

import cooptim
from cooptim.descent import run
from cooptim.descent.budget import InfeasibleBudget
from cooptim.descent.checkpoint import CheckpointError
from cooptim.descent.plan import quick_plan
from cooptim.design.legal import violations
from cooptim.design.space import DesignSpace
from cooptim.mapping.frontier import tilings
from cooptim.network.examples import DigitsCNN


@pytest.fixture(scope="module")
def parts():
    jax.config.update("jax_enable_x64", False)  # as users run; each test below is marked float32
    data = cooptim.load_data("digits")
    network = cooptim.trace(DigitsCNN(rngs=nnx.Rngs(0)), data.x_train[:1])
    return network, cooptim.load_machine("envision"), data


@pytest.fixture(scope="module")
def result(parts, tmp_path_factory):
    jax.config.update("jax_enable_x64", False)
    network, machine, data = parts
    out = tmp_path_factory.mktemp("run")
    return cooptim.optimize(network, machine, data, cooptim.Budget(energy_ratio=20.0), plan=quick_plan(), out=out), out


@pytest.mark.float32
def test_every_design_of_a_run_is_legal_and_meets_the_deadline(parts, result):
    network, machine, _ = parts
    run, _ = result
    table = tilings(network.workload, machine)
    for name, one in run.designs.items():
        space = DesignSpace(network.workload, machine, table, one.design.input_signed)
        assert violations(space, one.design) == [], name
        assert float(one.report.total_latency_ns) <= run.budget.latency_ns * (1 + 1e-6), name


@pytest.mark.float32
def test_the_16_bit_reference_runs_at_nominal_clock_and_supply(parts, result):
    run, _ = result
    design = run.designs["reference_16b"].design
    np.testing.assert_allclose(design.supply_v, 1.03, rtol=1e-6)
    np.testing.assert_allclose(design.freq_ghz, 0.2, rtol=1e-6)
    # conv1: 4 passes of 16 pixels x 9 taps; conv2: 4 passes x 2 groups of 16 channels x 144; dense: 32 words
    assert float(run.designs["reference_16b"].report.total_latency_ns) == pytest.approx((36 + 1152 + 32) * 5.0)


@pytest.mark.float32
def test_energies_are_ordered_bound_below_every_design_below_dense_16_bit(result):
    run, _ = result
    energies = [float(one.report.total_energy_pj) for one in run.designs.values()]
    assert run.bound_pj < min(energies) and run.bound.bound_pj == run.bound_pj and not run.widths_held
    assert max(energies) < run.dense_16b_pj


@pytest.mark.float32
def test_a_run_ends_below_its_energy_budget(result):
    run, _ = result
    assert float(run.designs["final"].report.total_energy_pj) <= run.budget.energy_pj


@pytest.mark.float32
def test_pruned_weights_of_the_final_network_are_zero(parts, result):
    network, _, data = parts
    run, _ = result
    final = run.designs["final"]
    kernel = np.asarray(final.params["conv2"]["kernel"])
    kept = np.abs(kernel) > float(final.design.threshold[1])
    np.testing.assert_array_equal(kernel != 0, kept)


@pytest.mark.float32
def test_a_resumed_run_ends_bit_equal(parts, result):
    network, machine, data = parts
    run, out = result
    again = cooptim.optimize(
        network, machine, data, cooptim.Budget(energy_ratio=20.0), plan=quick_plan(), out=out, resume=True
    )
    for a, b in zip(_leaves(run), _leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.float32
def test_a_run_does_not_go_on_with_another_seed(parts, result):
    network, machine, data = parts
    with pytest.raises(CheckpointError, match="of another run: seed 0 there, 1 here; resume with"):
        cooptim.optimize(
            network, machine, data, cooptim.Budget(energy_ratio=20.0), seed=1, plan=quick_plan(), out=result[1],
            resume=True,
        )  # fmt: skip


@pytest.mark.float32
def test_a_budget_below_the_bound_names_demand_bound_gap_and_levers(parts):
    network, machine, data = parts
    with pytest.raises(InfeasibleBudget, match=r"energy budget 1 nJ is below the bound .* nJ .*gap .*times.*deadline"):
        cooptim.optimize(network, machine, data, cooptim.Budget(energy_pj=1e3), plan=_short())


def _short():
    return dataclasses.replace(quick_plan(), float_steps=2)


def _leaves(run):
    final = run.designs["final"]
    return [np.asarray(x) for x in jax.tree.leaves((final.params, final.state, final.design))]


@pytest.mark.float32
def test_every_reference_is_fine_tuned_like_the_joint_design(result):
    stages = {path.name for path in (result[1] / "checkpoints").iterdir()}
    descents = {name for name in stages if name.startswith(("uniform", "pruned", "joint")) and "-finetune" not in name}
    assert {name.rstrip("0123456789b-") for name in descents} == {"uniform", "pruned", "joint"}
    assert {f"{name}-finetune0" for name in descents} <= stages


@pytest.mark.float32
@pytest.mark.parametrize(
    ("share", "stands", "quantizer", "prunable"),
    [(20.0, True, "step_range", True), (500.0, False, "lsq", False)],
)
def test_only_a_default_that_was_lifted_may_move(parts, monkeypatch, share, stands, quantizer, prunable):
    class Enough(Exception):
        """The joint descent was asked for."""

    asked, done, starts, known = {}, {}, {}, {}

    def cheapest(*args, **how):
        asked[args[4]] = how.get("stands", False)
        starts[args[4]] = (args[5], how.get("start_bits"))
        done[args[4]] = how["done"]
        known[args[4]] = args[8]
        if args[4] == "joint":
            raise Enough
        return SimpleNamespace(final=priced(1.0 if prunable else 0.0))

    def priced(accuracy):
        return SimpleNamespace(val_accuracy=accuracy, report=SimpleNamespace(total_energy_pj=1.0))

    uniform = priced(1.0)
    monkeypatch.setattr(run, "best_uniform", lambda *args: (uniform, 4))
    monkeypatch.setattr(run, "cheapest", cheapest)
    stood_in = []
    monkeypatch.setattr(run, "unpruned", lambda like, one: stood_in.append(one) or SimpleNamespace(final=one))
    for name in ("best_of", "_meets", "_energy"):  # past the type checks, which know stand-ins from designs
        monkeypatch.setattr(run, name, inspect.unwrap(getattr(run, name)))
    budget = cooptim.Budget(energy_ratio=share, lift=True)
    with pytest.raises(Enough):
        cooptim.optimize(*parts, budget, plan=dataclasses.replace(quick_plan(), float_steps=0, quantizer=quantizer))
    assert asked == {"pruned": False, "joint": stands}
    assert starts == {"pruned": (4, None), "joint": (4 if quantizer == "lsq" else None, 4)}  # (held, start)
    # The joint search moves up to the cheapest design that keeps the accuracy, and no further.
    assert stood_in == [uniform] and known["pruned"] is uniform and (known["joint"] is uniform) == (not prunable)
    # Where no width is learned the joint search is that of thresholds again, and need not train what was trained.
    assert (done["joint"] is done["pruned"]) == (quantizer == "lsq") and (quantizer == "lsq" or done["joint"] is None)


@pytest.mark.float32
@pytest.mark.filterwarnings("ignore:plan. a width can travel")
def test_a_joint_design_that_loses_the_accuracy_gives_way_to_one_width_with_pruning(parts, monkeypatch):
    search = run.cheapest

    def dead_joint(*args, **how):
        found = search(*args, **how)
        if args[4] != "joint":
            return found
        return dataclasses.replace(found, final=dataclasses.replace(found.final, val_accuracy=-1.0))

    monkeypatch.setattr(run, "cheapest", dead_joint)
    plan = dataclasses.replace(
        quick_plan(), float_steps=2, steps=6, finetune_steps=1, finetune_tries=1, uniform_bits=(4,), settle_steps=2
    )
    found = cooptim.optimize(*parts, cooptim.Budget(accuracy_drop=0.99), plan=plan).designs
    final, pruned = found["final"], found["best_uniform_pruned"]
    assert final.val_accuracy == pruned.val_accuracy >= 0.0 and final.title == "joint"
    assert float(final.report.total_energy_pj) == float(pruned.report.total_energy_pj)
