"""Profiles of containers (OCI, Docker) as classic BPF.

arch not listed    -> SCMP_ACT_KILL
numbers            -> cut into stretches that are decided alike, found by bisection
a decision         -> its rules in the order of _precedence: the first whose arguments all hold; else
                      defaultAction

What a rule means follows from what container runtimes make of it: one without arguments stands for all of a
call's, one that says the default action for nothing, and arguments of the same index are alternatives. One of
a call that the architecture has behind another one (socket: socketcall(1, ...)) is about that too, but for
its condition of the first argument.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ebpfjit.classic.code import encode
from ebpfjit.classic.table import MOST
from ebpfjit.errors import LoadError, VerifierError
from ebpfjit.record import record
from ebpfjit.seccomp.numbers import (
    ACTIONS,
    ARCHITECTURES,
    IS_64_BIT,
    IS_LITTLE_ENDIAN,
    MULTIPLEXED,
    SAME,
    X32_BIT,
    architecture,
    error_number,
    known_calls,
    system_calls,
)

NR, ARCH, ARGS = 0, 4, 16
"""Where struct seccomp_data has the number of the call, the architecture, six arguments of 8 bytes."""

EPERM = 1
LAST = 0xFFFFFFFF
"""The number -1, which tracers give a call that is to be skipped: it is of no architecture."""
_LOAD, _AND, _RET, _JEQ, _JGT, _JGE = 0x20, 0x54, 0x06, 0x15, 0x25, 0x35
_JA, _FARTHEST = 0x05, 255
COMPARISONS = ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
               "SCMP_CMP_MASKED_EQ")  # fmt: skip

_EQUAL, _UPPER, _LOWER = range(3)
_RANKS = {
    "SCMP_CMP_EQ": _EQUAL, "SCMP_CMP_NE": _EQUAL, "SCMP_CMP_MASKED_EQ": _EQUAL, "SCMP_CMP_LT": _UPPER,
    "SCMP_CMP_LE": _UPPER, "SCMP_CMP_GE": _LOWER, "SCMP_CMP_GT": _LOWER,
}  # fmt: skip

DOCKER_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP",
        "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip
"""What a container of Docker's may do where nothing is said."""

Condition = tuple[int, str, int, int, int]
"""An argument's index, how it is compared, with what, what must be left (SCMP_CMP_MASKED_EQ), its bits."""
HALVED = ("x32", "mips64n32", "mipsel64n32")
"""Architectures of 64 bits whose arguments have 32."""
Decision = tuple[tuple[tuple[Condition, ...], int], ...]
"""Conditions that must all hold, and the action where they do; the last has none."""


@record
class Where:
    """What a profile is for: the machine it runs on, what the container may do, its kernel (None: any)."""

    host: str
    capabilities: frozenset[str]
    kernel: tuple[int, int] | None


