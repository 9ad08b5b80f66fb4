"""Silicon area."""

from jaxtyping import Array, Float

from cooptim.hardware.machine import Machine


def area_mm2(machine: Machine, buffer_bits: Float[Array, ""]) -> Float[Array, ""]:
    """Area of the chip with a buffer of this size [mm2]; DRAM is outside."""
    return machine.area.logic_mm2 + machine.area.memory_mm2_per_bit * buffer_bits
