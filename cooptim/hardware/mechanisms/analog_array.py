"""Analog crossbars: weights are conductances, rows add up on a column, converters stand at both ends.

A weight takes ceil(width / cell bits) columns, an input ceil(width / DAC bits) reads, and every read of a column one
conversion. Source: ISAAC, Shafiee et al., ISCA 2016.
"""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from pydantic import Field

from cooptim.hardware.datapath import Datapath
from cooptim.hardware.mechanisms.effect import Effect, LayerPoint
from cooptim.hardware.mechanisms.steps import leaf, subwords_fault, whole_steps
from cooptim.hardware.quantity import Flag, Quantity, Rule, Strict

_COUNT = Rule("count", 1, 1e5, whole=True)
_ENERGY = Rule("energy")


class AnalogArraySection(Strict):
    """Crossbars with their converters; a lane of `datapath` is a full-width weight's columns."""

    rows: Annotated[Quantity, _COUNT] = Field(description="products that a column adds up in a read")
    cols: Annotated[Quantity, _COUNT] = Field(description="columns of a crossbar, which share the rows' DACs")
    cell: Annotated[Quantity, Rule("size", 1, 8, whole=True)] = Field(description="bits that one cell holds")
    dac: Annotated[Quantity, Rule("size", 1, 8, whole=True)] = Field(description="bits of an input in one read")
    adc: Annotated[Quantity, Rule("size", 1, 24, whole=True)] = Field(description="bits of a conversion")
    encoded: Flag = Field(
        description="whether columns that would be more than half full store their weights inverted: one ADC bit less"
    )
    adc_linear: Annotated[Quantity, _ENERGY] = Field(description="part of a conversion's energy for each of its bits")
    adc_exponential: Annotated[Quantity, _ENERGY] = Field(
        description="part of a conversion's energy for each of its 2^bits levels"
    )
    dac_drive: Annotated[Quantity, _ENERGY] = Field(description="energy of driving one row for one read")
    cell_read: Annotated[Quantity, _ENERGY] = Field(description="energy of one cell in one read")
    noise: Annotated[Quantity, Rule("ratio", 0, 1)] = Field(
        description="standard deviation of a cell's conductance over that of a full cell"
    )

    def fault(self, spec: Any) -> str | None:
        """Subwords; a crossbar that is narrower than a weight; an ADC that is too coarse for its column."""
        if found := subwords_fault(spec, "a crossbar", "for narrow weights take fewer columns", "analog_array"):
            return found
        rows, cols, cell, dac = (int(getattr(self, name).value) for name in ("rows", "cols", "cell", "dac"))
        width = spec.datapath.width.value
        if math.ceil(width / cell) > cols:
            return (
                f".cols: {cols} columns, and a weight of {width:g} bit takes {math.ceil(width / cell)} of {cell} bit; "
                f"legal: {math.ceil(width / cell)} or more"
            )
        needed = column_bits(rows, cell, dac, self.encoded.value)
        if self.adc.value < needed:
            return (
                f".adc: {self.adc.value:g} bit, too coarse for a column of {rows} rows, {cell} bit a cell and {dac} "
                f"bit a read{', encoded' if self.encoded.value else ''}; legal: {needed} to 24; take a finer ADC, or "
                "fewer rows, cell or DAC bits"
            )
        return None

    def build(self) -> "AnalogArray":
        """The mechanism."""
        names = "adc_linear adc_exponential dac_drive cell_read".split()
        return AnalogArray(
            **{name: leaf(getattr(self, name)) for name in ("rows", "cols", "noise")},
            **{f"{name}_bits": leaf(getattr(self, name)) for name in ("cell", "dac", "adc")},
            **{f"{name}_pj": leaf(getattr(self, name)) for name in names},
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnalogArray:
    """Crossbars and converters; fields as in the section."""

    rows: Float[Array, ""]
    cols: Float[Array, ""]
    cell_bits: Float[Array, ""]
    dac_bits: Float[Array, ""]
    adc_bits: Float[Array, ""]
    adc_linear_pj: Float[Array, ""]
    adc_exponential_pj: Float[Array, ""]
    dac_drive_pj: Float[Array, ""]
    cell_read_pj: Float[Array, ""]
    noise: Float[Array, ""]


def column_bits(rows: int, cell_bits: int, dac_bits: int, encoded: bool) -> int:
    """ADC bits that tell all sums of a column apart: ceil(log2(rows (2^cell - 1)(2^dac - 1) + 1)), less 1 if encoded.

    At a power of two of rows this is ISAAC's rule: log2(rows) + cell + dac - 1 when either is 1, without the - 1 when
    both are more.
    """
    sums = rows * (2**cell_bits - 1) * (2**dac_bits - 1)
    return sums.bit_length() - (1 if encoded else 0)  # of n: ceil(log2(n + 1))


def conversion_pj(array: AnalogArray, adc_bits: Float[ArrayLike, "*n"] | None = None) -> Float[Array, "*n"]:
    """Energy of one conversion of so many bits (default: the array's) [pJ].

    Source: a capacitive DAC inside grows with 2^bits, clock, reference and logic with the bits (Saberi et al., TCAS-I
    2011, as ISAAC scales its ADC).
    """
    bits = array.adc_bits if adc_bits is None else jnp.asarray(adc_bits)
    return array.adc_linear_pj * bits + array.adc_exponential_pj * 2.0**bits


def weight_cells(array: AnalogArray, weight_bits: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
    """Columns of a weight, ceil(bits / cell bits); the gradient is that of the quotient."""
    return whole_steps(weight_bits, array.cell_bits)


def input_reads(array: AnalogArray, input_bits: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
    """Reads of the crossbar for an input, ceil(bits / DAC bits); the gradient is that of the quotient."""
    return whole_steps(input_bits, array.dac_bits)


def empty_rows_factor(array: AnalogArray, products: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
    """Rows that are read over those that hold a weight, when outputs add up so many products; 1 for full crossbars."""
    return whole_steps(products, array.rows) * array.rows / products


def mac_pj(
    array: AnalogArray,
    weight_bits: Float[ArrayLike, "*#n"],
    input_bits: Float[ArrayLike, "*#n"],
    products: Float[ArrayLike, "*#n"] | None = None,
) -> Float[Array, "..."]:
    """Energy of one product of a weight and an input in a crossbar whose columns are full of weights [pJ].

    Args:
      products: that an output adds up; a conversion serves as many as stand in its rows. None: full rows.

    Each read costs the weight's cells, its share of the row's DAC and its share of the columns' conversions.
    """
    cells, reads = weight_cells(array, weight_bits), input_reads(array, input_bits)
    empty = 1.0 if products is None else empty_rows_factor(array, products)
    converted = conversion_pj(array) * empty / array.rows
    return reads * cells * (array.cell_read_pj + array.dac_drive_pj / array.cols + converted)


def noise_std(
    array: AnalogArray, step: Float[ArrayLike, "*#n"], weight_bits: Float[ArrayLike, "*#n"]
) -> Float[Array, "..."]:
    """Standard deviation of a weight whose cells are off by `noise` each, in units of the weight.

    Cell j of a weight counts 2^(j cell bits) steps, and a full cell 2^cell - 1 of those; deviations of cells are
    independent, so their squares add up: 1 + 4^cell + ... over the weight's cells.

    Args:
      step: quantization step of the weight.
    """
    radix = 4.0**array.cell_bits
    cells = jax.lax.stop_gradient(weight_cells(array, weight_bits))
    squares = (radix**cells - 1.0) / (radix - 1.0)
    return array.noise * step * (2.0**array.cell_bits - 1.0) * jnp.sqrt(squares)


def noisy_weights(
    key: Array,
    weights: Float[Array, "*n"],
    array: AnalogArray,
    step: Float[ArrayLike, ""],
    weight_bits: Float[ArrayLike, ""],
) -> Float[Array, "*n"]:
    """Weights as the crossbar holds them: each off by a normal deviate of `noise_std`, one draw of the key.

    Weights are stored with an offset, so that the deviation does not depend on their value. Differentiable in weights,
    step and noise.
    """
    std = noise_std(array, step, weight_bits)
    return weights + std.astype(weights.dtype) * jax.random.normal(key, weights.shape, weights.dtype)


def array_bits(
    array: AnalogArray, datapath: Datapath, weight_bits: Float[ArrayLike, "*n"], input_bits: Float[ArrayLike, "*n"]
) -> tuple[Any, Any]:
    """Full width of both: crossbars gate no bits and shorten no path, narrow operands take fewer columns and reads."""
    full = float(datapath.width_bits)
    return 0.0 * weight_bits + full, 0.0 * input_bits + full


def effect(array: AnalogArray, datapath: Datapath, point: LayerPoint) -> Effect:
    """Cycles and energy against full width and full rows, for which `reference` holds; weights are never fetched.

    Narrow weights leave columns that other outputs take, and reads of half-empty rows take as long as of full ones.
    Zeros are neither gated nor skipped: a row without current is converted like any other.
    """
    full = float(datapath.width_bits)
    products = jnp.asarray(point.bounds["C"] * point.bounds["FY"] * point.bounds["FX"], jnp.result_type(array.rows))
    passes = weight_cells(array, point.weight_bits) * input_reads(array, point.input_bits)
    passes = passes / (weight_cells(array, full) * input_reads(array, full))
    cycles = passes * empty_rows_factor(array, products)
    energy = mac_pj(array, point.weight_bits, point.input_bits, products) / mac_pj(array, full, full)
    return Effect(cycles=cycles, executed=cycles, datapath=energy / cycles, gated_w=0.0, gated_i=0.0, fetches_w=0.0)
