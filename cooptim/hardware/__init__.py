"""Processors: what a chip can do and what it costs, read from files with the source of every number."""

from cooptim.hardware.load import MachineError, MachineFile, load_machine, load_machine_file, machine_names
from cooptim.hardware.machine import Area, BodyBias, Buffer, Datapath, Dram, Machine, Mode, Supply, Switching

__all__ = [
    "Area",
    "BodyBias",
    "Buffer",
    "Datapath",
    "Dram",
    "Machine",
    "MachineError",
    "MachineFile",
    "Mode",
    "Supply",
    "Switching",
    "load_machine",
    "load_machine_file",
    "machine_names",
]
