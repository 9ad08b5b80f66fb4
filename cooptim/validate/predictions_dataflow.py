"""Row stationary against other dataflows on AlexNet: the claim of Chen, Emer, Sze, ISCA 2016.

The rule, fixed before the first run: the packaged Eyeriss array against plain arrays of as many elements and as much
storage, the batch of its measurement, the five convolutions, least energy within each dataflow at 1, 1, 2, 6 and 200 a
MAC, register, array, buffer and DRAM access, nothing coded. The claim's range is from the best to the worst rival.
"""

import math

from cooptim.mapping.row_stationary import AccessCosts, best_row_mapping, row_counts
from cooptim.mapping.stationary import DATAFLOWS, PlainArray, best_plain_energy
from cooptim.validate.claims import Prediction
from cooptim.validate.eyeriss import eyeriss_file, published_layers
from cooptim.workload import zoo


def dataflow_ratios() -> dict[str, float]:
    """Energy of AlexNet's convolutions under each other dataflow over that of row stationary."""
    array, costs = eyeriss_file().row_array, AccessCosts()
    network = zoo.network("alexnet")
    work = [(network.layers[network.index(one.layer)], one.batch)
            for one in published_layers() if one.network == "alexnet"]  # fmt: skip
    rows = sum(
        float(costs.energy(row_counts(layer, batch, best_row_mapping(layer, batch, array), array),
                           float(layer.macs * batch)))
        for layer, batch in work
    )  # fmt: skip
    plain = PlainArray.like(array)
    return {
        name: sum(best_plain_energy(layer, batch, plain, name)[0] for layer, batch in work) / rows for name in DATAFLOWS
    }


def dataflow_range() -> Prediction:
    """From the best to the worst of the other dataflows [times the energy of row stationary]."""
    ratios = dataflow_ratios().values()
    low, high = min(ratios), max(ratios)
    return Prediction(math.sqrt(low * high), low, high)
