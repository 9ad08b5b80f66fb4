"""Eyeriss on silicon, layer by layer: what was measured beside what the three-part model says.

Power is predicted from measured latency and zeros; latency from measured traffic and active units. The least traffic of
the link follows from shapes and measured zeros alone.
"""

import csv
import dataclasses
import importlib.resources

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cooptim import units
from cooptim.hardware.circuit_file import GatedArrayFile, load_circuit_file
from cooptim.hardware.gated_array import GatedArray, at_supply, coded_bits_per_word, power_mw, processing_ns, total_ns
from cooptim.validate.row import Row
from cooptim.workload import Layer, zoo

SOURCE = "Eyeriss, JSSC 2017, Tables V and VI"
_BIT_PER_MB = 8e6  # decimal: 15.4 MB are the published 0.0029 16-bit accesses for each of 2.66 G MACs
_POOL_OVERLAP = {"alexnet": 4, "vgg16": 1}  # windows that one output lies in: 3x3 with stride 2, 2x2 with stride 2
RMS_ASKED = {"power": 0.05, "processing": 0.05, "total": 0.10}  # relative, over the 18 layers
WORST_POWER_ASKED = 0.10


@dataclasses.dataclass(frozen=True)
class PublishedLayer:
    """One measured layer, or the total of a network (then `macs` is the printed one).

    Attributes:
      macs: of the whole batch. zero_fraction: of the layer's input.
      buffer_bits, link_bits: moved between array and buffer, and over the link.
    """

    network: str
    layer: str
    batch: int
    macs: float
    active_units: float
    zero_fraction: float
    buffer_bits: float
    link_bits: float
    power_mw: float
    processing_ns: float
    total_ns: float


@dataclasses.dataclass(frozen=True)
class LinkFloor:
    """Least bits that a layer moves over the link, each word once in the run-length code.

    Attributes:
      outputs: a floor, too: zeros of an output before pooling were not measured, nor those of the last layer.
      measured: bits that the chip moved.
    """

    layer: PublishedLayer
    weights: float
    inputs: float
    outputs: float

    @property
    def total(self) -> float:
        """Bits of all operands."""
        return self.weights + self.inputs + self.outputs

    @property
    def input_fetches(self) -> float:
        """How often inputs were fetched if all that the floor leaves were inputs; at most so often, or weights."""
        return (self.layer.link_bits - self.weights - self.outputs) / self.inputs


def published_layers() -> tuple[PublishedLayer, ...]:
    """The 5 convolutions of AlexNet (batch 4) and 13 of VGG-16 (batch 3), MACs counted from their shapes."""
    return tuple(layer for layer in _published() if layer.layer != "total")


def published_totals() -> dict[str, PublishedLayer]:
    """The printed totals by network."""
    return {layer.network: layer for layer in _published() if layer.layer == "total"}


def layer_errors(array: GatedArray, layers: tuple[PublishedLayer, ...]) -> dict[str, Float[np.ndarray, "layer"]]:
    """Relative errors of power, processing and total latency by layer, (model - measured) / measured."""
    column = columns(layers)
    processing = processing_ns(array, column["macs"], column["active_units"], column["buffer_bits"])
    found = {
        "power": power_mw(array, column["macs"], column["zero_fraction"], column["total_ns"]) / column["power_mw"],
        "processing": processing / column["processing_ns"],
        "total": total_ns(array, processing, column["link_bits"]) / column["total_ns"],
    }
    return {name: np.asarray(ratio, np.float64) - 1.0 for name, ratio in found.items()}


def rms(errors: Float[np.ndarray, "*n"]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(errors**2)))


def link_floors(array: GatedArray) -> tuple[LinkFloor, ...]:
    """The least traffic of each layer: weights raw, inputs coded at their measured zeros, outputs at the next layer's.

    A pooled output has at least one non-zero word for each non-zero word of the next input, divided by the windows that
    share it; the zeros of the last output are not known and may be all. Weights count once for the batch.
    """
    layers = published_layers()
    floors = []
    for here, after in zip(layers, (*layers[1:], None), strict=True):
        shape = _shapes(here.network)[here.layer]
        known = after is not None and after.network == here.network
        outputs = 0.0
        if after is not None and known:
            seen = _shapes(after.network)[after.layer].input_words
            pooled = seen < shape.output_words
            share = seen / _POOL_OVERLAP[here.network] if pooled else shape.output_words
            outputs = here.batch * share * float(coded_bits_per_word(array, after.zero_fraction))
        inputs = here.batch * shape.input_words * float(coded_bits_per_word(array, here.zero_fraction))
        floors.append(LinkFloor(here, float(shape.weight_words * array.word_bits), inputs, outputs))
    return tuple(floors)


