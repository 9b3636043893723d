"""What translators write to: the program, how it is checked, what is at hand, and what lowering asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

from ebpfjit.bits import Width
from ebpfjit.errors import TranslationError
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME, told_by
from ebpfjit.program import Instruction, Program
from ebpfjit.translators import registry
from ebpfjit.translators.block import MOST_LIMITS, Limit, limit_place
from ebpfjit.translators.emitter import Emitter
from ebpfjit.translators.labels import pc_label
from ebpfjit.translators.operation import Operation
from ebpfjit.translators.plan import Check, Plan, Settings

PINNABLE = ("packet", "argument")  # regions whose start may be in r11
Counted = tuple[int, int, Sequence[tuple[int, int]]]
"""A word of the program's counters, what is added to it, places of values: 1 for more, -1 for less."""
MAY_GOTO = told_by(BY_NAME["MAY_GOTO"])
"""As in `Program.operations`."""


class Context(Emitter):
    """What translators write to, whichever the machine is; that of a machine writes what lowering asks for.

    `target` is the machine's name. `inverse` has the jump that is taken where another is not, `flags` by
    meaning the comparisons with 0 that need none behind an operation, which has set the flags. `frame_top`
    is the register that holds the top of the running function's frame, empty where it may hold another value.
    """

    target: ClassVar[str]
    inverse: ClassVar[Mapping[str, str]]
    flags: ClassVar[Mapping[str, frozenset[str]]]
    frame_top: str

    def __init__(
        self, program: Program, frame_sizes: Mapping[int, int], plan: Plan, settings: Settings
    ) -> None:
        super().__init__(len(program), repeats=not settings.harden)
        self.program = program
        self.frame_sizes = frame_sizes
        self.plan = plan
        self.settings = settings
        self.used: set[str] = set()
        self.pinned = None if settings.harden else _most_checked(plan.checks)
        # While optimised code is translated: where a jump goes and whether that is where its condition fails,
        # the side exit, the frame's size, the registers that are read behind a call.
        self.way: str | None = None
        self.is_turned = False
        self.exit = ""
        self.frame_size = 0
        self.likely = "argument"  # where bytes are of which nothing is known
        self.live: tuple[int, ...] | None = None
        self.distance: tuple[int, int, int] | None = None  # of a bound: register, how often it counts, more
        self.spilled = 0  # bytes of values on the machine's stack
        self.counts: tuple[Counted, ...] = ()  # what a side exit adds to words of the program's counters
        self.functions = pc_label
        self.before_exit: Callable[[Context], None] | None = None
        self.has_flags = False  # of the comparison with 0 that is to be translated
        self.limits: dict[Limit, int] = {}
        self.returns: list[int] = []
        self.has_may_goto = not MAY_GOTO.isdisjoint(program.operations)
        self.insn = program.instructions[0]

    def calls_in_code(self) -> frozenset[int]:
        """Return the calls (by pc) of helpers that machine code does by itself where it can."""
        routines = self.settings.packet_helpers
        done = [insn.pc for insn in self.program.instructions if routines and _called(insn) in routines]
        return frozenset(self.plan.map_calls) | frozenset(done)

    def start(self, insn: Instruction) -> None:
        """Make `insn` the instruction that the properties speak of."""
        self.insn = insn

    @property
    def row(self) -> Row:
        """The instruction's row."""
        row = self.insn.row
        assert row is not None  # what no row matches is not translated
        return row

    @property
    def width(self) -> Width:
        """The row's width."""
        return self.row.width

    @property
    def imm(self) -> int | None:
        """The number for `operand`'s hole; None where the operand is a register."""
        return None if self.is_x else self.insn.imm

    @property
    def is_x(self) -> bool:
        """True where the second operand is a register."""
        return self.row.uses_src

    @property
    def check(self) -> Check | None:
        """How the instruction's access is checked, None where it needs no check."""
        return self.plan.checks.get(self.insn.pc)

    def keep_limits(self, limits: Iterable[Limit]) -> None:
        """Have these limits first, in their order."""
        self.limits |= {limit: index for index, limit in enumerate(limits)}

    def limit(self, region: str, span: int, stores: bool) -> int | None:
        """Return the place in the block of the word that says where a span fits; None: no room is left.

        How many there are is the program's choice, and all lie on the stack of the thread that calls.
        """
        index = self.limits.get((region, span, stores))
        if index is None:
            if len(self.limits) == MOST_LIMITS:
                return None
            index = self.limits[region, span, stores] = len(self.limits)
        return limit_place(index)

    def wide_limit(self, region: str, span: int, stores: bool) -> int | None:
        """Return as `limit` what is not worth a word where few are left."""
        if len(self.limits) >= MOST_LIMITS // 2 and (region, span, stores) not in self.limits:
            return None
        return self.limit(region, span, stores)

    def fault(self, kind: str) -> str:
        """Return the label of out-of-line code that reports a fault of the current pc."""
        label = f".{kind}_{self.insn.pc}"
        if label not in self.used:
            self.used.add(label)
            with self.out_of_line(label):
                self.raise_fault(kind)
        return label

    def raise_fault(self, kind: str) -> None:
        """Report a fault of the current pc here and now."""
        self.used.add(f"fault_{kind}")
        self.jump("call", f"fault_{kind}")

    def goto(self, mnemonic: str, target: int) -> None:
        """Emit a jump to the instruction at slot `target`, or to a fault where there is none."""
        if self.way is not None:
            self.jump(self.inverse[mnemonic] if self.is_turned else mnemonic, self.way)
        elif 0 <= target < len(self.program.slots) and self.program.slots[target] is not None:
            self.jump(mnemonic, pc_label(target))
        else:
            self.jump(mnemonic, self.fault("target"))

    def translate(self, insn: Instruction | Operation) -> None:
        """Have the translator of an instruction, or of an operation of optimised code, emit it.

        Raises TranslationError where there is none.
        """
        row = insn.row
        assert row is not None  # what no row matches is not translated
        try:
            translator = registry.translator_of(self.target, row)
        except KeyError:
            raise TranslationError(
                f"pc {insn.pc}: {self.target} does not translate {row.operation}"
            ) from None
        translator(insn, self)

    def end_of_program(self, end: int) -> None:
        """Emit what is behind the last instruction: control that falls off ends in a fault."""
        self.begin(end)
        self.label(pc_label(end))
        self.raise_fault("illegal")

    # -- the machine's own --

    def entry(self) -> None:
        """Emit `entry`: the start state, and function 0."""
        raise NotImplementedError

    def function_entry(self, pc: int) -> None:
        """Emit `enter_N`: a frame for the function at a slot, and go on in it."""
        raise NotImplementedError

    def resume(self, pc: int, label: str = "") -> None:
        """Emit `resume_N`: go on at the basic block at `pc`, or at a label of it where there is another."""
        raise NotImplementedError

    def shared(self) -> None:
        """Emit the routines of its own that the program turned out to use, and its stubs."""
        raise NotImplementedError

    def charge(self, instructions: int) -> None:
        """Emit the payment at the start of a tested basic block, at the current pc."""
        raise NotImplementedError

    def pay(self, instructions: int) -> None:
        """Emit the payment for basic blocks, or give back (negative) what was paid for others."""
        raise NotImplementedError

    def pin(self) -> None:
        """Have the pinned region, if one is, where code looks for it."""
        raise NotImplementedError

    def drop(self) -> None:
        """Give back the machine's stack that values are on."""
        raise NotImplementedError

    def move(self, dst: int, src: int) -> None:
        """Emit a move between registers for values, or words of the machine's stack (from SPILLED on)."""
        raise NotImplementedError

    def sum(self, dst: int, src: int, other: int, bits: int) -> None:
        """Emit dst = src + other, which leaves the flags alone; all are registers for values."""
        raise NotImplementedError

    def add(self, dst: int, src: int, number: int, bits: int) -> bool:
        """Emit dst = src + number, which leaves the flags alone; return whether there is such a thing."""
        raise NotImplementedError

    def store_slots(self, slots: Iterable[tuple[int, int, int]]) -> None:
        """Emit the stores of values in slots of the frame: offset from r10, bytes, where the value is."""
        raise NotImplementedError

    def audit(self, insn: Operation) -> None:
        """Emit the fault "audit" where what an operation accesses is not the program's."""
        raise NotImplementedError

    def count(self, pc: int, which: int) -> None:
        """Emit one more for the segment that starts at a slot, or its branch that is not taken."""
        raise NotImplementedError

    def add_counts(self, counts: Iterable[Counted], *, undone: bool = False) -> None:
        """Emit that words of the program's counters get more, or, `undone`, less; values stay."""
        raise NotImplementedError

    def give_reasons(self, pc: int, reasons: Iterable[tuple[int, int | None]]) -> None:
        """Emit that registers get a reason: the slot `pc` (None), or that of another."""
        raise NotImplementedError

    def trace(self, pc: int) -> None:
        """Emit what records the state before the instruction at a slot; it changes nothing."""
        raise NotImplementedError


def _called(insn: Instruction) -> int | None:
    """Return the number of the helper that an instruction calls, None where it calls none."""
    is_call = insn.row is not None and insn.row.kind is Kind.CALL_HELPER
    return insn.imm & 0xFFFFFFFF if is_call else None


def _most_checked(checks: Mapping[int, Check]) -> str | None:
    """Return the region whose start is worth a register: that of most checks which compare with it."""
    counts = dict.fromkeys(PINNABLE, 0)
    for check in checks.values():
        if check.region in counts:
            counts[check.region] += 1
    region = max(counts, key=counts.__getitem__)
    return region if counts[region] else None
