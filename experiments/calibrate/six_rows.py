"""Envision's four ratios and the two supplies of the 40 nm multiplier as one calibration, with profile intervals.

Four parameters are fitted to six rows: the scalable share of Envision's power, one path share for both (they have the
same kind of multiplier), and a threshold each. A profile moves one parameter and refits the others so that the worst of
the six rows is least; its interval is where that stays within 5 %. What reaches an end of its legal range is not
identified.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq, least_squares, minimize

from cooptim.hardware import MachineFile
from cooptim.hardware.multiplier import ScalableMultiplier, lowest_supply_v
from cooptim.hardware.reference import PUBLISHED, dvafs_ratios

# Published for the multiplier: supply at so many bits and GHz [V]. Source: DATE 2017 Table I (reading notes).
SUPPLIES = {"4b_at_500_mhz": (4.0, 0.5, 0.9), "4x4b_at_125_mhz": (4.0, 0.125, 0.75)}
ROWS = (*PUBLISHED, *SUPPLIES)
TARGETS = np.array([*PUBLISHED.values(), *(volts for *_, volts in SUPPLIES.values())])
TOLERANCE = 0.05
# Legal range of each parameter. Thresholds are shares of the nominal supply: 1.03 V (recalled) and 1.1 V.
RANGE = {
    "share": (0.05, 0.70), "path_share": (0.0, 0.95), "threshold_28nm": (0.05, 0.64), "threshold_40nm": (0.05, 0.68),
    "alpha": (1.0, 2.5), "leakage": (0.0, 0.15), "leakage_exponent": (1.0, 4.0), "fixed_share": (0.0, 0.1),
    "gating_exponent": (1.6, 2.0), "subword_exponent": (0.55, 0.84),
}  # fmt: skip
FITTED = ("share", "path_share", "threshold_28nm", "threshold_40nm")
ASSUMED = tuple(name for name in RANGE if name not in FITTED)
LOOSE = ("alpha", "leakage")  # refitted, too, in the wider profile: they trade against the thresholds
STEPS = 24  # of a profile's walk to each side
_EDGE = 1e-3  # of a range: an interval that comes so near to its end reaches it


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The two files, and the parameters as they carry them."""

    file: MachineFile
    multiplier: ScalableMultiplier

    @property
    def carried(self) -> dict[str, float]:
        """Every parameter of RANGE as the files carry it."""
        number = {path: quantity.value for path, quantity in self.file.numbers.items()}
        part = self.multiplier
        return {
            "share": number["reference.shares.datapath"],
            "path_share": number["supply.path_share"],
            "threshold_28nm": number["supply.threshold_v"] / number["supply.nominal_v"],
            "threshold_40nm": float(part.threshold_v / part.supply_v),
            "alpha": number["supply.alpha"],
            "leakage": number["reference.shares.leakage"],
            "leakage_exponent": number["supply.leakage_exponent"],
            "fixed_share": number["supply.fixed_share"],
            "gating_exponent": number["datapath.gating_exponent"],
            "subword_exponent": number["datapath.subword_exponent"],
        }

    def rows(self, parameters: dict[str, float]) -> np.ndarray:
        """The six rows at these parameters, in the order of ROWS."""
        return np.asarray(self._rows(jnp.array([parameters[name] for name in RANGE])))

    def errors(self, parameters: dict[str, float]) -> np.ndarray:
        """Relative errors of the six rows."""
        return self.rows(parameters) / TARGETS - 1.0

    @functools.cached_property
    def _rows(self) -> Callable:
        machine, point, part = self.file.machine, self.file.reference, self.multiplier
        shares = {name: self.file.numbers[f"reference.shares.{name}"].value for name in ("datapath", "sram")}

        @jax.jit
        def found(x):
            p = dict(zip(RANGE, x, strict=True))
            rest = 1.0 - p["share"] - shares["sram"] - p["leakage"]
            datapath = dataclasses.replace(
                machine.datapath,
                busy_pj=machine.datapath.busy_pj * p["share"] / shares["datapath"],
                control_pj=rest * point.power_mw / point.freq_ghz,
                gating_exponent=p["gating_exponent"],
                subword_exponent=p["subword_exponent"],
            )
            supply = dataclasses.replace(
                machine.supply,
                threshold_v=p["threshold_28nm"] * machine.supply.nominal_v,
                leakage_mw=p["leakage"] * point.power_mw,
                **{name: p[name] for name in ("path_share", "alpha", "leakage_exponent", "fixed_share")},
            )
            ratios = dvafs_ratios(dataclasses.replace(machine, datapath=datapath, supply=supply), point)
            mine = dataclasses.replace(
                part, threshold_v=p["threshold_40nm"] * part.supply_v, alpha=p["alpha"], path_share=p["path_share"]
            )
            supplies = [lowest_supply_v(mine, bits, freq) for bits, freq, _ in SUPPLIES.values()]
            return jnp.stack([*(ratios[name] for name in PUBLISHED), *supplies])

        return found

    @functools.cached_property
    def _logs(self) -> tuple[Callable, Callable]:
        """log(row / target) of all parameters, and its Jacobian."""
        rows = self._rows
        logs = jax.jit(lambda x: jnp.log(rows(x) / jnp.asarray(TARGETS)))
        return logs, jax.jit(jax.jacfwd(logs))

    def fit(self) -> dict[str, float]:
        """All parameters, the fitted four such that the six rows are nearest in least squares of logarithms."""
        logs, slope = self._logs
        base = np.array(list(self.carried.values()))
        index = [list(RANGE).index(name) for name in FITTED]

        def full(x):
            out = base.copy()
            out[index] = x
            return jnp.asarray(out)

        low, high = np.array([RANGE[name] for name in FITTED]).T
        trials = [
            least_squares(
                lambda x: np.asarray(logs(full(x))), start, lambda x: np.asarray(slope(full(x)))[:, index], (low, high)
            )
            for start in ([0.6, 0.5, 0.4, 0.4], [0.64, 0.74, 0.57, 0.6])
        ]
        best = min(trials, key=lambda trial: trial.cost)
        return self.carried | dict(zip(FITTED, best.x.tolist(), strict=True))

    def least_worst(self, fixed: dict[str, float], free: tuple[str, ...], start: dict[str, float]):
        """Free parameters that make the worst of the six rows least while the others stay, and that worst error."""
        names = list(RANGE)
        index = [names.index(name) for name in free]
        base = np.array([(start | fixed)[name] for name in names])
        logs, slope = self._logs

        def full(x):
            out = base.copy()
            out[index] = x[:-1]
            return jnp.asarray(out)

        # +-log(row / target) <= bound, with the bound as the last unknown.
        def slack(x):
            value = np.asarray(logs(full(x)))
            return np.concatenate([x[-1] - value, x[-1] + value])

        def slack_slope(x):
            part = np.asarray(slope(full(x)))[:, index]
            ones = np.ones((len(TARGETS), 1))
            return np.concatenate([np.hstack([-part, ones]), np.hstack([part, ones])])

        bounds = [RANGE[name] for name in free] + [(0.0, 10.0)]
        first = np.append(base[index], np.abs(np.asarray(logs(jnp.asarray(base)))).max())
        found = minimize(
            lambda x: x[-1], first, jac=lambda x: np.eye(len(x))[-1], bounds=bounds, method="SLSQP",
            constraints={"type": "ineq", "fun": slack, "jac": slack_slope}, options={"maxiter": 200, "ftol": 1e-10},
        )  # fmt: skip
        point = dict(zip(names, np.asarray(full(found.x)).tolist(), strict=True))
        return point, float(np.abs(self.errors(point)).max())

    def profile(self, name: str, others: tuple[str, ...]) -> dict:
        """Lowest and highest value of one parameter at which the refitted others keep every row within TOLERANCE."""
        free = tuple(other for other in others if other != name)
        middle, worst = self.least_worst({}, tuple(dict.fromkeys((*free, name))), self.fit())
        if worst > TOLERANCE:
            return {"low": None, "high": None, "identified": False}
        ends = [self._end(name, free, middle, limit) for limit in RANGE[name]]
        reached = [
            bool(abs(end - limit) <= _EDGE * np.ptp(RANGE[name])) for end, limit in zip(ends, RANGE[name], strict=True)
        ]
        return {"low": ends[0], "high": ends[1], "low_is_limit": reached[0], "high_is_limit": reached[1],
                "identified": not any(reached)}  # fmt: skip

    def _end(self, name: str, free: tuple[str, ...], middle: dict[str, float], limit: float) -> float:
        inside, point = middle[name], middle
        for value in np.linspace(middle[name], limit, STEPS + 1)[1:]:
            moved, worst = self.least_worst({name: float(value)}, free, point)
            if worst > TOLERANCE:
                held = point

                def excess(x, held=held):
                    return self.least_worst({name: x}, free, held)[1] - TOLERANCE

                return float(brentq(excess, inside, float(value), xtol=1e-4)) if excess(inside) < 0 else float(inside)
            inside, point = float(value), moved
        return float(limit)


