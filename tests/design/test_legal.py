"""What can be built and what cannot; the snaps themselves are in tests/properties."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.design.legal import SNAPS, IllegalDesign, snap, snap_tiling, violations
from tests.design.cases import legal_design, replace_at, space_of


@pytest.fixture(scope="module", params=["dvafs_sized", "envision"])
def space(request):
    return space_of(request.param)


def test_the_legal_design_of_these_tests_breaks_nothing(space):
    assert violations(space, legal_design(space)) == []


# (what is broken, field, layer, value, what the line says)
FAULTS = [
    ("weight width between two", "weight_bits", 0, 3.5, "conv: weight width 3.5 b is not a whole number in 2..16"),
    ("weight width of one", "weight_bits", 1, 1.0, "dense: weight width 1 b"),
    ("input width of none", "input_bits", 0, 0.0, "conv: input width 0 b"),
    ("weight width that is no number", "weight_bits", 0, np.nan, "conv: weight width nan b"),
    ("weight range beyond 4 bits", "weight_range", 0, 0.08, "conv: weight range 0.08 at step 0.01 needs more than 4 b"),
    ("input range beyond 5 bits", "input_range", 1, 1.6, "dense: input range 1.6 at step 0.05 needs more than 5 b"),
    ("mode shared by two", "mode", 0, [0.0, 0.5, 0.5], "conv: modes [0.  0.5 0.5] are not one choice"),
    ("no mode", "mode", 1, [0.0, 0.0, 0.0], "dense: modes [0. 0. 0.] are not one choice"),
    ("mode too narrow", "mode", 1, [0.0, 0.0, 1.0], "dense: mode 4x4b cannot hold 8 b"),
    ("tiling shared by two", "tiling", 0, "half", "conv: the tiling is not one row of the table"),
    ("tiling that is padding", "tiling", 1, "padding", "dense: the tiling is not one row of the table"),
    ("supply off the grid", "supply_v", 0, "off grid", "conv: supply "),
    ("supply below the floor", "supply_v", 0, "below", "conv: supply "),
    ("supply above the ceiling", "supply_v", 1, "above", "dense: supply "),
    ("clock above the law", "freq_ghz", 1, "too fast", "dense: clock "),
]
MEANINGLESS = [
    ("clock of zero", "freq_ghz", 0, 0.0, "conv: clock 0.0000 GHz is no multiple"),
    ("clock that is no number", "freq_ghz", 0, np.nan, "conv: clock nan GHz"),
    ("clock off the grid", "freq_ghz", 1, 0.0105, "dense: clock 0.0105 GHz is no multiple"),
    ("weight step of zero", "weight_step", 0, 0.0, "conv: weight step 0"),
    ("input step below zero", "input_step", 1, -0.05, "dense: input step -0.05"),
    ("weight range that is no number", "weight_range", 0, np.nan, "conv: weight step 0.01 and range nan"),
    ("threshold below zero", "threshold", 1, -0.5, "dense: threshold -0.5"),
]


@pytest.mark.parametrize(
    ("field", "layer", "value", "line"), [f[1:] for f in MEANINGLESS], ids=[f[0] for f in MEANINGLESS]
)
def test_a_value_without_meaning_is_one_line_too(space, field, layer, value, line):
    found = violations(space, replace_at(legal_design(space), field, layer, value))
    assert len(found) == 1 and found[0].startswith(line), found


@pytest.mark.parametrize(
    ("exits", "margins", "line"),
    [
        (("conv",), None, "0 exit margins for 1 exits of two"),
        (("conv",), [0.5, 1.0], "2 exit margins for 1 exits of two"),
        ((), [0.5], "1 exit margins for 0 exits of two"),
        (("conv",), [np.inf], "conv: exit margin inf is not finite; give the log-odds at which an input leaves"),
    ],
)
def test_margins_are_one_an_exit_and_finite(exits, margins, line):
    plain = space_of("envision")
    space = dataclasses.replace(plain, workload=dataclasses.replace(plain.workload, exits=exits))
    design = legal_design(plain)
    found = dataclasses.replace(design, exit_margin=None if margins is None else jnp.asarray(margins))
    assert violations(space, found) == [line]


def test_a_supply_that_is_no_number_is_named_first(space):
    found = violations(space, replace_at(legal_design(space), "supply_v", 0, np.nan))
    assert found[0].startswith("conv: supply nan V is not on the grid")


@pytest.mark.parametrize("share", [0.25, 1.003, 8.0])
def test_a_buffer_that_the_machine_has_not_is_one_line(space, share):
    b = space.machine.buffer
    size = float(b.max_bits if b.free and share > 1 else b.size_bits) * share
    if b.free and share < 1:
        size = float(b.min_bits) + 0.25 * float(b.step_bits)
    found = violations(space, dataclasses.replace(legal_design(space), buffer_bits=jnp.asarray(size)))
    assert len(found) == 1 and found[0].startswith(f"buffer of {size:.0f} bit: "), found


def _broken(space, design, field, layer, value):
    s = space.machine.supply
    if field == "tiling":
        row = np.zeros(space.tilings.rows)
        if value == "half":
            row[[0, 1]] = 0.5
        else:
            row[int(np.argmin(space.tilings.valid[layer]))] = 1.0
        value = row
    elif value == "too fast":
        value = float(design.freq_ghz[layer]) + 2 * float(s.step_ghz)
    elif isinstance(value, str):
        step = float(s.step_v)
        volts = {"off grid": 3.5 * step + float(s.floor_v), "below": float(s.floor_v) - step}
        # a clock below the law's at any of these supplies, so that the supply is the only fault
        slow = replace_at(design, "freq_ghz", layer, float(s.step_ghz))
        return replace_at(slow, field, layer, volts.get(value, float(s.ceiling_v) + step))
    return replace_at(design, field, layer, jnp.asarray(value))


@pytest.mark.parametrize(("field", "layer", "value", "line"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_one_fault_is_one_line_that_names_layer_and_bound(space, field, layer, value, line):
    if isinstance(value, str) and value == "padding" and space.tilings.valid[layer].all():
        pytest.skip("this layer's rows are all valid")
    found = violations(space, _broken(space, legal_design(space), field, layer, value))
    assert len(found) == 1 and found[0].startswith(line), found


def test_a_tiling_larger_than_the_buffer_is_named_with_demand_and_room(space):
    design = legal_design(space, rows=(0, 0))
    need = np.asarray(space.working_set_bits(design.mode))[:, 0]
    room = (need[0] + need[1]) / 2  # holds the dense layer only
    assert need[1] < room < need[0]
    found = violations(space, dataclasses.replace(design, buffer_bits=jnp.asarray(room)))
    assert [line for line in found if "buffer of" not in line] == [
        f"conv: tiling needs {need[0]:.0f} bit, the buffer has {room:.0f}"
    ]
    assert not [line for line in found if line.startswith("dense")]


def test_two_faults_are_two_lines(space):
    design = _broken(space, legal_design(space), "weight_bits", 0, 3.5)
    found = violations(space, _broken(space, design, "freq_ghz", 1, "too fast"))
    assert [line.split(":")[0] for line in found] == ["conv", "dense"]


@pytest.mark.parametrize("one", SNAPS, ids=lambda one: one.__name__)
def test_each_snap_leaves_a_legal_design_as_it_is(space, one):
    design = legal_design(space)
    for before, after in zip(jax.tree.leaves(design), jax.tree.leaves(one(space, design)), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-12)


def _relaxed(space, rng):
    """A design as a descent leaves it: any widths, shares and supplies, sometimes ranges wider than their bits."""
    start = space.init(jnp.asarray(rng.uniform(0.1, 2, 2)), jnp.asarray(rng.uniform(0.1, 9, 2)))
    knobs = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(0.0, 2.0, leaf.shape)), start)
    design = space.decode(knobs, float(rng.uniform(0.05, 2.0)))
    return dataclasses.replace(
        design,
        weight_bits=jnp.asarray(rng.uniform(1.0, 18.0, 2)),
        input_bits=jnp.asarray(rng.uniform(1.0, 18.0, 2)),
        mode=jnp.asarray(rng.dirichlet(np.ones(len(space.machine.modes)), 2)),
    )


def test_random_relaxed_designs_snap_to_legal_ones_that_stay_where_they_are(space):
    rng = np.random.default_rng(11)
    for _ in range(40):
        once = snap(space, _relaxed(space, rng))
        assert violations(space, once) == []
        twice = snap(space, once)
        for before, after in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.float32
def test_random_relaxed_designs_snap_to_legal_ones_in_single_precision():
    space = space_of("dvafs_sized")
    rng = np.random.default_rng(12)
    for _ in range(40):
        once = snap(space, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), _relaxed(space, rng)))
        assert violations(space, once) == []
        for before, after in zip(jax.tree.leaves(once), jax.tree.leaves(snap(space, once)), strict=True):
            np.testing.assert_array_equal(before, after)


def test_a_buffer_that_no_tiling_fits_is_refused_with_demand_room_and_remedy(space):
    design = dataclasses.replace(legal_design(space), buffer_bits=jnp.asarray(100.0))
    with pytest.raises(IllegalDesign, match="conv: its smallest tiling needs [0-9]+ bit of buffer and 100 are there"):
        snap_tiling(space, design)
    with pytest.raises(IllegalDesign, match="use a narrower mode or a larger buffer"):
        snap_tiling(space, design)
