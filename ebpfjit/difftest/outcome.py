"""What a run left behind, and in what two runs differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any

from ebpfjit.difftest.case import Input
from ebpfjit.difftest.guards import LITTER
from ebpfjit.errors import AuditFailure, EbpfError
from ebpfjit.record import dataclass
from ebpfjit.translators.block import POISON

WRONG_CODE = "WrongCode"
AUDIT_FAILURE = AuditFailure.__name__
"""Kinds of an outcome that is wrong whatever another engine says: what was proven does not hold."""

_OF_PLACE = frozenset({"line", "program", "index", "__notes__"})
_UNWRITTEN = (LITTER, POISON)


def attributes_of(error: EbpfError) -> tuple[tuple[str, Any], ...]:
    """Return what a fault says of itself, but for where its program is from, and its number in a batch."""
    return tuple(sorted((k, v) for k, v in vars(error).items() if k not in _OF_PLACE))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind; None where the engine does not tell.

    `kind` is "ok", "helper raised" or the class of the fault; `value` is r0, `message` and
    `attributes` are the fault's. `memory` is what r1 points to, `around` the bytes right before and
    behind it, `granted` what a helper handed out, `stack` the main function's frame. Of programs with a
    type or maps `context` is what else they left: fields, metadata, where the packet was sent, lines
    that were printed; `maps` are names, keys and values of each map, `events` the records that
    went to ring and perf buffers: (map name, bytes). `registers` (r0 to r10 at the end) comes from a
    trace, and is not compared: what nobody reads later may differ. `outside` says what the run has
    changed that was not its own.
    """

    kind: str
    value: int | None = None
    message: str = ""
    attributes: tuple[tuple[str, Any], ...] = ()
    memory: bytes | None = None
    around: bytes | None = field(default=None, repr=False)
    granted: bytes | None = field(default=None, repr=False)
    stack: bytes | None = field(default=None, repr=False)
    budget_left: int | None = None
    context: tuple[tuple[str, Any], ...] | None = None
    maps: tuple[Any, ...] | None = None
    events: tuple[tuple[str, bytes], ...] | None = None
    registers: tuple[int, ...] | None = field(default=None, compare=False)
    outside: str = field(default="", compare=False)

    @property
    def pc(self) -> int | None:
        """The pc of the fault."""
        return dict(self.attributes).get("pc")

    def __str__(self) -> str:
        """The ending in one line."""
        return f"r0 = {self.value:#x}" if self.value is not None else f"{self.kind}: {self.message}"

    def differing(self, other: Outcome) -> tuple[str, ...]:
        """Return the names of the fields that both engines tell and that differ."""
        return tuple(
            name
            for name in COMPARED
            if (a := getattr(self, name)) != (b := getattr(other, name))
            and a is not None
            and b is not None
            and not (name in _SAME and _SAME[name](a, b))
        )


Runner = Callable[[Input], Outcome | None]
"""Runs the prepared case on one input; None where the engine has no answer to that."""


def _same_stack(one: bytes, other: bytes) -> bool:
    """True where both stacks hold the same in all bytes that both engines wrote.

    What a program never reads need not be zeroed, and keeps what was there before.
    """
    return all(
        a == b or a in _UNWRITTEN or b in _UNWRITTEN
        for start in range(0, len(one), _SLICE)
        if one[start : start + _SLICE] != other[start : start + _SLICE]
        for a, b in zip(one[start : start + _SLICE], other[start : start + _SLICE], strict=True)
    )


def _same_events(one: tuple[tuple[str, bytes], ...], other: tuple[tuple[str, bytes], ...]) -> bool:
    """True where both are the same records, but for what is read from Linux: each buffer by itself.

    Perf events are filled up with zeros there: 4 bytes of size and the record are whole words of 8 bytes.
    """
    first, second = (sorted(events, key=lambda event: event[0]) for events in (one, other))
    return len(one) == len(other) and all(
        a == b or (a[0] == b[0] and _padded(a[1]) == _padded(b[1]) and _padded(a[1]) in (a[1], b[1]))
        for a, b in zip(first, second, strict=True)
    )


def _padded(record: bytes) -> bytes:
    return record + bytes(-(len(record) + 4) % 8)


_SLICE = 64
_SAME: dict[str, Callable[[Any, Any], bool]] = {"stack": _same_stack, "events": _same_events}
COMPARED = tuple(one.name for one in fields(Outcome) if one.compare)
