"""The float parents of figures 10a and 11a, and their post-training designs at any widths."""

import csv
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

import cooptim
from cooptim.descent.calibrate import calibrated_ranges
from cooptim.descent.plan import Plan
from cooptim.descent.run import float_parent
from cooptim.descent.task import Task, build_task
from cooptim.design.design import Design
from cooptim.design.space import DesignSpace
from cooptim.network.examples import DigitsCNN, LeNet5
from cooptim.network.trace import Network
from experiments.survey_figures import drawing as draw

WIDTHS = tuple(range(2, 17))  # a weight of one bit is a sign: calibration begins at two
NUMBERS = ("bits", "relative_val", "relative_test", "zeros_percent")
VAL_IMAGES, CALIBRATION_IMAGES = 3000, 512
PLAN = Plan(float_steps=2250, steps=1200, finetune_steps=300)
Bits = Sequence[int]


def trained(spec: str, seed: int = 0, plan: Plan = PLAN) -> tuple[Task, Any, Any]:
    """(task, float parent, its state): DigitsCNN on 'digits', LeNet-5 on a folder of 28x28 images.

    Validation is cut to 3,000 images: all widths are chosen on the same ones, and the test set chooses nothing.
    """
    data = cooptim.load_data(spec)
    data = dataclasses.replace(data, x_val=data.x_val[:VAL_IMAGES], y_val=data.y_val[:VAL_IMAGES])
    machine = cooptim.load_machine("envision")
    model = (DigitsCNN if spec == "digits" else LeNet5)(rngs=nnx.Rngs(seed))
    network = cooptim.trace(model, data.x_train[:1])
    task = build_task(network, machine, data, plan, seed, network.params, network.state)
    params, state = float_parent(task, network.params, network.state, None, None)
    return build_task(network, machine, data, plan, seed, params, state), params, state


class Calibrated:
    """Post-training designs: an operand's range depends on its own width alone, so one calibration a width serves all.

    Widths are data of a design, so that one compiled program measures every combination.
    """

    def __init__(
        self, network: Network, params: Any, state: Any, x: Any, space: DesignSpace, widths: Bits = WIDTHS
    ) -> None:
        self.row = {bits: row for row, bits in enumerate(widths)}
        found = [
            calibrated_ranges(network, params, state, x, space, bits, ranges="mse", per_channel=False)[1]
            for bits in widths
        ]
        self._first = found[0]
        self._table = {
            name: np.stack([np.asarray(getattr(one, name)) for one in found])
            for operand in ("weight", "input")
            for name in (f"{operand}_bits", f"{operand}_range", f"{operand}_step")
        }

    def design(self, weight_bits: Bits, input_bits: Bits) -> Design:
        """The design at these widths, one a layer of each operand."""
        rows = {"weight": [self.row[b] for b in weight_bits], "input": [self.row[b] for b in input_bits]}
        layer = np.arange(len(weight_bits))
        return dataclasses.replace(
            self._first,
            **{name: jnp.asarray(table[rows[name.split("_")[0]], layer]) for name, table in self._table.items()},
        )


def calibrated(task: Task, params: Any, state: Any) -> Calibrated:
    """The designs of a task's float parent, ranges by 512 training images."""
    return Calibrated(task.network, params, state, task.data.x_train[:CALIBRATION_IMAGES], task.space)


def kept(name: str, network: str) -> list[dict[str, Any]]:
    """Rows that an earlier run left of other networks."""
    path = draw.HERE / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {key: (float(value) if value else None) if key in NUMBERS else value for key, value in row.items()}
        for row in rows
        if row["network"] != network
    ]
