"""One golden case of ZigZag worked out by hand: K=2 outputs of C=3 inputs on one MAC beside one memory.

Loops C3 (inner), K2; the memory has one 8-bit port for everything; partial sums have 16 bit, all else 8.

- Each weight and each input is read once a cycle: 6 accesses. A partial sum is written and read back each cycle in two
  words: 12 and 12. Energy: 6*2 + 6*2 + 12*2 + 12*3 = 84 pJ, and 6 MACs of 1 pJ.
- Cycles: of 6, each transfer may take 1. Sums need 2, which is 1 too many in 5 periods for each of two transfers: 10.
  The four windows of 1 cycle overlap: they ask for 4*5 = 20 of the 6 cycles there are, 14 too many. Stall 24.
- Tiles: 48 + 24 + 16 (outputs leave finished) of 128 bit = 0.6875. Replaced wholly by the outer loops are W (6 of 6)
  and O (2 of 2), I not at all: (8 + 24 + 8)/128 is below a half, so all are double-buffered.
"""

import copy

ZERO = {"read_to_low": 0, "write_from_low": 0, "read_to_high": 0, "write_from_high": 0}
DIRECTIONS = tuple(ZERO)


def _level(tile, bits, precision, words, energy):
    """Results of the only level of an operand whose `words` move one element a cycle."""
    here = {direction: 1 for direction in words}
    return {
        "memory": "buf",
        "instances_used": 1,
        "tile_elements_per_instance": tile,
        "tile_bits_per_instance": bits,
        "accesses": ZERO | {direction: 6 * n for direction, n in words.items()},
        "elements_per_period": ZERO | here,
        "period_cycles": ZERO | here,
        "period_count": ZERO | dict.fromkeys(words, 6),
        "precision_bits": ZERO | dict.fromkeys(words, precision),
        "transfer_cycles_per_period": ZERO | words,
        "allowed_cycles_per_period": ZERO | here,
        "double_buffered": True,
        "energy_pj": energy,
    }


_LOOPS = [[["C", 3], ["K", 2]]]
_CASE = {
    "id": "by_hand",
    "description": "K=2, C=3 on one MAC and one memory.",
    "tags": ["fc"],
    "hardware": {
        "name": "one",
        "array_dims": {"D1": 1},
        "mac_energy_pj": 1.0,
        "systolic_dims": [],
        "memories": [
            {
                "name": "buf",
                "size_bits": 128,
                "read_energy_pj": 2.0,
                "write_energy_pj": 3,
                "operands": ["W", "I", "O"],
                "served_dims": ["D1"],
                "ports": [
                    {
                        "name": "rw_port_1",
                        "type": "read_write",
                        "bw_min_bits": 8,
                        "bw_max_bits": 8,
                        "serves": [
                            ["W", "read_to_low"],
                            ["I", "read_to_low"],
                            ["O", "read_to_low"],
                            ["O", "write_from_low"],
                        ],
                    }
                ],
            }
        ],
    },
    "layer": {
        "type": "fc",
        "dims": {"B": 1, "G": 1, "K": 2, "C": 3, "OY": 1, "OX": 1, "FY": 1, "FX": 1},
        "stride": {"OY": 1, "OX": 1},
        "dilation": 1,
        "input_size": {"IY": 1, "IX": 1},
        "precision_bits": {"W": 8, "I": 8, "O_partial": 16, "O_final": 8},
    },
    "mapping": {"spatial": {}, "temporal": {"W": _LOOPS, "I": _LOOPS, "O": _LOOPS}},
    "results": {
        "mac_count": 6,
        "mac_energy_pj": 6.0,
        "memory_energy_pj": 84.0,
        "energy_total_pj": 90.0,
        "tensor_elements": {"W": 6, "I": 3, "O": 2},
        "memory_utilization": {"buf": 0.6875},
        "levels": {
            "W": [_level(6, 48, 8, {"read_to_low": 1}, 12.0)],
            "I": [_level(3, 24, 8, {"read_to_low": 1}, 12.0)],
            "O": [_level(2, 16, 16, {"read_to_low": 2, "write_from_low": 2}, 60.0)],
        },
        "latency": {
            "ideal_cycles": 6,
            "temporal_cycles": 6,
            "stall_cycles": 24,
            "onload_cycles": 0,
            "offload_cycles": 0,
            "drain_cycles": 0,
            "computation_cycles": 30,
            "total_cycles": 30,
            "stall_per_port": {"buf/rw_port_1": 24},
        },
    },
}
_FILE = {
    "format": "cooptim-zigzag-golden-1",
    "zigzag_version": "3.9.1",
    "zigzag_settings": {"access_same_data_considered_as_no_access": True, "cycles_per_op": 1},
    "cases": [_CASE],
}


def golden_file():
    """A file with this case, to be changed at will."""
    return copy.deepcopy(_FILE)


def leaves(node, path=()):
    """(path, value) of every number, text and truth of a content."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, (*path, key))
    else:
        yield path, node


def changed(content, path, value):
    """A copy of a content with one leaf changed, or removed where `value` is `...`."""
    out = copy.deepcopy(content)
    node = out
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return out
