"""What is foreseen of designs near a measured one, and that what is measured decides."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

import cooptim
from cooptim.descent import finalize
from cooptim.descent.finalize import finalize as legal
from cooptim.descent.finalize import price
from cooptim.descent.foresee import foreseen
from cooptim.descent.moves import Move
from cooptim.descent.plan import Plan
from cooptim.descent.task import decode, rates, signed_task
from cooptim.design.knobs import frozen_phase
from tests.descent.test_spending import LIMITS, START, cut, energy_pj, foreseeing, task  # noqa: F401
from tests.descent.two_layers import traced

PERIOD_NS = 3e3


@pytest.fixture(scope="module")
def parts():
    """A small task, its weights, a legal design at 4 bits with its zero rates."""
    network, params, data = traced()
    one = signed_task(
        network, cooptim.load_machine("envision"), data, Plan(chunk=64, stats_images=64), 0, (False, False)
    )
    four = jnp.full(2, 4.0)
    knobs = one.space.init(jnp.full(2, 0.5), jnp.full(2, 2.0), 4.0, 4.0)
    design = legal(one, decode(one, knobs, frozen_phase(four, four)), params, {}, PERIOD_NS)
    return types.SimpleNamespace(task=one, params=params, design=design, stats=rates(one, params, {}, design))


def pruned(design, *threshold):
    return dataclasses.replace(design, threshold=jnp.asarray(threshold, design.threshold.dtype))


def test_the_share_of_zero_weights_is_exact_without_the_images(parts):
    for design in (parts.design, pruned(parts.design, 0.1, 0.05)):
        image = parts.task.stats_images[0][:1]
        found = parts.task.measure.weight_density(parts.params, {}, design, image)
        np.testing.assert_allclose(found, rates(parts.task, parts.params, {}, design).weight_density, rtol=1e-6)


def test_foreseen_are_weights_as_they_will_be_and_inputs_as_they_were(parts):
    foresee = foreseen(parts.task, parts.params, {}, parts.design, parts.stats, PERIOD_NS)
    other = pruned(parts.design, 0.12, 0.2)
    measured = rates(parts.task, parts.params, {}, other)
    mixed = dataclasses.replace(parts.stats, weight_density=measured.weight_density)
    said, expected = foresee(other), parts.task.pricer.report(other, mixed, PERIOD_NS)
    np.testing.assert_allclose(said.total_energy_pj, expected.total_energy_pj, rtol=1e-6)
    assert said.total_energy_pj < 0.99 * foresee(parts.design).total_energy_pj
    np.testing.assert_allclose(
        foresee(parts.design).total_energy_pj,
        price(parts.task, parts.params, {}, parts.design, PERIOD_NS)[0].total_energy_pj,
        rtol=1e-6,
    )


@pytest.mark.parametrize("factor", [0.7, 0.95, 1.05, 1.5])
def test_a_wrong_foresight_does_not_move_the_budget(task, monkeypatch, factor):  # noqa: F811
    monkeypatch.setattr(finalize, "foreseen", lambda *_: foreseeing(factor))
    for start in (START, cut(0.4, 0.4)):  # 60 and 80 pJ
        found = finalize.spend(task, None, None, start, LIMITS)
        assert 68.6 <= energy_pj(found) <= 70.0


def test_zero_rates_of_inputs_are_taken_again_where_they_moved(task, monkeypatch):  # noqa: F811
    """Foresight that is wrong by the distance in thresholds, as that of inputs that follow the weights, comes right."""
    priced = []

    def counting(task, params, state, design, period_ns):
        priced.append(design)
        return types.SimpleNamespace(total_energy_pj=energy_pj(design)), design.threshold  # the zero rates it has

    def near(task, params, state, measured, stats, period_ns):
        assert measured is priced[-1]
        return lambda design: types.SimpleNamespace(
            total_energy_pj=energy_pj(design) + 10.0 * float(np.sum(stats - design.threshold))
        )

    monkeypatch.setattr(finalize, "price", counting)
    monkeypatch.setattr(finalize, "foreseen", near)
    found = finalize.spend(task, None, None, START, LIMITS)
    assert 68.6 <= energy_pj(found) <= 70.0 and len(priced) <= 4  # the start, and each look: not one a bisection
    priced.clear()
    everything = finalize.spend(task, None, None, START, dataclasses.replace(LIMITS, energy_pj=150.0))
    assert np.all(everything.threshold == 0.0) and len(priced) == 2


@pytest.mark.parametrize(
    ("least", "late", "taken", "measured", "there"),
    [
        (0.01, "", "a", ["c", "a"], "abcde"),  # a is foreseen to save less than c and saves more; no other can
        (0.21, "", None, ["c"], "abcde"),  # no other is foreseen within 2 % of that
        (0.01, "a", "c", ["c", "a"], "abcde"),
        (0.01, "ac", "b", ["c", "a", "b"], "abcde"),
        (0.01, "c", "a", ["c", "a"], "ac"),  # the last that is measured
        (0.0, "", "a", ["c", "a", "b", "d", "e"], "abcde"),  # the certificate trusts no foresight
    ],
)
def test_moves_are_measured_as_long_as_one_may_save_more(task, monkeypatch, least, late, taken, measured, there):  # noqa: F811
    """60 pJ before. Saved: a 12, b 8, c 11, d 2, e -3 pJ; foreseen 10.5, 9, 11.5, 2, -3."""
    saved = {"a": 12.0, "b": 8.0, "c": 11.0, "d": 2.0, "e": -3.0}
    said = {**saved, "a": 10.5, "b": 9.0, "c": 11.5}
    moves = {name: Move(name, cut(n, n), True) for n, name in enumerate(there)}
    names = {id(move.design): name for name, move in moves.items()}
    asked = []

    def priced(task, params, state, design, period_ns):
        name = names.get(id(design))
        if name:
            asked.append(name)
        late_ns = 2.0 if name and name in late else 1.0  # of 1 ns
        return types.SimpleNamespace(total_energy_pj=60.0 - saved.get(name, 0.0), total_latency_ns=late_ns), None

    one = type(task)(types.SimpleNamespace(accuracy=lambda *_: (1.0, 0.0)))
    none = types.SimpleNamespace(energy_pj=np.zeros(0), latency_ns=np.zeros(0))
    for name, value in (("space", None), ("faults", None), ("pricer", types.SimpleNamespace(many=lambda *_: none))):
        object.__setattr__(one, name, value)
    monkeypatch.setattr(finalize, "price", priced)
    monkeypatch.setattr(
        finalize,
        "foreseen",
        lambda *_: lambda design: types.SimpleNamespace(total_energy_pj=60.0 - said[names[id(design)]]),
    )
    monkeypatch.setattr(finalize, "hardware_moves", lambda *_: [])
    monkeypatch.setattr(finalize, "mode_moves", lambda *_: [])
    monkeypatch.setattr(finalize, "width_moves", lambda space, design, by: list(moves.values()) if by < 0 else [])
    monkeypatch.setattr(finalize, "legal_moves", lambda space, moves: moves)
    move, share, count = finalize.best_move(one, None, None, START, LIMITS, least)
    assert (move and move.name, asked, count) == (taken, measured, len(there))
    assert share == pytest.approx(saved[taken] / 60.0 if taken else least)
