"""What code was promised of its argument, held against what a run has: the one place that compares them.

    Promises    what analysis took for granted, so that checks fell
    Given       what a run, or all runs of a gate, have behind r1

Code that was promised nothing takes every run.
"""

from __future__ import annotations

from ebpfjit.errors import ExecutionError
from ebpfjit.jit.recipe import Recipe
from ebpfjit.record import record
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.rights import PACKET_POINTERS, Rights


@record
class Given:
    """At least `size` bytes at r1, and `writable` or not; `measured` where r2 is how many there are.

    `rights` are those of the struct that is there. `told` is true where what it says of a packet is so.
    """

    size: int
    writable: bool
    measured: bool
    rights: Rights | None = None
    told: bool = False

    @classmethod
    def of(cls, execution: Execution, *, looks: bool = False) -> Given:
        """Return what a run that is about to start has; what it tells of its packet where one `looks`."""
        region, (address, length) = execution.argument, execution.arguments
        if region is None:
            return cls(0, writable=False, measured=length == 0)
        is_there = address == region.start
        size = region.size if is_there else 0
        measured = length == region.size and (is_there or not region.size)
        return cls(size, region.writable, measured, region.rights, looks and _tells_its_packet(execution))


def _tells_its_packet(execution: Execution) -> bool:
    """True where all that programs read in the struct at r1 of where its packet is, is so."""
    struct, packet = execution.argument, execution.packet
    if struct is None or packet is None or struct.rights is None or packet not in execution.regions:
        return False
    rights, said = struct.rights, {"data_meta": packet.start, "data": packet.start, "data_end": packet.stop}
    for name, start, stop in rights.fields:
        if name in PACKET_POINTERS and rights.allows(start, stop - start, store=False):
            said[name] = int.from_bytes(struct.view[start:stop], "little")
    return packet.start <= said["data_meta"] <= said["data"] <= said["data_end"] <= packet.stop


def check(recipe: Recipe, given: Given) -> None:
    """Raise ExecutionError where code was promised more than there is."""
    promises = recipe.options.promises
    size = promises.argument_size
    if given.size < size:
        reason = f"at least {size} bytes at r1, and here there are {given.size}"
    elif size and promises.argument_writable and not given.writable:
        reason = f"{size} bytes at r1 that it may write, and here they are read-only"
    elif size and promises.argument_rights is not given.rights:
        reason = "other rights to the struct at r1 than there are here"
    elif promises.proven and not given.told:
        reason = "a context that says where its packet is, and here it does not"
    elif promises.argument_is_measured and not given.measured:
        reason = "r2 being the length of the memory at r1, and here it is not"
    else:
        return
    name = recipe.verified.program.name
    raise ExecutionError(
        f"the machine code of {'the program' if name is None else repr(name)} was compiled for {reason}; "
        f"compile it again for such runs"
    )
