"""Chips that skip zeros: Cnvlutin's speed-ups and EIE's times, from the published zeros and from load imbalance alone.

The rules, fixed before the first run:
- Cnvlutin (ISCA 2016): a unit's 16 lanes take 16 channels of a tap at a time, 256 filters share them; with skipping,
  each lane takes a cycle for each non-zero and waits for the slowest at the end of a window. The zeros are those that
  Eyeriss measured in the inputs of the convolutions, falling independently; zeros there are in no other public table.
- EIE (ISCA 2016): actual over theoretical time of a fully connected layer is `queued_cycles` of 64 lanes with queues of
  8 over their mean entries. The share of non-zero weights is only recalled, so it spans the interval; below, inputs
  without a single zero bound it, for the theoretical time says how many entries are worked through.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

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
EIE_LAYERS = ("AlexNet FC6", "AlexNet FC7", "AlexNet FC8", "VGG16 FC6", "VGG16 FC7", "VGG16 FC8", *_NEURAL_TALK)


def cnvlutin_speedups() -> dict[str, float]:
    """Cycles without over cycles with skipping, of the convolutions of each network that Eyeriss measured."""
    machine, layers = load_machine("cnvlutin"), published_layers()
    skipping = machine.mechanisms.zero_skipping
    assert skipping is not None
    bounds = [zoo.network(one.network).layers[zoo.network(one.network).index(one.layer)].bounds for one in layers]
    words = np.array([b.FY * b.FX * -(-b.C // skipping.units) for b in bounds])  # of a lane in a window
    dense = words * [b.G * -(-b.K // machine.datapath.rows) * b.OY * b.OX for b in bounds]
    density = np.array([1.0 - one.zero_fraction for one in layers])
    left = dense * np.asarray(skipped_cycles_share(density, skipping.lanes, words))
    own = {name: [one.network == name for one in layers] for name in ("alexnet", "vgg16")}
    return {name: float(dense[mine].sum() / left[mine].sum()) for name, mine in own.items()}


def cnvlutin_range() -> Prediction:
    """Speed-ups of the two networks, lowest to highest."""
    low, high = sorted(cnvlutin_speedups().values())
    return Prediction(math.sqrt(low * high), low, high)


def eie_slowdown(
    outputs: Int[np.ndarray, "layer"], inputs: Int[np.ndarray, "layer"], theoretical_ns: Float[np.ndarray, "layer"]
) -> Float[np.ndarray, "end layer"]:
    """Actual over theoretical time of fully connected layers at the fewest, middle and most non-zero weights.

    Args:
      theoretical_ns: entries to work through over those that all lanes take at the clock. The middle is geometric.
    """
    rows = -(-outputs // _LANES)

    def filled(density: Float[np.ndarray, "*end layer"]) -> Float[np.ndarray, "*end layer"]:
        return np.asarray(stored_entries(density, rows, _RUN_BITS)) / rows

    # Inputs without a zero work through all entries: weights are not sparser than that.
    least = _where(filled, theoretical_ns * _CLOCK_GHZ * _LANES / (outputs * inputs))
    least = np.maximum(least, _DENSITY[0])
    share = filled(np.stack([least, np.sqrt(least * _DENSITY[1]), np.full(least.shape, _DENSITY[1])]))
    cycles = np.asarray(queued_cycles(share, float(_LANES), np.broadcast_to(rows, share.shape), _QUEUE))
    return cycles / (share * outputs / _LANES)


@functools.cache
def eie_slowdowns() -> dict[str, tuple[float, float, float]]:
    """(least, middle, most) slowdown of each of EIE's nine layers."""
    outputs, inputs = np.array([eie_shape(layer) for layer in EIE_LAYERS]).T
    given = np.array([_times(layer)[0] for layer in EIE_LAYERS])
    sparse, middle, dense = eie_slowdown(outputs, inputs, 1e3 * given)
    ends = np.minimum(sparse, dense), middle, np.maximum(sparse, dense)
    return {layer: (float(a), float(b), float(c)) for layer, a, b, c in zip(EIE_LAYERS, *ends, strict=True)}


def _times(layer: str) -> tuple[float, float]:
    return claim_of("EIE", f"{layer} theoretical / actual time").pair


def eie_time(layer: str) -> Prediction:
    """Actual time of one of the nine layers, given its theoretical time; an interval, for the density is one [us]."""
    given, (low, middle, high) = _times(layer)[0], eie_slowdowns()[layer]
    return Prediction(given * middle, given * low, given * high, "inside")


def eie_shape(layer: str) -> tuple[int, int]:
    """(outputs, inputs) of one of EIE's nine layers, by its name in the table of claims."""
    if layer in _NEURAL_TALK:
        return _NEURAL_TALK[layer]
    network, name = layer.lower().split()
    one = zoo.network(network)
    b = one.layers[one.index(name)].bounds
    return b.K, b.C


def _where(
    function: Callable[[Float[np.ndarray, "n"]], Float[np.ndarray, "n"]], values: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Where rising functions on [0, 1] have these values, by halving."""
    low, high = np.zeros_like(values), np.ones_like(values)
    for _ in range(50):
        middle = 0.5 * (low + high)
        below = function(middle) < values
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low