def common_threshold(calibration: Calibration) -> dict:
    """Three parameters: one threshold over nominal supply for both chips; the best of a grid, and its worst row."""
    tried = []
    for value in np.linspace(0.4, 0.66, 53):
        same = {"threshold_28nm": float(value), "threshold_40nm": float(value)}
        _, worst = calibration.least_worst(same, ("share", "path_share"), calibration.fit())
        tried.append((worst, float(value)))
    return {"threshold": min(tried)[1], "worst": min(tried)[0]}


def study(calibration: Calibration) -> dict:
    """The fit, its errors, the carried parameters' errors, and profiles: of the fitted alone, wider, of the assumed."""
    fitted = calibration.fit()
    return {
        "rows": list(ROWS),
        "fitted": {name: fitted[name] for name in FITTED},
        "errors": calibration.errors(fitted).tolist(),
        "carried": {name: calibration.carried[name] for name in FITTED},
        "errors_carried": calibration.errors(calibration.carried).tolist(),
        "common_threshold": common_threshold(calibration),
        "profiles": {name: calibration.profile(name, FITTED) for name in FITTED},
        "profiles_loose": {name: calibration.profile(name, FITTED + LOOSE) for name in FITTED + LOOSE},
        "profiles_assumed": {name: calibration.profile(name, FITTED) for name in ASSUMED},
    }


