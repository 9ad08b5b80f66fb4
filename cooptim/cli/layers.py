"""Layers and bits that options name, for commands that need no training."""

import argparse
import math
import os

from cooptim.cli.model import network, sample
from cooptim.workload import Workload, zoo

BITS = {"weight_bits": 8.0, "input_bits": 8.0, "psum_bits": 24.0, "output_bits": 8.0}


def bits_of(options: argparse.Namespace) -> list[float]:
    """Bits of weights, inputs, partial sums and outputs; ValueError unless they are above 0 and finite."""
    found = []
    for name, default in BITS.items():
        given = getattr(options, name)
        if given is not None and not 0 < given < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} {given:g}: not above 0 and finite; write a number of bits")
        found.append(default if given is None else given)
    return found


def published(name: str) -> Workload:
    """A network of the zoo, or of a user's CSV; ValueError that names the legal ones."""
    if name not in zoo.names() and (name.endswith(".csv") or os.path.sep in name):
        return zoo.read_csv(name)
    return zoo.network(name)


def traced(options: argparse.Namespace) -> Workload:
    """The network of --model at --input-shape or --data."""
    return network(options, sample(options)).workload
