"""Chips that skip zeros: Cnvlutin's speed-ups and EIE's times, from the published zeros and from load imbalance alone.

The rules, fixed before the first run:
- Cnvlutin (ISCA 2016): a unit's 16 lanes take 16 channels of a tap at a time, 256 filters share them; with skipping,
  each lane takes a cycle for each non-zero and waits for the slowest at the end of a window. The zeros are those that
  Eyeriss measured in the inputs of the convolutions, falling independently; zeros there are in no other public table.
- EIE (ISCA 2016): actual over theoretical time of a fully connected layer is `queued_cycles` of 64 lanes with queues of
  8 over their mean entries. The share of non-zero weights is only recalled, so it spans the interval; below, inputs
  without a single zero bound it, for the theoretical time says how many entries are worked through.
"""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp

from cooptim.hardware.load import load_machine
from cooptim.hardware.load_imbalance import queued_cycles, stored_entries
from cooptim.hardware.mechanisms.zero_skipping import skipped_cycles_share
from cooptim.validate.claims import Prediction, claim_of
from cooptim.validate.eyeriss import published_layers
from cooptim.workload import zoo

_LANES, _CLOCK_GHZ = 64, 0.8  # Table V (cucapra/fodlam, raw/eie-raw.csv)
_QUEUE = 8.0  # columns; ISCA 2016, "Queue Depth", read as a quotation; with 1 half of the cycles are idle
_RUN_BITS = 4  # of the zeros before an entry; recalled, not verified
_DENSITY = (0.04, 0.25)  # of the weights of all nine layers; recalled, not verified
# Outputs and inputs; those of NeuralTalk are recalled, not verified.
_NEURAL_TALK = {"NT- We": (600, 4096), "NT- Wd": (8791, 600), "NT- LSTM": (2400, 1201)}


@dataclasses.dataclass(frozen=True)
class Slowdown:
    """Actual over theoretical time of a layer on EIE, between the densest and the sparsest weights it may have."""

    low: float
    middle: float
    high: float


def cnvlutin_speedups() -> dict[str, float]:
    """Cycles without over cycles with skipping, of the convolutions of each network that Eyeriss measured."""
    machine = load_machine("cnvlutin")
    skipping = machine.mechanisms.zero_skipping
    assert skipping is not None
    found = {}
    for name in ("alexnet", "vgg16"):
        network, dense, left = zoo.network(name), 0.0, 0.0
        for one in (one for one in published_layers() if one.network == name):
            b = network.layers[network.index(one.layer)].bounds
            words = b.FY * b.FX * -(-b.C // skipping.units)  # of a lane in a window
            cycles = b.G * -(-b.K // machine.datapath.rows) * b.OY * b.OX * words
            dense += cycles
            left += cycles * float(skipped_cycles_share(1.0 - one.zero_fraction, skipping.lanes, words))
        found[name] = dense / left
    return found


def cnvlutin_range() -> Prediction:
    """Speed-ups of the two networks, lowest to highest."""
    low, high = sorted(cnvlutin_speedups().values())
    return Prediction(math.sqrt(low * high), low, high)


def eie_slowdown(outputs: int, inputs: int, theoretical_ns: float) -> Slowdown:
    """Actual over theoretical time of a fully connected layer of this shape; the middle is at the geometric mean.

    Args:
      theoretical_ns: entries to work through over those that all lanes take at the clock.
    """
    rows = -(-outputs // _LANES)
    entries = theoretical_ns * _CLOCK_GHZ * _LANES

    def filled(density: float) -> float:
        return float(stored_entries(density, rows, _RUN_BITS)) / rows

    least = max(_DENSITY[0], _where(filled, entries / (outputs * inputs)))
    ends = [least, math.sqrt(least * _DENSITY[1]), _DENSITY[1]]

    def slowdown(density: float) -> float:
        share = filled(density)
        cycles = queued_cycles(jnp.asarray(share), float(_LANES), rows, _QUEUE)
        return float(cycles) / (share * outputs / _LANES)

    high, middle, low = (slowdown(density) for density in ends)
    return Slowdown(min(low, high), middle, max(low, high))


def eie_time(layer: str) -> Prediction:
    """Actual time of one of the nine layers, given its theoretical time; an interval, for the density is one [us]."""
    theoretical, _ = claim_of("EIE", f"{layer} theoretical / actual time").pair
    found = eie_slowdown(*eie_shape(layer), theoretical * 1e3)
    return Prediction(theoretical * found.middle, theoretical * found.low, theoretical * found.high, "inside")


def eie_shape(layer: str) -> tuple[int, int]:
    """(outputs, inputs) of one of EIE's nine layers, by its name in the table of claims."""
    if layer in _NEURAL_TALK:
        return _NEURAL_TALK[layer]
    network, name = layer.lower().split()
    one = zoo.network(network)
    b = one.layers[one.index(name)].bounds
    return b.K, b.C


EIE_LAYERS = ("AlexNet FC6", "AlexNet FC7", "AlexNet FC8", "VGG16 FC6", "VGG16 FC7", "VGG16 FC8", *_NEURAL_TALK)


def _where(function: Callable[[float], float], value: float) -> float:
    """Where a rising function on [0, 1] has this value, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) < value else (low, middle)
    return low
