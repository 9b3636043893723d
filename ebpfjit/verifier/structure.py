"""What Linux refuses by the shape of a program alone: check_cfg, check_max_stack_depth."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping

from ebpfjit.isa.spec import Imm, Kind, Reference
from ebpfjit.program import Instruction, Program
from ebpfjit.verifier.stack import SIZE
from ebpfjit.verifier.state import MOST_FRAMES

Error = tuple[int, str, str, str]
"""The slot, the kind of error, the message, and what would help."""

_WITH_TAIL_CALL = 256
"""Bytes of the stack of callers of a function that makes a tail call."""

TAIL_CALL = 12


def errors(program: Program) -> Iterator[Error]:
    """Return what is wrong with where control goes."""
    reached = _reached(program)
    starts = sorted({0, *program.functions})
    linked = {function_of(starts, pc) for pc in reached}  # a loader leaves out what no call leads to
    is_filled = len(linked) < len(starts)
    for insn in program.instructions:
        function = function_of(starts, insn.pc)
        if is_filled and not function and insn.row is not None and insn.row.kind is Kind.EXIT:
            continue  # the linker filled the place up to a table of functions with these
        if insn.pc not in reached and function in linked:
            yield insn.pc, "structure", f"unreachable insn {insn.pc}", "no run comes here: leave it out"
            break
    for insn in program.instructions:
        if insn.next_pc in linked and insn.row is not None and insn.row.kind not in (Kind.EXIT, Kind.JUMP):
            behind = program.functions[insn.next_pc]
            said = f"last insn is not an exit or jmp: a run goes on from insn {insn.pc} into {behind}()"
            yield insn.pc, "structure", said, "a function ends with exit, or a jump inside of it"
    for insn, target in program.jumps:
        row = insn.row
        if row is None or row.kind is Kind.CALL_LOCAL:
            continue
        if function_of(starts, insn.pc) != function_of(starts, target):
            yield (
                insn.pc,
                "structure",
                f"jump out of range from insn {insn.pc} to {target}",
                "it leaves its function",
            )
    called = calls(program)
    thrown = program.exception_callback
    for callees in (*called.values(), *_named(program).values()):
        if thrown in callees:
            yield callees[thrown][0], "structure", "cannot call exception cb directly", "only bpf_throw does"
            break
    for start, callees in called.items():
        if start in below(called, callees):
            yield (
                callees[min(callees)][0], "termination", f"recursive call from {program.functions[start]}()",
                "functions of a program must not call themselves",
            )  # fmt: skip
            break


def _ways(program: Program, insn: Instruction) -> list[int]:
    """Return the slots that control goes to from an instruction, into functions too."""
    row = insn.row
    if row is None or row.kind is Kind.EXIT:
        return []
    ways = [] if row.kind is Kind.JUMP else [insn.next_pc]
    if insn.target is not None:
        ways.append(insn.target)
    if row.is_wide and row.imm is Imm.TARGET:
        ways.append(insn.pc + 1 + insn.imm)
    return ways


def back_edge(program: Program) -> tuple[int, int] | None:
    """Return the slots of a jump that closes a loop, and of where it goes; None: there is no loop."""
    slots = program.slots
    begun: set[int] = {0}
    done: set[int] = set()
    chain = [(0, iter(_ways(program, slots[0])) if slots[0] is not None else iter(()))]
    while chain:
        pc, ways = chain[-1]
        way = next(ways, None)
        if way is None:
            done.add(pc)
            chain.pop()
        elif way in begun:
            if way not in done:
                return pc, way
        elif 0 <= way < len(slots):
            insn = slots[way]
            begun.add(way)
            chain.append((way, iter(_ways(program, insn)) if insn is not None else iter(())))
    return None


def _reached(program: Program) -> set[int]:
    """Return the slots that control may come to."""
    found: set[int] = set()
    todo = [0]
    if program.exception_callback is not None:
        todo.append(program.exception_callback)
    slots = program.slots
    while todo:
        pc = todo.pop()
        if pc in found or not 0 <= pc < len(slots):
            continue
        found.add(pc)
        insn = slots[pc]
        if insn is not None:
            todo += _ways(program, insn)
    return found


def ending(program: Program) -> set[int]:
    """Return the slots from which control may come to an exit."""
    before: dict[int, list[int]] = {}
    todo = []
    for insn in program.instructions:
        row = insn.row
        if row is not None and row.kind is Kind.EXIT:
            todo.append(insn.pc)
        for way in _ways(program, insn):
            if row is not None and row.kind is Kind.CALL_LOCAL and way == insn.target:
                continue
            before.setdefault(way, []).append(insn.pc)
    found: set[int] = set()
    while todo:
        pc = todo.pop()
        if pc not in found:
            found.add(pc)
            todo += before.get(pc, ())
    return found


def function_of(starts: list[int], pc: int) -> int:
    """Return the slot where the function starts that a slot is in."""
    return starts[bisect_right(starts, pc) - 1]


def calls(program: Program) -> dict[int, dict[int, tuple[int, ...]]]:
    """Return for each function those that it calls, and the slots of the calls."""
    starts = sorted(program.functions)
    found: dict[int, dict[int, tuple[int, ...]]] = {start: {} for start in starts}
    for insn in program.instructions:
        row = insn.row
        if row is not None and row.kind is Kind.CALL_LOCAL and insn.target in found:
            callees = found[function_of(starts, insn.pc)]
            callees[insn.target] = (*callees.get(insn.target, ()), insn.pc)
    return found


def below(called: Mapping[int, Mapping[int, object]], callees: Mapping[int, object]) -> set[int]:
    """Return these functions, and all that they call."""
    found: set[int] = set()
    todo = list(callees)
    while todo:
        start = todo.pop()
        if start not in found:
            found.add(start)
            todo += called.get(start, ())
    return found


def _named(program: Program) -> dict[int, dict[int, tuple[int, ...]]]:
    """Return for each function those whose address it takes, and where: a helper calls them."""
    starts = sorted(program.functions)
    found: dict[int, dict[int, tuple[int, ...]]] = {start: {} for start in starts}
    for insn in program.instructions:
        target = insn.pc + 1 + insn.imm
        if insn.row is not None and insn.row.reference is Reference.CODE and target in found:
            found[function_of(starts, insn.pc)].setdefault(target, (insn.pc,))
    return found


_PRIVATE = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tracepoint"})
_PRIVATE_FROM = 64
"""Bytes from which on a frame is on a stack of its own (BPF_PRIV_STACK_MIN_SIZE)."""


def deepest(
    program: Program, depths: Mapping[int, int], later: Collection[int] = ()
) -> tuple[int, tuple[int, ...], list[Error]]:
    """Return the most stack that a chain of calls takes, the functions of it, and what is wrong with it.

    `depths` are the bytes of each function's frame. Linux's compiler gives each a multiple of 16. `later` are
    functions that run by themselves afterwards, as those of timers. In tracing programs without tail calls
    frames that are not small lie on a stack of their own (bpf_enable_priv_stack; Linux 6.13, x86-64).
    """
    called, named = calls(program), _named(program)
    for start, callees in named.items():
        for callee, pcs in callees.items():
            if callee not in later:
                called[start].setdefault(callee, pcs)
    start = 0
    tail = {
        function_of(sorted(program.functions), insn.pc)
        for insn in program.instructions
        if insn.row is not None and insn.row.kind is Kind.CALL_HELPER and insn.imm == TAIL_CALL
    }
    is_private = program.type in _PRIVATE and not tail
    worst: tuple[int, tuple[int, ...]] = 0, (start,)
    wrong: dict[str, Error] = {}
    todo: list[tuple[int, int, tuple[int, ...], int]] = [(each, 0, (), each) for each in (*later, start)]
    seen: dict[int, tuple[int, int]] = {}
    while todo:
        function, before, chain, pc = todo.pop()
        chain = (*chain, function)
        if function in tail and len(chain) > 1 and before >= _WITH_TAIL_CALL:
            said = (
                f"tail_calls are not allowed when call stack of previous frames is {before} bytes. Too large"
            )
            wrong.setdefault("tail", (pc, "stack", said, "make the frames of the callers smaller"))
        frame = -(-depths.get(function, 0) // 16) * 16
        depth = before + frame
        if depth > worst[0]:
            worst = depth, chain
        if is_private and frame >= _PRIVATE_FROM:
            depth = before
        if depth > SIZE:
            said = f"combined stack size of {len(chain)} calls is {depth}. Too large"
            wrong.setdefault(
                "stack", (pc, "stack", said, f"all frames of a chain have {SIZE} bytes together")
            )
            continue
        if len(chain) > MOST_FRAMES:
            wrong.setdefault(
                "frames", (pc, "stack", f"the call stack of {len(chain)} frames is too deep !", "")
            )
            continue
        known = seen.get(function)
        if known is not None and known[0] >= depth and known[1] >= len(chain):
            continue
        seen[function] = depth, len(chain)
        todo += [(callee, depth, chain, pcs[0]) for callee, pcs in called[function].items()]
    return worst[0], worst[1], list(wrong.values())
