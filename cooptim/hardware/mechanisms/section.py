"""The optional section `mechanisms` of a machine file, and which mechanisms exclude each other."""

from typing import Any, NamedTuple

from pydantic import model_validator

from cooptim.hardware.mechanisms.analog_array import AnalogArraySection
from cooptim.hardware.mechanisms.binary_weights import BinaryWeightsSection
from cooptim.hardware.mechanisms.bit_serial import BitSerialSection
from cooptim.hardware.mechanisms.error_prone_supply import ErrorProneSupplySection
from cooptim.hardware.mechanisms.link import LinkSection
from cooptim.hardware.mechanisms.lut_multiplier import LutMultiplierSection
from cooptim.hardware.mechanisms.mechanisms import Mechanisms
from cooptim.hardware.mechanisms.shared_weights import SharedWeightsSection
from cooptim.hardware.mechanisms.zero_gating import ZeroGatingSection
from cooptim.hardware.mechanisms.zero_skipping import ZeroSkippingSection
from cooptim.hardware.quantity import Strict


class Exclusion(NamedTuple):
    """Two mechanisms that no chip can switch on together.

    Attributes:
      first, second: names of their sections. why: in a few words. remedy: what to remove or change.
    """

    first: str
    second: str
    why: str
    remedy: str


_ONE_MAC = "each of them replaces the multiplier"
EXCLUSIONS: tuple[Exclusion, ...] = (
    Exclusion("lut_multiplier", "bit_serial", _ONE_MAC, "remove the other"),
    Exclusion("lut_multiplier", "analog_array", _ONE_MAC, "remove the other"),
    Exclusion("lut_multiplier", "binary_weights", _ONE_MAC, "remove the other"),
    Exclusion("bit_serial", "analog_array", "a crossbar's inputs are serial by themselves", "set its dac instead"),
    Exclusion("bit_serial", "binary_weights", _ONE_MAC, "remove the other"),
    Exclusion("analog_array", "binary_weights", _ONE_MAC, "remove the other"),
    Exclusion("analog_array", "zero_skipping", "a column adds up all rows at once", "gate zeros instead of skipping"),
    Exclusion("shared_weights", "binary_weights", "one bit needs no table", "remove shared_weights"),
)


class MechanismsSection(Strict):
    """What the chip has beyond MACs, buffer and link; each is off where the file leaves it out."""

    zero_gating: ZeroGatingSection | None = None
    lut_multiplier: LutMultiplierSection | None = None
    bit_serial: BitSerialSection | None = None
    analog_array: AnalogArraySection | None = None
    error_prone_supply: ErrorProneSupplySection | None = None
    binary_weights: BinaryWeightsSection | None = None
    zero_skipping: ZeroSkippingSection | None = None
    link: LinkSection | None = None
    shared_weights: SharedWeightsSection | None = None

    @model_validator(mode="after")
    def _compatible(self) -> "MechanismsSection":
        for one in EXCLUSIONS:
            if getattr(self, one.first) is not None and getattr(self, one.second) is not None:
                raise ValueError(f"{one.first} together with {one.second}: {one.why}; legal: one of them; {one.remedy}")
        return self

    def fault(self, spec: Any) -> str | None:
        """What is wrong between the mechanisms and the rest of the file (a MachineSchema), or None."""
        for name in type(self).model_fields:
            section = getattr(self, name)
            found = section.fault(spec) if hasattr(section, "fault") else None
            if found is not None:
                return f"mechanisms.{name}{found}"
        return None

    def build(self) -> Mechanisms:
        """The mechanisms as a pytree."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return Mechanisms(**{name: None if one is None else one.build() for name, one in sections.items()})
