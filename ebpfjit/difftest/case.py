"""What is compared: a program with the inputs it runs on; and corpus files, which hold one.

A corpus file is text: lines `name: value`, and comments that start with `#`.

    code: 0f21000000000000...     bytecode, hex
    memory: 0011aaff              what r1 points to, hex (none: r1 = r2 = 0)
    limit: 500                    instructions; none for no limit
    read-only: yes                the memory may not be written
    build: plain                  how machine code is made (BUILDS); native where not given
    promised: 16                  bytes behind r1 that the compiler is promised
    twin: b7000000...             bytecode that must do the same: r0, memory
    classic: 2800000000000c00...  the program of classic BPF that the code is a translation of
    type: xdp                     a program with a type: memory is its frame, or its context's bytes
    tail: b7000000...             the program that such a one may tail call
    tail-type: tc                 the type of that one, where it is another
    maps: hostile                 which maps such a program has (MAPS)
    relies: yes                   machine code relies on what the verifier says of such a program
    guard: after                  memory that nobody may touch lies before, or after, what r1 points to
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ebpfjit.elf.source import read_path
from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.options import Options
from ebpfjit.record import dataclass

BUILDS = ("native", "plain", "hardened", "baseline", "audit", "audit-baseline")
"""Ways to make machine code: as this CPU can, without what newer CPUs add, with blinded constants, as the
program stands; audit builds of some."""

AUDIT = "audit"


def options_of(build: str, trace: int = 0) -> Options:
    """Return what a build is compiled with.

    `trace` is where the trace of traced code is.
    """
    way = build.removeprefix(AUDIT).removeprefix("-")
    return Options(
        harden=way == "hardened",
        features=frozenset() if way == "plain" else None,
        optimize=way != "baseline",
        audit=build.startswith(AUDIT),
        trace=trace,
    )


def baseline_of(build: str) -> str:
    """Return the build of the first tier, where a case has this one: audited, or not."""
    return f"{AUDIT}-baseline" if build.startswith(AUDIT) else "baseline"


UNTYPED = "untyped"
TYPES = (
    "", "xdp", "tc", "cgroup_skb", "lwt_xmit", "socket_filter", "kprobe", "tracepoint", "syscall", UNTYPED,
)  # fmt: skip
"""Types of programs that are compared. The first is none: plain memory. The last: plain memory, and maps."""

MAPS = ("", "hostile", "operations", "verdicts")
"""Which maps programs with a type may have (`typed.MAPS`); the first are those of `packets`."""

GUARDS = ("", "before", "after")
"""Where memory that cannot be touched lies (`arena`): nowhere near, right before an input's, right after."""

MOST_MEMORY = 1 << 16
"""Bytes of memory that an input has at most."""

MOST_CODE = 1 << 19
"""Bytes of bytecode that a case has at most: it must fit where a child notes what it runs."""

MOST_TEXT = 1 << 23
"""Bytes of a corpus file at most: three programs, and memory, in hex."""


class CorpusError(EbpfError):
    """A corpus file, or a case, that is not one; the message names the file, and the line."""


