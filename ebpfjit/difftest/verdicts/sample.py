"""A program for a verdict: assembly text, or bytes, of a type, with maps by name.

Sample -> program()        for our verifier and our engines
-> code, maps       for Linux, which counts them by descriptors
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ebpfjit.assembler import assemble
from ebpfjit.difftest.verdicts import maps
from ebpfjit.difftest.verdicts.types import GLOBALS, MAIN, STATIC, TYPES
from ebpfjit.literals import named_type
from ebpfjit.program import SLOT_SIZE, Kfunc, Program, TypeInfo

_KFUNC = re.compile(r"\bcall kfunc ([A-Za-z_]\w*)")
_LABEL = re.compile(r"^\s*([A-Za-z_]\w*):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """A program for a verdict.

    `maps` are names of `verdicts.maps`, as LDDW_MAP_IDX counts them, `kfuncs` those of kernel functions, as
    their calls count them. `globals` are names of global functions
    (`types.GLOBALS`), by the slot where each starts; other functions are static. `section` says what it is
    attached to, where that matters.
    """

    type: str
    code: bytes
    maps: tuple[str, ...] = ()
    globals: tuple[tuple[int, str], ...] = ()
    section: str | None = None
    kfuncs: tuple[str, ...] = ()

    @classmethod
    def of_text(cls, type_: str, text: str, section: str | None = None) -> Sample:
        """Return the program of a text, whose maps and kfuncs have names: `r1 = map[hash]`, `call kfunc f`.

        Functions labelled as `types.GLOBALS` says are global. Raises AssemblyError, KeyError.
        """
        counted, names = maps.counted(text)
        kfuncs: list[str] = list(dict.fromkeys(_KFUNC.findall(counted)))
        counted = _KFUNC.sub(lambda found: f"call kfunc {kfuncs.index(found[1])}", counted)
        code, functions = _assembled(counted)
        return cls(type_, code, names, functions, section, tuple(kfuncs))

    def program(self) -> Program:
        """Return it for our own engines. Raises DecodeError."""
        made = tuple(maps.made(*maps.of(name, self.type)) for name in self.maps)
        program = Program(
            self.code, name="sample", section=self.section, type=named_type(self.type), maps=made,
            kfuncs={number: Kfunc(name) for number, name in enumerate(self.kfuncs)},
        )  # fmt: skip
        references = {}
        for insn in program.instructions:
            operation = insn.row.operation if insn.row is not None else ""
            if operation.startswith("LDDW_MAP_IDX") and 0 <= insn.imm < len(made):
                map_ = made[insn.imm]
                is_value = operation == "LDDW_MAP_IDX_VALUE"
                references[insn.pc] = (
                    (map_.value_address + (insn.next_imm or 0)) % 2**64 if is_value else map_.address
                )
        program = replace(program, references=references, license="GPL")
        return self._typed(program) if self.globals else program

    def _typed(self, program: Program) -> Program:
        known = dict(self.globals)
        functions = tuple(
            (pc, GLOBALS[known[pc]] if pc in known else STATIC if pc else MAIN) for pc in program.functions
        )
        return replace(program, symbols=known, types=TypeInfo(TYPES, functions))


def _assembled(text: str) -> tuple[bytes, tuple[tuple[int, str], ...]]:
    """Return the bytes of a text, and slots and names of the global functions that it defines.

    Where a label is, an instruction behind the program tells that names it.
    """
    found = [name for name in _LABEL.findall(text) if name in GLOBALS]
    code = assemble("\n".join([text, *(f"r0 = subprog[{name}]" for name in found)]))
    size = len(code) - 2 * SLOT_SIZE * len(found)
    behind = Program.from_bytes(code).instructions[-len(found) :] if found else ()
    starts = [insn.pc + 1 + insn.imm for insn in behind]
    return code[:size], tuple(zip(starts, found, strict=True))
