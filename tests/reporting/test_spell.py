import pytest

from cooptim.reporting.spell import digits, spell
from cooptim.units import parse


@pytest.mark.parametrize(
    ("value", "quantity", "words"),
    [
        (6000.0, "energy", "6 nJ"),
        (0.5, "energy", "500 fJ"),
        (2.5e6, "energy", "2.5 uJ"),
        (999.6, "energy", "1 nJ"),
        (1500.0, "time", "1.5 us"),
        (2.0e6, "time", "2 ms"),
        (0.2, "frequency", "200 MHz"),
        (1048576.0, "size", "128 kB"),
        (0.0, "energy", "0 fJ"),
        (None, "energy", "-"),
    ],
)
def test_a_quantity_is_spelled_in_the_unit_that_reads_best(value, quantity, words):
    assert spell(value, quantity) == words


@pytest.mark.parametrize("value", [3.0, 3e3, 3e6, 3e9, 0.003])
def test_what_is_spelled_parses_back(value):
    assert parse(spell(value, "energy"), "energy") == pytest.approx(value)


def test_three_digits_without_exponent_below_a_million():
    assert [digits(x) for x in (0.012345, 12.345, 999.4, 12345.6, 2.5e7, None)] == [
        "0.0123", "12.3", "999", "12,346", "2.50e+07", "-"
    ]  # fmt: skip