@dataclass(frozen=True, slots=True)
class Input:
    """What one run starts from: the memory that r1 points to, and the instruction limit.

    `guard` is one of GUARDS.
    """

    memory: bytes = b""
    limit: int | None = None
    read_only: bool = False
    guard: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A program with its inputs.

    `build` is one of BUILDS. `promised` is how many bytes behind r1 the compiler may count on: no
    input has fewer. `twin` is bytecode that must leave the same r0 and memory, empty for none. `name`
    says where the case comes from. A case with a `type` runs as `typed` says, with `tail` to be called,
    a program of `tail_type` (empty: the same); `maps` is one of MAPS. `classic` is the program of classic
    BPF that the code was made from, empty for none: its own interpreter and Linux judge r0. Where one with a
    type `relies` on its verdict, what the verifier accepts of it is not checked in machine code.
    """

    code: bytes
    inputs: tuple[Input, ...]
    build: str = "native"
    promised: int = 0
    twin: bytes = b""
    name: str = ""
    type: str = ""
    tail: bytes = b""
    tail_type: str = ""
    maps: str = ""
    classic: bytes = b""
    relies: bool = False

    def check(self) -> None:
        """Raise CorpusError where the case cannot be run: too large, or an unknown build."""
        for type_ in (self.type, self.tail_type):
            if type_ not in TYPES:
                raise CorpusError(
                    f"{self.name}: no programs of type {type_!r} are compared; of {TYPES[1:]} are"
                )
        if self.maps not in MAPS:
            raise CorpusError(f"{self.name}: no maps {self.maps!r}; there are {', '.join(MAPS[1:])}")
        if self.build not in BUILDS:
            raise CorpusError(f"{self.name}: no build {self.build!r}; there are {', '.join(BUILDS)}")
        for code in (self.code, self.twin, self.tail, self.classic):
            if len(code) > MOST_CODE:
                raise CorpusError(
                    f"{self.name}: a program of {len(code) // 8} slots is too large: at most {MOST_CODE // 8}"
                )
        for given in self.inputs:
            if len(given.memory) > MOST_MEMORY:
                raise CorpusError(f"{self.name}: {len(given.memory)} bytes of memory, at most {MOST_MEMORY}")
            if given.guard not in GUARDS:
                raise CorpusError(f"{self.name}: no guard {given.guard!r}; there are {', '.join(GUARDS[1:])}")
            if given.limit is not None and given.limit < 1:
                raise CorpusError(f"{self.name}: an instruction limit is positive, not {given.limit}")
            if self.promised > len(given.memory) or (self.promised and given.read_only):
                raise CorpusError(f"{self.name}: {self.promised} writable bytes are promised and not there")


def to_text(case: Case, given: Input, comments: Iterable[str] = ()) -> str:
    """Return the corpus file of a case with one of its inputs."""
    fields = {
        "code": case.code.hex(),
        "memory": given.memory.hex(),
        "limit": str(given.limit) if given.limit is not None else "",
        "read-only": "yes" if given.read_only else "",
        "build": case.build if case.build != BUILDS[0] else "",
        "promised": str(case.promised) if case.promised else "",
        "twin": case.twin.hex(),
        "classic": case.classic.hex(),
        "type": case.type,
        "tail": case.tail.hex(),
        "tail-type": case.tail_type,
        "maps": case.maps,
        "relies": "yes" if case.relies else "",
        "guard": given.guard,
    }
    lines = [f"# {comment}".rstrip() for comment in comments]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items() if value)]) + "\n"


def from_text(text: str, name: str) -> Case:
    """Return the case of a corpus file's text. Raises CorpusError naming `name` and the line."""
    fields: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or key not in _PARSERS:
            raise CorpusError(f"{name}: line {number}: {line[:40]!r} is none of: {', '.join(_PARSERS)}")
        if key in fields:
            raise CorpusError(f"{name}: line {number}: a second {key}")
        try:
            _PARSERS[key](value)
        except ValueError:
            raise CorpusError(f"{name}: line {number}: {value[:40]!r} is no {key}") from None
        fields[key] = value
    if "code" not in fields:
        raise CorpusError(f"{name}: it has no line `code: ...`")
    case = _case(fields, name)
    case.check()
    return case


def _number(value: str) -> int:
    return int(value, 0)


def _yes(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError(value)
    return value == "yes"


_PARSERS: dict[str, Callable[[str], object]] = {
    "code": bytes.fromhex,
    "memory": bytes.fromhex,
    "limit": _number,
    "read-only": _yes,
    "build": str,
    "promised": _number,
    "twin": bytes.fromhex,
    "classic": bytes.fromhex,
    "type": str,
    "tail": bytes.fromhex,
    "tail-type": str,
    "maps": str,
    "relies": _yes,
    "guard": str,
}


def _case(fields: Mapping[str, str], name: str) -> Case:
    given = Input(
        bytes.fromhex(fields.get("memory", "")),
        _number(fields["limit"]) if "limit" in fields else None,
        _yes(fields.get("read-only", "no")),
        fields.get("guard", ""),
    )
    promised = _number(fields.get("promised", "0"))
    twin = bytes.fromhex(fields.get("twin", ""))
    build = fields.get("build", BUILDS[0])
    code, tail = bytes.fromhex(fields["code"]), bytes.fromhex(fields.get("tail", ""))
    of_maps = fields.get("tail-type", ""), fields.get("maps", "")
    classic = bytes.fromhex(fields.get("classic", ""))
    type_ = fields.get("type", "")
    relies = _yes(fields.get("relies", "no"))
    return Case(code, (given,), build, promised, twin, name, type_, tail, *of_maps, classic, relies)


def read_case(path: Path) -> Case:
    """Return the case of a corpus file. Raises CorpusError, and OSError where it cannot be read."""
    try:
        text = read_path(path, MOST_TEXT).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not text: byte {error.start} is not UTF-8") from None
    except LoadError as error:
        raise CorpusError(str(error)) from None
    return from_text(text, str(path))


def read_corpus(folder: Path) -> list[Case]:
    """Return the cases of all `*.txt` files of a folder, by name. Raises as `read_case`."""
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder")
    return [read_case(path) for path in sorted(folder.glob("*.txt"))]
