"""Arithmetic: scalars by the rules of numbers, and what of it may be done to pointers."""

from __future__ import annotations

from typing import Any

from ebpfjit.bits import W32, W64
from ebpfjit.isa.spec import Row
from ebpfjit.program import Instruction
from ebpfjit.verifier.numbers import DOMAIN, Number
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.values import (
    Pointer,
    Poison,
    Scalar,
    Value,
    fresh,
    known,
    mark_precise,
    poison,
    unknown,
)

FARTHEST = 1 << 29
"""Distances from the start of memory that are followed (Linux: BPF_MAX_VAR_OFF)."""

FIXED = frozenset({"packet_end", "socket", "sock_common", "tcp_sock", "xdp_sock", "map", "func"})
"""Pointers that nothing may be added to."""

PACKET = frozenset({"packet", "packet_meta"})

_SHIFTS = frozenset({"LSH", "RSH", "ARSH"})
_DIVISIONS = frozenset({"DIV", "SDIV", "MOD", "SMOD"})


def constant(row: Row, imm: int) -> Scalar:
    """Return the second operand that an imm is."""
    return known(W64.wrap(imm) if row.width is W64 else W32.wrap(imm))


def binary(row: Row, number: int, dst: Value, src: Value, *, privileged: bool) -> Value:
    """Return dst op src. `number` is that of dst, for messages; raises Refused."""
    if isinstance(dst, Poison) or isinstance(src, Poison):
        return poison()
    if isinstance(dst, Pointer) and dst.kind == "arena":
        return dst  # whatever is done to it, an access lies in the arena, or is caught
    is_full = row.width is W64
    if isinstance(dst, Scalar) and isinstance(src, Scalar):
        return _numbers(row, is_full, dst, src)
    if isinstance(dst, Pointer) and isinstance(src, Pointer):
        if row.meaning == "SUB" and privileged:
            return unknown()
        raise Refused(
            "type",
            f"R{number} pointer {row.symbol} pointer prohibited",
            "subtract pointers, or compare them; nothing else is a number",
        )
    if isinstance(dst, Pointer):
        assert isinstance(src, Scalar)
        return _moved(row, is_full, number, dst, src, privileged=privileged)
    assert isinstance(dst, Scalar)
    assert isinstance(src, Pointer)
    if row.meaning == "ADD":
        return _moved(row, is_full, number, src, dst, privileged=privileged)
    if row.meaning == "SUB" and is_full:
        raise Refused("type", f"R{number} tried to subtract pointer from scalar")
    return _moved(row, is_full, number, src, dst, privileged=privileged)


def two_signs(row: Row, dst: Value, src: Value) -> tuple[Scalar, Scalar] | None:
    """Return -1 and 0 where a mask is put on a number that is one of these, None for all else.

    What a sign chooses is walked in two ways, as what comes of it is no range (maybe_fork_scalars).
    """
    if row.meaning not in ("AND", "OR") or type(dst) is not Scalar or type(src) is not Scalar:
        return None
    number, is_full = dst.number, row.width is W64
    range_ = (number.smin, number.smax) if is_full else (number.smin32, number.smax32)
    if range_ != (-1, 0) or not src.number.is_known:
        return None
    names = ("smin", "smax") if is_full else ("smin32", "smax32")
    made = [DOMAIN.both(number, DOMAIN.some(**dict.fromkeys(names, sign))) for sign in (-1, 0)]
    ones, zero = made
    return None if ones is None or zero is None else (Scalar(ones, (dst,)), Scalar(zero, (dst,)))


def _numbers(row: Row, is_full: bool, dst: Scalar, src: Scalar) -> Scalar:
    a, b = dst.number, src.number
    if row.meaning in _DIVISIONS:
        result = DOMAIN.unknown  # Linux knows nothing of quotients, not even that the upper half is zero
    elif row.meaning in _SHIFTS and not (b.is_known and b.umax < row.width.bits):
        result = DOMAIN.unknown
    else:
        result = DOMAIN.binary(row.meaning, is_full, a, b)
    apart = _apart(row, is_full, dst, b)
    if apart is None:
        return Scalar(result, (dst, src))
    return Scalar(
        result, (dst, src), dst.link, W64.wrap(dst.delta + apart), is_half=dst.is_half or not is_full
    )


def _apart(row: Row, is_full: bool, dst: Scalar, by: Number) -> int | None:
    """Return how far a sum, or a difference, is from `dst`; None where one does not tell of the other."""
    number = dst.number
    if row.meaning not in ("ADD", "SUB") or not by.is_known or number.is_known:
        return None
    apart = by.smin if is_full else W32.signed(by.value)
    if not -(1 << 31) < apart < 1 << 31:
        return None
    apart = apart if row.meaning == "ADD" else -apart
    if not is_full:
        return apart if number.umax <= W32.mask else None
    # What is half of a number ends at 32 bits: a sum of 64 bits is not far from it where it goes beyond.
    is_kept = not dst.is_half or (number.umin + apart >= 0 and number.umax + apart <= W32.mask)
    return apart if is_kept else None


