"""What can be ruled out before any training, and what a share of the 16-bit reference comes to."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.cli.parser import DEFAULT_RATIO
from cooptim.descent.budget import InfeasibleBudget, require_reachable, resolve, smallest_area_mm2
from cooptim.descent.result import DEFAULT_BUDGET, Budget
from cooptim.descent.wide import wide
from tests.design.cases import WORK, space_of

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def space():
    return space_of("envision")


@pytest.fixture(scope="module")
def reference(space):
    design, stats = wide(WORK, space.machine)
    return cooptim.evaluate(WORK, space.machine, design, stats)


@pytest.fixture(scope="module")
def bound(space, reference):
    return cooptim.energy_bound_pj(WORK, space.machine, float(reference.total_latency_ns)).bound_pj


def test_a_made_chip_has_the_area_that_was_published(space):
    assert smallest_area_mm2(space) == pytest.approx(1.87)


def test_a_sized_chip_is_smallest_with_its_smallest_buffer():
    sized = space_of("dvafs_sized")
    # 70 % of 1.87 mm2 is logic; of the 128 kB in the other 30 %, 8 kB are left.
    assert smallest_area_mm2(sized) == pytest.approx(1.87 * (0.7 + 0.3 * 8 / 128))


def test_a_buffer_that_holds_no_tiling_is_not_the_smallest():
    sized = space_of("dvafs_sized")
    tiny = dataclasses.replace(sized.machine.buffer, min_bits=jnp.array(8.0), step_bits=jnp.array(8.0))
    sized = dataclasses.replace(sized, machine=dataclasses.replace(sized.machine, buffer=tiny))
    # By trying all: the least of each layer in its best mode, of which the larger counts, in whole steps of 8 bit.
    t, slots = sized.tilings, (16, 8, 4)
    words, waiting = t.tile_w + t.tile_i + t.tile_o, t.tile_psum * sized.machine.datapath.accumulator_bits
    least = [
        min(words[i, r] * slot + waiting[i, r] for r in range(t.rows) for slot in slots if t.valid[i, r] > 0)
        for i in range(2)
    ]
    bits = -(-max(least) // 8) * 8
    assert bits > 8
    assert smallest_area_mm2(sized) == pytest.approx(1.87 * (0.7 + 0.3 * bits / (128 * 8192)), rel=1e-9)


def test_an_area_below_the_smallest_chip_names_demand_bound_gap_and_levers(space):
    said = (
        r"area budget 1\.1 mm2 is below the bound 1\.87 mm2.*envision.*gap 1\.7 times.*allow more area.*memory density"
    )
    with pytest.raises(InfeasibleBudget, match=said):
        require_reachable(space, Budget(area_mm2=1.1))
    require_reachable(space, Budget(area_mm2=1.87))


def test_a_deadline_that_nothing_meets_names_the_fastest_time_and_the_gap(space):
    with pytest.raises(
        InfeasibleBudget, match=r"deadline 1 ns.*no legal design is faster than ([\d.]+) ns.*allow"
    ) as e:
        require_reachable(space, Budget(latency_ns=1.0))
    fastest = float(re.search(r"than ([\d.]+) ns", str(e.value)).group(1))
    assert float(re.search(r"gap ([\d.e+]+) times", str(e.value)).group(1)) == pytest.approx(fastest, rel=1e-2)
    require_reachable(space, Budget(latency_ns=fastest * 1.001))


def test_energy_below_the_bound_of_a_given_deadline_is_refused_without_a_reference(space, reference, bound):
    deadline = float(reference.total_latency_ns)
    require_reachable(space, Budget(energy_pj=bound * 1.001, latency_ns=deadline))
    with pytest.raises(InfeasibleBudget, match=r"below the bound .*gap 2 times"):
        require_reachable(space, Budget(energy_pj=bound / 2, latency_ns=deadline))


def test_the_default_share_gives_way_to_85_percent_of_the_bound_and_says_so(space, reference, bound):
    total = float(reference.total_energy_pj)
    far = dataclasses.replace(DEFAULT_BUDGET, energy_ratio=2 * total / bound)
    found = resolve(space, far, reference)
    assert found.lifted and found.energy_pj == pytest.approx(bound / 0.85)
    near = dataclasses.replace(DEFAULT_BUDGET, energy_ratio=0.5 * total / bound)
    found = resolve(space, near, reference)
    assert not found.lifted and found.energy_pj == pytest.approx(2 * bound)


def test_a_share_that_was_asked_for_stands_or_is_refused(space, reference, bound):
    total = float(reference.total_energy_pj)
    assert resolve(space, Budget(energy_ratio=0.9 * total / bound), reference).energy_pj == pytest.approx(bound / 0.9)
    with pytest.raises(InfeasibleBudget, match=r"below the bound .*gap 1\.1 times"):
        resolve(space, Budget(energy_ratio=1.1 * total / bound), reference)


def test_without_an_energy_budget_the_deadline_is_that_of_the_reference(space, reference, bound):
    found = resolve(space, Budget(), reference)
    assert found.energy_pj is None and found.bound_pj == pytest.approx(bound)
    assert found.latency_ns == float(reference.total_latency_ns)


@pytest.mark.parametrize("name", ["energy_pj", "energy_ratio", "latency_ns", "area_mm2"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_budget_that_is_no_quantity_is_named(name, value):
    with pytest.raises(ValueError, match=f"budget: {name} {value:g} is not above 0 and finite"):
        Budget(**{name: value})


@pytest.mark.parametrize("drop", [-0.1, 1.0, np.nan])
def test_a_drop_that_is_no_fraction_is_named(drop):
    with pytest.raises(ValueError, match="accuracy_drop .* is no fraction"):
        Budget(accuracy_drop=drop)


def test_the_command_line_and_the_library_share_one_default():
    assert Budget(energy_ratio=DEFAULT_RATIO, lift=True) == DEFAULT_BUDGET


def test_a_plan_that_cannot_reach_two_bits_warns_at_the_line_that_made_it():
    # 100 steps, 0.75 of them free, at 0.01 bit a step; outside this process, where shape checks add a frame.
    code = "from cooptim.descent.plan import Plan\nPlan(steps=100, freeze_share=0.75)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.startswith("<string>:2: UserWarning: plan: a width can travel only 0.8 bit"), done.stderr
