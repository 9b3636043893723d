"""Machine code as the solver reads it: bytes of x86-64, lifted by Triton, along each path from entry to end.

    code       mov r10, rsi; test r10, r10; je zero; ...      done: ret      zero: xor edi, edi; jmp done
    Path 1     rsi != 0    ends at "done"     rdi -> rdi / rsi
    Path 2     rsi == 0    ends at "done"     rdi -> 0

Registers are any at the start, and so are flags and what is in memory; rsp is a number, and where bytes are
loaded, stored or pushed is looked at as it is with the registers that Triton takes for an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

import triton
import z3

from ebpfjit.prove.theories import Term
from ebpfjit.record import dataclass

REGISTERS = (
    "rax",
    "rdi",
    "rsi",
    "rdx",
    "rcx",
    "r8",
    "rbx",
    "r13",
    "r14",
    "r15",
    "rbp",
    "r9",
    "r10",
    "r11",
    "r12",
)
VECTORS = tuple(f"xmm{number}" for number in range(6))
FLAGS = ("zf", "cf", "sf", "of", "pf", "af")
STACK = 0x7FFF_0000_0000
"""What rsp is."""
BASE = 0x10_0000
"""Where the code is."""
EXAMPLE = 1
"""What Triton takes registers for that may be anything: it refuses to divide by 0."""
MOST_STEPS = 200
_LEMMA_MILLISECONDS = 2000

Node = Any
"""An expression of Triton's."""


@dataclass(frozen=True)
class Access:
    """Bytes that a path loads or stores: where, how many, and what a store puts there."""

    address: Term
    size: int
    stored: Term | None


@dataclass(frozen=True)
class Path:
    """One way through code: the formula that it is taken by, where it ends, and what is so there.

    Where one of `traps` holds, the processor raises an exception on the way.
    """

    condition: Term
    end: str
    registers: Mapping[str, Term]
    traps: tuple[Term, ...]
    accesses: tuple[Access, ...]
    rsp: Term


@dataclass(frozen=True)
class Example:
    """What Triton takes registers for, and the bytes that code finds: where, how many, by which name each."""

    registers: Mapping[str, int] = field(default_factory=dict)
    memory: tuple[tuple[int, int, str], ...] = ()


NO_MEMORY = Example()


def lift(code: bytes, start: int, ends: Mapping[int, str], example: Example = NO_MEMORY) -> list[Path]:
    """Return the paths through code from an offset to the `ends`, offsets with their names."""
    found: list[Path] = []
    waiting: list[list[bool]] = [[]]
    while waiting:
        run = _Run(code, waiting.pop(), example)
        found.append(run.to_end(start, ends))
        waiting += run.others
    return found


