import numpy as np
import pytest

from cooptim.data import batch_indices, steps_per_epoch


def test_an_epoch_shows_no_image_twice_and_the_next_one_another_order():
    first = np.concatenate([batch_indices(0, step, 103, 10) for step in range(10)])
    second = np.concatenate([batch_indices(0, step, 103, 10) for step in range(10, 20)])
    assert len(set(first.tolist())) == 100 and first.min() >= 0 and first.max() <= 102
    assert not np.array_equal(first, second)


def test_a_step_sees_the_same_images_whatever_ran_before():
    forward = [batch_indices(7, step, 50, 8).tolist() for step in range(30)]
    assert [batch_indices(7, step, 50, 8).tolist() for step in reversed(range(30))] == forward[::-1]


def test_seeds_give_different_orders():
    assert not np.array_equal(batch_indices(0, 0, 100, 50), batch_indices(1, 0, 100, 50))


def test_a_batch_as_large_as_the_set_is_all_of_it():
    assert sorted(batch_indices(3, 4, 6, 6).tolist()) == [0, 1, 2, 3, 4, 5]
    assert steps_per_epoch(6, 6) == 1


@pytest.mark.parametrize("batch", [0, 7])
def test_a_batch_that_does_not_fit_is_refused(batch):
    with pytest.raises(ValueError, match="use 1 to 6"):
        batch_indices(0, 0, 6, batch)
