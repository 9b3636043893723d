"""Operands: a token becomes the value of an instruction's field, its range checked.

Each reader takes the fields read so far and one token; it raises Rejected with the reason.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import islice

from ebpfjit.assembler.lexer import MAX_WORD, REGISTERS, is_label
from ebpfjit.bits import W16, W32, W64
from ebpfjit.record import dataclass, field

_MOST_DIGITS = 40
_MOST_SUGGESTIONS = 1000


class Rejected(Exception):  # noqa: N818 - a signal inside this package, never seen outside
    """A token that its operand cannot take; the text is the reason."""


@dataclass(slots=True)
class Labels:
    """Where labels point: slots, by name; and the slots of each number, in ascending order."""

    named: dict[str, int] = field(default_factory=dict)
    numbered: dict[int, list[int]] = field(default_factory=dict)

    def define(self, name: str, pc: int) -> bool:
        """Let `name` point to `pc`; False for a number too long to be meant. `pc` never decreases."""
        if not name[0].isdigit():
            self.named[name] = pc
        elif len(name) < _MOST_DIGITS:
            self.numbered.setdefault(int(name), []).append(pc)
        else:
            return False
        return True

    def slot(self, name: str, pc: int) -> int:
        """Return the slot that `name` means in the instruction at `pc`.

        `1f` is the next label 1 after `pc`, `1b` the last one at or before it, as in GNU as.
        """
        if name[0].isdigit():
            return self._numbered_slot(name, pc)
        if name in self.named:
            return self.named[name]
        known = (other for other in islice(self.named, _MOST_SUGGESTIONS) if len(other) <= MAX_WORD)
        from difflib import get_close_matches  # for who reads the error

        close = get_close_matches(name, known, 1) if len(name) <= MAX_WORD else []
        hint = f"did you mean {close[0]!r}?" if close else f"write '{name}:' before an instruction"
        raise Rejected(f"undefined label {name!r}: {hint}")

    def _numbered_slot(self, name: str, pc: int) -> int:
        digits = name[:-1]
        slots = self.numbered.get(int(digits), []) if len(digits) < _MOST_DIGITS else []
        after = bisect_right(slots, pc)
        found = slots[after : after + 1] if name.endswith("f") else slots[max(after - 1, 0) : after]
        if not found:
            where = "after" if name.endswith("f") else "before"
            raise Rejected(f"undefined label {name!r}: no label '{digits}:' {where} this line")
        return found[0]


@dataclass(slots=True)
class Fields:
    """The fields of one instruction while its operands are read; numbers are signed."""

    pc: int
    labels: Labels
    dst: int
    src: int
    offset: int
    imm: int
    next_imm: int | None


Reader = Callable[[Fields, str], None]


def integer(token: str) -> int:
    """Return the value of a decimal or hexadecimal token, with or without a sign."""
    digits = token.replace(" ", "").replace("\t", "")
    if len(digits) > _MOST_DIGITS:
        raise Rejected("this number is too long: no field has more than 64 bits")
    return int(digits, 16) if "x" in digits or "X" in digits else int(digits)


def integer32(token: str) -> int:
    """Return a token as a signed 32-bit number; it may be written as signed or unsigned."""
    value = integer(token)
    if not -W32.int_min <= value <= W32.mask:
        raise Rejected(
            f"{value} does not fit the 32-bit immediate (-2147483648..4294967295): "
            "lddw loads 64-bit constants"
        )
    return W32.signed(value)


def integer64(token: str) -> int:
    """Return a token as an unsigned 64-bit number; it may be written as signed or unsigned."""
    value = integer(token)
    if not -W64.int_min <= value <= W64.mask:
        raise Rejected(f"{value} does not fit 64 bits")
    return W64.wrap(value)


def _read_dst(fields: Fields, token: str) -> None:
    fields.dst = REGISTERS[token][1]


def _read_src(fields: Fields, token: str) -> None:
    fields.src = REGISTERS[token][1]


def _same(token: str, number: int) -> None:
    class_, found = REGISTERS[token]
    if found != number:
        raise Rejected(
            f"expected {class_}{number} here, found {token}: the instruction has one such register"
        )


def _read_imm(fields: Fields, token: str) -> None:
    fields.imm = integer32(token)


def _read_next_imm(fields: Fields, token: str) -> None:
    fields.next_imm = integer32(token)


def _read_imm64(fields: Fields, token: str) -> None:
    value = integer64(token)
    fields.imm = W32.signed(value)
    fields.next_imm = W32.signed(value >> 32)


def _read_offset(fields: Fields, token: str) -> None:
    value = integer(token)
    if not -W16.int_min <= value < W16.int_min:
        raise Rejected(f"{value} does not fit the 16-bit offset (-32768..32767)")
    fields.offset = value


def _read_zero(_: Fields, token: str) -> None:
    if integer(token):
        raise Rejected("expected 0: a map's only value is at index 0")


def _read_helper(fields: Fields, token: str) -> None:
    fields.imm = integer32(token.rpartition("#")[2])


def _distance(fields: Fields, token: str) -> int:
    """Return the slots from the next instruction to the target."""
    return fields.labels.slot(token, fields.pc) - fields.pc - 1 if is_label(token) else integer(token)


def _read_target16(fields: Fields, token: str) -> None:
    distance = _distance(fields, token)
    if not -W16.int_min <= distance < W16.int_min:
        raise Rejected(
            f"the target is {distance:+} slots away, an offset holds -32768..32767: "
            "use ja32 (gotol), with the condition around it"
        )
    fields.offset = distance


def _read_target32(fields: Fields, token: str) -> None:
    distance = _distance(fields, token)
    if not -W32.int_min <= distance < W32.int_min:
        raise Rejected(f"the target is {distance:+} slots away, imm holds -2147483648..2147483647")
    fields.imm = distance


def _space(token: str) -> int:
    value = integer(token)
    if not 0 <= value <= W16.mask:
        raise Rejected(
            f"{value} is no number of an address space (0..65535): 0 is the kernel's, 1 an arena's"
        )
    return value


def _read_space_to(fields: Fields, token: str) -> None:
    fields.imm = W32.signed(_space(token) << 16)


def _read_space_from(fields: Fields, token: str) -> None:
    fields.imm |= _space(token)


READERS: dict[str, Reader] = {
    "dst": _read_dst,
    "src": _read_src,
    "same dst": lambda fields, token: _same(token, fields.dst),
    "same src": lambda fields, token: _same(token, fields.src),
    "r0": lambda _, token: _same(token, 0),
    "imm": _read_imm,
    "+imm": _read_imm,
    "next_imm": _read_next_imm,
    "+next_imm": _read_next_imm,
    "imm64": _read_imm64,
    "displacement": _read_offset,
    "btf_fd": _read_offset,
    "space_to": _read_space_to,
    "space_from": _read_space_from,
    "target16": _read_target16,
    "target32": _read_target32,
    "label32": _read_target32,
    "zero": _read_zero,
    "helper": _read_helper,
}
"""What each placeholder of the forms does with its token."""
