"""Quantities in the unit that reads best: the inverse of `cooptim.units.parse`."""

from cooptim.units import convert, unit_names

_LADDERS: dict[str, tuple[str, ...]] = {
    "energy": ("fJ", "pJ", "nJ", "uJ", "mJ", "J"),
    "time": ("ps", "ns", "us", "ms", "s"),
    "frequency": ("kHz", "MHz", "GHz"),
    "area": ("um2", "mm2"),
    "throughput": ("MOPS", "GOPS", "TOPS"),
    "size": ("bit", "B", "kB", "MB"),
}


def spell(value: float | None, quantity: str) -> str:
    """`value` [coherent unit] to three digits in the largest unit that leaves at least 1; '-' for None."""
    if value is None:
        return "-"
    fitting = [unit for unit in _LADDERS[quantity] if unit in unit_names(quantity)]
    chosen = fitting[0]
    for unit in fitting:
        if abs(value) >= convert(1.0, unit, quantity) * 0.9995:
            chosen = unit
    return f"{digits(value / convert(1.0, chosen, quantity))} {chosen}"


def digits(value: float | None) -> str:
    """Three significant digits, without an exponent below a million; '-' for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.2e}"
    return f"{value:.3g}"


def percent(value: float | None, places: int = 1) -> str:
    """A fraction in percent; '-' for None."""
    return "-" if value is None else f"{100.0 * value:.{places}f} %"


def times(value: float | None) -> str:
    """A ratio to three digits with an x; '-' for None."""
    return "-" if value is None else f"{digits(value)}x"