@dataclass
class _Run:
    """One path: the answers that conditional jumps get, from the first on."""

    code: bytes
    answers: list[bool]
    example: Example
    others: list[list[bool]] = field(default_factory=list)
    """The answers of paths that part from this one behind those that were given."""
    conditions: list[Term] = field(default_factory=list)
    traps: list[Term] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = context = triton.TritonContext(triton.ARCH.X86_64)
        self.registers = context.registers
        self.known: dict[int, Term] = {}
        for name in (*REGISTERS, *FLAGS):
            register = getattr(self.registers, name)
            context.setConcreteRegisterValue(register, self.example.registers.get(name, EXAMPLE))
            context.symbolizeRegister(register, name)
        context.setConcreteRegisterValue(self.registers.rsp, STACK)
        for name in VECTORS:
            context.symbolizeRegister(getattr(self.registers, name), name)
        for address, size, alias in self.example.memory:
            context.symbolizeMemory(triton.MemoryAccess(address, size), alias)

    def to_end(self, start: int, ends: Mapping[int, str]) -> Path:
        """Go from an offset to one of the ends."""
        place, taken = start, 0
        for _ in range(MOST_STEPS):
            if place in ends:
                return Path(
                    z3.And(*self.conditions),
                    ends[place],
                    {name: self.register(name) for name in REGISTERS},
                    tuple(self.traps),
                    tuple(self.accesses),
                    self.register("rsp"),
                )
            insn = triton.Instruction(BASE + place, self.code[place : place + 15])
            self.context.disassembly(insn)
            insn = triton.Instruction(BASE + place, insn.getOpcode())
            self.look(insn)
            if mnemonic_of(insn) in _BY_HAND:
                self.lift_by_hand(insn)
            elif self.context.buildSemantics(insn) != triton.EXCEPTION.NO_FAULT:
                raise AssertionError(f"{insn}: Triton does not lift it")
            self.remember(insn)
            place += insn.getSize()
            if insn.isControlFlow():
                rip = z3.simplify(self.register("rip"))
                if z3.is_bv_value(rip):
                    place = rip.as_long() - BASE
                    continue
                target = insn.getOperands()[0].getValue()
                condition = z3.simplify(rip == target)
                if taken == len(self.answers):
                    self.others.append([*self.answers, False])
                    self.answers.append(True)
                if self.answers[taken]:
                    place = target - BASE
                self.conditions.append(condition if self.answers[taken] else z3.Not(condition))
                taken += 1
        raise AssertionError("the code does not end")

    def lift_by_hand(self, insn: Any) -> None:
        """Put what an instruction makes of parts of two registers in the first."""
        bits, make = _BY_HAND[mnemonic_of(insn)]
        ast = self.context.getAstContext()
        first, second = insn.getOperands()
        a, b = map(self.context.getRegisterAst, (first, second))
        parts = [
            make(ast, *(ast.extract(at + bits - 1, at, each) for each in (a, b)))
            for at in range(0, first.getBitSize(), bits)
        ]
        self.context.createSymbolicRegisterExpression(insn, ast.concat(parts[::-1]), first, "by hand")

    def register(self, name: str) -> Term:
        """Return what a register is here."""
        return self.term(self.context.getRegisterAst(getattr(self.registers, name)))

    def look(self, insn: Any) -> None:
        """See whether an instruction that is next may raise an exception: only divisions do."""
        self.context.disassembly(insn)
        mnemonic, _, operand = insn.getDisassembly().partition(" ")
        if mnemonic not in ("div", "idiv"):
            return
        bits = insn.getOperands()[0].getBitSize()
        low, high, divisor = (
            z3.Extract(bits - 1, 0, self.register(name)) for name in ("rax", "rdx", operand.rstrip("d"))
        )
        if mnemonic == "div":
            self.traps.append(z3.UGE(high, divisor))  # of 0 as well
            return
        is_too_large = z3.And(low == z3.BitVecVal(1 << bits - 1, bits), divisor == -1)
        self.traps.append(z3.Or(divisor == 0, high != low >> bits - 1, is_too_large))

    def remember(self, insn: Any) -> None:
        """Remember the bytes that an instruction loaded or stored, but those of the stack."""
        for access, node in insn.getStoreAccess():
            if access.getLeaAst() is not None and not self.is_of_stack(access):
                address = self.term(access.getLeaAst())
                self.accesses.append(Access(address, access.getSize(), self.term(node)))
        for access, _ in insn.getLoadAccess():
            if access.getLeaAst() is not None and not self.is_of_stack(access):
                self.accesses.append(Access(self.term(access.getLeaAst()), access.getSize(), None))

    def is_of_stack(self, access: Any) -> bool:
        """Return whether bytes are of the stack, as far as registers are what they are taken for."""
        return abs(int(access.getAddress()) - STACK) < 1 << 16

    def term(self, node: Node) -> Term:
        """Return an expression as the solver reads it."""
        kind = node.getType()
        if kind == triton.AST_NODE.REFERENCE:
            expression = node.getSymbolicExpression()
            number = expression.getId()
            if number not in self.known:
                self.known[number] = self.term(expression.getAst())
            return self.known[number]
        return _term(node, kind, self.term)


def _term(node: Node, kind: Any, term: Callable[[Node], Term]) -> Term:
    """Return an expression of a kind, its operands by `term`."""
    if kind == triton.AST_NODE.VARIABLE:
        variable = node.getSymbolicVariable()
        return z3.BitVec(variable.getAlias() or variable.getName(), variable.getBitSize())
    operands = node.getChildren()
    if kind == triton.AST_NODE.BV:
        return z3.BitVecVal(operands[0].getInteger(), operands[1].getInteger())
    of_numbers = _OF_NUMBERS.get(kind)
    if of_numbers is not None:
        numbers = [each.getInteger() for each in operands if each.getType() == triton.AST_NODE.INTEGER]
        (inner,) = [each for each in operands if each.getType() != triton.AST_NODE.INTEGER]
        return of_numbers(term(inner), *numbers)
    return _OF_TERMS[kind](*map(term, operands))


def mnemonic_of(insn: Any) -> str:
    """Return an instruction's mnemonic."""
    return str(insn.getDisassembly().partition(" ")[0])


def _product(ast: Any, a: Node, b: Node) -> Node:
    return ast.bvmul(ast.zx(16, a), ast.zx(16, b))


def _sum_of_differences(ast: Any, a: Node, b: Node) -> Node:
    """Return how far apart the bytes of two quadwords are, together."""
    total = ast.bv(0, 64)
    for at in range(0, 64, 8):
        x, y = (ast.extract(at + 7, at, each) for each in (a, b))
        apart = ast.ite(ast.bvuge(x, y), ast.bvsub(x, y), ast.bvsub(y, x))
        total = ast.bvadd(total, ast.zx(56, apart))
    return total


