"""Processors: what a chip can do and what it costs, read from files with the source of every number."""

from cooptim.hardware.load import MachineError, MachineFile, load_machine, load_machine_file, machine_names
from cooptim.hardware.machine import Area, Buffer, Datapath, Dram, Machine, Mode, Supply

__all__ = [
    "Area",
    "Buffer",
    "Datapath",
    "Dram",
    "Machine",
    "MachineError",
    "MachineFile",
    "Mode",
    "Supply",
    "load_machine",
    "load_machine_file",
    "machine_names",
]
