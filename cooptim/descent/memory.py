"""Memory that a sweep will take at its peak, estimated before it starts, and what is there."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from cooptim.descent.together import Program

GIB = 2.0**30
# States of a member beside the one that is stepped: where it began, taken apart, put together again, as it ended, and
# the bytes of a checkpoint.
_COPIES = 5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Peak memory of a sweep [byte].

    Attributes:
      resident: of the process (of an accelerator's memory, where there is one) when the estimate was made: data,
        libraries, every compiled program.
      held: parents and references of the seeds. call: states, copies, batch and intermediates of one call of the step.
      total: resident, held and call, and no less than what the process has already taken at its peak.
      available: what may still be taken beyond `resident`; None where the system does not say.
      members: of the sweep. together: in one call.
    """

    resident: int
    held: int
    call: int
    total: int
    available: int | None
    members: int
    together: int


def estimate(program: Program, member: Any, parents: int, members: int) -> Estimate:
    """The estimate for a sweep whose step is compiled, after a rehearsal of everything else.

    Args:
      member: a state as one member begins. parents: number of seeds.

    Source: XLA's own account of the compiled step (arguments, outputs, intermediates); the rest is counted or measured.
    """
    seen = program.executable.memory_analysis()
    state = bytes_of(member)
    # A call writes its outputs onto its arguments where it can (aliases).
    fresh = seen.argument_size_in_bytes + seen.output_size_in_bytes - seen.alias_size_in_bytes
    call = seen.temp_size_in_bytes + fresh + _COPIES * state * (program.width if program.width > 1 else 1)
    held = parents * 2 * state
    device = device_bytes()
    if device is not None:  # an accelerator holds them in its own memory
        resident, limit = device
        return Estimate(resident, held, call, resident + held + call, limit - resident, members, program.width)
    resident = resident_bytes()
    total = max(peak_bytes(), resident + held + call)
    return Estimate(resident, held, call, total, available_bytes(), members, program.width)


def require_room(found: Estimate, *, batch: int) -> None:
    """Raises ValueError when a sweep would take more memory than there is, with the figure and what would fit."""
    needed = found.total - found.resident
    if found.available is None or needed <= found.available:
        return
    each = found.call / found.together
    fits = int(max(found.available - found.held, 0) // each)
    if fits >= 1:
        remedy = f"at most {fits} fit: ask for {fits} in a call (--together {fits})"
    else:
        fewer = int(batch * max(found.available - found.held, 0) / each)
        remedy = f"not even one fits: use batches of about {fewer}" if fewer >= 1 else "use a machine with more memory"
    raise ValueError(
        f"sweep of {found.members} members, {found.together} in a call: the step needs about {needed / GIB:.3g} GiB, "
        f"{found.available / GIB:.3g} GiB are available; {remedy}"
    )


def bytes_of(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(int(np.prod(np.shape(leaf))) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def resident_bytes() -> int:
    """Resident memory of this process [byte]; 0 where the system does not say."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Largest resident memory of this process so far [byte]; 0 where the system does not say."""
    return _status("VmHWM")


def device_bytes() -> tuple[int, int] | None:
    """(in use, limit) of the memory of the first accelerator [byte]; None on a CPU, whose memory is the process's."""
    found = jax.local_devices()[0].memory_stats() or {}
    return (found["bytes_in_use"], found["bytes_limit"]) if {"bytes_in_use", "bytes_limit"} <= set(found) else None


def available_bytes() -> int | None:
    """Memory that may still be taken [byte], the least of the machine's and of the limits of this process's group."""
    room = []
    meminfo = _lines("/proc/meminfo")
    room += [1024 * int(line.split()[1]) for line in meminfo if line.startswith("MemAvailable:")]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most, now = _lines(limit), _lines(used)
        if most and now and most[0].isdigit() and now[0].isdigit():
            room.append(max(int(most[0]) - int(now[0]), 0))
    return min(room) if room else None


def _status(name: str) -> int:
    found = [line for line in _lines("/proc/self/status") if line.startswith(f"{name}:")]
    return 1024 * int(found[0].split()[1]) if found else 0


def _lines(path: str) -> list[str]:
    try:
        return pathlib.Path(path).read_text().splitlines()
    except OSError:
        return []
