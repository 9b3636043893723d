"""The interpreter as a judge of analysis: what is claimed of a program must hold whenever it runs.

No machine code is needed, and no luck: a wrong claim shows in any run that comes by, whether or not something
lies behind the bounds that an access wrongly may leave.

    where a block starts     bounds, distances from r10 and from the argument, registers that differ by a
                             constant, numbers below the length, bytes that are the program's
    before an access         with a proof: it lies where the proof says
    a fault of an access     it has no proof

Claims are written down once for a program, as functions of the state; a `Judge` holds them against one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

from ebpfjit.analysis.accesses import LEVELS, RIGHTS, WRITTEN, Access, Promises
from ebpfjit.analysis.baseline import baseline
from ebpfjit.analysis.facts import LENGTH, Analysis
from ebpfjit.analysis.states import State
from ebpfjit.analysis.values import ANY, CONSTANT, Bounds, Origin, Value
from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import W64
from ebpfjit.difftest.outcome import WRONG_PROOF, Outcome
from ebpfjit.errors import MemoryFault
from ebpfjit.interpreter import interpret
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import find

Test = Callable[[list[int], Execution], str]
"""test(registers, execution): what is wrong, "" for nothing."""

INSIDE_ARGUMENT = ("argument", "length")
"""Proofs that say an access lies in the argument's memory."""


class Claims:
    """What analysis claims of a program that gets these promises: tests by the pc before which they hold."""

    def __init__(self, verified: Verified, promises: Promises) -> None:
        self.verified = verified
        analysis = Analysis(verified, promises)
        self.facts = analysis.run()
        self.baseline = baseline(verified)
        self.tests: dict[int, list[Test]] = {}
        for pc in verified.blocks:
            node = analysis.nodes.get(pc)
            tests: list[Test] = [_nothing_known] if node is None else list(_of_state(node.state, analysis))
            if tests:
                self.tests[pc] = tests
        for pc, access in self.facts.accesses.items():
            self.tests.setdefault(pc, []).extend(_of_access(verified, access))

    def proof_of(self, pc: int) -> str:
        """Return why the access at `pc` needs no check, "" where it has one or is none."""
        for facts in (self.facts, self.baseline):
            access = facts.accesses.get(pc)
            if access is not None and access.proof and not access.assumes:
                return access.proof
        return ""


class Judge:
    """Holds claims against one run; `pcs`, where it is given, gets every step."""

    def __init__(self, claims: Claims, execution: Execution, pcs: list[int] | None = None) -> None:
        self.claims = claims
        self.execution = execution
        self.pcs = pcs
        self.wrong = ""
        self._last: int | None = None

    def run(self, execution: Execution) -> int:
        """Run the program and return r0. Raises what the interpreter raises."""
        try:
            return interpret(self.claims.verified, execution, self._watch)
        except MemoryFault as fault:
            # A fault of a program that this one went on in has a pc of that one.
            pc = self._last if fault.pc == self._last and fault.access else None
            proof = "" if pc is None else self.claims.proof_of(pc)
            if proof and not self.wrong:
                self.wrong = f"{fault}, although analysis found: {proof}"
            raise

    def _watch(self, pc: int, registers: list[int]) -> None:
        self._last = pc
        if self.pcs is not None:
            self.pcs.append(pc)
        tests = self.claims.tests.get(pc)
        if tests is None or self.wrong:
            return
        for test in tests:
            said = test(registers, self.execution)
            if said:
                self.wrong = f"pc {pc}: {said}"
                return

    def verdict(self, outcome: Outcome) -> Outcome:
        """Return how the run ended, or what it showed to be wrong."""
        if not self.wrong:
            return outcome
        return replace(outcome, kind=WRONG_PROOF, value=None, message=self.wrong)


# -- where a block starts -----------------------------------------------------------------------


def _nothing_known(registers: list[int], execution: Execution) -> str:
    return "analysis did not come here"


def _of_state(state: State, analysis: Analysis) -> Iterator[Test]:
    """Yield what a state says, as tests."""
    holders: dict[int, list[tuple[int, Value]]] = {}
    for register, value in enumerate(state.registers):
        if value.symbol > CONSTANT:
            holders.setdefault(value.symbol, []).append((register, value))
        test = _of_value(register, value, analysis)
        if test is not None:
            yield test
    for same in holders.values():
        for one, other in pairwise(same):
            yield _constant_apart(*one, *other)
    for register, value in enumerate(state.registers):
        if value.index is not None and value.index[0] in holders:
            yield _indexed(register, value, *holders[value.index[0]][0])
    if state.limits:
        yield _least_length(state.limits[CONSTANT])
    for symbol, limit in state.limits.items():
        for register, value in holders.get(symbol, ())[:1]:
            if symbol != LENGTH:
                yield _limited(register, value.offset, limit)
    for symbol, spans in state.spans.items():
        for register, value in holders.get(symbol, ())[:1]:
            for low, high, level in spans:
                low -= value.offset
                if level == RIGHTS:
                    yield _in_argument(register, low, analysis.argument_size)
                else:
                    yield _shown(register, low, high - value.offset - low, stores=level & LEVELS == WRITTEN)