def supply_gains(array: GatedArray, supply_v: float) -> tuple[float, float]:
    """Efficiency and speed at this supply over those at the reference one, on the layers of AlexNet."""
    column = columns(tuple(layer for layer in published_layers() if layer.network == "alexnet"))

    def network(chip: GatedArray) -> tuple[float, float]:
        processing = processing_ns(chip, column["macs"], column["active_units"], column["buffer_bits"])
        latency = total_ns(chip, processing, column["link_bits"])
        power = power_mw(chip, column["macs"], column["zero_fraction"], latency)
        return float(jnp.sum(power * latency)), float(jnp.sum(latency))

    (energy, time), (energy_there, time_there) = network(array), network(at_supply(array, supply_v))
    return energy / energy_there, time / time_there


def eyeriss_file() -> GatedArrayFile:
    """The packaged Eyeriss, with the source and interval of every number."""
    file = load_circuit_file("eyeriss")
    assert isinstance(file, GatedArrayFile)
    return file


def eyeriss_rows(file: GatedArrayFile | None = None) -> list[Row]:
    """Errors over the 18 layers, the link's floor, and the other two supplies; default is the packaged Eyeriss."""
    file = eyeriss_file() if file is None else file
    array = file.model
    errors = layer_errors(array, published_layers())
    given = {
        "power": "given latency and zeros",
        "processing": "given buffer traffic and active units",
        "total": "given buffer and link traffic and active units",
    }
    rows = [
        Row.of(
            f"Eyeriss, {name}: RMS error of 18 layers", "%", 100.0 * RMS_ASKED[name], 100.0 * rms(errors[name]), 0.0,
            SOURCE, f"{given[name]}; fitted", "below",
        )
        for name in errors
    ]  # fmt: skip
    worst = 100.0 * float(np.abs(errors["power"]).max())
    asked = 100.0 * WORST_POWER_ASKED
    rows.append(Row.of("Eyeriss, power: worst of 18 layers", "%", asked, worst, 0.0, SOURCE, "fitted", "below"))
    floors = [floor.total / floor.layer.link_bits for floor in link_floors(array)]
    rows.append(
        Row.of(
            "Eyeriss, least coded link traffic over the measured, worst of 18 layers", "1", 1.0, max(floors), 0.0,
            SOURCE, "from shapes and zeros alone", "below",
        )
    )  # fmt: skip
    for what, volts, published, reference, which in (
        ("GMAC/s/W", 0.82, 122.8, 83.1, 0),
        ("frames/s", 1.17, 45.0, 34.7, 1),
    ):
        ends = [reference * supply_gains(chip, volts)[which] for chip in (array, *_corners(file))]
        note = f"predicted from {reference:g} at 1 V; threshold and exponent assumed"
        rows.append(
            Row(f"Eyeriss, AlexNet at {volts:g} V", what, published, ends[0], min(ends), max(ends), 0.10, SOURCE, note)
        )
    return rows


def _corners(file: GatedArrayFile) -> list[GatedArray]:
    """The array at both ends of its intervals of threshold and exponent."""
    volts, alphas = (number.interval or (number.value,) for number in (file.threshold, file.alpha))
    return [
        dataclasses.replace(file.model, threshold_v=jnp.asarray(volt), alpha=jnp.asarray(alpha))
        for volt in volts
        for alpha in alphas
    ]


def columns(layers: tuple[PublishedLayer, ...]) -> dict[str, Float[np.ndarray, "layer"]]:
    """The numbers of the layers by the name of their field."""
    names = [field.name for field in dataclasses.fields(PublishedLayer) if field.type in (float, "float")]
    return {name: np.array([getattr(layer, name) for layer in layers]) for name in names}


def _shapes(network: str) -> dict[str, Layer]:
    return {layer.name: layer for layer in zoo.network(network).layers}


def _published() -> list[PublishedLayer]:
    entry = importlib.resources.files("cooptim.validate") / "published" / "eyeriss_layers.csv"
    lines = [line for line in entry.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    shapes = {network: _shapes(network) for network in _POOL_OVERLAP}
    found = []
    for row in csv.DictReader(lines):
        batch, shape = int(row["batch"]), shapes[row["network"]].get(row["layer"])
        found.append(
            PublishedLayer(
                row["network"],
                row["layer"],
                batch,
                float(row["macs_g"]) * 1e9 if shape is None else float(shape.macs * batch),
                float(row["active_pes"]),
                units.convert(float(row["zeros_percent"]), "%", "ratio"),
                float(row["buffer_mb"]) * _BIT_PER_MB,
                float(row["dram_mb"]) * _BIT_PER_MB,
                float(row["power_mw"]),
                units.convert(float(row["processing_ms"]), "ms", "time"),
                units.convert(float(row["total_ms"]), "ms", "time"),
            )
        )
    return found
