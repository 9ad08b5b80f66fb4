"""Published figures of Envision beside the model's, each with unit, source and tolerance."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cooptim.hardware.dvafs import critical_path, supply_for_clock
from cooptim.hardware.load import MachineFile, load_machine_file
from cooptim.hardware.reference import PUBLISHED, dvafs_ratios, operating_power_mw, sparse_gain
from cooptim.validate.row import Row

_TOLERANCE = 0.05  # of the published ratios
# Seen in public reading and course notes on the papers, Moons et al.
_DATE = "DATE 2017, sec. V, Fig. 8"
_ISSCC = "ISSCC 2017"
_TITLES: dict[str, str] = {
    "dvafs_over_16b": "1x16b over 4x4b power at 76 GOPS",
    "dvafs_over_das": "DAS over DVAFS power, 4 bit at 76 GOPS",
    "dvafs_over_dvas": "DVAS over DVAFS power, 4 bit at 76 GOPS",
    "dvafs_200_over_50_mhz": "4x4b power at 200 over 50 MHz",
}


def envision_rows(file: MachineFile | None = None) -> list[Row]:
    """The four published ratios, the powers behind them, and what is known without being checked.

    Args:
      file: a machine file with modes of 1, 2 and 4 lanes; default is Envision's own.
    """
    file = load_machine_file("envision") if file is None else file
    machine, point = file.machine, file.reference
    ratios = dvafs_ratios(machine, point)
    rows = [
        Row.of(title, "1", PUBLISHED[name], float(ratios[name]), _TOLERANCE, _DATE) for name, title in _TITLES.items()
    ]
    reference = _power_mw(file, 1, 1.0)
    rows.append(Row.of("power of 1x16b at 200 MHz", "mW", 300.0, reference, _TOLERANCE, _DATE))
    rows.append(Row.of("power of 4x4b at 50 MHz", "mW", 18.0, _power_mw(file, 4, 0.25), _TOLERANCE, _DATE))
    rows.append(
        Row.of("power of 4x4b at 200 MHz", "mW", 104.0, _power_mw(file, 4, 1.0), None, _DATE, "a caption says 108 mW")
    )
    # The exponent of the subword divisor is published at 4 lanes only: 2 lanes follow from its interval.
    interval = file.stated_numbers["datapath.subword_exponent"].interval or ()
    ends = [_power_mw(file.with_values(datapath__subword_exponent=end), 2, 0.5) for end in interval]
    middle = _power_mw(file, 2, 0.5)
    rows.append(
        Row(
            "power of 2x8b at 100 MHz", "mW", None, middle, min([middle, *ends]), max([middle, *ends]), None,
            "no published power", "interval of the subword exponent",
        )
    )  # fmt: skip
    rows.append(
        Row.of(
            "dense over sparse power, half of both operands zero", "1", 18.0 / 7.6,
            float(sparse_gain(machine, point, 0.5, 0.5)), None, _ISSCC, "the zero rate of the chip was not published",
        )
    )  # fmt: skip
    return rows


def _power_mw(file: MachineFile, lanes: int, clock_share: float) -> float:
    """Power in the mode of so many lanes at full slots and a share of the nominal clock, lowest supply [mW]."""
    machine = file.machine
    mode = next(mode for mode in machine.modes if mode.lanes == lanes)
    supply, bits = machine.supply, float(mode.slot_bits)
    freq: Float[Array, ""] = supply.nominal_ghz * clock_share
    path = critical_path(supply, machine.datapath.width_bits, jnp.asarray(bits, jnp.result_type(float)))
    return float(operating_power_mw(machine, file.reference, mode, bits, freq, supply_for_clock(supply, freq, path)))
