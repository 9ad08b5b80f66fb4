"""Which method each layer of a run takes, and how the command line says it."""

import argparse

import jax.numpy as jnp
import numpy as np
import pytest

from cooptim.cli.optimize import methods
from cooptim.descent.loop import Stage, frozen_widths
from cooptim.descent.plan import Plan
from cooptim.descent.recipes import RECIPES, learns_widths, methods_of, require_tables
from cooptim.descent.step import TrainState
from cooptim.descent.task import Task
from cooptim.design.knobs import free_phase
from cooptim.design.space import DesignSpace
from cooptim.hardware.load import load_machine, load_machine_file, machine_names
from cooptim.relax.method import PLAIN, Method
from cooptim.workload import Bounds, Layer, Workload
from tests.design.cases import space_of

WORK = Workload(
    "four",
    (
        Layer("first", "conv", Bounds(K=4, C=1, FY=3, FX=3)),
        Layer("scores", "matmul", Bounds(K=8, C=4)),
        Layer("middle", "dense", Bounds(K=5, C=8)),
        Layer("last", "dense", Bounds(K=3, C=12)),
    ),
)


def test_the_default_says_nothing_and_every_recipe_gives_each_layer_a_method():
    assert methods_of(WORK) == ()
    for name in sorted(set(RECIPES) - {"pact", "dorefa", "codebook"}):
        found = methods_of(WORK, name, per_channel=True)
        assert len(found) == 4 and not found[1].per_channel
        assert [method.scaled for method in found] == [
            method.weights in ("step_range", "lsq", "blend") and i != 1 for i, method in enumerate(found)
        ]


def test_channels_are_refused_where_nothing_has_a_scale_for_each():
    for name in ("pact", "dorefa"):
        assert len(methods_of(WORK, name)) == 4
        with pytest.raises(ValueError, match=f"per_channel: {name} has one scale a tensor; use lsq or step_range"):
            methods_of(WORK, name, per_channel=True)
    with pytest.raises(ValueError, match="per_channel: codebook has one table a tensor; use lsq or step_range"):
        methods_of(WORK, "codebook", per_channel=True, label_bits=4)
    products = Workload("products", WORK.layers[1:2])
    with pytest.raises(ValueError, match="per_channel: no layer of products has weights in channels; leave it off"):
        methods_of(products, "lsq", per_channel=True)


def test_papers_of_few_levels_leave_the_ends_and_products_of_data_alone():
    found = methods_of(WORK, "binary")
    assert found[0] == found[3] == PLAIN and found[2] == Method("sign", "sign")
    assert found[1] == Method("step_range", "sign")  # data has signs too, but no channels
    assert methods_of(WORK, "lsq")[0] == Method("lsq", "lsq")
    assert methods_of(WORK, "pact") == (
        Method("dorefa", "pact"), Method("step_range", "pact"), Method("dorefa", "pact"), Method("dorefa", "pact")
    )  # fmt: skip


def test_a_codebook_is_that_of_every_layer_with_weights():
    shared = Method("codebook", "step_range", label_bits=3)
    assert methods_of(WORK, "codebook", label_bits=3) == (shared, PLAIN, shared, shared)
    cut = methods_of(WORK, "codebook", pattern=(2, 4), label_bits=3)
    assert [m.pattern for m in cut] == [None, None, (2, 4), (2, 4)] and cut[3].label_bits == 3


def test_a_codebook_is_refused_where_no_table_is():
    require_tables(load_machine("envision"), None)
    require_tables(load_machine("eie"), 4)
    with pytest.raises(ValueError, match="quantizer 'codebook': a codebook of 5 label bits on eie; legal are 1 to 4"):
        require_tables(load_machine("eie"), 5)
    narrow = load_machine_file("eie").with_values(
        mechanisms__shared_weights__index=1, mechanisms__shared_weights__decoded=1
    )
    with pytest.raises(ValueError, match="legal are none: values of 1 b are no more than a sign"):
        require_tables(narrow.machine, 1)


def test_the_machines_of_the_package_with_a_table_are_those_the_message_names():
    tables = {name for name in machine_names() if load_machine(name).mechanisms.shared_weights is not None}
    assert tables == {"eie"}


