"""bpf_tail_call: another program of a prog_array takes over."""

from __future__ import annotations

import errno
from typing import Any, Protocol, cast

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import held
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.table import engine_of, helper
from ebpfjit.runtime.world import World

MAX_TAIL_CALLS = 33
"""How often a run may go on in another program (MAX_TAIL_CALL_CNT in include/linux/bpf.h)."""


class ProgramArray(Protocol):
    """What bpf_tail_call asks of a map."""

    def program_at(self, index: int) -> Any:
        """Return the program in a slot (u32), None where the slot is empty or not there."""


# The program that is called may do anything to memory, and a caller of this function goes on after.
@helper(
    "bpf_tail_call",
    under_lock=True,  # it looks for all that is held
    ends_rights=True,
    differs="a tail call that falls through leaves a negative error number in r0; Linux leaves nothing",
)
def tail_call(world: World, context: int, map_address: int, index: int) -> int:
    """Run another program in the place of the function that calls; its r0 is the result.

    Where that is not to be (an empty slot, an index too large, too many calls) the program goes on.
    """
    found = map_of(world, map_address, "bpf_tail_call")
    held.check(world, "at a tail call")
    index = W32.wrap(index)
    if index >= found.definition.max_entries:
        return -errno.E2BIG
    if world.tail_calls >= MAX_TAIL_CALLS:
        return -errno.ELOOP
    program = cast(ProgramArray, found).program_at(index)
    if program is None:
        return -errno.ENOENT
    if world.run_program is None:
        raise ExecutionError("bpf_tail_call: this run has no way to run another program")
    world.tail_calls += 1
    value = world.run_program(program)
    engine_of(world).leave_function()
    return value
