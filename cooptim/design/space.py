"""The design space of one workload on one machine: initial knobs, and knobs to a physical Design."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from cooptim.design.design import Design
from cooptim.design.knobs import Knobs, Phase, free_phase
from cooptim.design.operands import MIN_BITS, decoded_operands, init_operands
from cooptim.hardware.dvafs import critical_path, max_clock_ghz
from cooptim.hardware.machine import Machine
from cooptim.hardware.mechanisms import array_bits, held_bits, least_bits, most_bits
from cooptim.mapping.tilings import Tilings
from cooptim.relax.bitwidth import OFF_BITS
from cooptim.relax.choice import soft_choice, straight_through_nested_choice
from cooptim.relax.codebook import ENTRY_BITS, linear_table
from cooptim.relax.method import OF_WHOLE_TENSOR, Method, method_of, require_divides, require_methods
from cooptim.workload import Workload

_MODE_SOFTNESS_BITS = 0.5  # width over which a mode fades from feasible to not, backward pass only
_CERTAIN = 6.0  # logit of a choice that is made
_FIRST_MARGIN = 2.2  # log-odds at which an input leaves an exit at first: a probability of 0.9
_FIT_SOFTNESS = 0.02  # the same for a tiling that overfills the buffer, as a share of the buffer


def require_table(machine: Machine, label_bits: int, who: str) -> None:
    """Raises ValueError, naming who asks, for a codebook that the machine has no table for."""
    table = machine.mechanisms.shared_weights
    if table is None:
        legal = "none: it has no table of shared weights"
    elif table.decoded_bits < MIN_BITS:
        legal = f"none: values of {table.decoded_bits} b are no more than a sign"
    elif label_bits > table.index_bits:
        legal = f"1 to {table.index_bits}"
    else:
        return
    raise ValueError(
        f"{who}: a codebook of {label_bits} label bits on {machine.name}; legal are {legal}; take a machine with "
        "shared_weights and an index so wide, such as eie, or step_range weights"
    )


@dataclasses.dataclass(frozen=True)
class DesignSpace:
    """What can be chosen for a workload on a machine.

    Attributes:
      input_signed: per layer, whether its input takes negative values (by what the data does).
      methods: one a layer, how its words are made; () is the default for all.

    Raises ValueError that names the layer for a method that the machine cannot store or that its operands do not have.
    """

    workload: Workload
    machine: Machine
    tilings: Tilings
    input_signed: tuple[bool, ...]
    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        layers = len(self.workload.layers)
        if len(self.input_signed) != layers:
            raise ValueError(
                f"design space of {self.workload.name}: {len(self.input_signed)} signs for {layers} layers; "
                "give one a layer, in the order of the workload"
            )
        require_methods(self.methods, layers, f"design space of {self.workload.name}")
        for layer, method in zip(self.workload.layers, self.methods, strict=False):
            if method.pattern is not None:
                require_divides(layer.name, method.pattern, layer.bounds.C * layer.bounds.FY * layer.bounds.FX)
            if self.most_bits[0] < MIN_BITS and (method.weights not in ("step_range", "sign") or method.pattern):
                raise ValueError(
                    f"{layer.name}: {self.machine.name} takes weights of {self.most_bits[0]:g} b, their sign alone, "
                    f"which {method.weights} with pattern {method.pattern} is not; use step_range or sign without one"
                )
            alone = method.weights in ("sign", "codebook", *OF_WHOLE_TENSOR)
            if layer.kind == "matmul" and (method.per_channel or method.pattern or alone):
                raise ValueError(
                    f"{layer.name}: both of its operands are data, which have neither a scale a channel nor a pattern "
                    "nor one of all their words, those of a batch; leave its method at the default"
                )
            if method.label_bits is not None:
                require_table(self.machine, method.label_bits, layer.name)

    @property
    def signed(self) -> Float[np.ndarray, "layer"]:
        """1 where the input is signed, else 0."""
        return np.asarray(self.input_signed, dtype=np.float32)

    @property
    def slot_bits(self) -> Float[np.ndarray, "mode"]:
        """Width of a subword of each mode [bit]."""
        return np.asarray([mode.slot_bits for mode in self.machine.modes], dtype=np.float32)

    @property
    def most_bits(self) -> tuple[float, float]:
        """Widest weights and inputs that the machine takes [bit]."""
        return most_bits(self.machine.mechanisms, self.machine.datapath.width_bits)

    @property
    def least_bits(self) -> tuple[float, float]:
        """Narrowest weights and inputs that the machine takes where they keep their sign alone [bit]."""
        return least_bits(self.machine.mechanisms)

    @property
    def labelled(self) -> Bool[np.ndarray, "layer"]:
        """Where weights are labels of a table."""
        return np.asarray([method_of(self.methods, i).label_bits is not None for i in range(len(self.workload.layers))])

    @property
    def entry_bits(self) -> int:
        """Width of a value in the machine's table of shared weights [bit]."""
        table = self.machine.mechanisms.shared_weights
        return ENTRY_BITS if table is None else table.decoded_bits

    def lowest_bits(self, operand: int) -> Float[np.ndarray, "layer"]:
        """Narrowest width of each layer's weights (operand 0) or inputs (1) [bit]."""
        least, top = self.least_bits[operand], self.most_bits[operand]
        found = [method_of(self.methods, i).fixed_bits[operand] for i in range(len(self.workload.layers))]
        lowest = [min(MIN_BITS if one is None else max(one, least), top) for one in found]
        labels = self.labelled & (operand == 0)
        return np.asarray([own if label else low for label, own, low in zip(labels, found, lowest, strict=True)])

    def widest_bits(
        self, weight_bits: Float[ArrayLike, "layer"], input_bits: Float[ArrayLike, "layer"]
    ) -> Float[Array, "layer"]:
        """The wider operand of each layer in the array: what its subword must hold and its critical path feels."""
        return jnp.maximum(*array_bits(self.machine.mechanisms, self.machine.datapath, weight_bits, input_bits))

    def init(
        self,
        weight_max: Float[ArrayLike, "layer"],
        input_max: Float[ArrayLike, "layer"],
        weight_bits: Float[ArrayLike, "..."] = 8.0,
        input_bits: Float[ArrayLike, "..."] = 8.0,
        channel_max: tuple[Float[ArrayLike, "_"], ...] | None = None,
    ) -> Knobs:
        """Knobs at the given widths, ranges at the given magnitudes, nominal supply, untiled where that fits.

        Args:
          weight_max, input_max: largest magnitudes (or the ranges wanted), > 0.
          channel_max: the same for each output channel of layers whose method is per channel; None starts them alike.

        The pruning threshold starts at half a step, where it prunes just what rounds to zero anyway.
        """
        layers = len(self.workload.layers)
        scale = self._scales(weight_max, channel_max)
        operands = init_operands(weight_max, input_max, self.input_signed, weight_bits, input_bits, scale)
        dtype = operands.weight_log2_step.dtype
        operands = dataclasses.replace(operands, codebook=self._codebooks(jnp.asarray(weight_max, dtype)))
        supply = self.machine.supply
        share = (supply.nominal_v - supply.floor_v) / (supply.ceiling_v - supply.floor_v)
        share = jnp.clip(share, 0.02, 0.98)
        buffer = self.machine.buffer
        size = jnp.clip((buffer.size_bits - buffer.min_bits) / (buffer.max_bits - buffer.min_bits), 0.02, 0.98)
        return Knobs(
            **vars(operands),
            # Where two modes are legal the one with more lanes is cheaper on most layers, so it is preferred at first.
            mode_logits=jnp.broadcast_to(jnp.asarray(self._mode_prior(), dtype), (layers, len(self.machine.modes))),
            tiling_logits=jnp.asarray(self._tiling_prior(), dtype),
            supply=jnp.full(layers, jnp.log(share / (1 - share)), dtype),
            buffer=jnp.asarray(jnp.log(size / (1 - size)), dtype) if buffer.free else None,
            exit_margin=jnp.full(len(self.workload.exits), _FIRST_MARGIN, dtype) if self.workload.exits else None,
        )

    def channels(self, layer: int) -> int:
        """Factors that the weights of a layer have: one an output channel where its method says so, else 0."""
        bounds = self.workload.layers[layer].bounds
        return bounds.G * bounds.K if method_of(self.methods, layer).scaled else 0

    def _codebooks(self, weight_max):  # type: ignore[no-untyped-def]
        """Evenly spaced tables up to the largest magnitudes; None where no layer's method has one."""
        entries = [method_of(self.methods, i).label_bits for i in range(len(self.workload.layers))]
        if all(bits is None for bits in entries):
            return None
        return tuple(
            weight_max[i] * jnp.asarray(linear_table(1.0, bits), weight_max.dtype) if bits else weight_max[:0]
            for i, bits in enumerate(entries)
        )

    def _scales(self, weight_max, channel_max):  # type: ignore[no-untyped-def]
        """Largest magnitude of each channel over its layer's; 1 where a channel is all zero or nothing is known."""
        counts = [self.channels(layer) for layer in range(len(self.workload.layers))]
        if not any(counts):
            return None
        if channel_max is None:
            return tuple(jnp.ones(count) for count in counts)
        shares = [jnp.asarray(most) / weight_max[i] for i, most in enumerate(channel_max)]
        return tuple(jnp.where(s > 0, s, 1.0) if n else s[:0] for s, n in zip(shares, counts, strict=True))

    def encode(self, design: Design) -> Knobs:
        """Knobs that decode, under frozen widths, to this design (supply and size within a thousandth of the range)."""
        s, b = self.machine.supply, self.machine.buffer
        share = jnp.clip((design.supply_v - s.floor_v) / (s.ceiling_v - s.floor_v), 2.5e-3, 1 - 2.5e-3)
        size = jnp.clip((design.buffer_bits - b.min_bits) / (b.max_bits - b.min_bits), 2.5e-3, 1 - 2.5e-3)
        tiny = jnp.finfo(jnp.asarray(design.weight_step).dtype).tiny ** 0.5
        return Knobs(
            weight_log2_step=jnp.log2(design.weight_step),
            weight_log2_range=jnp.log2(design.weight_range),
            log2_threshold=jnp.log2(jnp.maximum(design.threshold, tiny)),
            input_log2_step=jnp.log2(design.input_step),
            input_log2_range=jnp.log2(design.input_range),
            weight_log2_scale=None if design.weight_scale is None else tuple(map(jnp.log2, design.weight_scale)),
            codebook=design.codebook,
            mode_logits=_CERTAIN * (2.0 * jnp.asarray(design.mode) - 1.0),
            tiling_logits=_CERTAIN * (2.0 * jnp.asarray(design.tiling) - 1.0),
            supply=jnp.log(share / (1 - share)),
            buffer=jnp.log(size / (1 - size)) if b.free else None,
            exit_margin=design.exit_margin,
        )

    def _mode_prior(self) -> Float[np.ndarray, "mode"]:
        return 1.5 * np.log2(np.asarray([mode.lanes for mode in self.machine.modes], np.float64))

    def _tiling_prior(self) -> Float[np.ndarray, "layer row"]:
        """Log preference of each row by the words it moves through DRAM, 0 for the least."""
        t = self.tilings
        words = t.dram_w + t.dram_i + t.dram_o + 2.0 * t.dram_psum
        least = np.min(np.where(t.valid > 0, words, np.inf), axis=1, keepdims=True)
        return np.where(t.valid > 0, -2.0 * np.log(np.maximum(words, 1.0) / np.maximum(least, 1.0)), 0.0)

    def decode(self, knobs: Knobs, temperature: Float[ArrayLike, ""], phase: Phase | None = None) -> Design:
        """The physical design of these knobs; differentiable in every leaf.

        Forward, widths are whole bits and each layer holds one legal mode (straight-through); tilings are shares of
        a softmax at this temperature, supply and buffer size are continuous.

        Args:
          temperature: of the softmax over tilings and of the backward pass of modes, > 0.
          phase: traced switches; None learns everything.
        """
        phase = free_phase(len(self.workload.layers)) if phase is None else phase
        operands = decoded_operands(
            knobs, self.input_signed, self.most_bits, phase, self.methods, self.least_bits, self.entry_bits
        )  # fmt: skip
        widest = self.widest_bits(operands.weight_bits, operands.input_bits)
        mode = self._mode(knobs.mode_logits, widest, temperature)
        supply_v = self._supply(knobs.supply)
        buffer_bits = self._buffer(knobs.buffer)
        path = critical_path(self.machine.supply, self.machine.datapath.width_bits, widest)
        off = phase.quantize < 0.5
        widths = dataclasses.replace(
            operands,
            weight_bits=jnp.where(off, OFF_BITS, operands.weight_bits),
            input_bits=jnp.where(off, OFF_BITS, operands.input_bits),
        )
        return Design(
            **vars(widths),
            mode=mode,
            tiling=self._tiling(knobs.tiling_logits, mode, buffer_bits, temperature),
            supply_v=supply_v,
            freq_ghz=max_clock_ghz(self.machine.supply, supply_v, path),
            buffer_bits=buffer_bits,
            exit_margin=knobs.exit_margin,
        )

    def _mode(self, logits, widest, temperature):  # type: ignore[no-untyped-def]
        """One-hot mode; a width feels the step to the next narrower subword where its own last bit causes it."""
        narrow_first = np.argsort(self.slot_bits, kind="stable")
        slack = jnp.asarray(self.slot_bits[narrow_first], logits.dtype) - widest[:, None]
        # Centred at the first width that is too wide, for going down from there is what crosses the step.
        feasible = jax.nn.sigmoid((slack + 1.0) / _MODE_SOFTNESS_BITS).at[:, -1].set(1.0)
        legal = (slack >= -1e-3).astype(logits.dtype)
        chosen = straight_through_nested_choice(logits[:, narrow_first], temperature, legal, feasible)
        return chosen[:, np.argsort(narrow_first)]

    def _supply(self, supply):  # type: ignore[no-untyped-def]
        s = self.machine.supply
        return s.floor_v + (s.ceiling_v - s.floor_v) * jax.nn.sigmoid(supply)

    def _buffer(self, buffer):  # type: ignore[no-untyped-def]
        b = self.machine.buffer
        return b.size_bits if buffer is None else b.min_bits + (b.max_bits - b.min_bits) * jax.nn.sigmoid(buffer)

    def working_set_bits(self, mode: Float[ArrayLike, "layer mode"]) -> Float[Array, "layer row"]:
        """Buffer space that each tiling needs at the subword width of the layer's mode [bit]."""
        t, b = self.tilings, self.machine.buffer
        mode = jnp.asarray(mode)
        slot = mode @ jnp.asarray(self.slot_bits, mode.dtype)
        if self.machine.mechanisms.names:
            held = (*held_bits(self.machine.mechanisms, self.machine.datapath), self.slot_bits)
            each = zip((t.tile_w, t.tile_i, t.tile_o), held, strict=True)
            tiles = sum(jnp.asarray(x, mode.dtype) * (mode @ jnp.asarray(b, mode.dtype))[:, None] for x, b in each)
        else:
            tiles = jnp.asarray(t.tile_w + t.tile_i + t.tile_o, mode.dtype) * slot[:, None]
        waiting = jnp.asarray(t.tile_psum, mode.dtype) * float(self.machine.datapath.accumulator_bits)
        return tiles * (2.0 if b.double_buffered else 1.0) + waiting

    def _tiling(self, logits, mode, buffer_bits, temperature):  # type: ignore[no-untyped-def]
        slack = (buffer_bits - self.working_set_bits(mode)) / (_FIT_SOFTNESS * buffer_bits)
        valid = jnp.asarray(np.where(self.tilings.valid > 0, 0.0, -math.inf), logits.dtype)
        shares = soft_choice(jnp.where(jnp.isinf(valid), -1e9, logits), temperature, jax.nn.log_sigmoid(slack))
        return jnp.where(jnp.isinf(valid), 0.0, shares)
