"""The mechanisms that a chip switches on, and what all of them together do."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.mechanisms import (
    analog_array,
    binary_weights,
    bit_serial,
    error_prone_supply,
    link,
    lut_multiplier,
    shared_weights,
    zero_gating,
    zero_skipping,
)
from cooptim.hardware.mechanisms.analog_array import AnalogArray
from cooptim.hardware.mechanisms.binary_weights import BinaryWeights
from cooptim.hardware.mechanisms.bit_serial import BitSerial
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint, combine, spread
from cooptim.hardware.mechanisms.error_prone_supply import ErrorProneSupply
from cooptim.hardware.mechanisms.link import Link
from cooptim.hardware.mechanisms.lut_multiplier import LutMultiplier
from cooptim.hardware.mechanisms.shared_weights import SharedWeights
from cooptim.hardware.mechanisms.zero_gating import ZeroGating
from cooptim.hardware.mechanisms.zero_skipping import ZeroSkipping


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mechanisms:
    """Mechanisms by name; None is a chip without."""

    zero_gating: ZeroGating | None = None
    lut_multiplier: LutMultiplier | None = None
    bit_serial: BitSerial | None = None
    analog_array: AnalogArray | None = None
    error_prone_supply: ErrorProneSupply | None = None
    binary_weights: BinaryWeights | None = None
    zero_skipping: ZeroSkipping | None = None
    link: Link | None = None
    shared_weights: SharedWeights | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of those that are on."""
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None)


_EFFECTS: dict[str, Callable[[Any, Datapath, LayerPoint], Effect]] = {
    "zero_gating": zero_gating.effect,
    "lut_multiplier": lut_multiplier.effect,
    "bit_serial": bit_serial.effect,
    "analog_array": analog_array.effect,
    "error_prone_supply": error_prone_supply.effect,
    "binary_weights": binary_weights.effect,
    "zero_skipping": zero_skipping.effect,
    "link": link.effect,
    "shared_weights": shared_weights.effect,
}
# Mechanisms whose operands are other than they are stored when they reach the array, or are bounded in width.
_ARRAY_BITS: dict[str, Callable[[Any, Datapath, Any, Any], tuple[Any, Any]]] = {
    "bit_serial": bit_serial.array_bits,
    "analog_array": analog_array.array_bits,
    "binary_weights": binary_weights.array_bits,
    "shared_weights": shared_weights.array_bits,
}
_MOST_BITS: dict[str, Callable[[Any, int], tuple[float, float]]] = {
    "binary_weights": binary_weights.most_bits,
    "shared_weights": shared_weights.most_bits,
}
_HELD_BITS: dict[str, Callable[[Any, Datapath], tuple[np.ndarray, np.ndarray]]] = {
    "binary_weights": binary_weights.held_bits,
    "shared_weights": shared_weights.held_bits,
}

# A chip whose file says nothing gates the zeros of both operands.
WITHOUT: Effect = zero_gating.gating("both")


def layer_effect(mechanisms: Mechanisms, datapath: Datapath, point: LayerPoint) -> Effect | None:
    """What all mechanisms do to the layers, each field [*n mode]; None for a chip without any."""
    on = mechanisms.names
    if not on:
        return None
    if (code := mechanisms.link) is not None and code.stores("W"):
        point = point._replace(coded_w=True, run_bits=code.run_bits if code.weights == "columns" else 0)
    found = [WITHOUT] if "zero_gating" not in on else []
    found += [_EFFECTS[name](getattr(mechanisms, name), datapath, point) for name in on if name in _EFFECTS]
    return spread(combine(found), point.cycles)


def array_bits(
    mechanisms: Mechanisms, datapath: Datapath, weight_bits: Float[ArrayLike, "*n"], input_bits: Float[ArrayLike, "*n"]
) -> tuple[Any, Any]:
    """Widths of the operands in the array [bit]: what modes must hold and critical paths feel."""
    for name, widths in _ARRAY_BITS.items():
        if (one := getattr(mechanisms, name)) is not None:
            weight_bits, input_bits = widths(one, datapath, weight_bits, input_bits)
    return weight_bits, input_bits


def most_bits(mechanisms: Mechanisms, width_bits: int) -> tuple[float, float]:
    """Widest weights and inputs that a chip of this datapath's width can store and compute with [bit]."""
    w = i = float(width_bits)
    for name, bound in _MOST_BITS.items():
        if (one := getattr(mechanisms, name)) is not None:
            top_w, top_i = bound(one, width_bits)
            w, i = min(w, top_w), min(i, top_i)
    return w, i


def least_bits(mechanisms: Mechanisms) -> tuple[float, float]:
    """Narrowest weights and inputs that the array takes where they keep their sign alone [bit].

    A parallel multiplier of two's complement holds +1 and -1 in two bits.
    """
    if mechanisms.binary_weights is not None:
        return binary_weights.WEIGHT_BITS, 2.0
    return (2.0, 2.0) if mechanisms.bit_serial is None else bit_serial.least_bits(mechanisms.bit_serial)


def held_bits(mechanisms: Mechanisms, datapath: Datapath) -> tuple[np.ndarray, np.ndarray]:
    """Bits that a weight and an input reserve in a tile of the buffer, whatever the data, per mode [bit]."""
    slots = np.asarray([mode.slot_bits for mode in datapath.modes], np.float64)
    w = i = slots
    for name, bits in _HELD_BITS.items():
        if (one := getattr(mechanisms, name)) is not None:
            held_w, held_i = bits(one, datapath)
            w, i = np.minimum(w, held_w), np.minimum(i, held_i)
    return w, i