def _of_value(register: int, value: Value, analysis: Analysis) -> Test | None:
    """Return what bounds say; None for nothing."""
    bounds = value.bounds
    if bounds is None:
        return None
    match value.origin:
        case Origin.SCALAR:
            return None if bounds == ANY else _between(register, bounds)
        case Origin.STACK:
            return _from_frame(register, bounds)
        case Origin.ARGUMENT:
            return _from_argument(register, bounds)
        case _:
            return None


def _between(register: int, bounds: Bounds) -> Test:
    low, high = bounds

    def test(registers: list[int], execution: Execution) -> str:
        if low <= registers[register] <= high:
            return ""
        return f"r{register} is {registers[register]:#x}, not from {low:#x} to {high:#x}"

    return test


def _from_frame(register: int, bounds: Bounds) -> Test:
    low, high = bounds

    def test(registers: list[int], execution: Execution) -> str:
        distance = _signed(registers[register] - registers[FRAME_POINTER])
        return (
            ""
            if low <= distance <= high
            else f"r{register} is r10{distance:+#x}, not {low:+#x} to {high:+#x}"
        )

    return test


def _from_argument(register: int, bounds: Bounds) -> Test:
    low, high = bounds

    def test(registers: list[int], execution: Execution) -> str:
        distance = _signed(registers[register] - execution.arguments[0])
        if low <= distance <= high:
            return ""
        return f"r{register} is the argument{distance:+#x}, not {low:+#x} to {high:+#x}"

    return test


def _constant_apart(register: int, value: Value, other: int, second: Value) -> Test:
    apart = W64.wrap(value.offset - second.offset)

    def test(registers: list[int], execution: Execution) -> str:
        if W64.wrap(registers[register] - registers[other]) == apart:
            return ""
        distance = _signed(registers[register] - registers[other])
        return f"r{register} is r{other}{distance:+#x}, not r{other}{W64.signed(apart):+#x}"

    return test


def _indexed(register: int, value: Value, holder: int, held: Value) -> Test:
    assert value.index is not None  # the caller looked
    by = value.index[1] + value.offset - held.offset

    def test(registers: list[int], execution: Execution) -> str:
        if W64.wrap(execution.arguments[0] + registers[holder] + by) == registers[register]:
            return ""
        return f"r{register} is {registers[register]:#x}, not the argument plus r{holder}{by:+#x}"

    return test


def _least_length(least: int) -> Test:
    def test(registers: list[int], execution: Execution) -> str:
        length = execution.arguments[1]
        return "" if least <= length else f"the argument has {length} bytes, not {least} at least"

    return test


def _limited(register: int, offset: int, limit: int) -> Test:
    def test(registers: list[int], execution: Execution) -> str:
        number, length = W64.wrap(registers[register] - offset), execution.arguments[1]
        if number + limit <= length:
            return ""
        return f"r{register}{-offset:+#x} is {number:#x}: plus {limit} above the length, {length}"

    return test


def _shown(register: int, low: int, size: int, *, stores: bool) -> Test:
    access = "store" if stores else "load"

    def test(registers: list[int], execution: Execution) -> str:
        address = W64.wrap(registers[register] + low)
        if find(address, size, access) is not None:
            return ""
        return f"{size} bytes at r{register}{low:+#x} ({address:#x}) are not the program's to {access}"

    return test


# -- before an access ---------------------------------------------------------------------------


def _of_access(verified: Verified, access: Access) -> Iterator[Test]:
    """Yield where an access lies, as tests."""
    insn = verified.program.slots[access.pc]
    assert insn is not None  # it was walked
    row = insn.row
    assert row is not None
    base = insn.src_reg if row.kind is Kind.LOAD else insn.dst_reg
    if access.proof == "frame":
        yield _in_frame(base, insn.offset, access.size, access.frame_size)
    if access.proof in INSIDE_ARGUMENT or access.within:
        yield _in_argument(base, insn.offset, access.size)
    if access.distance is not None:
        low, high = access.distance
        yield _from_argument(base, (low - insn.offset, high - insn.offset))


def _in_frame(base: int, offset: int, size: int, frame_size: int) -> Test:
    def test(registers: list[int], execution: Execution) -> str:
        distance = _signed(registers[base] + offset - registers[FRAME_POINTER])
        if -frame_size <= distance <= -size:
            return ""
        return f"{size} bytes at r10{distance:+#x} are not in the frame, although analysis found: frame"

    return test


def _in_argument(base: int, offset: int, size: int) -> Test:
    def test(registers: list[int], execution: Execution) -> str:
        region, address = execution.argument, W64.wrap(registers[base] + offset)
        if region is not None and region.contains(address, size):
            return ""
        return f"{size} bytes at {address:#x} are not in the argument, although analysis found that they are"

    return test


def _signed(number: int) -> int:
    return W64.signed(W64.wrap(number))