def _moved(row: Row, is_full: bool, number: int, pointer: Pointer, by: Scalar, *, privileged: bool) -> Value:
    """Return a pointer with a scalar added, or taken off."""
    meaning, amount = row.meaning, by.number
    if not is_full:
        if meaning == "SUB" and privileged:
            return unknown()
        raise Refused("type", f"R{number} 32-bit pointer arithmetic prohibited")
    if meaning in ("AND", "OR", "XOR"):
        raise Refused("type", f"R{number} bitwise operator {row.symbol} on pointer prohibited")
    if meaning not in ("ADD", "SUB"):
        raise Refused("type", f"R{number} pointer arithmetic with {row.symbol} operator prohibited")
    if pointer.null:
        raise Refused(
            "null",
            f"R{number} pointer arithmetic on {named(pointer)} prohibited, null-check it first",
            "compare it with NULL before",
        )
    nothing = amount.is_known and amount.value == 0 and meaning == "ADD"
    is_fixed = pointer.kind in FIXED or (pointer.kind == "flow_keys" and not amount.is_known)
    if is_fixed and not (nothing and pointer.kind == "map"):
        raise Refused("type", f"R{number} pointer arithmetic on {named(pointer)} prohibited")
    if meaning == "SUB" and pointer.kind == "stack":
        raise Refused("type", f"R{number} subtraction from stack pointer prohibited")
    mark_precise(by)
    if pointer.kind == "arena":
        return Pointer("arena")
    if amount.smin > amount.smax or amount.smin <= -FARTHEST or amount.smin >= FARTHEST:
        _too_far(number, pointer, amount)
    if amount.is_known:
        return _checked(
            number,
            pointer,
            pointer.but(off=pointer.off + (amount.smin if meaning == "ADD" else -amount.smin)),
        )
    before = pointer.var or DOMAIN.known(0)
    var = DOMAIN.binary(meaning, True, before, amount)
    changes: dict[str, Any] = {"var": var}
    if pointer.kind in PACKET:
        changes |= {"id": fresh(), "range": 0}  # nothing is known of what is ahead of it
    elif pointer.id:
        changes |= {"id": fresh()}
    return _checked(number, pointer, pointer.but(**changes))


def _checked(number: int, before: Pointer, pointer: Pointer) -> Pointer:
    """Return a pointer that is not beyond all bounds (check_reg_sane_offset)."""
    var = pointer.var
    if var is not None and var.is_known:
        pointer = pointer.but(off=pointer.off + var.smin, var=None)
        var = None
    if not -FARTHEST < pointer.off < FARTHEST:
        raise Refused(
            "memory",
            f"{named(pointer)} pointer offset {pointer.off} is not allowed: it is too far from its start",
        )
    if var is not None and not -FARTHEST < var.smin < FARTHEST:
        _too_far(number, before, var)
    return pointer


def _too_far(number: int, pointer: Pointer, amount: Number) -> None:
    if amount.is_known:
        raise Refused(
            "memory", f"math between {named(pointer)} pointer and {amount.smin} is not allowed: it is too far"
        )
    bound = "unbounded min value" if amount.smin == DOMAIN.least else f"min value {amount.smin}"
    raise Refused(
        "memory",
        f"math between {named(pointer)} pointer and register with {bound} is not allowed",
        "bound it first: mask it, or compare it with 0 and with the most that it may be",
    )


def unary(row: Row, dst: Value) -> Value:
    """Return op dst."""
    if isinstance(dst, Poison):
        return poison()
    if not isinstance(dst, Scalar):
        return unknown()
    return Scalar(DOMAIN.unary(row.meaning, row.width is W64, dst.number), (dst,))


def moved(row: Row, src: Value) -> Value:
    """Return what a move between registers leaves."""
    is_full = row.width is W64
    if isinstance(src, Poison):
        return poison()
    if row.meaning.startswith("MOVSX"):
        if not isinstance(src, Scalar):
            return unknown() if is_full else Scalar(DOMAIN.sized(4))
        number = DOMAIN.extended(src.number, int(row.meaning[5:]), is_full)
        return src if number is src.number else Scalar(number, (src,))
    if is_full:
        return src
    if not isinstance(src, Scalar):
        return Scalar(DOMAIN.sized(4))
    number = DOMAIN.low_half(src.number)
    return src if number is src.number else Scalar(number, (src,))


def refused_operand(insn: Instruction) -> str:
    """Return why Linux refuses an instruction whatever the registers hold; "": it does not."""
    row = insn.row
    assert row is not None
    if row.uses_src:
        return ""
    if row.meaning in _DIVISIONS and not insn.imm:
        return "div by zero"
    if row.meaning in _SHIFTS and not 0 <= insn.imm < row.width.bits:
        return f"invalid shift {insn.imm}"
    return ""


def named(pointer: Pointer) -> str:
    """Return what a message calls a pointer's kind."""
    return _NAMES.get(pointer.kind, pointer.kind) + ("_or_null" if pointer.null else "")


_NAMES = {
    "packet": "pkt", "packet_meta": "pkt_meta", "packet_end": "pkt_end", "stack": "fp", "map": "map_ptr",
    "socket": "sock", "btf_id": "ptr",
}  # fmt: skip
