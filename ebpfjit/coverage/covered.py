"""What was executed of one program, by slot: what processes tell each other, and what adds up."""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ebpfjit.coverage.counts import Counts
from ebpfjit.disassembler import disassemble_instruction
from ebpfjit.errors import InputError
from ebpfjit.program import Program, decode
from ebpfjit.record import dataclass

Key = tuple[str | None, str | None, str]


@dataclass
class Covered:
    """A program: how often each instruction was executed, each branch (taken, not taken), by slot.

    `name` and `section` are the program's (None for raw bytecode), `digest` is that of its code and its
    files. `functions` have names by slot, `places` a (file, line) where it is known, and `targets` say where
    branches lead. `texts` are lines that the object knows, by file.
    """

    name: str | None
    section: str | None
    digest: str
    functions: dict[int, str]
    places: dict[int, tuple[str, int]]
    texts: dict[str, dict[int, str]]
    targets: dict[int, int]
    executed: dict[int, int]
    branches: dict[int, tuple[int, int]]

    @classmethod
    def of(cls, program: Program, counts: Counts) -> Covered:
        """Return a program with what was counted of it (`counts`)."""
        lines = {pc: line for pc in counts.executed if (line := program.line_at(pc)) is not None}
        files = {name: _found(name, program.origin) for name in {line.file for line in lines.values()}}
        texts: dict[str, dict[int, str]] = {}
        for line in lines.values():
            texts.setdefault(files[line.file], {})[line.line] = line.text
        targets = {pc: insn.target for pc in counts.branches if (insn := program.slots[pc]) is not None}
        made = cls(
            program.name,
            program.section,
            sha256(program.code + repr(sorted(files.values())).encode()).hexdigest(),
            program.function_names,
            {pc: (files[line.file], line.line) for pc, line in lines.items()},
            texts,
            {pc: target for pc, target in targets.items() if target is not None},
            counts.executed,
            counts.branches,
        )
        if not lines:
            made.texts[made.label] = _instructions(program.code)
        return made

    @property
    def key(self) -> Key:
        """What it is: the same in every process."""
        return self.name, self.section, self.digest

    @property
    def label(self) -> str:
        """What it is called where it has no file."""
        return f"<{self.name or self.section or self.digest[:12]}>"

    @property
    def is_touched(self) -> bool:
        """True where anything of it was executed."""
        return any(self.executed.values())

    def plus(self, other: Covered, sign: int = 1) -> Covered:
        """Return it with the counts of the same program (`other`) added; taken away where `sign` is -1."""
        branches = {}
        for pc, (taken, not_taken) in self.branches.items():
            more = other.branches.get(pc, (0, 0))
            branches[pc] = taken + sign * more[0], not_taken + sign * more[1]
        executed = {pc: count + sign * other.executed.get(pc, 0) for pc, count in self.executed.items()}
        return Covered(**{**self.__dict__, "executed": executed, "branches": branches})

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; `from_json` reads that."""
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, said: Any) -> Covered:
        """Return what `to_json` gave (`said`). Raises InputError for anything else."""
        try:
            return cls(
                None if said["name"] is None else str(said["name"]),
                None if said["section"] is None else str(said["section"]),
                str(said["digest"]),
                {int(pc): str(name) for pc, name in said["functions"].items()},
                {int(pc): (str(file), int(line)) for pc, (file, line) in said["places"].items()},
                {
                    str(file): {int(line): str(text) for line, text in lines.items()}
                    for file, lines in said["texts"].items()
                },
                {int(pc): int(target) for pc, target in said["targets"].items()},
                {int(pc): int(count) for pc, count in said["executed"].items()},
                {int(pc): (int(taken), int(other)) for pc, (taken, other) in said["branches"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no coverage of a program: {type(error).__name__}: {error}") from None


@lru_cache
def _instructions(code: bytes) -> dict[int, str]:
    """Return what stands for the lines of a program without any: instructions, by their slots from 1 on."""
    return {insn.pc + 1: f"pc {insn.pc}: {disassemble_instruction(insn, 'linux')}" for insn in decode(code)}


def _found(file: str, origin: str | None) -> str:
    """Return where a source file is that an object names: beside the object, or from here; else its name.

    Compilers write down the name that they were given, and not the folder that it counted from.
    """
    try:
        for folder in (None if origin is None else Path(origin).parent, Path()):
            if folder is not None and (folder / file).is_file():
                return os.path.abspath(folder / file)
    except (OSError, ValueError):  # too long, or with a zero in it
        pass
    return os.path.normpath(file)
