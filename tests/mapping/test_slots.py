"""Slots by table against slots one by one: equal to the last bit, for fractional units, batches and single mappings."""

import numpy as np
import pytest

from cooptim.mapping.nest import Nest
from cooptim.mapping.slots import PlainSlots, TabledSlots, slots_of
from cooptim.workload import OPERANDS


def random_nest(rng, slots, batch):
    """A nest of random loops, some of factor 1; `batch` None is one mapping."""
    shape = (slots,) if batch is None else (slots, batch)
    cuts = []
    for _ in OPERANDS:
        inner = np.sort(rng.integers(0, slots + 1, (2, *shape[1:])), axis=0)
        cuts.append((*((int(c) for c in inner) if batch is None else inner), slots))
    factors = rng.choice([1.0, 2.0, 3.0, 5.0, 7.0], shape)
    return Nest(rng.integers(0, 8, shape), factors, tuple(cuts), (), (), ())


def answers(slots, nest, units):
    found = {"all": slots.product(slots.all())}
    for o, operand in enumerate(OPERANDS):
        lower = slots.none()
        for m, cut in enumerate(nest.cuts[o]):
            held = slots.kept(operand, cut)
            found[operand, m] = [
                slots.product(held),
                slots.product(slots.below(cut)),
                *slots.extents(slots.below(cut), units, range(8)),
                *(slots.outer_run(held, lower, operand, kind) for kind in ("idle", "moving")),
                *slots.revisits(lower),
            ]
            lower = held
    return found


@pytest.mark.parametrize("slots", [1, 2, 5, 11])
@pytest.mark.parametrize("batch", [None, 1, 40])
def test_tables_say_what_the_slots_say_to_the_last_bit(slots, batch):
    rng = np.random.default_rng(slots)
    for _ in range(20):
        nest = random_nest(rng, slots, batch)
        units = [1.0, 10 / 3, 7 / 6, 2.0, 13 / 3, 1 / 3, 1.7, 3.0]
        plain, tabled = PlainSlots(nest, np), slots_of(nest)
        assert isinstance(tabled, TabledSlots)
        expected, found = answers(plain, nest, units), answers(tabled, nest, units)
        for key in expected:
            for a, b in zip(np.atleast_1d(expected[key]) if key == "all" else expected[key],
                            np.atleast_1d(found[key]) if key == "all" else found[key], strict=True):  # fmt: skip
                assert np.array_equal(np.broadcast_to(a, np.shape(b)), b), key


def test_real_factors_are_taken_slot_by_slot():
    nest = Nest(np.array([2, 3]), np.array([1.5, 2.0]), ((1, 2),) * 3, (), (), ())
    assert isinstance(slots_of(nest), PlainSlots)
