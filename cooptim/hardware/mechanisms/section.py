"""The optional section `mechanisms` of a machine file, and which mechanisms exclude each other."""

from typing import Any, NamedTuple

from pydantic import model_validator

from cooptim.hardware.mechanisms.mechanisms import Mechanisms
from cooptim.hardware.mechanisms.zero_gating import ZeroGatingSection
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


EXCLUSIONS: tuple[Exclusion, ...] = ()


class MechanismsSection(Strict):
    """What the chip has beyond MACs, buffer and link; each is off where the file leaves it out."""

    zero_gating: ZeroGatingSection | None = None

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
