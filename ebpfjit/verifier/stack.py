"""The frame of a function: what lies in it, by words of eight bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.state import Frame, State
from ebpfjit.verifier.values import Cell, Pointer, Poison, Scalar, Value, known, mark_precise

SIZE = 512
"""Bytes of a frame, and of all together."""

_UNSET, _WORD = "?" * 8, 8
_GIVEN = "dynptr given"

_ARRIVED = frozenset("diq")
"""Bytes that are the kernel's: no load gives them."""


def load(frame: Frame, number: int, pointer: Pointer, offset: int, size: int, *, privileged: bool) -> Value:
    """Return what `size` bytes at a distance from a pointer into a frame are. Raises Refused."""
    _aligned(pointer, offset, size)
    low, high = _place(pointer, offset, size, number, "read from")
    if pointer.var is not None:
        if not privileged:
            raise Refused("memory", f"R{number} variable stack access prohibited for !root")
        _initialised(frame, low, high, privileged=privileged)
        return Scalar(DOMAIN.sized(size))
    slot, at = divmod(low, _WORD)
    cell = frame.stack.get(slot)
    if cell is None:
        if not privileged:
            raise _unset(low, 0, size)
        return Scalar(DOMAIN.sized(size))
    cell.mark_read()
    kinds = cell.kinds[at : at + size]
    if cell.kinds[0] == "s":
        value, spilled = cell.value, cell.kinds.count("s")
        if isinstance(value, Pointer) and "s" in kinds:
            if size != _WORD:
                raise Refused("type", "invalid size of register fill", "load pointers with 8 bytes")
            return value
        if at == 0 and size <= spilled and isinstance(value, Scalar):
            low_bytes = DOMAIN.truncated(value.number, 8 * size)
            return value if size == spilled or low_bytes is value.number else Scalar(low_bytes, (value,))
        is_zero = isinstance(value, Scalar) and value.number.is_known and not value.number.value
        if kinds == "s" * size and isinstance(value, Scalar) and is_zero:
            return Scalar(value.number, (value,))
    for index, kind in enumerate(kinds):
        if kind in _ARRIVED or (kind == "?" and not privileged):
            raise _unset(low, index, size)
    if kinds == "0" * size:
        return known(0)
    return Scalar(DOMAIN.sized(size))


def store(
    frame: Frame, number: int, pointer: Pointer, offset: int, size: int, value: Value, *, privileged: bool
) -> None:
    """Put the low `size` bytes of a value at a distance from a pointer into a frame. Raises Refused."""
    _aligned(pointer, offset, size)
    low, high = _place(pointer, offset, size, number, "write to")
    if isinstance(value, Pointer) and (size != _WORD or pointer.var is not None):
        if size != _WORD:
            raise Refused("type", "invalid size of register spill", "store pointers with 8 bytes")
        if not privileged:
            raise Refused("leak", "a pointer is stored at an offset that varies")
    is_zero = isinstance(value, Scalar) and value.number.is_known and not value.number.value
    if pointer.var is not None:
        if not privileged:
            raise Refused("memory", f"R{number} variable stack access prohibited for !root")
        if is_zero and isinstance(value, Scalar):
            mark_precise(value)
        _written_somewhere(frame, low, high, is_zero=is_zero)
        return
    slot, at = divmod(low, _WORD)
    before = frame.stack.get(slot)
    old = _UNSET if before is None else before.kinds
    is_spilled = before is not None and old[0] == "s" and isinstance(before.value, Pointer)
    if is_spilled and size < _WORD and not privileged:
        raise Refused("leak", "attempt to corrupt spilled pointer on stack")
    if any(kind in "diq" for kind in old):
        old = _destroyed(frame, slot)
    # Numbers of users without CAP_BPF are not remembered (check_stack_write_fixed_off).
    if isinstance(value, Pointer) or (privileged and isinstance(value, Scalar) and at == 0):
        kept = value
        if isinstance(value, Scalar) and not isinstance(value, Poison) and size < _WORD:
            number_kept = DOMAIN.truncated(value.number, 8 * size)
            kept = value if number_kept is value.number else Scalar(number_kept, (value,))
        frame.stack[slot] = Cell("s" * size + old[size:].replace("s", "m"), kept)
        return
    if is_zero and isinstance(value, Scalar):
        mark_precise(value)
    kinds = old[:at] + ("0" if is_zero else "m") * size + old[at + size :]
    frame.stack[slot] = Cell(kinds.replace("s", "m"))
    if old[0] == "s" and "s" in kinds and at:  # the start of a spilled number is as it was
        _keep_start(frame, slot, before, kinds)


