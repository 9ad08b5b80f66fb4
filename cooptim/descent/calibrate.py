"""Post-training quantization: a legal design of a trained network from unlabelled inputs, without any training."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cooptim.compile import compiled
from cooptim.descent.assign import assign_hardware
from cooptim.descent.clusters import with_clusters
from cooptim.descent.faults import safe_machine
from cooptim.descent.polish import polished
from cooptim.descent.price import Pricer
from cooptim.design.design import Design
from cooptim.design.knobs import frozen_phase
from cooptim.design.legal import snap
from cooptim.design.space import DesignSpace
from cooptim.hardware.machine import Machine
from cooptim.mapping.frontier import tilings
from cooptim.network.ranges import ClipErrors, Extremes, clip_errors, extremes
from cooptim.network.trace import Network
from cooptim.relax.bitwidth import range_of
from cooptim.relax.method import Method, method_of

RANGES = ("minmax", "mse")
RATIOS = np.geomspace(1.0, 0.1, 32)  # of the range to the largest magnitude that are tried; a unit step of 7 %
_CHUNK = 512  # images measured at once
Bits = float | Sequence[float]


def calibrate(
    network: Network,
    params: Any,
    state: Any,
    x: Any,
    where: Machine | DesignSpace,
    bits: Bits | tuple[Bits, Bits] = 8,
    *,
    ranges: str = "mse",
    per_channel: bool = False,
    deadline_ns: float = math.inf,
) -> Design:
    """The legal design of a trained network at given widths: ranges by the data, best hardware within the deadline.

    Args:
      params, state: as trained. x: a few hundred inputs, without labels; whole chunks of 512 are used of more.
      where: the machine; or a design space, whose methods and signs are then kept. No supply falls below the safe one.
      bits: of all operands, or a pair (of weights, of inputs), each one number or one a layer.
      ranges: 'minmax' represents the largest magnitude that was seen; 'mse' the share of it, of 32 from 1 to 1/10,
        that loses least to rounding and clipping together, operand by operand (channel by channel).
      per_channel: each output channel of a layer with weights has a range of its own.

    Raises ValueError for unknown `ranges`, widths that the machine does not take, per_channel beside a design space and
    where a layer has no channels that can be told.
    """
    space, design = calibrated_ranges(network, params, state, x, where, bits, ranges=ranges, per_channel=per_channel)
    stats = compiled(network.apply)(params, state, _chunks(x)[0], design)[2]
    pricer = Pricer(space)
    legal = snap(space, assign_hardware(space, pricer, design, stats, deadline_ns))
    return polished(space, pricer, legal, stats, deadline_ns, ("mode", "tiling"))  # no supply falls below the safe one


def calibrated_ranges(
    network: Network,
    params: Any,
    state: Any,
    x: Any,
    where: Machine | DesignSpace,
    bits: Bits | tuple[Bits, Bits],
    *,
    ranges: str,
    per_channel: bool,
) -> tuple[DesignSpace, Design]:
    """(the space, a design with calibrated ranges whose hardware is not chosen yet); arguments as in `calibrate`."""
    if ranges not in RANGES:
        raise ValueError(f"calibrate: ranges '{ranges}' is not known; use one of {', '.join(RANGES)}")
    if isinstance(where, DesignSpace) and per_channel:
        raise ValueError("calibrate: per_channel beside a design space, whose methods say so; make the space with them")
    layers, chunks = network.workload.layers, _chunks(x)
    methods = where.methods if isinstance(where, DesignSpace) else _methods(network, per_channel)
    scaled = tuple(method_of(methods, i).scaled for i in range(len(layers)))
    look = compiled(extremes, static_argnums=(0, 4))
    seen = _merged([look(network, params, state, part, scaled) for part in chunks])
    missing = [layers[i].name for i, on in enumerate(scaled) if on and i not in seen.channel_max]
    if missing:
        names = ", ".join(missing)
        raise ValueError(f"calibrate: the output channels of {names} cannot be told; use one range a layer")
    if isinstance(where, DesignSpace):
        machine = safe_machine(where.machine)  # nothing is measured under errors here, so that none may fall
        space = where if machine is where.machine else dataclasses.replace(where, machine=machine)
    else:
        signed = tuple(bool(low < 0) for low in np.asarray(seen.input_min))
        machine = safe_machine(where)
        space = DesignSpace(network.workload, machine, tilings(network.workload, machine), signed, methods)
    plain, errors = _at_widths(network, space, params, bits), []
    if ranges == "mse":
        ratios = jnp.asarray(RATIOS, plain.weight_bits.dtype)
        signs = np.asarray([method_of(methods, i).inputs == "sign" for i in range(len(layers))])
        input_bits = jnp.where(signs, 1.0, plain.input_bits) if signs.any() else plain.input_bits
        widths = (plain.weight_bits, input_bits, space.input_signed)
        costs = compiled(clip_errors, static_argnums=(0, 7))
        errors = [costs(network, params, state, part, seen, *widths, ratios) for part in chunks]
    return space, _with_ranges(space, plain, *_best(space, seen, errors, RATIOS))


def _methods(network: Network, per_channel: bool) -> tuple[Method, ...]:
    if not per_channel:
        return ()
    return tuple(Method(per_channel=layer.kind != "matmul") for layer in network.workload.layers)


def _chunks(x: Any) -> list[Any]:
    count = len(jax.tree.leaves(x)[0])
    if count <= _CHUNK:
        return [x]
    starts = range(0, count - _CHUNK + 1, _CHUNK)
    return [jax.tree.map(lambda leaf, at=at: leaf[at : at + _CHUNK], x) for at in starts]


def _merged(found: list[Extremes]) -> Extremes:
    """Extremes over all chunks; weights are the same in each."""
    low = jnp.min(jnp.stack([one.input_min for one in found]), axis=0)
    high = jnp.max(jnp.stack([one.input_max for one in found]), axis=0)
    most = jnp.max(jnp.stack([one.weight_max for one in found]), axis=0)
    return found[0]._replace(weight_max=most, input_min=low, input_max=high)


def _at_widths(network: Network, space: DesignSpace, params: Any, bits: Any) -> Design:
    """A design at these widths, ranges of 1, tables clustered on the weights."""
    layers = len(space.workload.layers)
    pair = bits if isinstance(bits, tuple) and len(bits) == 2 else (bits, bits)
    widths: list[Any] = []
    for operand, given, top in zip(("weights", "inputs"), pair, space.most_bits, strict=True):
        found = np.broadcast_to(np.asarray(given, float), (layers,)) if np.shape(given) in ((), (layers,)) else None
        if found is None or (found != np.round(found)).any() or (found < 2).any() or (found > max(top, 2.0)).any():
            raise ValueError(
                f"calibrate: {given} bits of {operand}; {space.machine.name} takes whole numbers in 2..{top:g}, one "
                f"for all or one for each of {layers} layers"
            )
        widths.append(jnp.asarray(found))
    knobs = with_clusters(network, space, params, space.init(jnp.ones(layers), jnp.ones(layers), *widths))
    phase = dataclasses.replace(frozen_phase(*widths), prune=jnp.zeros(()))
    return space.decode(knobs, 1.0, phase)


def _best(
    space: DesignSpace, seen: Extremes, errors: list[ClipErrors], ratios: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """(range of weights, of inputs, of each channel by layer row) that lose least; the extremes without errors."""
    weight_max = np.asarray(seen.weight_max, np.float64)
    input_max = np.maximum(np.abs(np.asarray(seen.input_min)), np.abs(np.asarray(seen.input_max))).astype(np.float64)
    unsigned = np.maximum(np.asarray(seen.input_max, np.float64), 0.0)
    input_max = np.where(space.signed > 0, input_max, unsigned)
    channel_max = {row: np.asarray(most, np.float64) for row, most in seen.channel_max.items()}
    if not errors:
        return weight_max, input_max, channel_max

    def least(field: str, row: int | None = None) -> np.ndarray:
        found = [getattr(one, field) if row is None else getattr(one, field)[row] for one in errors]
        return ratios[np.argmin(np.mean([np.asarray(e, np.float64) for e in found], axis=0), axis=0)]

    chosen = {row: least("channel", row) * most for row, most in channel_max.items()}
    return least("weight") * weight_max, least("input") * input_max, chosen


def _with_ranges(
    space: DesignSpace, design: Design, weight: np.ndarray, inputs: np.ndarray, channel: dict[int, np.ndarray]
) -> Design:
    """The design with these ranges, steps to the widths; a layer of channels has the largest of theirs."""
    tiny = 1e-18  # a tensor of zeros still has a range
    weight = np.asarray([max(channel[i].max(), tiny) if i in channel else most for i, most in enumerate(weight)])
    weight, inputs = np.maximum(weight, tiny), np.maximum(inputs, tiny)
    dtype = design.weight_step.dtype

    def step(range_: np.ndarray, bits: Any, signed: Any, operand: int) -> Any:
        fixed = np.asarray(
            [method_of(space.methods, i).fixed_bits[operand] is not None for i in range(len(range_))]
        ) | (np.asarray(bits) < 2)  # fmt: skip
        levels = np.asarray(range_of(jnp.ones(len(range_)), bits, signed), np.float64)
        return jnp.asarray(range_ / np.where(fixed, 1.0, np.maximum(levels, 1.0)), dtype)

    def own(table: Any, other: Any) -> Any:
        return jnp.where(space.labelled, table, other)  # of a table, those of its values

    scales = None
    if design.weight_scale is not None:
        shares = [channel[i] / weight[i] if i in channel else np.zeros(0) for i in range(len(weight))]
        scales = tuple(jnp.asarray(np.where(s > 0, s, 1.0), dtype) for s in shares)
    return dataclasses.replace(
        design,
        weight_range=own(design.weight_range, jnp.asarray(weight, dtype)),
        weight_step=own(design.weight_step, step(weight, design.weight_bits, 1.0, 0)),
        input_range=jnp.asarray(inputs, dtype), input_step=step(inputs, design.input_bits, space.signed, 1),
        weight_scale=scales,
    )  # fmt: skip
