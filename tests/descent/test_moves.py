"""Single moves: each changes one choice and stays legal."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent.moves import hardware_moves, legal_moves, mode_moves, width_moves
from cooptim.design.knobs import frozen_phase
from cooptim.design.legal import snap, violations
from cooptim.design.space import DesignSpace
from cooptim.workload import Bounds, Layer, Workload

LAYERS = (
    Layer("a", "conv", Bounds(K=16, C=1, OY=8, OX=8, FY=3, FX=3), padding=((1, 1), (1, 1))),
    Layer("b", "dense", Bounds(K=10, C=32), inputs=("a",)),
)


@pytest.fixture(scope="module")
def case():
    machine = cooptim.load_machine("envision")
    workload = Workload("two", LAYERS, ("b",), 64)
    space = DesignSpace(workload, machine, cooptim.tilings(workload, machine), (False, False))
    bits = jnp.asarray([6.0, 3.0]), jnp.asarray([4.0, 3.0])
    relaxed = space.decode(space.init(jnp.ones(2), jnp.ones(2), *bits), 0.05, frozen_phase(*bits))
    return space, jax.tree.map(np.asarray, snap(space, relaxed))


def test_width_moves_change_one_width_by_one_bit(case):
    space, design = case
    for delta in (-1, 1):
        moves = width_moves(space, design, delta)
        assert len(moves) == 4  # two operands of two layers
        for move in moves:
            change = np.concatenate(
                [move.design.weight_bits - design.weight_bits, move.design.input_bits - design.input_bits]
            )
            np.testing.assert_array_equal(sorted(np.abs(change)), [0, 0, 0, 1])


def test_a_width_at_its_floor_has_no_move_down(case):
    space, design = case
    low = dataclasses.replace(design, weight_bits=np.full_like(design.weight_bits, 2.0))
    assert all("input" in move.name for move in width_moves(space, low, -1))


def test_a_layer_moves_to_the_next_narrower_subword_as_a_whole(case):
    space, design = case
    moves = mode_moves(space, design)
    assert [move.name for move in moves] == ["a to 4 b subwords"]  # b stands in 4 b subwords already
    moved = moves[0].design
    assert (moved.weight_bits[0], moved.input_bits[0]) == (4, 4)
    np.testing.assert_array_equal(moved.mode[0], [0, 0, 1])
    # 2^3 - 1 levels a side hold the same range in coarser steps
    np.testing.assert_allclose(moved.weight_step[0], design.weight_range[0] / 7, rtol=1e-6)
    assert violations(space, moved) == []


def test_legal_moves_drop_what_cannot_be_built(case):
    space, design = case
    moves = hardware_moves(space, design)
    kept = legal_moves(space, moves)
    dropped = {move.name for move in moves} - {move.name for move in kept}
    assert "a mode 4x4b" in dropped  # 6 bits do not fit
    assert all(violations(space, move.design) == [] for move in kept)
