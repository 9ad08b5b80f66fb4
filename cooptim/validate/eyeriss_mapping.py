"""Eyeriss on silicon against our own row-stationary mappings: nothing measured is given but the zeros.

One rule for all layers: of all legal mappings the one of least energy at fixed costs of an access (1, 1, 2, 6, 200),
ties to fewer cycles, as ISCA 2016 states it for this dataflow. Traffic, active elements and latency follow from it.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from cooptim.hardware.circuit_file import GatedArrayFile
from cooptim.hardware.codes import run_length_bits
from cooptim.hardware.gated_array import energy_pj, processing_ns, total_ns
from cooptim.mapping.row_stationary import RowCounts, RowMapping, best_row_mapping, row_counts
from cooptim.validate.eyeriss import PublishedLayer, eyeriss_file, link_floors, published_layers, rms
from cooptim.validate.row import Row
from cooptim.workload import zoo

SOURCE = "Eyeriss, JSSC 2017, Tables V and VI"
LATENCY_GOAL = 0.20  # RMS of the processing latency over 18 layers; reported, not asserted
_RUN_BITS = 5  # of the code's runs, JSSC 2017, sec. IV-B
COLUMNS = ("active", "buffer", "link", "processing", "total", "energy")


@dataclasses.dataclass(frozen=True)
class MappedLayer:
    """A published layer under the mapping of our own search.

    Attributes:
      link_bits: over the link, feature maps in the run-length code at the measured zeros.
      link_floor_bits: the least that it could be, each word once.
    """

    published: PublishedLayer
    mapping: RowMapping
    counts: RowCounts
    word_bits: int
    link_bits: float
    link_floor_bits: float
    processing_ns: float
    total_ns: float
    energy_pj: float

    @property
    def pairs(self) -> dict[str, tuple[float, float]]:
        """(model, measured) by column; energy is power times total latency."""
        one = self.published
        return {
            "active": (float(self.counts.active), one.active_units),
            "buffer": (float(self.counts.buffer_words * self.word_bits), one.buffer_bits),
            "link": (self.link_bits, one.link_bits),
            "processing": (self.processing_ns, one.processing_ns),
            "total": (self.total_ns, one.total_ns),
            "energy": (self.energy_pj, one.power_mw * one.total_ns),
        }


def mapped_layers(file: GatedArrayFile | None = None, objective: str = "energy") -> tuple[MappedLayer, ...]:
    """The 18 layers under the best mappings by one objective; default is the packaged Eyeriss.

    Feature maps travel in the code, but for a network's input; an output has the zeros of the next layer's input, even
    where a pooling lies between, and the last one those of its own input: assumed, for they were not measured.
    """
    file = eyeriss_file() if file is None else file
    published = published_layers()
    floors = link_floors(file.model)
    after = (*published[1:], None)
    return tuple(
        _mapped(file, objective, one, following, floor.total, first=i == 0 or published[i - 1].network != one.network)
        for i, (one, following, floor) in enumerate(zip(published, after, floors, strict=True))
    )


def _mapped(
    file: GatedArrayFile,
    objective: str,
    one: PublishedLayer,
    after: PublishedLayer | None,
    floor_bits: float,
    first: bool,
) -> MappedLayer:
    array, sizes = file.model, file.row_array
    network = zoo.network(one.network)
    layer = network.layers[network.index(one.layer)]
    mapping = best_row_mapping(layer, one.batch, sizes, objective)
    counts = row_counts(layer, one.batch, mapping, sizes)
    output_zeros = after.zero_fraction if after is not None and after.network == one.network else one.zero_fraction
    per_value = float(array.code_bits_per_value) - _RUN_BITS
    input_bits, output_bits = (
        float(run_length_bits(1.0 - zeros, per_value, _RUN_BITS)) for zeros in (one.zero_fraction, output_zeros)
    )
    link = float(
        counts.link_filters * array.word_bits
        + counts.link_inputs * (array.word_bits if first else input_bits)
        + counts.link_outputs * output_bits
    )
    busy = one.macs / float(counts.cycles)
    processing = processing_ns(array, one.macs, busy, float(counts.buffer_words * array.word_bits))
    total = total_ns(array, processing, link)
    energy = energy_pj(array, one.macs, one.zero_fraction, total)
    return MappedLayer(
        one, mapping, counts, array.word_bits, link, floor_bits, float(processing), float(total), float(energy)
    )


def mapping_errors(layers: tuple[MappedLayer, ...]) -> dict[str, Float[np.ndarray, "layer"]]:
    """(model - measured) / measured of each column, by layer."""
    pairs = [layer.pairs for layer in layers]
    return {name: np.array([one[name][0] / one[name][1] - 1.0 for one in pairs]) for name in COLUMNS}


def busy_share(layers: tuple[MappedLayer, ...], file: GatedArrayFile | None = None) -> float:
    """Share of the elements that the mappings keep active, over the processing latency."""
    sizes = (eyeriss_file() if file is None else file).row_array
    time = sum(layer.processing_ns for layer in layers)
    active = sum(float(layer.counts.active) * layer.processing_ns for layer in layers)
    return active / time / (sizes.rows * sizes.cols)


def mapping_rows(file: GatedArrayFile | None = None) -> list[Row]:
    """RMS errors of what our own mappings say of 18 layers, for information: a goal is stated, none is a tolerance."""
    layers = mapped_layers(file)
    titles = {
        "active": "active PEs", "buffer": "buffer traffic", "link": "link traffic", "processing": "processing latency",
        "total": "total latency", "energy": "energy",
    }  # fmt: skip
    rows = []
    for name, errors in mapping_errors(layers).items():
        parts = [
            f"{title} {100 * rms(errors[[layer.published.network == network for layer in layers]]):.1f} %"
            for network, title in (("alexnet", "AlexNet"), ("vgg16", "VGG-16"))
        ]
        goal = 100.0 * LATENCY_GOAL if name == "processing" else None
        title = f"Eyeriss, own mapping, {titles[name]}: RMS error of 18 layers"
        note = f"given zeros only; {', '.join(parts)}"
        rows.append(Row.of(title, "%", goal, 100.0 * rms(errors), None, SOURCE, note, "below"))
    return rows
