"""Coherent units (pJ, ns, mW, GHz, pF, V, bit, mm2) and the only place that converts to and from others.

mW * ns = pJ and GHz * ns = 1, so no factor appears anywhere else in the package.
"""

import re

# Factor from a spelled unit to the coherent one, by quantity. Source: SI prefixes; 1 kB = 1024 bytes (memory sizes).
_FACTORS: dict[str, dict[str, float]] = {
    "energy": {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "mJ": 1e9, "J": 1e12},
    "time": {"ps": 1e-3, "ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9},
    "power": {"nW": 1e-6, "uW": 1e-3, "mW": 1.0, "W": 1e3},
    "frequency": {"kHz": 1e-6, "MHz": 1e-3, "GHz": 1.0},
    "voltage": {"mV": 1e-3, "V": 1.0},
    "capacitance": {"fF": 1e-3, "pF": 1.0, "nF": 1e3, "uF": 1e6},
    "size": {
        "bit": 1.0,
        "B": 8.0,
        "kB": 8192.0,
        "MB": 8388608.0,
        "kbit": 1024.0,
        "Mbit": 1048576.0,
    },
    "length": {"nm": 1e-6, "um": 1e-3, "mm": 1.0},
    "area": {"um2": 1e-6, "mm2": 1.0},
    "bandwidth": {"bit/ns": 1.0, "Gbit/s": 1.0, "GB/s": 8.0, "MB/s": 8e-3},
    "throughput": {"MOPS": 1e-3, "GOPS": 1.0, "TOPS": 1e3},  # operations a nanosecond; 1 MAC = 2 operations
    "energy_per_bit": {"fJ/bit": 1e-3, "pJ/bit": 1.0},
    "area_per_bit": {"um2/bit": 1e-6, "mm2/bit": 1.0},
    "ratio": {"1": 1.0, "%": 1e-2},
    "count": {"1": 1.0},
}


def quantities() -> tuple[str, ...]:
    """Names of the physical quantities that have units here."""
    return tuple(_FACTORS)


def unit_names(quantity: str) -> tuple[str, ...]:
    """Legal unit spellings of a quantity."""
    return tuple(_FACTORS[quantity])


def convert(value: float, unit: str, quantity: str) -> float:
    """`value` in the coherent unit of `quantity`.

    Raises ValueError, with the legal spellings, when `unit` is not one of them.
    """
    table = _FACTORS[quantity]
    if unit not in table:
        raise ValueError(f"unit '{unit}' is no unit of {quantity}; use one of {', '.join(table)}")
    return value * table[unit]


def parse(text: str, quantity: str) -> float:
    """A quantity written as number and unit, such as '50nJ' or '2 ms', in the coherent unit.

    Raises ValueError when the number or the unit cannot be read.
    """
    match = re.fullmatch(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%][A-Za-z0-9/%]*)\s*", text)
    if match is None:
        legal = ", ".join(_FACTORS[quantity])
        raise ValueError(f"'{text}' is no {quantity}: write a number and a unit ({legal}), such as 50nJ")
    return convert(float(match.group(1)), match.group(2), quantity)
