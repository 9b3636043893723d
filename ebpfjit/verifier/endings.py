"""Where functions and programs end: what they may return, and what must have been given back before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.isa.spec import Row
from ebpfjit.program import Instruction, Program
from ebpfjit.verifier import branches, lsm_hooks, memory, results
from ebpfjit.verifier.kfunc_effects import buffer_of
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.state import END, Frame, State, Step, read
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value, known

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk


def leave(walk: Walk, state: State, insn: Instruction, row: Row) -> int:
    """Return where a state goes on behind an exit: in the caller, at the helper that called, or nowhere."""
    frame = state.frames[-1]
    if len(state.frames) == 1:
        is_void = walk.gives_nothing and not frame.start
        return _ends(walk, state, frame, known(0) if is_void else read(state, 0))
    if walk.slices_in_frames:
        _left(state, buffer_of(len(state.frames) - 1))
    result = frame.registers[0] if frame.callback is None else read(state, 0)
    if isinstance(result, Pointer) and result.kind == "stack" and result.what == len(state.frames) - 1:
        raise Refused("type", "cannot return stack pointer to the caller")
    state.frames.pop()
    caller = state.frames[-1]
    state.way = Step(state.way, insn.pc, None)
    if frame.callback is not None:
        results.in_range(result, frame.callback.results, "callback")
        walk.seen.widened(state, state.point, frame.call)
        return frame.call  # it may be called once more
    caller.registers[0] = result
    for number in range(1, 6):
        caller.registers[number] = None
    return frame.call + 1


def _left(state: State, flag: str) -> None:
    """Say that the frame is gone which slices may lie in."""

    def change(value: Value) -> Value:
        return value.but(kind="left") if isinstance(value, Pointer) and flag in value.flags else value

    branches.replaced(state, change)


def gives_nothing(program: Program, hook: str, setting: memory.Setting) -> bool:
    """True of programs whose result nobody asks for: what they are called by returns nothing."""
    if hook:
        return lsm_hooks.gives_nothing(hook, setting.attach)
    if program.type != "struct_ops" or setting.types is None:
        return False
    return setting.types.operation_gives_nothing()


def _ends(walk: Walk, state: State, frame: Frame, result: Value) -> int:
    """Hold the end of a program against what its type may return, and what it has to give back."""
    if state.lock is not None:
        raise Refused("lock", "BPF_EXIT instruction cannot be used inside bpf_spin_lock-ed region")
    if state.sections:
        raise Refused("lock", f"BPF_EXIT instruction cannot be used inside {state.region}-ed region")
    if state.references:
        first = state.references[0]
        raise Refused(
            "reference",
            f"Unreleased reference alloc_insn={first.pc}: {first.by} acquired it",
            "give it back on every path to the end, where it was not NULL",
        )
    if frame.callback is not None:
        results.check_result(walk, state, result)
        return END
    is_function = frame.start and frame.start != walk.program.exception_callback
    if is_function and not isinstance(result, (Scalar, Poison)):
        raise Refused("result", "At subprogram exit the register R0 is not a scalar value")
    if is_function:
        return END
    if isinstance(result, Pointer) and not walk.setting.privileged:
        raise Refused("leak", "R0 leaks addr as return value")
    results.check_result(walk, state, result)
    return END
