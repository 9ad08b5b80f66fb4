"""Labelled images for training: the digits of scikit-learn, .npz files, IDX directories."""

from cooptim.data.batches import batch_indices, steps_per_epoch
from cooptim.data.dataset import Dataset, check_head
from cooptim.data.idx import read_idx
from cooptim.data.load import load_data

__all__ = ["Dataset", "batch_indices", "check_head", "load_data", "read_idx", "steps_per_epoch"]
