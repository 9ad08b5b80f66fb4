"""Chips that publish a few operating points: YodaNN, the 40 nm DVAS processor and the 40 nm DVAFS SIMD processor.

Every published figure that was read is a row. `input` and `fitted` rows say that the file takes the figure; predicted
rows are counted among the claims (`cooptim validate --claims`), so here they are shown without a verdict.
"""

import itertools

import jax.numpy as jnp
from jax.typing import ArrayLike

from cooptim.hardware.dvafs import critical_path, max_clock_ghz, supply_for_clock
from cooptim.hardware.load import MachineFile, load_machine_file
from cooptim.hardware.reference import operating_power_mw
from cooptim.validate.row import Row

_YODANN = "ISVLSI 2016, abstract"
_YODANN_061 = "IEEE CEDA, abstract"
_JSSC = "JSSC 52(4) 2017, abstract"
_DATE = "DATE 2017 (reading notes)"
_EXACT = 1e-3  # of rounded inputs
_ONE_CHIP = 0.10  # ratios of a chip with itself
_NARROW_BITS = (1.0, 4.0)  # widths behind a lowest published power that are not published
_DENSITIES = (0.1, 1.0)  # shares of non-zeros there, not published either


def yodann_rows(file: MachineFile | None = None) -> list[Row]:
    """Both published supplies of YodaNN: power, throughput, efficiency; what f V^2 misses is shown as it is."""
    file = load_machine_file("yodann") if file is None else file
    fast, slow = (_point(file, volts) for volts in (1.2, 0.6))
    miss = "not reproduced; see --claims"
    rows = [
        Row.of("YodaNN, power at 1.2 V", "mW", 153.0, fast[0], _EXACT, _YODANN, "input"),
        Row.of("YodaNN, peak throughput at 1.2 V", "GOPS", 1510.0, fast[1], _EXACT, _YODANN, "input"),
        Row.of("YodaNN, core area", "mm2", 1.9, file.spec.area.total.value, _EXACT, _YODANN, "input"),
        Row.of(
            "YodaNN, peak throughput at 0.6 V", "GOPS", 61.2 * 0.895, slow[1], 0.05, _YODANN_061,
            "fitted; 61.2 x 0.895",
        ),
        Row.of("YodaNN, power at 0.6 V", "mW", 0.895, slow[0], None, _YODANN_061, miss),
        Row.of("YodaNN, efficiency at 0.6 V", "TOPS/W", 61.2, slow[1] / slow[0], None, _YODANN_061, miss),
        Row.of("YodaNN, power at 1.2 over 0.6 V", "1", 153.0 / 0.895, fast[0] / slow[0], None, _YODANN_061, miss),
    ]  # fmt: skip
    return rows


def dvas_rows(file: MachineFile | None = None) -> list[Row]:
    """Published ranges of the 40 nm DVAS processor; its lowest power is at widths and zeros not published."""
    file = load_machine_file("dvas_40nm") if file is None else file
    supply = file.machine.supply
    freq = float(supply.nominal_ghz)
    corners = itertools.product(_NARROW_BITS, _DENSITIES)
    low = [_power_mw(file, bits, freq, _volts(file, bits, freq), density) for bits, density in corners]
    middle = _power_mw(file, 2.0, freq, _volts(file, 2.0, freq), 0.5)
    high, peak = _power_mw(file, 16.0, freq, 1.1, 1.0), _peak_gops(file, freq)
    gops = peak * file.reference.busy_fraction
    wide = f"at {_NARROW_BITS[0]:g} to {_NARROW_BITS[1]:g} bit, {_DENSITIES[0]:g} to 1 of words non-zero; not published"
    return [
        Row.of("DVAS processor, peak throughput", "GOPS", 102.0, peak, 0.05, _JSSC, "input: 2 x 256 x 204 MHz = 104"),
        Row.of("DVAS processor, highest power", "mW", 287.0, high, _EXACT, _JSSC, "input"),
        Row.of("DVAS processor, lowest efficiency", "TOPS/W", 0.3, gops / high, 0.17, _JSSC, "input, rounded"),
        Row(
            "DVAS processor, lowest power", "mW", 25.0, middle, min(low), max(low), _ONE_CHIP, _JSSC, wide, "inside",
        ),
        Row(
            "DVAS processor, highest efficiency", "TOPS/W", 2.7, gops / middle, gops / max(low), gops / min(low),
            _ONE_CHIP, _JSSC, wide, "inside",
        ),
    ]  # fmt: skip


def simd_rows(file: MachineFile | None = None) -> list[Row]:
    """The 40 nm SIMD processor: the two supplies of its multiplier, and the saving of the whole at 4x4b."""
    file = load_machine_file("simd_40nm") if file is None else file
    saving = _simd_saving(file)
    # What is not published: the datapath's share, and the share of the energy on a rail that stays.
    scalable, fixed = (
        file.stated_numbers[name].interval or () for name in ("reference.shares.datapath", "supply.fixed_share")
    )
    ends = [
        _simd_saving(file.with_values(reference__shares__datapath=s, supply__fixed_share=v))
        for s, v in itertools.product(scalable, fixed)
    ]
    note = "over assumed splits of power and rails"
    return [
        Row.of("SIMD processor, supply of 1x4b at 500 MHz", "V", 0.9, _volts(file, 4.0, 0.5), 0.05, _DATE, "fitted"),
        Row.of("SIMD processor, supply of 4x4b at 125 MHz", "V", 0.75, _volts(file, 4.0, 0.125), 0.05, _DATE, "fitted"),
        Row(
            "SIMD processor, saving of 4x4b over 1x16b", "%", 85.0, saving, min([saving, *ends]), max([saving, *ends]),
            None, _DATE, note, "inside",
        ),
    ]  # fmt: skip


def _point(file: MachineFile, volts: float) -> tuple[float, float]:
    """(power [mW], peak [GOPS]) at full width and the fastest clock of this supply."""
    freq = float(max_clock_ghz(file.machine.supply, volts, 1.0))
    return _power_mw(file, float(file.machine.datapath.width_bits), freq, volts, 1.0), _peak_gops(file, freq)


def _peak_gops(file: MachineFile, freq_ghz: float) -> float:
    return 2.0 * file.machine.datapath.rows * file.machine.datapath.cols * freq_ghz


def _volts(file: MachineFile, bits: float, freq_ghz: float) -> float:
    """Lowest supply at which operands of so many bits keep this clock [V]."""
    supply = file.machine.supply
    path = critical_path(supply, file.machine.datapath.width_bits, jnp.asarray(bits, jnp.result_type(float)))
    return float(supply_for_clock(supply, freq_ghz, path))


def _power_mw(
    file: MachineFile, bits: float, freq_ghz: ArrayLike, volts: float, density: float, lanes: int = 1
) -> float:
    mode = next(mode for mode in file.machine.modes if mode.lanes == lanes)
    return float(operating_power_mw(file.machine, file.reference, mode, bits, freq_ghz, volts, density, density))


def _simd_saving(file: MachineFile) -> float:
    """Power that 4x4b at a quarter of the clock and its lowest supply saves over 1x16b [%]."""
    freq = float(file.machine.supply.nominal_ghz)
    narrow = _power_mw(file, 4.0, freq / 4, _volts(file, 4.0, freq / 4), 1.0, lanes=4)
    return 100.0 * (1.0 - narrow / _power_mw(file, 16.0, freq, float(file.machine.supply.nominal_v), 1.0))
