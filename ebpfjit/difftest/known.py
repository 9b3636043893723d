"""What the optimizer knows of values, held against the values of a run: what does not hold is WrongCode.

    each value     lies between its numbers, is a multiple, is its root plus a number, lies where it should
    each access    whose check is gone lies where the proof says

What is known is so wherever a value is defined. What conditions say besides shows in proofs.
"""

from __future__ import annotations

from collections.abc import Iterable

from ebpfjit.bits import U64_MASK, W64
from ebpfjit.difftest.optimized import CodeState, WrongCode
from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.code import Op, Proof
from ebpfjit.optimizer.facts import NOWHERE, Facts

ACCESSES = frozenset({Kind.LOAD, Kind.STORE, Kind.ATOMIC})


class KnownFacts:
    """Holds what is known against runs of one program."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def values(self, state: CodeState, values: Iterable[int]) -> None:
        """Look at values that were defined just now. Raises WrongCode."""
        for value in values:
            if value < self.facts.count and (said := self._wrong(state, value)):
                raise WrongCode(f"v{value} is {state.values[value]:#x}, {said}")

    def _wrong(self, state: CodeState, value: int) -> str:
        """Return what is known and not so."""
        facts, number = self.facts, state.values[value]
        low, high = facts.range(value)
        if not low <= number <= high:
            return f"not from {low:#x} to {high:#x}"
        if number & (1 << facts.zeros[value]) - 1:
            return f"no multiple of 1 << {facts.zeros[value]}"
        root, delta, base = facts.root[value], facts.delta[value], facts.base[value]
        start = self._number(state, root)
        if start is not None and W64.wrap(start + delta) != number:
            return f"not v{root} ({start:#x}) {delta:+}"
        parts = facts.parts[value]
        if parts is not None:
            first, second = (self._number(state, part) for part in parts[:2])
            if first is not None and second is not None and W64.wrap(first + second + parts[2]) != number:
                return f"not v{parts[0]} + v{parts[1]} + {parts[2]}"
        near, far = facts.near[value], facts.far[value]
        region = self._number(state, base) if near != NOWHERE else None
        if region is not None and not near <= W64.signed(number - region) <= far:
            return f"not {near} to {far} behind {region:#x} ({facts.region(value)})"
        if root == value and facts.limit[value] != NOWHERE:
            start, length = state.execution.arguments
            way = W64.signed(number - start) if base == facts.argument else number
            if way + facts.limit[value] > length:
                return f"which plus {facts.limit[value]} is above the length, {length}"
        return ""

    def _number(self, state: CodeState, root: int) -> int | None:
        """Return what is counted from; None where it is not there now."""
        facts = self.facts
        if root < facts.count:
            return state.values.get(root)
        if root >= facts.frame:
            size = state.verified.frame_sizes[facts.functions[root - facts.frame]]
            return state.execution.stack.start + size
        start, length = state.execution.arguments
        return {facts.constant: 0, facts.argument: start, facts.length: length}.get(root)

    def operation(self, state: CodeState, op: Op) -> None:
        """Look at the proofs that an access relies on. Raises WrongCode."""
        if op.row.kind not in ACCESSES or not state.execution.checked:
            return
        address = state.address(op)
        for proof in state.code.proofs.get(op.pc, ()):
            if said := self._unproven(state, proof, address, op.row.size):
                raise WrongCode(f"{op.row.name} at pc {op.pc}: {said}, although its check is gone: {proof}")

    def _unproven(self, state: CodeState, proof: Proof, address: int, size: int) -> str:
        """Return in what way an access is not as a proof says."""
        what = f"{size} bytes at {address:#x}"
        match proof.rule:
            case "aligned":
                return ""  # the operation itself looks
            case "frame":
                stack = state.execution.stack
                frames = (address - stack.start - each for each in set(state.verified.frame_sizes.values()))
                if all(not proof.low <= at <= at + size <= proof.high for at in frames):
                    return f"{what} are not in the frame"
            case "argument" | "length" | "writable":
                start = state.execution.arguments[0]
                at = W64.signed(address - start)
                if not state.is_in_argument(at, size, stores=proof.stores):
                    return f"{what} are not in the argument"
                if proof.rule == "argument" and not proof.low <= at <= at + size <= proof.high:
                    return f"{what} are elsewhere in the argument"
            case _:
                access = "store" if proof.stores else "load"
                if address > U64_MASK or state.space.find(address, size, access) is None:
                    return f"{what} are not the program's"
        return ""
