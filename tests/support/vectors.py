"""Reads vectors (tests/conformance/vectors/*.txt).

A vector is a block of lines:

    title: what it shows                       cite: where that is stated
        r0 = $dst ll                           the program, indented; $names are columns of the table
        exit
    mem: 11 22     after: 11 33                memory before and after (unchanged where not given)
    r0: 0x2                                    the result
    error: MemoryFault at 3                    or the exception and its pc
    reference: 0 mem+4                         what the LDDW at pc 0 resolves to: a number or an address
    frames: 0=64 3=32                          what the stack usage calculator answers, by pc
    loops: 5                                   what may_goto has in each frame
    read-only: yes                             memory cannot be written (a Python bytes)
    kernel: no, why                            Linux cannot run this one
    | dst  r0                                  a table: each row is a case, columns named as above
    | 1    2                                   are expectations; two blanks or more between columns
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ebpfjit.assembler import assemble
from support.machines import CHECKED, ENGINES, TESTS, Job

FOLDER = TESTS / "conformance" / "vectors"
KEYS = ("cite", "mem", "after", "r0", "error", "reference", "frames", "loops", "read-only", "kernel")


@dataclass(frozen=True)
class Case:
    """One program, its memory, and what is to come of it."""

    name: str
    asm: str
    memory: bytes | None
    after: bytes
    r0: int | None
    error: str
    error_pc: int | None
    references: dict[int, int | tuple[str, int]]
    frames: dict[int, int] | None
    loops: int | None
    read_only: bool
    kernel: bool

    @property
    def code(self) -> bytes:
        return assemble(self.asm)

    def job(self) -> Job:
        # Without checks a bad access is not refused but done.
        engines = CHECKED if self.error == "MemoryFault" else ENGINES
        loops = {} if self.loops is None else {"max_loops": self.loops}
        return Job(
            self.name,
            self.code,
            (self.memory,),
            engines,
            references=self.references,
            frame_sizes=self.frames,
            read_only=self.read_only,
            **loops,
        )

    def complaint(self, value: int | None, memory: bytes, error: str = "", pc: int | None = None) -> str:
        """Say what is not as expected; nothing where all is."""
        if (error, pc if self.error_pc is not None else None) != (self.error, self.error_pc):
            where = "" if self.error_pc is None else f" at {self.error_pc}"
            return f"got {error or 'no error'} at {pc}, expected {self.error or 'none'}{where}"
        if value != self.r0:
            wanted = "nothing" if self.r0 is None else hex(self.r0)
            return f"r0 is {'nothing' if value is None else hex(value)}, expected {wanted}"
        if memory != self.after:
            return f"memory is {memory.hex(' ')}, expected {self.after.hex(' ')}"
        return ""


@dataclass(frozen=True)
class Vector:
    """A block of a file: one program text and the cases it is run on."""

    title: str
    cases: tuple[Case, ...]


def blocks(text: str) -> Iterator[list[str]]:
    """Yield the lines of each block."""
    for block in re.split(r"\n(?=title:)", text):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        if lines:
            yield lines


def columns(line: str) -> list[str]:
    return re.split(r"\s{2,}", line[1:].strip())


def read(path: Path) -> Iterator[Vector]:
    """Yield the vectors of a file. Raises ValueError for what is no vector."""
    for lines in blocks(path.read_text(encoding="utf-8")):
        asm = "\n".join(line.strip() for line in lines if line.startswith("    "))
        rows = [columns(line) for line in lines if line.startswith("|")]
        fields: dict[str, str] = {}
        for line in lines:
            if not line.startswith(("    ", "|")):
                key, colon, value = line.partition(":")
                if not colon or key in fields or key not in ("title", *KEYS):
                    raise ValueError(f"{path.name}: {line!r} is no line of a vector")
                fields[key] = value.strip()
        if "cite" not in fields or not asm:
            raise ValueError(f"{path.name}: {lines[0]!r} lacks a citation or a program")
        head, *values = rows or [[], []]
        if any(len(row) != len(head) for row in values):
            raise ValueError(f"{path.name}: {fields['title']}: a row has too few or too many columns")
        title = f"{path.stem}: {fields['title']}"
        yield Vector(
            title, tuple(case(title, asm, fields, dict(zip(head, row, strict=True))) for row in values)
        )


def case(title: str, asm: str, fields: dict[str, str], row: dict[str, str]) -> Case:
    """Return the case of one row of the table."""

    def fill(text: str) -> str:
        return re.sub(r"\$(\w+)", lambda name: row[name[1]], text)

    known = {**{key: fill(value) for key, value in fields.items()}, **row}
    memory = bytes.fromhex(known["mem"]) if "mem" in known else None
    error, _, pc = known.get("error", "").partition(" at ")
    shown = " ".join(f"{name}={value}" for name, value in row.items())
    if not error and "r0" not in known:
        raise ValueError(f"{title}: neither r0 nor an error is expected")
    return Case(
        f"{title} [{shown}]" if shown else title,
        fill(asm),
        memory,
        bytes.fromhex(known["after"]) if "after" in known else memory or b"",
        int(known["r0"], 0) % 2**64 if not error else None,
        error,
        int(pc) if pc else None,
        dict([reference(known["reference"])]) if "reference" in known else {},
        {int(p): int(s) for p, _, s in (one.partition("=") for one in known["frames"].split())}
        if "frames" in known
        else None,
        int(known["loops"]) if "loops" in known else None,
        known.get("read-only") == "yes",
        not error and not known.get("kernel", "").startswith("no"),
    )


def reference(text: str) -> tuple[int, int | tuple[str, int]]:
    pc, value = text.split()
    if value.startswith("mem+"):
        return int(pc), ("mem", int(value[4:]))
    return int(pc), int(value, 0)


@cache
def all_vectors() -> tuple[Vector, ...]:
    """Return every vector of every file."""
    return tuple(vector for path in sorted(FOLDER.glob("*.txt")) for vector in read(path))
