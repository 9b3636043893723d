"""Profiles of containers (OCI, Docker) as classic BPF.

arch not listed    -> SCMP_ACT_KILL           nr of x32 -> the same
nr == read         -> rules for read, in their order: the first whose arguments all hold
no rule            -> defaultAction
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from ebpfjit.classic.code import encode
from ebpfjit.classic.table import MOST
from ebpfjit.errors import LoadError, VerifierError
from ebpfjit.seccomp.numbers import (
    ACTIONS,
    ARCHITECTURES,
    SAME,
    X32_BIT,
    architecture,
    error_number,
    system_calls,
)

NR, ARCH, ARGS = 0, 4, 16
"""Where struct seccomp_data has the number of the call, the architecture, six arguments of 8 bytes."""

EPERM = 1
_LOAD, _AND, _RET, _JA, _JEQ, _JGT, _JGE = 0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35
_HIGH, _LOW = 4, 0
COMPARISONS = ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
               "SCMP_CMP_MASKED_EQ")  # fmt: skip

Line = tuple[int, str | int, str | int, int]
"""An instruction whose targets may be labels: code, jt, jf, k; of a jump the target is jt."""


class Text:
    """Instructions with labels, put together at the end; targets that are too far get a jump of their own."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.labels: dict[str, int] = {}
        self._count = 0

    def label(self, what: str) -> str:
        """Return a label that there is not yet."""
        self._count += 1
        return f"{what}{self._count}"

    def place(self, label: str) -> None:
        """Put a label here."""
        self.labels[label] = len(self.lines)

    def emit(self, code: int, k: int = 0) -> None:
        """Add an instruction without targets."""
        if len(self.lines) > MOST:
            what = f"the profile has rules for more than {MOST} instructions, which Linux does not take"
            raise VerifierError(what, rule="length")
        self.lines.append((code, 0, 0, k))

    def branch(self, code: int, k: int, to: str, *, holds: bool = True) -> None:
        """Go to a label where a comparison of A with a number holds, or where it does not; else go on."""
        self.lines.append((code, 0, 1, k) if holds else (code, 1, 0, k))
        self.lines.append((_JA, to, 0, 0))

    def bytes(self) -> bytes:
        """Return the program."""
        fields = []
        for pc, (code, jt, jf, k) in enumerate(self.lines):
            if code == _JA:
                fields.append((code, 0, 0, self.labels[str(jt)] - pc - 1))
            else:
                fields.append((code, int(jt), int(jf), k))
        return encode(fields)


def to_classic(profile: Mapping[str, Any], host: str) -> bytes:
    """Return a profile as a program of classic BPF, for its architectures, by default that of the `host`.

    Raises LoadError naming what is wrong, and where.
    """
    if not isinstance(profile, Mapping) or "defaultAction" not in profile:
        raise LoadError("a seccomp profile is a JSON object with a defaultAction, architectures, syscalls")
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "defaultAction")
    text = Text()
    text.emit(_LOAD, ARCH)
    starts = {architecture(name): text.label("arch") for name in _architectures(profile, host)}
    for number, start in starts.items():
        text.branch(_JEQ, number, start)
    text.emit(_RET, ACTIONS["SCMP_ACT_KILL"])
    for number, start in starts.items():
        text.place(start)
        _of_architecture(text, number, profile, default)
    return text.bytes()


def _architectures(profile: Mapping[str, Any], host: str) -> list[str]:
    found = _names(profile, "architectures", "")
    for where, row in _objects(profile, "archMap", ""):
        found += _names({"architecture": [row.get("architecture")]}, "architecture", where)
        found += _names(row, "subArchitectures", where)
    return list(dict.fromkeys(name for name in found if not _is_unknown(name))) or [host]


