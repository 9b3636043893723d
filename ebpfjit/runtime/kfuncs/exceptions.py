"""Kernel functions: bpf_throw, which ends a program from wherever it is."""

from __future__ import annotations

from ebpfjit.runtime import held
from ebpfjit.runtime.execution import CODE_ADDRESS
from ebpfjit.runtime.helpers.table import engine_of
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World


# Linux unwinds first and calls the function on the frame of the main function then: it has all frames there.
@kfunc("bpf_throw", differs="the program's exception callback runs on a frame below that of who throws")
def throw(world: World, cookie: int) -> int:
    """End the program with `cookie` as its result, or with what its exception callback makes of it."""
    engine = engine_of(world)
    program, _ = engine.place()
    held.check(world, "where bpf_throw ends the program")
    value = cookie
    if program.exception_callback is not None:
        value = engine.call_function(CODE_ADDRESS + program.exception_callback, (cookie,))
    engine.leave_program()
    return value