_BY_HAND: dict[str, tuple[int, Callable[[Any, Node, Node], Node]]] = {
    "pmulhuw": (16, lambda ast, a, b: ast.extract(31, 16, _product(ast, a, b))),
    "pmullw": (16, lambda ast, a, b: ast.extract(15, 0, _product(ast, a, b))),
    "psadbw": (64, _sum_of_differences),
}
"""How many bits parts have, and what is made of two of them (Intel SDM, volume 2): Triton does not know them,
but for PMULLW, of which the solver is to see that it is half of the same product as PMULHUW."""


def _narrow(divide: Callable[[Term, Term], Term], *, signed: bool) -> Callable[[Term, Term], Term]:
    """Return a division that is done at half the width where both numbers fit there.

    They divide alike: the quotient of numbers is what it is, however many bits they are written in. But for
    the least number by -1, which traps.
    """

    def division(a: Term, b: Term) -> Term:
        half = a.size() // 2
        more = z3.SignExt if signed else z3.ZeroExt
        low = [z3.Extract(half - 1, 0, each) for each in (a, b)]
        solver = z3.Solver()
        solver.set("timeout", _LEMMA_MILLISECONDS)
        solver.add(z3.Or(*(more(half, part) != whole for part, whole in zip(low, (a, b), strict=True))))
        if solver.check() != z3.unsat:
            return divide(a, b)
        x, y = map(z3.simplify, low)
        return more(half, divide(x, y))

    return division


def _signed(divide: Callable[[Term, Term], Term], is_negative: Callable[[Term, Term], Term]) -> Any:
    """Return a signed division as SMT-LIB defines it: that of the numbers without their signs."""

    def division(x: Term, y: Term) -> Term:
        a, b = (z3.If(each < 0, -each, each) for each in (x, y))
        return z3.If(is_negative(x, y), -divide(a, b), divide(a, b))

    return division


def _swapped(term: Term) -> Term:
    return z3.Concat(*(z3.Extract(place + 7, place, term) for place in range(0, term.size(), 8)))


_NODE = triton.AST_NODE
_OF_NUMBERS: dict[Any, Callable[..., Term]] = {
    _NODE.EXTRACT: lambda term, high, low: z3.Extract(high, low, term),
    _NODE.ZX: lambda term, more: z3.ZeroExt(more, term),
    _NODE.SX: lambda term, more: z3.SignExt(more, term),
    _NODE.BVROL: lambda term, by: z3.RotateLeft(term, by),
    _NODE.BVROR: lambda term, by: z3.RotateRight(term, by),
}
"""Operations on one term, with numbers."""

_OF_TERMS: dict[Any, Callable[..., Term]] = {
    _NODE.BSWAP: _swapped,
    _NODE.BVADD: lambda a, b: a + b,
    _NODE.BVSUB: lambda a, b: a - b,
    _NODE.BVMUL: lambda a, b: a * b,
    _NODE.BVNEG: lambda a: -a,
    _NODE.BVNOT: lambda a: ~a,
    _NODE.BVAND: lambda a, b: a & b,
    _NODE.BVOR: lambda a, b: a | b,
    _NODE.BVXOR: lambda a, b: a ^ b,
    _NODE.BVSHL: lambda a, b: a << b,
    _NODE.BVLSHR: z3.LShR,
    _NODE.BVASHR: lambda a, b: a >> b,
    _NODE.BVUDIV: _narrow(z3.UDiv, signed=False),
    _NODE.BVUREM: _narrow(z3.URem, signed=False),
    _NODE.BVSDIV: _narrow(_signed(z3.UDiv, lambda x, y: (x < 0) != (y < 0)), signed=True),
    _NODE.BVSREM: _narrow(_signed(z3.URem, lambda x, _: x < 0), signed=True),
    # What Triton (1.0.0rc4) says of idiv's remainder, which has the sign of the dividend: Intel SDM, IDIV.
    _NODE.BVSMOD: _narrow(_signed(z3.URem, lambda x, _: x < 0), signed=True),
    _NODE.BVULT: z3.ULT,
    _NODE.BVULE: z3.ULE,
    _NODE.BVUGT: z3.UGT,
    _NODE.BVUGE: z3.UGE,
    _NODE.BVSLT: lambda a, b: a < b,
    _NODE.BVSLE: lambda a, b: a <= b,
    _NODE.BVSGT: lambda a, b: a > b,
    _NODE.BVSGE: lambda a, b: a >= b,
    _NODE.CONCAT: lambda *terms: z3.Concat(*terms),
    _NODE.EQUAL: lambda a, b: a == b,
    _NODE.DISTINCT: lambda a, b: a != b,
    _NODE.ITE: z3.If,
    _NODE.LAND: lambda *terms: z3.And(*terms),
    _NODE.LOR: lambda *terms: z3.Or(*terms),
    _NODE.LNOT: z3.Not,
}
"""Operations on terms."""