class Text:
    """Instructions with labels, all of them further on; targets that are too far get a jump of their own."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, str, str]] = []  # code, k, where to go if it holds, if not
        self.labels: dict[str, int] = {}
        self._count = 0

    def label(self, what: str) -> str:
        """Return a label that there is not yet."""
        self._count += 1
        return f"{what}{self._count}"

    def place(self, label: str) -> None:
        """Put a label here."""
        self.labels[label] = len(self.lines)

    def emit(self, code: int, k: int = 0, yes: str = "", no: str = "") -> None:
        """Add an instruction; a branch goes to the labels, or (empty) on."""
        if len(self.lines) >= MOST:
            raise VerifierError(_TOO_MANY, rule="length")
        self.lines.append((code, k, yes, no))

    def bytes(self) -> bytes:
        """Return the program, which is put together from its end: how far labels are is known then.

        Raises VerifierError where it has too many instructions.
        """
        placed: dict[int, list[str]] = {}
        for label, at in self.labels.items():
            placed.setdefault(at, []).append(label)
        behind: list[tuple[int, int, int, int]] = []
        left: dict[str, int] = {}  # how many instructions there are from a label on
        for at in range(len(self.lines) - 1, -1, -1):
            code, k, *labels = self.lines[at]
            left[""] = len(behind)  # on
            ways = []
            for label in labels:
                far = len(behind) - left[label]
                if far > _FARTHEST - len(labels):
                    behind.append((_JA, 0, 0, far))
                ways.append(len(behind) if far > _FARTHEST - len(labels) else left[label])
            jt, jf = (len(behind) - way for way in ways)
            behind.append((code, jt, jf, k))
            for label in placed.get(at, ()):
                left[label] = len(behind)
        if len(behind) > MOST:
            raise VerifierError(_TOO_MANY, rule="length")
        return encode(reversed(behind))


_TOO_MANY = f"the profile has rules for more than {MOST} instructions, which Linux does not take"


def to_classic(profile: Mapping[str, Any], where: Where) -> bytes:
    """Return a profile as a program of classic BPF, for its architectures, by default that of the host.

    Raises LoadError naming what is wrong, and where, VerifierError for more than Linux takes.
    """
    if not isinstance(profile, Mapping) or "defaultAction" not in profile:
        raise LoadError("a seccomp profile is a JSON object with a defaultAction, architectures, syscalls")
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "defaultAction")
    rules = list(_rules(profile))
    numbers: dict[int, dict[str, str]] = {}  # by the number of the architecture: its names, and their hosts
    for name, host in _architectures(profile, where.host).items():
        numbers.setdefault(ARCHITECTURES[name], {})[name] = host
    text = Text()
    text.emit(_LOAD, ARCH)
    starts = {number: text.label("arch") for number in numbers}
    for number, start in starts.items():
        text.emit(_JEQ, number, yes=start)
    text.emit(_RET, ACTIONS["SCMP_ACT_KILL"])
    for number, start in starts.items():
        text.place(start)
        decisions: dict[int, Decision] = {}
        for name, host in numbers[number].items():
            active = [rule for rule in rules if rule.is_active(host, where)]
            decisions |= _decisions(name, active, default)
        _decide(text, number, _stretches(_otherwise(numbers[number], default), decisions))
    return text.bytes()


# -- what a profile says ------------------------------------------------------------------------------


@record
class Rule:
    """One entry of `syscalls`: the calls, alternatives of conditions (none: always), the action, and when it
    counts.
    """

    names: Sequence[str]
    alternatives: Sequence[tuple[tuple[int, str, int, int], ...]]
    action: int
    includes: Mapping[str, Any]
    excludes: Mapping[str, Any]

    def is_active(self, host: str, where: Where) -> bool:
        """True where it counts: on a host, for what a container may do, and for its kernel."""
        wants, shuns = self.includes, self.excludes
        is_there = where.kernel is None or where.kernel >= wants["kernel"]
        is_new = shuns["kernel"] > (0, 0) and (where.kernel is None or where.kernel >= shuns["kernel"])
        return (
            (not wants["arches"] or host in wants["arches"])
            and host not in shuns["arches"]
            and wants["caps"] <= where.capabilities
            and not shuns["caps"] & where.capabilities
            and is_there
            and not is_new
        )


def _architectures(profile: Mapping[str, Any], host: str) -> dict[str, str]:
    """Return the architectures of a profile, each with that of the machine it would be on."""
    found: dict[str, str] = {}
    for name in _names(profile, "architectures", ""):
        native = host if name == "SCMP_ARCH_NATIVE" else architecture(name)
        found.setdefault(native, native)
    for where, row in _objects(profile, "archMap", ""):
        (native,) = map(
            architecture, _names({"architecture": [row.get("architecture")]}, "architecture", where)
        )
        found.setdefault(native, native)
        for name in _names(row, "subArchitectures", where):
            found.setdefault(architecture(name), native)
    return found or {host: host}


def _rules(profile: Mapping[str, Any]) -> Iterator[Rule]:
    for where, rule in _objects(profile, "syscalls", ""):
        action = _action(rule.get("action"), rule.get("errnoRet"), f"{where}action")
        one = [rule["name"]] if "name" in rule else []
        names = _names(rule, "names", where) or _names({"name": one}, "name", where)
        if not names:
            raise LoadError(f"{where}there are no names")
        for name in names:
            if name not in known_calls():
                raise LoadError(f"{where}no system call {name!r}")
        yield Rule(names, _alternatives(rule, where), action, _when(rule, "includes", where),
                   _when(rule, "excludes", where))  # fmt: skip


def _when(rule: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """Return what a rule says of when it counts: sets of architectures and capabilities, a kernel."""
    given = rule.get(name)
    if not isinstance(given, (Mapping, type(None))):
        raise LoadError(f"{where}{name} is an object, not {shown(given)}")
    given = given or {}
    here = f"{where}{name}: "
    kernel = given.get("minKernel")
    if not isinstance(kernel, (str, type(None))):
        raise LoadError(f"{here}minKernel is a release of Linux, not {shown(kernel)}")
    try:
        arches = {architecture(each) for each in _names(given, "arches", "")}
    except LoadError as error:
        raise LoadError(f"{here}{error}") from None
    caps = frozenset(each.upper() for each in _names(given, "caps", here))
    return {"arches": arches, "caps": caps, "kernel": release(kernel or "0.0", here)}


def release(text: str, where: str = "") -> tuple[int, int]:
    """Return a release of Linux ("5.15", "6.1.0-13") as two numbers. Raises LoadError."""
    found = re.match(r"(\d{1,5})\.(\d{1,5})(?![\d])", text)
    if found is None:
        raise LoadError(f"{where}{shown(text)} is no release of Linux: 5.15")
    return int(found[1]), int(found[2])


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


def _alternatives(rule: Mapping[str, Any], where: str) -> list[tuple[tuple[int, str, int, int], ...]]:
    """Return the conditions of a rule: all must hold; where several are of one argument, any of them."""
    found: list[tuple[int, str, int, int]] = []
    for place, argument in _objects(rule, "args", where):
        index, op = argument.get("index"), argument.get("op")
        if not isinstance(index, int) or not _is_number(index, 6):
            raise LoadError(f"{place}an argument has an index from 0 to 5, not {shown(index)}")
        if not isinstance(op, str) or op not in COMPARISONS:
            raise LoadError(f"{place}no comparison {shown(op)}; there are {', '.join(COMPARISONS)}")
        for name in ("value", "valueTwo"):
            if not _is_number(argument.get(name, 0), 1 << 64):
                raise LoadError(f"{place}{name} is a number of 64 bits, not {shown(argument[name])}")
        found.append((index, op, argument.get("value", 0), argument.get("valueTwo", 0)))
    if len({index for index, *_ in found}) < len(found):
        return [(each,) for each in found]
    return [tuple(found)]


def _is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _action(given: Any, data: Any, where: str) -> int:
    name = SAME.get(given, given) if isinstance(given, str) else ""
    if name not in ACTIONS:
        raise LoadError(f"{where}: no action {shown(given)}; there are {', '.join(ACTIONS)}")
    if name not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return ACTIONS[name]
    try:
        return ACTIONS[name] | (error_number(data) if data is not None else EPERM)
    except LoadError as error:
        raise LoadError(f"{where}: {error}") from None


# -- what is decided about each number ----------------------------------------------------------------


def _otherwise(names: Collection[str], default: int) -> list[tuple[int, Decision]]:
    """Return from which number on what is decided where no rule says anything."""
    always: Decision = (((), default),)
    never: Decision = (((), ACTIONS["SCMP_ACT_KILL"]),)
    if ARCHITECTURES["x32"] not in map(ARCHITECTURES.get, names):
        return [(0, always)]
    native, x32 = ("x86_64" in names, "x32" in names)
    return [(0, always if native else never), (X32_BIT, always if x32 else never), (LAST, always)]


def _decisions(arch: str, rules: Sequence[Rule], default: int) -> dict[int, Decision]:
    """Return what rules decide about an architecture's calls, by number."""
    calls = system_calls(arch)
    width = 32 if arch in HALVED or not ARCHITECTURES[arch] & IS_64_BIT else 64
    found: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    for rule in rules:
        if rule.action == default:
            continue
        ways = [tuple((*each, width) for each in way) for way in rule.alternatives]
        for name in dict.fromkeys(rule.names):
            if name in calls:
                found.setdefault(calls[name], []).extend((way, rule.action) for way in ways)
            other, number = MULTIPLEXED.get(name, ("", 0))
            if other in calls:
                first: Condition = (0, "SCMP_CMP_EQ", number, 0, width)
                rest = [tuple(each for each in way if each[0] != 0) for way in ways]
                found.setdefault(calls[other], []).extend(((first, *way), rule.action) for way in rest)
    always: Decision = (((), default),)
    decided: dict[int, Decision] = {}
    for number, every in found.items():
        whole = next((one for one in every if not one[0]), None)
        decided[number] = (whole,) if whole is not None else (*sorted(every, key=_precedence), *always)
    return decided


