"""Options that carry a unit."""

import math

from cooptim import units


def positive(option: str, text: str, quantity: str) -> float:
    """What an option says, in the coherent unit of `quantity`; ValueError names the option unless it is above 0."""
    try:
        value = units.parse(text, quantity)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    if not 0 < value < math.inf:
        raise ValueError(
            f"{option} {text}: not above 0 and finite; write a number and a unit, such as {_LIKE[quantity]}"
        )
    return value


_LIKE: dict[str, str] = {"energy": "50nJ", "time": "2ms", "area": "2mm2"}