def _keep_start(frame: Frame, slot: int, before: Cell | None, kinds: str) -> None:
    """Keep the low bytes of a number of which the upper ones were written over."""
    value = None if before is None else before.value
    start = len(kinds) - len(kinds.lstrip("s"))
    if isinstance(value, Scalar) and start in (1, 2, 4):
        kept = Scalar(DOMAIN.truncated(value.number, 8 * start), (value,))
        frame.stack[slot] = Cell("s" * start + kinds[start:].replace("s", "m"), kept)


def _destroyed(frame: Frame, slot: int) -> str:
    """Take away the kernel's thing that lies here: all of its words."""
    cell = frame.stack[slot]
    value = cell.value
    first = getattr(value, "slot", slot)
    if getattr(value, "ref", 0) and cell.kinds[0] in "dq":
        raise Refused(
            "reference", "cannot overwrite referenced dynptr", "give it back (submit, discard) before"
        )
    for each in range(first, first + getattr(value, "words", 1)):
        if each in frame.stack:
            frame.stack[each] = Cell("m" * _WORD)
    return "m" * _WORD


def written(frame: Frame, low: int, high: int) -> None:
    """Say that something wrote the bytes from `low` to below `high`: nothing is known of them now."""
    _written_somewhere(frame, low, high, is_zero=False, surely=True)


def _written_somewhere(frame: Frame, low: int, high: int, *, is_zero: bool, surely: bool = False) -> None:
    """Say that some of these bytes (or, surely, all) were written."""
    for slot, start, stop in words(low, high):
        cell = frame.stack.get(slot)
        if cell is None and not surely:
            frame.stack[slot] = Cell(_UNSET)
            cell = frame.stack[slot]
        old = _UNSET if cell is None else cell.kinds
        if any(kind in "diq" for kind in old[start:stop]):
            old = _destroyed(frame, slot)
        if (
            old[0] == "s"
            and isinstance(cell and cell.value, Scalar)
            and start == 0
            and not surely
            and is_zero
        ):
            pass
        new = "".join(
            ("0" if is_zero and kind == "0" else "m" if surely or kind != "?" else "?")
            for kind in old[start:stop]
        )
        frame.stack[slot] = Cell((old[:start] + new + old[stop:]).replace("s", "m"))