def _precedence(way: tuple[tuple[Condition, ...], int]) -> list[tuple[int, int, int]]:
    """Return what a call's rules are sorted by, as libseccomp does: later arguments first; of the same
    argument equality, then upper bounds from the lowest on, then lower bounds from the highest on. What is
    equal keeps the profile's order.
    """
    found = []
    for index, op, value, wanted, _ in sorted(way[0]):
        rank = _RANKS[op]
        number = wanted if op == "SCMP_CMP_MASKED_EQ" else value
        found.append((-index, rank, number if rank == _UPPER else -number))
    return found


def _stretches(
    otherwise: Sequence[tuple[int, Decision]], decided: Mapping[int, Decision]
) -> list[tuple[int, Decision]]:
    """Return from which number on what is decided, up to the next."""
    starts = {start for start, _ in otherwise} | {each for nr in decided for each in (nr, nr + 1)}
    found: list[tuple[int, Decision]] = []
    for start in sorted(starts):
        below = [decision for first, decision in otherwise if first <= start]
        decision = decided.get(start, below[-1])
        if not found or found[-1][1] != decision:
            found.append((start, decision))
    return found


def _decide(text: Text, arch: int, stretches: Sequence[tuple[int, Decision]]) -> None:
    """Emit what finds a call's decision by its number, and the decisions."""
    text.emit(_LOAD, NR)
    labels = {decision: text.label("decision") for _, decision in stretches}

    def find(first: int, end: int) -> None:
        """Emit what finds a number among stretches, of which there are two at least."""
        middle = (first + end) // 2
        low, high = (labels[stretches[first][1]], labels[stretches[middle][1]])
        lower = text.label("low") if middle - first > 1 else ""
        higher = text.label("high") if end - middle > 1 else ""
        text.emit(_JGE, stretches[middle][0], higher or high, lower or low)
        if lower:
            text.place(lower)
            find(first, middle)
        if higher:
            text.place(higher)
            find(middle, end)

    if len(stretches) > 1:
        find(0, len(stretches))
    for decision, label in labels.items():
        text.place(label)
        for conditions, action in decision:
            other = text.label("other")
            for condition in conditions:
                _compare(text, condition, arch, other)
            text.emit(_RET, action)
            text.place(other)


