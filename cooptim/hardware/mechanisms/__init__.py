"""Mechanisms of circuits and architectures, one small module each; a machine file switches them on.

A module holds the mechanism's section of the file, its numbers as a frozen pytree, and `effect`: what it does to the
cycles, words and energy of a layer, as factors and additions that multiply and add up over all mechanisms of a chip.
To add one: write the module, name it in `mechanisms.py` (Mechanisms and the tables) and in `section.py` (the section
and its EXCLUSIONS).
"""

from cooptim.hardware.mechanisms.effect import Effect, LayerPoint, combine
from cooptim.hardware.mechanisms.mechanisms import (
    WITHOUT,
    Mechanisms,
    array_bits,
    held_bits,
    layer_effect,
    least_bits,
    most_bits,
)

__all__ = [
    "WITHOUT",
    "Effect",
    "LayerPoint",
    "Mechanisms",
    "array_bits",
    "combine",
    "held_bits",
    "layer_effect",
    "least_bits",
    "most_bits",
]
