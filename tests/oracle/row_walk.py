"""Slow oracle: walks a row-stationary mapping pass by pass, element by element, and counts words in sets.

It shares no code with the package and knows no closed form. An element holds one filter row and one input row for each
of its filters and channels; sums climb a column of elements, through the sets of other channels.
"""

import dataclasses
import itertools
import math


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution: groups, filters and channels of one group, output and filter sizes, stride, padding in front."""

    groups: int
    filters: int
    channels: int
    out_rows: int
    out_cols: int
    filter_rows: int
    filter_cols: int
    stride: tuple[int, int]
    pad: tuple[int, int]
    in_rows: int
    in_cols: int
    batch: int


def walk(conv: Conv, m: int, n: int, e: int, p: int, q: int, r: int, t: int, buses: tuple[int, int, int]):
    """Counts by name; buses are words a cycle of filters, inputs, sums."""
    found = dict.fromkeys(
        ("passes", "cycles", "buffer_inputs", "buffer_psums", "buffer_filters", "array_words", "pad_words",
         "link_inputs", "link_outputs", "link_filters", "active", "macs"), 0)  # fmt: skip
    sent = set()
    blocks = itertools.product(
        range(conv.groups), range(0, conv.filters, m), range(0, conv.out_rows, e), range(0, conv.batch, n)
    )
    for group, first_m, first_row, first_image in blocks:
        rows = [y for y in range(first_row, first_row + e) if y < conv.out_rows]
        images = range(first_image, first_image + n)
        fetched = set()  # inputs of this block that the buffer has
        for first_c in range(0, conv.channels, q * r):
            for first_k in range(first_m, first_m + m, p * t):
                one = _one_pass(conv, images, rows, first_k, first_c, (p, q, r, t))
                found["passes"] += 1
                busy = [
                    max(one["macs_of_element"]),
                    math.ceil(len(one["filters"]) / buses[0]),
                    math.ceil(len(one["inputs"]) / buses[1]),
                    math.ceil(len(one["sums"]) / buses[2]),
                ]
                found["cycles"] += max(busy)
                found["active"] = max(found["active"], len(one["macs_of_element"]))
                found["macs"] += sum(one["macs_of_element"])
                found["buffer_inputs"] += len(one["inputs"])
                found["buffer_psums"] += 2 * len(one["sums"])
                found["buffer_filters"] += len(one["filters"])
                found["link_filters"] += len(one["filters"])
                found["array_words"] += one["arrived"]
                found["pad_words"] += one["pads"]
                fetched |= {
                    (image, c, y - conv.pad[0], x - conv.pad[1])
                    for image, c, y, x in one["inputs"]
                    if 0 <= y - conv.pad[0] < conv.in_rows and 0 <= x - conv.pad[1] < conv.in_cols
                }
                sent |= {(group, *output) for output in one["sums"]}
        found["link_inputs"] += len(fetched)
    found["link_outputs"] = len(sent)
    return found


def _one_pass(conv, images, rows, first_k, first_c, interleaved):
    p, q, r, t = interleaved
    inputs, filters, sums, macs, arrived, pads = set(), set(), set(), [], 0, 0
    for other_k, column in itertools.product(range(t), rows):  # one column of elements, all its sets of channels
        kernels = [first_k + other_k * p + i for i in range(p)]
        for height, (other_c, tap) in enumerate(itertools.product(range(r), range(conv.filter_rows))):
            channels = [first_c + other_c * q + i for i in range(q)]
            mine_in = {
                (image, c, column * conv.stride[0] + tap, x)
                for image in images
                for c in channels
                for x in range((conv.out_cols - 1) * conv.stride[1] + conv.filter_cols)
            }
            mine_filter = {(k, c, tap, x) for k in kernels for c in channels for x in range(conv.filter_cols)}
            inputs |= mine_in
            filters |= mine_filter
            arrived += len(mine_in) + len(mine_filter)
            done = 0
            for image, k, x in itertools.product(images, kernels, range(conv.out_cols)):
                sums.add((image, k, column, x))
                products = q * conv.filter_cols
                done += products
                pads += 2 * products + 2 * (products - 1)
                arrived += height > 0  # the sum from the element below
            macs.append(done)
    return {
        "inputs": inputs, "filters": filters, "sums": sums, "macs_of_element": macs, "arrived": arrived, "pads": pads,
    }  # fmt: skip


def placed(sets: int, rows: int, cols: int, set_rows: int, set_cols: int) -> bool:
    """Whether so many sets find a place, segment by segment, first fit: bands of set_rows rows of the array."""
    room = [cols] * (rows // set_rows)
    segments = [width for _ in range(sets) for width in [cols] * (set_cols // cols) + [set_cols % cols] if width]
    for width in sorted(segments, reverse=True):
        band = next((i for i, free in enumerate(room) if free >= width), None)
        if band is None:
            return False
        room[band] -= width
    return True
