"""Sizes of a row-stationary array: what its processing elements and the buffer behind them hold."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RowArray:
    """An array whose elements each convolve one row of a filter with one row of an input.

    Attributes:
      rows, cols: processing elements; a filter has at most `rows` rows.
      filter_words, input_words, psum_words: scratch pads of one element.
      banks: of the buffer of inputs and partial sums; each bank holds one of the two. bank_words: of one bank.
      filter_bank_words: buffer of filters, which holds those of one pass.
      diagonals: rows of the input that the network to the array tells apart, at most.
      filter_bus, input_bus, psum_bus: words a cycle from the buffer to the array; partial sums as many back.
    """

    rows: int
    cols: int
    filter_words: int
    input_words: int
    psum_words: int
    banks: int
    bank_words: int
    filter_bank_words: int
    diagonals: int
    filter_bus: int
    input_bus: int
    psum_bus: int
