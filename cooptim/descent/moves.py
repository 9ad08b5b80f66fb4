"""Single moves away from a legal design, for repair and for the certificate of local optimality."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from cooptim.design.design import Design
from cooptim.design.legal import grid_clock_ghz, violations
from cooptim.design.space import DesignSpace
from cooptim.relax.bitwidth import range_of
from cooptim.relax.method import method_of


class Move(NamedTuple):
    """One change of one choice; `retrains` says whether the network computes something else after it.

    `supply`: whether it changes a supply, and with it what goes wrong.
    """

    name: str
    design: Design
    retrains: bool
    supply: bool = False


def width_moves(space: DesignSpace, design: Design, delta: int) -> list[Move]:
    """Every legal design with one operand's width changed by `delta` bits, its range kept."""
    moves = []
    for number, (operand, top) in enumerate(zip(("weight", "input"), space.most_bits, strict=True)):
        lowest = space.lowest_bits(number)
        bits = np.asarray(getattr(design, f"{operand}_bits"))
        range_ = np.asarray(getattr(design, f"{operand}_range"))
        step = np.asarray(getattr(design, f"{operand}_step"))
        signed = np.ones_like(bits) if operand == "weight" else space.signed
        for layer, name in enumerate(space.workload.names):
            width = bits[layer] + delta
            if not lowest[layer] <= width <= top or method_of(space.methods, layer).fixed_bits[number] is not None:
                continue
            levels = float(range_of(np.float32(1), width, signed[layer]))
            changed = dataclasses.replace(
                design,
                **{
                    f"{operand}_bits": _put(bits, layer, width),
                    f"{operand}_step": _put(step, layer, range_[layer] / levels),
                },
            )
            moves.append(Move(f"{name} {operand} {bits[layer]:g} -> {width:g} b", _reclock(space, changed), True))
    return moves


def mode_moves(space: DesignSpace, design: Design) -> list[Move]:
    """Every design with the widths of one layer cut to the next narrower subword, ranges kept.

    A layer two bits above a subword gains nothing from either bit alone.
    """
    moves = []
    bits = {name: np.asarray(getattr(design, f"{name}_bits")) for name in ("weight", "input")}
    for layer, name in enumerate(space.workload.names):
        widest = max(bits["weight"][layer], bits["input"][layer])
        slots = [slot for slot in space.slot_bits if slot < widest]
        if not slots:
            continue
        slot, changed = float(max(slots)), design
        for operand, signed in (("weight", 1.0), ("input", float(space.signed[layer]))):
            if bits[operand][layer] > slot:
                range_ = np.asarray(getattr(design, f"{operand}_range"))
                step = range_[layer] / float(range_of(np.float32(1), slot, signed))
                changed = dataclasses.replace(
                    changed,
                    **{
                        f"{operand}_bits": _put(bits[operand], layer, slot),
                        f"{operand}_step": _put(np.asarray(getattr(design, f"{operand}_step")), layer, step),
                    },
                )
        narrowest = np.eye(len(space.slot_bits))[list(space.slot_bits).index(slot)]
        changed = dataclasses.replace(changed, mode=_put(np.asarray(design.mode), layer, narrowest))
        moves.append(Move(f"{name} to {slot:g} b subwords", _reclock(space, changed), True))
    return moves


HARDWARE = ("mode", "tiling", "supply")


def hardware_moves(space: DesignSpace, design: Design, kinds: tuple[str, ...] = HARDWARE) -> list[Move]:
    """Every design with one mode, one tiling or one supply step changed; the network computes the same.

    Args:
      kinds: what may change, of `HARDWARE`.
    """
    moves = []
    names = space.workload.names
    modes, tiling = np.asarray(design.mode), np.asarray(design.tiling)
    volts, step_v = np.asarray(design.supply_v), float(space.machine.supply.step_v)
    for layer, name in enumerate(names):
        for mode in range(modes.shape[1]) if "mode" in kinds else ():
            if modes[layer, mode] != 1:
                changed = dataclasses.replace(design, mode=_put(modes, layer, np.eye(modes.shape[1])[mode]))
                moves.append(Move(f"{name} mode {space.machine.modes[mode].name}", changed, False))
        for row in range(tiling.shape[1]) if "tiling" in kinds else ():
            if tiling[layer, row] != 1 and space.tilings.valid[layer, row] > 0:
                changed = dataclasses.replace(design, tiling=_put(tiling, layer, np.eye(tiling.shape[1])[row]))
                moves.append(Move(f"{name} tiling {row}", changed, False))
        for sign in (-1.0, 1.0) if "supply" in kinds else ():
            changed = dataclasses.replace(design, supply_v=_put(volts, layer, volts[layer] + sign * step_v))
            moves.append(Move(f"{name} supply {sign * step_v:+.2f} V", _reclock(space, changed), False, True))
    return moves


def legal_moves(space: DesignSpace, moves: list[Move]) -> list[Move]:
    """Those moves whose design can be built."""
    return [move for move in moves if not violations(space, move.design)]


def _put(values: np.ndarray, layer: int, value: Any) -> Any:
    out = np.array(values)
    out[layer] = value
    return out


def _reclock(space: DesignSpace, design: Design) -> Design:
    clock: Any = np.asarray(grid_clock_ghz(space, design, design.supply_v))
    return dataclasses.replace(design, freq_ghz=clock.astype(np.asarray(design.freq_ghz).dtype))
