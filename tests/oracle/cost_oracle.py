"""Slow oracle of the cost of a legal design: plain Python on numbers, one layer after the other.

Shares no code with the package; it reads the fields of the machine, the workload and one row of the tiling table.
"""

import math


def words_of(table, layer, row, mode):
    """Counts of one chosen row of the table."""
    plain = ("dram_w", "dram_i", "dram_o", "dram_psum", "tile_w", "tile_i", "tile_o", "tile_psum")
    by_mode = ["cycles", "sram_w", "sram_i", "sram_o", "sram_psum"] + (["sums"] if table.sums is not None else [])
    out = {name: float(getattr(table, name)[layer][row]) for name in plain}
    return out | {name: float(getattr(table, name)[layer][row][mode]) for name in by_mode}


def divisor(d, mode, weight_bits, input_bits):
    """Activity divisor by the definition: lanes, then unused bits of the slot, each operand to the half power."""
    k = float(mode.lanes) ** float(d.subword_exponent)
    for bits in (weight_bits, input_bits):
        k *= (mode.slot_bits / min(bits, mode.slot_bits)) ** (float(d.gating_exponent) / 2)
    return k


def leak(machine, volts, size):
    """Leakage power while the chip runs [mW]: the scaled rail at `volts`, a part on the fixed rail."""
    s = machine.supply
    part = 0.0 if s.fixed_leakage_share is None else float(s.fixed_leakage_share)
    stands = float(s.nominal_v if s.fixed_v is None else s.fixed_v)
    return (1 - part) * leak_at(machine, volts, size) + part * leak_at(machine, stands, size)


def leak_at(machine, volts, size):
    """Leakage power with the whole chip at one supply [mW]."""
    if volts == 0:
        return 0.0
    s, share = machine.supply, float(machine.supply.memory_leakage_share)
    grown = (1 - share) + share * size / float(machine.buffer.nominal_bits)
    return float(s.leakage_mw) * grown * (volts / float(s.nominal_v)) ** float(s.leakage_exponent)


def scale_at(s, volts):
    """Dynamic energy over that with both rails at nominal supply."""
    stands = float(s.nominal_v if s.fixed_v is None else s.fixed_v)
    part, nominal = float(s.fixed_share), float(s.nominal_v)
    return (1 - part) * (volts / nominal) ** 2 + part * (stands / nominal) ** 2


def change(machine, before, after, size):
    """(energy [pJ], time [ns]) from one (mode, supply) to the next."""
    w, volts = machine.switching, after[1]
    time = float(w.mode_ns) if before[0] != after[0] else 0.0
    time += float(w.step_ns) * abs(volts - before[1]) / float(machine.supply.step_v)
    charge = float(w.rail_pf) * (volts * volts - before[1] * before[1]) if volts > before[1] else 0.0
    return charge + leak(machine, volts, size) * time, time


def code_bits(coded, bits, density):
    """Bits of a word on the link, from the mean length of a code word."""
    mean = (1 - density) * 1 + density * (1 + bits)
    return min(bits, mean) if coded else bits


def consumers_of(workload, name):
    """Indices of the layers that take this layer's output."""
    return [i for i, layer in enumerate(workload.layers) if name in layer.inputs]


def leaves(workload, name):
    """Does this layer's output leave the network?"""
    return name in workload.outputs or not consumers_of(workload, name)


def keep_maps(workload, choice, size, working):
    """(kept share of each output, bits of maps on chip at each layer)."""
    n = len(workload.layers)
    life, bits = {}, {}
    for p, layer in enumerate(workload.layers):
        users = consumers_of(workload, layer.name)
        if users:
            life[p] = range(min([p, *users]), max([p, *users]) + 1)
            bits[p] = layer.output_words * layer.repeat * max(choice["input_bits"][c] for c in users)
    phi = []
    for j in range(n):
        alive = sum(bits[p] for p in life if j in life[p])
        room = max(0.0, size - working[j])
        phi.append(1.0 if alive <= room else room / alive)
    kept = [min(phi[j] for j in life[p]) if p in life else 0.0 for p in range(n)]
    held = [sum(kept[p] * bits[p] for p in life if j in life[p]) for j in range(n)]
    return kept, held


def fill_knapsack(capacity, items):
    """Shares of (size, value) items, best value per size first, the last one in part."""
    share = [0.0] * len(items)
    ranked = sorted((i for i in range(len(items)) if items[i][0] > 0), key=lambda i: -items[i][1] / items[i][0])
    for i in ranked:
        share[i] = max(0.0, min(1.0, capacity / items[i][0]))
        capacity -= share[i] * items[i][0]
    return share