def _compare(text: Text, condition: Condition, arch: int, other: str) -> None:
    """Go on where a comparison of an argument holds, else go to a label.

    Arguments are u64, of architectures of 32 bits their lower half.
    """
    index, op, value, wanted, width = condition
    is_little = bool(arch & IS_LITTLE_ENDIAN)
    low, high = (ARGS + 8 * index + (0 if is_little else 4), ARGS + 8 * index + (4 if is_little else 0))
    halves = ((high, 32), (low, 0)) if width == 64 else ((low, 0),)
    yes = text.label("yes")
    if op == "SCMP_CMP_MASKED_EQ":
        for place, shift in halves:
            text.emit(_LOAD, place)
            text.emit(_AND, value >> shift & 0xFFFFFFFF)
            text.emit(_JEQ, wanted >> shift & 0xFFFFFFFF, no=other)
        return
    for place, shift in halves:
        half = value >> shift & 0xFFFFFFFF
        text.emit(_LOAD, place)
        if op == "SCMP_CMP_EQ":
            text.emit(_JEQ, half, no=other)
        elif op == "SCMP_CMP_NE":
            text.emit(_JEQ, half, "" if shift else other, yes)
        elif shift:  # greater halves decide, equal ones leave it to the lower
            is_greater = op in ("SCMP_CMP_GT", "SCMP_CMP_GE")
            text.emit(_JGT, half, yes if is_greater else other)
            text.emit(_JEQ, half, "", other if is_greater else yes)
        else:
            code = _JGE if op in ("SCMP_CMP_GE", "SCMP_CMP_LT") else _JGT
            text.emit(code, half, *(("", other) if op in ("SCMP_CMP_GT", "SCMP_CMP_GE") else (other, "")))
    text.place(yes)