def show(result: dict) -> None:
    """Prints what `study` found; 'not identified' where a profile reaches an end of its legal range."""
    print("six rows, four parameters: " + ", ".join(f"{k} {v:.4f}" for k, v in result["fitted"].items()))
    for name, error, carried in zip(result["rows"], result["errors"], result["errors_carried"], strict=True):
        print(f"  {name:22s} {100 * error:6.2f} %   as carried {100 * carried:6.2f} %")
    shared = result["common_threshold"]
    value, worst = shared["threshold"], 100 * shared["worst"]
    print(f"three parameters, one threshold / nominal supply {value:.3f}: worst {worst:.2f} %")
    titles = {
        "profiles": "all six within 5 %, the other fitted ones refitted",
        "profiles_loose": "the same, exponent and leakage of the supply refitted, too",
        "profiles_assumed": "assumed parameters, the four refitted",
    }
    for key, title in titles.items():
        print(title)
        for name, found in result[key].items():
            print(f"  {name:18s} {_spell(found)}")
    print("  sram, control      not identified (only their sum enters the rows)")


def _spell(found: dict) -> str:
    if found["low"] is None:
        return "no value keeps all six rows"
    text = f"{found['low']:.3f} to {found['high']:.3f}"
    if found["low_is_limit"] and found["high_is_limit"]:
        return f"not identified (all of {text})"
    if found["identified"]:
        return text
    return f"not identified {'below' if found['low_is_limit'] else 'above'} ({text})"
