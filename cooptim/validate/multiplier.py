"""The 40 nm DVAFS multiplier: published energies, supplies and saving beside the model's."""

from cooptim.hardware.circuit_file import load_multiplier
from cooptim.hardware.multiplier import ScalableMultiplier, lowest_supply_v, word_energy_pj
from cooptim.validate.row import Row

SOURCE = "DATE 2017, Table I"
SUPPLY_TOLERANCE = 0.05
_CLOCK_GHZ = {1: 0.5, 4: 0.125}  # of one and four lanes at 500 million words a second


def multiplier_rows(part: ScalableMultiplier | None = None) -> list[Row]:
    """Energies (inputs), the two supplies (fitted) and the saving of 4x4b (predicted); default is the packaged one."""
    part = load_multiplier("dvafs_multiplier_40nm") if part is None else part
    full = float(word_energy_pj(part, 1.0, float(part.width_bits), part.supply_v))
    rows = [
        Row.of("40 nm multiplier, 16 b, not scalable", "pJ", 2.16, float(part.fixed_word_pj), 1e-6, SOURCE, "input"),
        Row.of("40 nm multiplier, 1x16b at 1.1 V", "pJ", 2.63, full, 1e-6, SOURCE, "input"),
    ]
    for lanes, published, name in ((1, 0.9, "1x4b at 500 MHz"), (4, 0.75, "4x4b at 125 MHz")):
        supply = four_bit_supply_v(part, lanes)
        rows.append(
            Row.of(f"40 nm multiplier, supply of {name}", "V", published, supply, SUPPLY_TOLERANCE, SOURCE, "fitted")
        )
    rows.append(
        Row.of(
            "40 nm multiplier, saving of 4x4b over the one that cannot scale", "%", 95.0, four_by_four_saving(part),
            0.0, SOURCE, "predicted", "above",
        )
    )  # fmt: skip
    return rows


def four_bit_supply_v(part: ScalableMultiplier, lanes: int) -> float:
    """Lowest supply of 4-bit operands at 500 million words a second in one or four lanes [V]."""
    return float(lowest_supply_v(part, 4.0, _CLOCK_GHZ[lanes]))


def four_by_four_saving(part: ScalableMultiplier) -> float:
    """Energy that a word of 4x4b saves against the multiplier that cannot scale [%], at the model's own supply."""
    energy = word_energy_pj(part, 4.0, 4.0, four_bit_supply_v(part, 4))
    return 100.0 * (1.0 - float(energy / part.fixed_word_pj))
