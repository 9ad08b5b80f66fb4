"""The table of tilings that a workload may choose from, stacked over layers.

Two memory levels here (on-chip buffer and DRAM). A row is one choice of tile sizes and loop order for one layer; all
that energy and latency need of a choice is linear in the numbers of its row, so a softmax-weighted mean of rows is a
relaxation and a one-hot choice is exact.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

STATIONARITIES: tuple[str, ...] = ("W", "I", "O")  # last column of `Tilings.factors` indexes this


@dataclasses.dataclass(frozen=True)
class Tilings:
    """Candidate tilings [layer, row(, mode)], padded with invalid rows; numpy constants of a jitted program.

    All counts are words of one inference (repeats included) unless said otherwise; `cooptim.mapping.traffic` defines
    them. Row 0 of a layer is the untiled one; a padding row repeats it with `valid` 0.
    """

    valid: Float[np.ndarray, "layer row"]  # 1 or 0 (padding)
    dram_w: Float[np.ndarray, "layer row"]  # weight words fetched
    dram_i: Float[np.ndarray, "layer row"]  # input words fetched, halo refetched
    dram_o: Float[np.ndarray, "layer row"]  # final output words written
    dram_psum: Float[np.ndarray, "layer row"]  # partial sums written to DRAM; each is read once again
    tile_w: Float[np.ndarray, "layer row"]  # words held at a time in the buffer
    tile_i: Float[np.ndarray, "layer row"]
    tile_o: Float[np.ndarray, "layer row"]
    cycles: Float[np.ndarray, "layer row mode"]  # array cycles
    sram_w: Float[np.ndarray, "layer row mode"]  # buffer words read into the array (one slot-wide weight a word)
    sram_i: Float[np.ndarray, "layer row mode"]  # buffer words read, `lanes` pixels packed in a word
    sram_o: Float[np.ndarray, "layer row mode"]  # buffer words written, `lanes` outputs packed in a word
    sram_psum: Float[np.ndarray, "layer row mode"]  # buffer words for partial sums (each write and each read counts)
    factors: Int[np.ndarray, "layer row 5"]  # tile sizes (K, C, OY, OX) and stationarity: 0 = W, 1 = I, 2 = O
    tile_psum: Float[np.ndarray, "layer row"] | None = None  # accumulators held beside tile_o; 0 unless C is tiled
    sums: Float[np.ndarray, "layer row mode"] | None = None  # accesses to a systolic array's accumulators

    def __post_init__(self) -> None:
        if self.tile_psum is None:
            object.__setattr__(self, "tile_psum", np.zeros_like(self.tile_o))

    @property
    def rows(self) -> int:
        """Length of the row axis, padding included."""
        return int(self.valid.shape[1])

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The fields by name, those that are None left out."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: column for name, column in found.items() if column is not None}


def pieces(bound: int, tile: int) -> tuple[tuple[int, int], ...]:
    """((tile size, how many), ...) of a bound in tiles, the smaller last tile included."""
    whole, rest = divmod(bound, tile)
    return tuple((size, many) for size, many in ((tile, whole), (rest, 1)) if size and many)