def price(workload, machine, table, choice, period=None):
    """Energy by component and layer [pJ], standby [pJ], latency by layer [ns] and what stays on chip.

    Args:
      choice: lists a layer 'row', 'mode' (indices), 'weight_bits', 'input_bits', 'weight_density', 'input_density',
        'supply_v', 'freq_ghz', and 'buffer_bits'.
    """
    d, s, b, link = machine.datapath, machine.supply, machine.buffer, machine.dram
    size, n = choice["buffer_bits"], len(workload.layers)
    counts = [words_of(table, i, choice["row"][i], choice["mode"][i]) for i in range(n)]
    modes = [machine.modes[choice["mode"][i]] for i in range(n)]
    working = []
    for c, mode in zip(counts, modes, strict=True):
        tiles = (c["tile_w"] + c["tile_i"] + c["tile_o"]) * mode.slot_bits * (2 if b.double_buffered else 1)
        working.append(tiles + c["tile_psum"] * d.accumulator_bits)
    kept, held = keep_maps(workload, choice, size, working)

    volts, weight_link, input_link, word_pj = choice["supply_v"], [], [], []
    for i in range(n):
        scale = scale_at(s, volts[i])
        word_pj.append(float(b.access_pj) * math.sqrt(size / float(b.nominal_bits)) * scale)
        weight_link.append(code_bits(link.coded, choice["weight_bits"][i], choice["weight_density"][i]))
        input_link.append(code_bits(link.coded, choice["input_bits"][i], choice["input_density"][i]))

    items = []
    for i, layer in enumerate(workload.layers):
        stored = 0 if layer.kind == "matmul" else layer.weight_words * weight_link[i]
        transit = word_pj[i] * modes[i].slot_bits / b.word_bits
        items.append((stored, counts[i]["dram_w"] * (weight_link[i] * float(link.access_pj_per_bit) + transit)))
    room = max(0.0, size - max(w + h for w, h in zip(working, held, strict=True)))
    resident = fill_knapsack(room, items)
    if period is not None and float(s.retention_v) == 0:
        resident = [0.0] * n

    energy = {name: [] for name in "datapath sram_w sram_i sram_o control leakage dram_w dram_i dram_o".split()}
    latency, found = [], []
    for i, layer in enumerate(workload.layers):
        c, mode = counts[i], modes[i]
        d_w, d_i = choice["weight_density"][i], choice["input_density"][i]
        producers = [workload.names.index(p) for p in layer.inputs if p != "input"]
        on_chip = 0.0 if "input" in layer.inputs else min(kept[p] for p in producers)
        found.append(on_chip)
        words_w = c["dram_w"] * (1 - (on_chip if layer.kind == "matmul" else resident[i]))
        words_i = c["dram_i"] * (1 - on_chip)
        users = consumers_of(workload, layer.name)
        if leaves(workload, layer.name):
            words_o, bits_o = c["dram_o"], d.width_bits
        else:
            words_o, bits_o = c["dram_o"] * (1 - kept[i]), sum(input_link[u] for u in users) / len(users)
        bits = [words_w * weight_link[i], words_i * input_link[i], words_o * bits_o]
        bits[2] += 2 * c["dram_psum"] * d.accumulator_bits
        latency.append(max(c["cycles"] / choice["freq_ghz"][i], sum(bits) / float(link.bandwidth_bit_per_ns)))

        scale = scale_at(s, volts[i])
        busy = layer.macs / (mode.lanes * d.rows * d.cols)
        active = busy * (float(d.guarded_share) + (1 - float(d.guarded_share)) * d_w * d_i)
        lanes = active + (c["cycles"] - busy) * float(d.idle_share)
        pack = mode.slot_bits / b.word_bits
        k = divisor(d, mode, choice["weight_bits"][i], choice["input_bits"][i])
        energy["datapath"].append(scale * float(d.busy_pj) / k * lanes)
        energy["sram_w"].append(word_pj[i] * (d_w * c["sram_w"] + words_w * pack))
        energy["sram_i"].append(word_pj[i] * (d_i * c["sram_i"] + words_i * pack))
        spilled = c["dram_psum"] * 2 * d.accumulator_bits / b.word_bits  # out of the buffer and back into it
        energy["sram_o"].append(word_pj[i] * (c["sram_o"] + c["sram_psum"] + spilled + words_o * pack))
        if d.systolic is not None:
            energy["sram_o"][-1] += c["sums"] * float(d.systolic.sum_pj) * scale
        energy["control"].append(scale * float(d.control_pj) * c["cycles"])
        energy["leakage"].append(leak(machine, volts[i], size) * latency[-1])
        for name, x in zip(("dram_w", "dram_i", "dram_o"), bits, strict=True):
            energy[name].append(x * float(link.access_pj_per_bit))
    changed = [(0.0, 0.0)] * n
    if machine.switching is not None:
        states = list(zip(choice["mode"], volts, strict=True))
        changed = [change(machine, states[i - 1], states[i], size) for i in range(n)]
    whole = sum(latency) + sum(time for _, time in changed)
    idle = max(0.0, period - whole) if period is not None else 0.0
    return {
        "energy_pj": energy,
        "standby_pj": leak_at(machine, float(s.retention_v), size) * idle,
        "latency_ns": latency,
        "switching": changed,
        "resident": resident,
        "kept": [0.0 if leaves(workload, x.name) else kept[i] for i, x in enumerate(workload.layers)],
        "demand": [w + h for w, h in zip(working, held, strict=True)],
    }
