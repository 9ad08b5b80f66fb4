"""Weight-stationary systolic arrays in a machine file: their section, and the words of their reference point.

Weights stay in the MACs while pixels stream along the rows and sums down the columns, which the accumulators below add
up. `cooptim.mapping.systolic` counts cycles and words of a layer.
"""

from typing import Annotated, Any

import jax.numpy as jnp
from pydantic import Field

from cooptim.hardware.datapath import Systolic
from cooptim.hardware.quantity import Choice, OneOf, Quantity, Rule, Strict

_LOCK_STEP = {  # mechanisms that a systolic array cannot have, and what to do instead
    "zero_skipping": "all MACs move in lock step; gate zeros instead of skipping",
    "analog_array": "a crossbar has rows and columns of its own; remove either",
}


class SystolicSection(Strict):
    """A weight-stationary systolic array: rows add up products, cols are output channels, pixels stream through."""

    taps: Annotated[Choice, OneOf("rows", "steps")] = Field(
        description="whether filter taps lie on rows beside the input channels (im2col) or come one after the other"
    )
    weight_load: Annotated[Choice, OneOf("overlapped", "serial")] = Field(
        description="whether the next weights shift in, a row a cycle, while pixels stream, or when the array is empty"
    )
    accumulators: Annotated[Quantity, Rule("count", 1, 1e6, whole=True)] = Field(
        description="sums that a column holds below the array: as many pixels stream by one set of weights; they add "
        "nothing to area and leakage, whatever the size of the array, beyond what the file's own numbers hold"
    )
    sum_access: Annotated[Quantity, Rule("ratio")] = Field(
        description="energy of writing or reading such a sum over that of a buffer word"
    )

    def build(self, access_pj: float) -> Systolic:
        """The array; `access_pj` is the energy of a buffer word."""
        return Systolic(
            taps_on_rows=self.taps.value == "rows",
            overlapped=self.weight_load.value == "overlapped",
            accumulators=int(self.accumulators.value),
            sum_pj=jnp.asarray(self.sum_access.value * access_pj, jnp.result_type(float)),
        )

    def fault(self, spec: Any) -> str | None:
        """What does not fit the rest of the file (a MachineSchema), after the path of its field; None when all does."""
        where, layer = "datapath.systolic", spec.reference.layer
        for name, why in _LOCK_STEP.items():
            if getattr(spec.mechanisms, name) is not None:
                return f"mechanisms.{name} together with {where}; legal: one of them, for {why}"
        link = spec.mechanisms.link
        if link is not None and link.weights.value == "columns":
            return f"mechanisms.link.weights: 'columns' together with {where}; legal: another code: rows hold products"
        if spec.buffer.input_shift.value:
            return f"buffer.input_shift: true together with {where}; legal: false, for every row reads its own stream"
        rows, cols, depth = (int(q.value) for q in (spec.datapath.rows, spec.datapath.cols, self.accumulators))
        on_rows = self.taps.value == "rows"
        products = layer.C.value * (layer.FY.value * layer.FX.value if on_rows else 1.0)
        if products % rows or layer.K.value % cols or layer.OX.value > depth:
            what = "C x FY x FX" if on_rows else "C"
            return (
                f"reference.layer: does not fill the array; legal: {what} multiple of {rows}, K of {cols}, OX at most "
                f"{depth}"
            )
        return None


def words_a_busy_cycle(spec: Any) -> tuple[float, float, float, float]:
    """Buffer words of W, I and O, and accesses to accumulators, of a busy cycle on the reference layer.

    Every row reads a pixel of its own; the weights serve all of a row of pixels; each column writes a sum that is read
    once again, by the next sum of its output or on its way out, which one in C x FY x FX / rows takes.
    """
    rows, cols = spec.datapath.rows.value, spec.datapath.cols.value
    layer = {name: getattr(spec.reference.layer, name).value for name in ("C", "OX", "FY", "FX")}
    sets = layer["C"] * layer["FY"] * layer["FX"] / rows
    return rows * cols / layer["OX"], rows, cols / sets, 2.0 * cols
