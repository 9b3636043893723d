"""Bugs to plant: the tester is tested by what it finds.

Each bug changes, in memory and for the rest of the process, what a translator writes, what analysis
claims, or how accesses are checked; the interpreter stays as it is. A bug is the kind of mistake
that JITs were found to have, or that an edit of ours could make.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ebpfjit.analysis import liveness
from ebpfjit.difftest.exchange import exchange
from ebpfjit.difftest.holes import HOLES
from ebpfjit.difftest.planted_middle import MIDDLE
from ebpfjit.difftest.planted_proofs import PROOFS
from ebpfjit.difftest.planted_rules import RULES
from ebpfjit.difftest.planting import (
    Plant,
    PlantedBug,
    altered,
    function,
    jumps,
    mapped,
    method,
    numbers,
    only,
    replaced,
    text,
    translators_table,
    wrapped,
)
from ebpfjit.errors import EbpfError
from ebpfjit.isa.table import BY_NAME
from ebpfjit.jit import baseline, entry, gate, image
from ebpfjit.memo import forget
from ebpfjit.optimizer.code import Op
from ebpfjit.optimizer.placed import Placed
from ebpfjit.program import Instruction
from ebpfjit.runtime.memory import MAX_FRAMES
from ebpfjit.translators import emitter, plan
from ebpfjit.translators.registry import Translator
from ebpfjit.translators.x86_64 import alu, call, host, machine, memory, target
from ebpfjit.translators.x86_64.target import Context, register


def _is_x(insn: Instruction) -> bool:
    """True where the second operand is a register."""
    return insn.row is not None and insn.row.uses_src


def _is_k(insn: Instruction) -> bool:
    """True where the second operand is a constant."""
    return not _is_x(insn)


# -- translators in other words ---------------------------------------------------------------


def _subtract_swapped(insn: Instruction, cx: Context) -> None:
    """Subtract dst from src."""
    cx.emit(f"mov r10, {cx.src64}")
    cx.emit(f"sub r10, {cx.dst64}")
    cx.emit(f"mov {cx.dst64}, r10")


def _add_wide(insn: Instruction, cx: Context) -> None:
    """Add 64 bits."""
    cx.emit(f"add {cx.dst64}, {cx.src64}")


def _nothing(insn: Instruction, cx: Context) -> None:
    """Translate to nothing."""


def _move_low(insn: Instruction, cx: Context) -> None:
    """Move a constant of 32 bits."""
    cx.emit(f"mov {register(insn.dst_reg, 32)}, $imm", imm=insn.imm & 0xFFFFFFFF, imm_sizes=(32,))


def _compare_low(insn: Instruction, cx: Context) -> None:
    """Compare the low halves for equality."""
    cx.emit(f"cmp {register(insn.dst_reg, 32)}, {register(insn.src_reg, 32)}")
    assert insn.target is not None
    cx.goto("je", insn.target)


def _compare_all(insn: Instruction, cx: Context) -> None:
    """Compare 64 bits for equality."""
    cx.emit(f"cmp {cx.dst64}, {cx.src64}")
    assert insn.target is not None
    cx.goto("je", insn.target)


def _always(insn: Instruction, cx: Context) -> None:
    """Jump whatever holds."""
    assert insn.target is not None
    cx.goto("jmp", insn.target)


def _byte(insn: Instruction) -> Any:
    """Take the constant for a signed byte."""
    return altered(insn, imm=(insn.imm & 0xFF) - (insn.imm & 0x80) * 2)


# -- checks that ask for too little -----------------------------------------------------------------


def _checks_with(change: Callable[[plan.Check], plan.Check]) -> Plant:
    """Change every check of baseline code."""
    return function(baseline._check, lambda old: lambda *arguments: change(old(*arguments)))


def _bounds_with(change: Callable[[Op], Op]) -> Plant:
    """Change every bound of optimised code."""

    def wrap(original: Translator) -> Translator:
        def translate(insn: Any, cx: Context) -> None:
            changed = Placed(change(insn.op), insn.results, insn.args, insn.exit, insn.kept)
            original(changed, cx)

        return translate

    return wrapped(("BOUND",), wrap)


def _without_stack(old: Callable[..., plan.Plan]) -> Callable[..., plan.Plan]:
    """Plan no checks of what is likely in the frame."""

    def plan_of(*arguments: Any, **runs: Any) -> plan.Plan:
        made = old(*arguments, **runs)
        kept = {pc: check for pc, check in made.checks.items() if check.region != "stack"}
        return replace(made, checks=kept)

    return plan_of


def _all(*plants: Plant) -> Plant:
    """Plant several."""

    def plant() -> None:
        for each in plants:
            each()

    return plant


# -- entry, budget, faults ----------------------------------------------------------------------


def _charge_less(old: Any) -> Any:
    """Charge an instruction less for every block at which the budget is looked at."""
    return lambda cx, instructions: old(cx, max(instructions - 1, 0))


def _charge_unsigned(old: Any) -> Any:
    """Compare the budget unsigned."""

    def charge(cx: Context, *arguments: Any) -> None:
        jump = cx.jump
        with replaced(
            cx, "jump", lambda mnemonic, label: jump("jb" if mnemonic == "jl" else mnemonic, label)
        ):
            old(cx, *arguments)

    return charge


def _without_r9(old: Any) -> Any:
    """Do not save r9 around a call."""
    return lambda cx, words, inner: old(cx, [word for word in words if word != register(9)], inner)


def _late_pc(old: Any) -> Any:
    """Look a pc up 24 bytes later."""

    def pc_at(image: Any, offset: int) -> int | None:
        found = old(image, offset + 24)
        return found if found is not None else old(image, offset)  # type: ignore[no-any-return]

    return pc_at


def _one_frame_less(old: Any) -> Any:
    """Start with a frame less."""

    def fill(run: Any) -> None:
        old(run)
        run.set_word("frames_left", MAX_FRAMES - 2)

    return fill


def _clear_no_arguments(old: Any) -> Any:
    """Leave r1 to r5 as they are after a call."""

    def call_out(cx: Context, *arguments: Any, **named: Any) -> None:
        emit = cx.emit
        with replaced(cx, "emit", lambda text, **n: None if text.startswith("xor ") else emit(text, **n)):
            old(cx, *arguments, **named)

    return call_out


def _rename_in(old: Any, first: str, second: str) -> Any:
    """Let `old(cx, ...)` emit another word."""

    def changed(cx: Context, *arguments: Any, **named: Any) -> Any:
        emit = cx.emit
        with replaced(cx, "emit", lambda text, **n: emit(text.replace(first, second), **n)):
            return old(cx, *arguments, **named)

    return changed


def _without_offset(old: Any) -> Any:
    """Load an address without its offset."""
    return lambda cx, base, offset, into="r11": old(cx, base, 0 if into == "r11" else offset, into)


def _loose_smallest(value: int, sizes: tuple[int, ...]) -> int:
    """Take 2^(n-1) for a number of n bits."""
    for bits in sizes[:-1]:
        if -(1 << (bits - 1)) <= value <= 1 << (bits - 1):
            return bits
    return sizes[-1]


def _swapped_slots(old: Any) -> Any:
    """Give every symbol the address of another."""

    def relocate(image: Any, symbols: Any) -> bytes:
        names = sorted(symbols)
        return old(image, dict(zip(names, [symbols[n] for n in reversed(names)], strict=True)))  # type: ignore[no-any-return]

    return relocate


def _dead_results(old: Any) -> Any:
    """Find nothing alive."""
    return lambda *arguments: [0 for _ in old(*arguments)]


def _lost_upper(old: Any) -> Any:
    """Load a constant without its highest bit."""
    return lambda cx, number, value: old(cx, number, value & ~(1 << 63))


def _forever(insn: Instruction, cx: Context) -> None:
    """Never return."""
    while True:
        pass


def _endless() -> None:
    """Let translating a jump never end."""
    table = translators_table()
    for operation in ("JEQ", "JNE", "ADD64"):
        table[operation] = _forever


DIVISIONS = "DIV64 DIV32 MOD64 MOD32 SDIV64 SDIV32 SMOD64 SMOD32"


def _without_limits(original: Callable[[gate.Gate, int, int], int]) -> Callable[[gate.Gate, int, int], int]:
    """Fill in no limits where a run changes over."""

    def take_over(self: gate.Gate, block: int, room: int) -> int:
        limits, self._limits = self._limits, (ctypes.c_uint64 * 0)()
        place = original(self, block, room)
        self._limits = limits
        return place

    return take_over


PLANTED: tuple[PlantedBug, ...] = (
    # wrong operation
    PlantedBug("add-subtracts", "ADD32 emits sub", text("ADD32", "^add ", "sub ")),
    PlantedBug("or-xors", "OR64 emits xor", text("OR64", "^or ", "xor ")),
    PlantedBug("arsh-is-logical", "ARSH32 by a constant emits shr", text("ARSH32", "^sar ", "shr ")),
    PlantedBug(
        "sub-swapped",
        "SUB64 with a register subtracts the other way",
        only("SUB64", _is_x, _subtract_swapped),
    ),
    PlantedBug(
        "div-signed",
        "DIV64 divides signed",
        lambda: translators_table().__setitem__("DIV64", alu._division(True, "quotient")),
    ),
    PlantedBug(
        "smod-quotient",
        "SMOD32 leaves the quotient",
        lambda: translators_table().__setitem__("SMOD32", alu._division(True, "quotient")),
    ),
    PlantedBug("fetch-or-ands", "ATOMIC_FETCH_OR64 ands", text("ATOMIC_FETCH_OR64", "^or ", "and ")),
    PlantedBug("swap-nothing", "BSWAP32 swaps nothing", only("BSWAP32", lambda insn: True, _nothing)),
    # wrong width, missing extension
    PlantedBug("add32-wide", "ADD32 with a register adds 64 bits", only("ADD32", _is_x, _add_wide)),
    PlantedBug(
        "mov32-self",
        "MOV32 of a register to itself is left out",
        only("MOV32", lambda i: _is_x(i) and i.dst_reg == i.src_reg, _nothing),
    ),
    PlantedBug(
        "mov64-zero-extends",
        "MOV64 extends a negative constant with zeros",
        only("MOV64", lambda i: _is_k(i) and i.imm < 0, _move_low),
    ),
    PlantedBug(
        "movsx-zero-extends",
        "MOVSX64_8 extends with zeros",
        text("MOVSX64_8", "^movsx (r..?), ", r"movzx \1, "),
    ),
    PlantedBug(
        "movsx32-wide",
        "MOVSX32_16 extends to 64 bits",
        only(
            "MOVSX32_16", _is_x, lambda insn, cx: cx.emit(f"movsx {cx.dst64}, {register(insn.src_reg, 16)}")
        ),
    ),
    PlantedBug(
        "neg32-wide",
        "NEG32 negates 64 bits",
        only("NEG32", lambda i: True, lambda insn, cx: cx.emit(f"neg {cx.dst64}")),
    ),
    PlantedBug("be16-keeps", "BE16 keeps the upper bits", text("BE16", "^movzx .*", "")),
    PlantedBug("le32-keeps", "LE32 does nothing", only("LE32", lambda i: True, _nothing)),
    PlantedBug(
        "lsh32-by-0",
        "LSH32 by 32 or 0 keeps the upper half",
        only("LSH32", lambda i: _is_k(i) and i.imm % 32 == 0, _nothing),
    ),
    PlantedBug(
        "ldxsw-zero-extends", "LDXSW extends with zeros", mapped(memory.LOADS, "LDXSW", memory.LOADS["LDXW"])
    ),
    PlantedBug(
        "ldxb-sign-extends", "LDXB extends the sign", mapped(memory.LOADS, "LDXB", memory.LOADS["LDXSB"])
    ),
    PlantedBug(
        "stw-wide",
        "STXW stores 8 bytes",
        text("STXW", r"^mov dword ptr (.*), \w+$", r"mov qword ptr \1, rax", lambda i: i.src_reg == 0),
    ),
    PlantedBug(
        "cmpxchg32-keeps",
        "ATOMIC_CMPXCHG32 keeps the upper half of r0",
        text("ATOMIC_CMPXCHG32", "^mov eax, eax$", ""),
    ),
    PlantedBug("jeq32-wide", "JEQ32 compares 64 bits", only("JEQ32", _is_x, _compare_all)),
    PlantedBug("jeq-narrow", "JEQ compares 32 bits", only("JEQ", _is_x, _compare_low)),
    PlantedBug(
        "lddw-loses-top",
        "LDDW loses the highest bit",
        lambda: exchange(target.load_constant, _lost_upper(target.load_constant)),
    ),
    # shifts
    PlantedBug(
        "shift-mask",
        "LSH64 by a constant takes it modulo 32",
        numbers("LSH64", lambda i: altered(i, imm=i.imm % 32) if _is_k(i) else i),
    ),
    PlantedBug(
        "shift-clobbers-r4",
        "Shifts by a register leave their count in r4",
        text("RSH64 LSH64 ARSH64", "^mov rcx, r10$", "", lambda i: i.dst_reg != 4),
    ),
    PlantedBug(
        "shift-count-32",
        "ARSH64 by cl shifts 32 bits",
        text("ARSH64", "^sar(x?) r(ax|di|si|dx|bx),", r"sar\1 e\2,", lambda i: not _is_x(i)),
    ),
    # division
    PlantedBug("div-by-zero", "DIV by 0 leaves dst", text("DIV64 DIV32", "^xor (?!edx, edx).*", "")),
    PlantedBug(
        "mod32-by-zero", "MOD32 by 0 keeps the upper half", text("MOD32", r"^mov (e\w+|r\d+d), \1$", "")
    ),
    PlantedBug(
        "sdiv-minus-one",
        "SDIV by -1 is not looked after and traps",
        text("SDIV64 SDIV32", "^cmp (r10|r10d), -1$", ""),
    ),
    PlantedBug(
        "div-clobbers-r3",
        "Division leaves its remainder in r3",
        text(DIVISIONS, "^pop rdx$", "pop r10", lambda i: i.dst_reg not in (0, 3)),
    ),
    # constants
    PlantedBug(
        "imm-of-a-byte",
        "XOR64 takes constants of 128 to 255 as bytes",
        numbers("XOR64", lambda i: _byte(i) if _is_k(i) and 128 <= i.imm <= 255 else i),
    ),
    PlantedBug(
        "imm8-border", "128 counts as an 8-bit constant", lambda: exchange(emitter.smallest, _loose_smallest)
    ),
    # jumps
    PlantedBug("jgt-is-jge", "JGT jumps where equal", jumps("JGT", "ja", "jae")),
    PlantedBug("jslt-unsigned", "JSLT compares unsigned", jumps("JSLT", "jl", "jb")),
    PlantedBug("jsle32-unsigned", "JSLE32 compares unsigned", jumps("JSLE32", "jle", "jbe")),
    PlantedBug("jset-inverted", "JSET jumps where no bit is set", jumps("JSET", "jne", "je")),
    PlantedBug(
        "turned-not-inverted", "A jump that is turned keeps its condition", mapped(target.INVERSE, "jg", "jg")
    ),
    PlantedBug("may-goto-jumps", "may_goto always jumps", only("MAY_GOTO", lambda i: True, _always)),
    PlantedBug("ja32-ignored", "gotol does not jump", only("JA32", lambda i: True, _nothing)),
    # memory
    PlantedBug(
        "offset-lost",
        "LDXH ignores an offset of -1",
        numbers("LDXH", lambda i: altered(i, offset=0) if i.offset == -1 else i),
    ),
    PlantedBug(
        "store-neighbour",
        "STXB stores r5 as r4",
        numbers("STXB", lambda i: altered(i, src_reg=4) if i.src_reg == 5 else i),
    ),
    PlantedBug(
        "alignment-unchecked",
        "Atomics may be unaligned",
        function(memory.check_alignment, lambda old: lambda *arguments: None),
    ),
    PlantedBug(
        "fetch-add-keeps",
        "ATOMIC_FETCH_ADD64 keeps src",
        text("ATOMIC_FETCH_ADD64", "^lock xadd ", "lock add "),
    ),
    PlantedBug(
        "fetch-xor-of-r0",
        "ATOMIC_FETCH_XOR64 of r0 takes the wrong word",
        text("ATOMIC_FETCH_XOR64", r"\[rsp\]", "[rsp+8]", lambda i: i.src_reg == 0),
    ),
    PlantedBug(
        "atomic-and-wide",
        "ATOMIC_AND32 ands 64 bits",
        numbers("ATOMIC_AND32", lambda i: altered(i, row=BY_NAME["ATOMIC_AND64"])),
    ),
    PlantedBug("packet-unswapped", "LDABSH does not swap", text("LDABSH LDINDH", "^rol ax, 8$", "")),
    PlantedBug(
        "packet-bound",
        "Packet loads may end a byte behind the packet",
        text("LDABSW LDINDW", "^cmp r10, 4$", "cmp r10, 3"),
    ),
    # checks
    PlantedBug(
        "check-span-last",
        "Of all bytes from one address to another only where they end is looked at",
        text("BOUND", r"^cmp (\w+), qword ptr \[r12\+0x0\]$", r"cmp \1, \1"),
        sources=("sweeps",),
    ),
    PlantedBug(
        "check-off-by-one",
        "Checked spans are one byte short",
        _all(
            _checks_with(lambda check: replace(check, size=max(check.size - 1, 1))),
            _bounds_with(lambda op: replace(op, imm=max(op.imm - 1, 1))),
        ),
    ),
    PlantedBug(
        "check-read-only",
        "Stores may go to read-only memory",
        _all(
            _checks_with(lambda check: replace(check, stores=False)),
            _bounds_with(lambda op: replace(op, stores=False)),
        ),
    ),
    PlantedBug(
        "check-skips-stack",
        "Accesses near the stack are not checked",
        function(baseline.plan_of, _without_stack),
    ),
    PlantedBug(
        "fault-address", "A fault's address lacks the offset", function(memory.load_address, _without_offset)
    ),
    PlantedBug("fault-pc", "A fault may be said of a later pc", method(image.Image, "pc_at", _late_pc)),
    PlantedBug(
        "frame-not-zeroed",
        "No frame is zeroed",
        function(baseline._zeroed, lambda old: lambda *arguments, **looks: frozenset()),
    ),
    # liveness
    PlantedBug(
        "exit-ignores-liveness",
        "Nothing is read where code leaves",
        lambda: exchange(liveness.live_before, _dead_results(liveness.live_before)),
    ),
    # budget, calls
    PlantedBug(
        "charge-less",
        "Basic blocks cost an instruction less",
        method(machine.Context, "charge", _charge_less),
    ),
    PlantedBug(
        "charge-unsigned",
        "A budget below zero counts as a large one",
        method(machine.Context, "charge", _charge_unsigned),
    ),
    PlantedBug(
        "depth-off-by-one", "One frame less than there are", method(entry.Run, "_fill", _one_frame_less)
    ),
    PlantedBug("call-clobbers-r9", "A local call does not save r9", function(call._around, _without_r9)),
    PlantedBug(
        "call-keeps-arguments",
        "A helper call leaves r1 to r5",
        function(call._call_out, _clear_no_arguments),
    ),
    PlantedBug(
        "helpers-swapped",
        "Helpers are called by each other's address",
        function(image.relocate, _swapped_slots),
    ),
    PlantedBug(
        "helper-arguments",
        "A Python helper gets r3 and r4 exchanged",
        lambda: exchange(host.ARGUMENTS, ("rdi", "rsi", "rcx", "rdx", "r8")),
    ),
    # from baseline code to optimised code
    PlantedBug(
        "change-old-limits",
        "A run that changes over keeps the limits of its old code",
        method(gate.Gate, "take_over", _without_limits),
        ("interpreter", "tiered"),
    ),
    PlantedBug(
        "granted-unseen",
        "Granted memory stays unknown",
        method(entry.Run, "publish", lambda old: lambda run: old(run) if not len(run._table) else None),
    ),
    *HOLES,
    *MIDDLE,
    *RULES,
    *PROOFS,
)


class UnknownBug(EbpfError):  # noqa: N818 - as UnknownEngine
    """A planted bug that there is not."""


HANGS = PlantedBug("hangs", "Compiling does not end", _endless)
"""Not among those that are searched for: it is for testing that a hang is found."""


def bug_named(name: str) -> PlantedBug:
    """Return the bug with a name. Raises UnknownBug."""
    for bug in (*PLANTED, HANGS):
        if bug.name == name:
            return bug
    raise UnknownBug(f"no planted bug {name!r}; there are {', '.join(bug.name for bug in PLANTED)}")


def plant(name: str) -> None:
    """Put a bug into this process. Raises UnknownBug.

    What was translated before is forgotten: it has no bug.
    """
    bug_named(name).plant()
    forget()
