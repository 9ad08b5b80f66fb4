"""The result of pricing: energy, latency and area, per layer and component."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

COMPONENTS: tuple[str, ...] = (
    "datapath", "sram_w", "sram_i", "sram_o", "control", "leakage", "dram_w", "dram_i", "dram_o"
)  # fmt: skip


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CostReport:
    """Cost of one inference in steady state.

    Of a network with early exits, energies and MACs are means over inputs, each layer times its `reach`; latency and
    cycles are those of an input that runs every layer, which is what a deadline must hold for.
    """

    layer_names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    energy_pj: dict[str, Float[Array, "layer"]]  # keys: COMPONENTS
    standby_pj: Float[Array, ""]  # leakage at the retention supply from the end of an inference to the next one
    latency_ns: Float[Array, "layer"]
    cycles: Float[Array, "layer"]
    macs: Float[Array, "layer"]
    utilization: Float[Array, "layer"]  # share of the mode's MAC lanes that do work, in [0, 1]
    area_mm2: Float[Array, ""]
    buffer_demand_bits: Float[Array, "layer"]  # working set of each layer (tiles and feature maps kept on chip)
    buffer_bits: Float[Array, ""]
    resident_share: Float[Array, "layer"]  # share of the weights that stays on chip between inferences
    kept_share: Float[Array, "layer"]  # share of the output feature map that never leaves the chip
    switching_pj: Float[Array, "layer"] | None = None  # of entering each layer from the one before; None: it is free
    switching_ns: Float[Array, "layer"] | None = None
    reach: Float[Array, "layer"] | None = None  # share of inputs for which the layer runs; None: all
    mean_busy_ns: Float[Array, ""] | None = None  # mean latency over inputs where some leave early

    @property
    def layer_energy_pj(self) -> Float[Array, "layer"]:
        """Energy of each layer, DRAM included, standby and switching excluded [pJ]."""
        return jnp.sum(jnp.stack([self.energy_pj[name] for name in COMPONENTS]), axis=0)

    @property
    def total_energy_pj(self) -> Float[Array, ""]:
        """Energy of one inference, standby and switching included [pJ]."""
        total = jnp.sum(self.layer_energy_pj) + self.standby_pj
        return total if self.switching_pj is None else total + jnp.sum(self.switching_pj)

    @property
    def total_latency_ns(self) -> Float[Array, ""]:
        """Longest latency of an inference [ns]: layers one after the other, with what changes between them take."""
        total = jnp.sum(self.latency_ns)
        return total if self.switching_ns is None else total + jnp.sum(self.switching_ns)

    @property
    def mean_latency_ns(self) -> Float[Array, ""]:
        """Mean latency over inputs [ns]: each layer's times the share of inputs that reach it."""
        return self.total_latency_ns if self.mean_busy_ns is None else self.mean_busy_ns

    @property
    def tops_per_w(self) -> Float[Array, ""]:
        """Efficiency [TOPS/W], 1 MAC = 2 operations: operations a picojoule."""
        return 2.0 * jnp.sum(self.macs) / self.total_energy_pj