def words(low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """Return for each word that holds some of these bytes its number, and between which of its bytes."""
    for slot in range(low // _WORD, -(-high // _WORD)):
        yield slot, max(low - slot * _WORD, 0), min(high - slot * _WORD, _WORD)


def _initialised(frame: Frame, low: int, high: int, *, privileged: bool) -> None:
    """Read these bytes; raise Refused where some were never written, or are not the program's."""
    for slot, start, stop in words(low, high):
        cell = frame.stack.get(slot)
        if cell is None:
            if not privileged:
                raise _unset(low, slot * _WORD + start - low, high - low)
            continue
        cell.mark_read()
        for index in range(start, stop):
            kind = cell.kinds[index]
            if kind in _ARRIVED or kind == "i" or (kind == "?" and not privileged):
                raise _unset(low, slot * _WORD + index - low, high - low)
            if kind == "s" and isinstance(cell.value, Pointer) and not privileged:
                raise Refused("leak", "a pointer on the stack is read as bytes")


def region(
    frame: Frame, number: int, pointer: Pointer, size: int, *, reads: bool, writes: bool, privileged: bool
) -> None:
    """Let a function of the kernel read, or write, `size` bytes from a pointer on. Raises Refused."""
    low, high = _place(pointer, 0, size, number, "access to")
    if pointer.var is not None and not privileged:
        raise Refused("memory", f"R{number} variable offset stack access prohibited for !root")
    allocated = _WORD * min(frame.stack, default=0)
    if size == 0 and (low >= 0 or (low < allocated and reads and not privileged)):
        raise Refused("memory", f"invalid access to stack R{number} off={low} size=0: nothing is there")
    if low == high:
        return
    if reads:
        _initialised(frame, low, high, privileged=privileged)
    if writes:
        if pointer.var is None:
            written(frame, low, high)
        else:
            _written_somewhere(frame, low, high, is_zero=False)


def known_number(frame: Frame, pointer: Pointer, size: int) -> int | None:
    """Return the number that `size` (1 to 8) bytes at a fixed place are known to be, or None."""
    if pointer.var is not None or not pointer.off >= -SIZE or pointer.off + size > 0:
        return None
    slot, at = divmod(pointer.off, _WORD)
    cell = frame.stack.get(slot)
    if cell is None or at + size > _WORD:
        return None
    if cell.kinds[at : at + size] == "0" * size:
        return 0
    value = cell.spilled
    if at == 0 and isinstance(value, Scalar) and cell.kinds.count("s") == size:
        number = DOMAIN.truncated(value.number, 8 * size)
        if number.is_known:
            mark_precise(value)
            return number.value
    return None


def _place(pointer: Pointer, offset: int, size: int, number: int, doing: str) -> tuple[int, int]:
    """Return between which bytes of the frame (from its end on) the access lies. Raises Refused."""
    var, low = pointer.var, pointer.off + offset
    high = low + size
    if var is not None:
        if var.smin <= -(1 << 29) or var.smax >= 1 << 29:
            raise Refused(
                "memory",
                f"invalid unbounded variable-offset {doing.split()[0]} {doing.split()[1]} stack R{number}",
                "bound the index first, from below and from above",
            )
        low, high = low + var.smin, high + var.smax
    if low < -SIZE or high > 0 or size < 0:
        where = f"off={pointer.off + offset} size={size}"
        kind = "" if var is None else "variable-offset "
        if low < -SIZE:
            said = f"it begins {-SIZE - low} bytes below the frame, which has {SIZE}"
        else:
            said = f"it ends {high} bytes above r10"
        raise Refused("memory", f"invalid {kind}{doing} stack R{number} {where}: {said}")
    return low, high


def _aligned(pointer: Pointer, offset: int, size: int) -> None:
    at = DOMAIN.known(pointer.off + offset)
    if pointer.var is not None:
        at = DOMAIN.binary("ADD", True, pointer.var, at)
    if (at.value | at.mask) & size - 1:
        varies = " + an index" if pointer.var is not None else ""
        raise Refused("memory", f"misaligned stack access off {pointer.off + offset}{varies} size {size}")


def slice_of(dynptr: Any) -> str:
    """Return what is said of memory that a dynptr gave; those that a function is given lie in no frame."""
    return f"dynptr {dynptr.id}" if dynptr.slot < 0 else _GIVEN


def has_dynptr(state: State, slice: Pointer) -> bool:
    """True where the dynptr that gave some memory is still there, as it was."""
    if _GIVEN in slice.flags:
        return True
    for frame in state.frames:
        if any(cell.kinds[0] == "d" and slice_of(cell.value) in slice.flags for cell in frame.stack.values()):
            return True
    return False


def _unset(low: int, index: int, size: int) -> Refused:
    return Refused(
        "uninitialised",
        f"invalid read from stack off {low}+{index} size {size}",
        "write it before it is read",
    )
