"""Where the layers of a jaxpr stand: the answer that both the workload and `apply` read."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cooptim.network.flow import Path
from cooptim.network.nest import Axes
from cooptim.workload import INPUT, Layer

Trips = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array that enters the network beside the data."""

    name: str
    size: int
    learned: bool  # a parameter, as opposed to state and closed-over constants


@dataclasses.dataclass(frozen=True)
class Site:
    """One multiply-accumulate equation.

    Attributes:
      path: where it stands in the jaxpr.
      weight, data: positions of the W and I operands.
      scans: (path, trips) of the scans in which its weights differ from trip to trip, outermost first.
      leaf: weight leaf that the W operand is, up to shape; None when it was computed from leaves.
      product: whether both operands are data.
      raw: whether no parameter reaches the I operand, as in a first layer.
      axes: of the W operand; None where it has no output channels of its own, or stands inside a closed call.
      intact: whether the W operand is `leaf` as it was given, neither reshaped nor transposed.
    """

    path: Path
    weight: int
    data: int
    scans: tuple[tuple[Path, int], ...]
    leaf: int | None
    product: bool
    raw: bool
    axes: Axes | None = None
    intact: bool = False


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A closed call whose operands enter a MAC inside: (site, position of W, position of I) among its operands."""

    site: Path
    weight: int
    data: int


@dataclasses.dataclass(frozen=True)
class WeightProduct:
    """A product of two weights: done once when weights are loaded, so it is no layer of an inference."""

    name: str
    macs: int | None  # None when the count cannot be known (a loop of unknown length)


@dataclasses.dataclass
class Entry:
    """A layer as it is found; one for each site and each trip over differing weights."""

    site: Site
    trips: Trips
    layer: Layer
    sources: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Layers of a jaxpr and where `apply` must touch it.

    Attributes:
      layers: in order of execution.
      sites: by path; those of cheaper branches included.
      names: layer name of each site and trip; sites of cheaper branches bear the name whose knobs they share.
      opened: calls that hold a site and are therefore run equation by equation.
      boundaries: closed calls with a site inside, by path.
      slots: site of a cheaper branch -> site of the dearest branch whose statistics it fills.
      branches: cond path -> sites of its dearest branch.
      masked: (equation, operand) -> site whose mask the leaf in that operand wears, outside MACs.
      outputs, tags, products: layers that leave the network; layers behind each tag; products of weights.
    """

    layers: tuple[Layer, ...]
    sites: Mapping[Path, Site]
    names: Mapping[Path, np.ndarray]
    opened: frozenset[Path]
    boundaries: Mapping[Path, tuple[Boundary, ...]]
    slots: Mapping[Path, Path]
    branches: Mapping[Path, tuple[Path, ...]]
    masked: Mapping[Path, Mapping[int, Path]]
    outputs: tuple[str, ...]
    tags: Mapping[str, tuple[str, ...]]
    products: tuple[WeightProduct, ...]

    def rows(self, index: Mapping[str, int]) -> dict[Path, np.ndarray]:
        """Position on the layer axis of each site, one for each trip over differing weights."""
        return {path: np.vectorize(index.__getitem__, otypes=[int])(names) for path, names in self.names.items()}

    def mask_rows(self, rows: Mapping[Path, np.ndarray]) -> dict[Path, np.ndarray]:
        """As `rows`, but a site on a tied leaf takes the row of the first layer that uses the leaf."""
        return self._first_rows(rows, lambda site: True)

    def cell_rows(self, rows: Mapping[Path, np.ndarray]) -> dict[Path, np.ndarray]:
        """As `rows`, but a site on a tied leaf takes the row of the first that uses it as it lies in memory, too."""
        return self._first_rows(rows, lambda site: site.intact)

    def _first_rows(self, rows: Mapping[Path, np.ndarray], alike: Callable[[Site], bool]) -> dict[Path, np.ndarray]:
        first: dict[tuple[int, Trips], int] = {}
        out = {}
        for path, site in sorted(self.sites.items()):
            own = np.array(rows[path])
            if site.leaf is not None and alike(site):
                for trips in itertools.product(*(range(n) for _, n in site.scans)):
                    own[trips] = first.setdefault((site.leaf, trips), int(own[trips]))
            out[path] = own
        return out


def ordered(sources: frozenset[str], rename: Mapping[str, str], index: Mapping[str, int]) -> tuple[str, ...]:
    """Layer names in order of execution, 'input' first."""
    resolved = {_resolve(name, rename) for name in sources}
    return tuple(sorted(resolved, key=lambda name: -1 if name == INPUT else index[name]))


def _resolve(name: str, rename: Mapping[str, str]) -> str:
    while name in rename:
        name = rename[name]
    return name


def site_names(entries: Mapping[Any, Entry], rename: Mapping[str, str]) -> dict[Path, np.ndarray]:
    """Layer names by site, in an array over the trips of its scans."""
    names: dict[Path, np.ndarray] = {}
    for entry in entries.values():
        shape = tuple(n for _, n in entry.site.scans)
        table = names.setdefault(entry.site.path, np.empty(shape, dtype=object))
        table[entry.trips] = _resolve(entry.layer.name, rename)
    return names