def test_a_pattern_stays_away_from_layers_that_it_does_not_divide():
    assert [m.pattern for m in methods_of(WORK, pattern=(2, 4))] == [None, None, (2, 4), (2, 4)]
    assert [m.pattern for m in methods_of(WORK, pattern=(1, 3))] == [(1, 3), None, None, (1, 3)]
    with pytest.raises(ValueError, match="pattern 2 of 7 divides no layer of four; .* first 9, .*middle 8, last 12"):
        methods_of(WORK, pattern=(2, 7))
    with pytest.raises(ValueError, match="pattern .2, 4. of sign weights, which have no zero"):
        methods_of(WORK, "xnor", pattern=(2, 4))
    with pytest.raises(ValueError, match="quantizer 'lsqq' is not known; use one of step_range, blend"):
        methods_of(WORK, "lsqq")


def test_only_what_ties_its_width_to_a_slope_learns_it():
    assert [name for name in RECIPES if learns_widths(name)] == ["step_range", "blend", "codebook"]  # its inputs'


def options(**given):
    return argparse.Namespace(
        **{"quantizer": "step_range", "per_channel": False, "pattern": None, "label_bits": None} | given
    )


def test_the_command_line_fills_the_plan():
    plain = {"quantizer": "step_range", "per_channel": False, "pattern": None, "label_bits": None}
    assert methods(options()) == plain
    assert methods(options(quantizer="codebook")) == plain | {"quantizer": "codebook", "label_bits": 4}
    assert Plan(**methods(options(quantizer="codebook", label_bits=2))).label_bits == 2
    said = methods(options(quantizer="lsq", per_channel=True, pattern="2:4"))
    plan = Plan(**said)
    assert (plan.quantizer, plan.per_channel, plan.pattern) == ("lsq", True, (2, 4))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pattern": "2of4"}, "--pattern 2of4: write N:M, such as 2:4"),
        ({"pattern": "4:2"}, r"pattern \(4, 2\) does not keep N of M"),
        ({"quantizer": "int8"}, "plan: quantizer 'int8' is not known; use one of step_range"),
        (
            {"quantizer": "codebook", "label_bits": 9},
            "plan: quantizer 'codebook' with label_bits 9; legal are whole numbers from 1 to 8, such as 4",
        ),
        ({"quantizer": "codebook", "label_bits": 0}, "label_bits 0; legal are whole numbers from 1 to 8"),
        ({"label_bits": 4}, "--label-bits 4: says how large the tables of a codebook are; add --quantizer codebook"),
    ],
)
def test_what_cannot_be_read_is_said(given, words):
    with pytest.raises(ValueError, match=words):
        Plan(**methods(options(**given)))


def test_a_plan_says_label_bits_with_a_codebook_and_only_there():
    with pytest.raises(ValueError, match="plan: quantizer 'codebook' with label_bits None; legal are whole numbers"):
        Plan(quantizer="codebook")
    with pytest.raises(ValueError, match="plan: label_bits 3 of quantizer 'lsq', which has no labels"):
        Plan(quantizer="lsq", label_bits=3)
    with pytest.raises(ValueError, match="codebook weights, no whole numbers of a unit, which errors 'weights' cannot"):
        Plan(quantizer="codebook", label_bits=4, errors="weights")


def test_a_blend_freezes_to_whole_widths_at_its_range():
    plain = space_of("envision")
    space = DesignSpace(plain.workload, plain.machine, plain.tilings, plain.input_signed, (Method("blend"), PLAIN))
    task = object.__new__(Task)  # what freezing reads of one, without a network
    for name, value in {"space": space, "decode": space.decode, "plan": Plan()}.items():
        object.__setattr__(task, name, value)
    knobs = space.init(jnp.array([0.5, 1.0]), jnp.ones(2), 5.4, 5.4)
    stage = Stage("joint", 10, 1e-3, (), free_phase(2))
    state = TrainState(None, None, knobs, *[None] * 4)
    found, phase = frozen_widths(task, stage, state, free_phase(2))
    assert phase.weight_bits.tolist() == [5, 6] and phase.input_bits.tolist() == [6, 6]
    np.testing.assert_allclose(space.decode(found.knobs, 1.0, phase).weight_range[0], 0.5)
