"""Labelled images for training: digits, .npz files, IDX directories, CIFAR-10, and batches that a user yields."""

from cooptim.data.batches import batch_indices, steps_per_epoch
from cooptim.data.dataset import Dataset, check_head, standardized
from cooptim.data.from_batches import data_from_batches
from cooptim.data.idx import read_idx
from cooptim.data.load import load_data

__all__ = [
    "Dataset",
    "batch_indices",
    "check_head",
    "data_from_batches",
    "load_data",
    "read_idx",
    "standardized",
    "steps_per_epoch",
]