def _list(parent: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """Return a member that is a list, empty where there is none. Raises LoadError for anything else."""
    found = parent.get(name)
    if not isinstance(found, (list, tuple, type(None))):
        raise LoadError(f"{where}{name} is a list, not {shown(found)}")
    return list(found or ())


def _objects(parent: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a list, each behind what messages say of it."""
    for number, each in enumerate(_list(parent, name, where)):
        here = f"{where}{name}[{number}]"
        if not isinstance(each, Mapping):
            raise LoadError(f"{here} is an object, not {shown(each)}")
        yield f"{here}: ", each


def _names(parent: Mapping[str, Any], name: str, where: str) -> list[str]:
    """Return a list of names."""
    found = _list(parent, name, where)
    for each in found:
        if not isinstance(each, str):
            raise LoadError(f"{where}{name} has names, not {shown(each)}")
    return found


def shown(value: object) -> str:
    """Return a value of a profile as messages have it: as JSON would, and not too long."""
    return reprlib.repr(value)


def _is_unknown(name: str) -> bool:
    """True for an architecture that has no table here: a profile for many names more than one machine is."""
    try:
        architecture(name)
    except LoadError:
        return True
    return False


def _of_architecture(text: Text, arch: int, profile: Mapping[str, Any], default: int) -> None:
    """Emit what decides about calls of an architecture."""
    calls = system_calls(arch)
    rules: dict[int, list[tuple[int, list[Mapping[str, Any]]]]] = {}
    for where, rule in _objects(profile, "syscalls", ""):
        action = _action(rule.get("action"), rule.get("errnoRet"), f"{where}action")
        one = [rule["name"]] if "name" in rule else []
        names = _names(rule, "names", where) or _names({"name": one}, "name", where)
        if not names:
            raise LoadError(f"{where}there are no names")
        arguments = _arguments(rule, where)
        for name in names:
            if name in calls:  # the others are of other architectures, or newer than the table
                rules.setdefault(calls[name], []).append((action, arguments))
            elif not any(name in system_calls(other) for other in ARCHITECTURES.values()):
                raise LoadError(f"{where}no system call {name!r}")
    text.emit(_LOAD, NR)
    if arch == architecture("x86_64"):
        fine = text.label("fine")
        text.branch(_JGE, X32_BIT, fine, holds=False)
        text.emit(_RET, ACTIONS["SCMP_ACT_KILL"])
        text.place(fine)
    blocks = {number: text.label("call") for number in rules}
    for number, block in blocks.items():
        text.branch(_JEQ, number, block)
    text.emit(_RET, default)
    for number, block in blocks.items():
        text.place(block)
        for action, arguments in rules[number]:
            other = text.label("other")
            for argument in arguments:
                _compare(text, argument, other)
            text.emit(_RET, action)
            text.place(other)
        text.emit(_RET, default)


def _arguments(rule: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    found = []
    for place, argument in _objects(rule, "args", where):
        index, op = argument.get("index"), argument.get("op")
        if not _is_number(index, 6):
            raise LoadError(f"{place}an argument has an index from 0 to 5, not {shown(index)}")
        if op not in COMPARISONS:
            raise LoadError(f"{place}no comparison {shown(op)}; there are {', '.join(COMPARISONS)}")
        for name in ("value", "valueTwo"):
            if not _is_number(argument.get(name, 0), 1 << 64):
                raise LoadError(f"{place}{name} is a number of 64 bits, not {shown(argument[name])}")
        found.append(argument)
    return found


def _is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _compare(text: Text, argument: Mapping[str, Any], other: str) -> None:
    """Go on where a comparison of an argument (u64) holds, else go to a label."""
    place, op, value = ARGS + 8 * argument["index"], argument["op"], int(argument.get("value", 0))
    if op == "SCMP_CMP_MASKED_EQ":
        wanted = int(argument.get("valueTwo", 0))
        for half in (_HIGH, _LOW):
            text.emit(_LOAD, place + half)
            text.emit(_AND, value >> 8 * half & 0xFFFFFFFF)
            text.branch(_JEQ, wanted >> 8 * half & 0xFFFFFFFF, other, holds=False)
        return
    high, low, yes = value >> 32, value & 0xFFFFFFFF, text.label("yes")
    text.emit(_LOAD, place + _HIGH)
    if op == "SCMP_CMP_EQ":
        text.branch(_JEQ, high, other, holds=False)
        text.emit(_LOAD, place + _LOW)
        text.branch(_JEQ, low, other, holds=False)
    elif op == "SCMP_CMP_NE":
        text.branch(_JEQ, high, yes, holds=False)
        text.emit(_LOAD, place + _LOW)
        text.branch(_JEQ, low, other)
    else:  # greater halves decide, equal ones leave it to the lower
        is_greater, is_or_equal = op in ("SCMP_CMP_GT", "SCMP_CMP_GE"), op in ("SCMP_CMP_GE", "SCMP_CMP_LE")
        text.branch(_JGT, high, yes if is_greater else other)
        text.branch(_JEQ, high, other if is_greater else yes, holds=False)
        text.emit(_LOAD, place + _LOW)
        code = _JGE if is_greater == is_or_equal else _JGT
        text.branch(code, low, other, holds=not is_greater)
    text.place(yes)


def _action(given: Any, data: Any, where: str) -> int:
    name = SAME.get(given, given) if isinstance(given, str) else ""
    if name not in ACTIONS:
        raise LoadError(f"{where}: no action {shown(given)}; there are {', '.join(ACTIONS)}")
    if name not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return ACTIONS[name]
    return ACTIONS[name] | (error_number(data) if data is not None else EPERM)
