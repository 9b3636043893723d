"""Assembly as `clang -S -target bpf` writes it: functions, sections, variables; what is skipped, by name."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ebpfjit import AssemblyError, LoadError, Program, assembler, load
from ebpfjit.from_text import programs_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = """
	.text
	.file	"a.c"
	.file	1 "/src" "a.c"
	.p2align	3
	.type	square,@function
square:                                 # @square
	.cfi_startproc
	r3 = table+4 ll
	r0 = *(u32 *)(r3 + 0)
	r1 *= r1
	r0 += r1
	exit
.Lfunc_end0:
	.size	square, .Lfunc_end0-square
	.section	xdp,"ax",@progbits
	.globl	first
	.type	first,@function
first:
	.loc	1 7 3 prologue_end
	r6 = hits ll
	r1 = *(u64 *)(r6 + 0)
	r1 += 1
	*(u64 *)(r6 + 0) = r1
	.loc	1 8 3
	r1 = 3
	call square
	r2 = .L.str ll
	r2 = *(u8 *)(r2 + 1)
	r0 += r2
	exit
	.section	tc,"ax",@progbits
	.type	second,@function
second:
	r1 = counters ll
	r0 = 0
	exit
	.type	limit,@object
	.section	.rodata,"a",@progbits
limit:
	.long	5                               # 0x5
	.data
	.globl	table
	.p2align	2
table:
	.long	1
	.long	-2
	.size	table, 8
	.section	.maps,"aw",@progbits
counters:
	.zero	32
	.section	.bss,"aw",@nobits
hits:
	.quad	0
	.section	.rodata.str1.1,"aMS",@progbits,1
.L.str:
	.asciz	"/* \\052;#\\n"
	.section	license,"aw",@progbits
	.asciz	"GPL"
	.section	.debug_info,"",@progbits
	.whatever that is
	.addrsig_sym first
"""


def test_functions_sections_and_variables() -> None:
    program = Program.from_assembly(TEXT)
    assert (program.name, program.section, program.type, program.license) == ("first", "xdp", "xdp", "GPL")
    assert program.functions == {0: "first", 12: "square"}
    assert [map_.name for map_ in program.maps] == [".bss", ".rodata.str1.1", ".data"]
    assert {pc: str(line) for pc, line in program.lines.items()} == {0: "a.c:7", 5: "a.c:8"}
    for engine in ("interpreter", None):
        assert program.run(bytes(64), engine=engine).return_value == 0xFFFFFFFE + 9 + ord("*") - (1 << 32)
    assert program.maps[0][0] == (2).to_bytes(8, "little")
    assert "variable hits" in program.listing()
    square = Program.from_assembly(TEXT, name="square")
    assert (square.functions, square.type) == ({0: "square"}, None)


def test_sections_written_by_hand() -> None:
    text = 'helper:\nr0 = 1\nexit\n.section tc,"ax"\ngo: call helper\nr0 += 1\nexit\n'
    program = Program.from_assembly(text)
    assert (program.name, program.type, program.run(bytes(60)).return_value) == (None, "tc", 2)
    named = Program.from_assembly(text.replace("go:", ".globl go\ngo:"))
    assert (named.name, named.functions[0], named.run(bytes(60)).return_value) == ("go", "go", 2)


def test_all_programs_of_a_text() -> None:
    found = programs_of(TEXT, "a")
    assert list(found) == ["first", "second"]
    with pytest.raises(LoadError, match=r"its maps are defined by BTF, and there is none: compile with -g"):
        found["second"].run(bytes(64))
    lost = programs_of(TEXT.replace("counters ll", "lost ll"), "a")
    with pytest.raises(LoadError, match=r"program 'second': line 35, column 7: undefined label 'lost'"):
        lost["second"].run(bytes(64))
    assert list(programs_of("mov r0, 1\nexit", "a")) == ["a"]


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        (TEXT, 21, 7, "'hits' is in section '.bss', and bytes alone hold neither"),
        ('r1 = m ll\n.section .other,"a"\nm: .zero 8', 1, 6, "'m' is in section '.other', of which"),
        (".data\nexit", 2, 1, "an instruction in section '.data', which holds variables"),
        (".data\n  .float 1.0", 2, 3, "directive '.float' is not taken in a section of variables"),
        (".data\n.long 1 2", 2, 1, "expected an integer, found '1 2'"),
        (".bss\n.zero 99999999", 2, 1, "more than 16777216 bytes of variables"),
        (".comm big,99999999,8\nexit", 1, 1, "more than 16777216 bytes of variables"),
        ("r1 = p ll\nexit\n.data\np: .quad f", 1, 6, "'p' holds the address of 'f'"),
        ("f: exit\nr1 = f+8 ll\n.data\nx: .byte 1", 2, 6, "only the address of a variable"),
    ],
)  # fmt: skip
def test_errors_name_the_place(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(AssemblyError) as raised:
        assembler.assemble(text)
    error = raised.value
    assert (error.line, error.column) == (line, column)
    assert error.reason.startswith(reason)


def test_no_text_is_more_than_an_assembly_error() -> None:
    chance = random.Random(7)
    lines, seen = TEXT.splitlines(), set[int]()
    for _ in range(400):
        some = chance.choices(lines, k=chance.randrange(1, 40))
        text = "\n".join(
            line[: chance.randrange(len(line) + 1)] if chance.random() < 0.3 else line for line in some
        )
        for make in (assembler.assemble, Program.from_assembly):
            try:
                make(text.replace("table", chance.choice(["table", "hits", "\ud800", "-1"])))
            except AssemblyError as error:
                seen.add(error.line)
    assert len(seen) > 5


@pytest.mark.parametrize("path", ["tests/elf/subprograms.c", "tests/elf/counter.c"])
def test_what_clang_writes_is_what_it_compiles(path: str, tmp_path: Path) -> None:
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("no clang is installed: what it writes is not compared with what it compiles")
    source = ROOT / path
    for option, name in (("-c", "a.o"), ("-S", "a.s")):
        command = [clang, "-O2", "-g", "-target", "bpf", "-I", str(source.parent), option, str(source)]
        subprocess.run([*command, "-o", str(tmp_path / name)], check=True, timeout=60)
    compiled = load(tmp_path / "a.o").programs
    written = programs_of((tmp_path / "a.s").read_text(), "a")
    assert list(written) == [name for name, program in compiled.items() if program.section != ".text"]
    for name, program in written.items():
        assert _instructions(program) == _instructions(compiled[name])
        assert (program.type, program.license) == (compiled[name].type, compiled[name].license or None)
        assert {str(each): repr(each) for each in program.maps} == {
            str(each): repr(each) for each in compiled[name].maps
        }
    if "counter" in path:
        count, without = written.values()
        assert (count.run(bytes(60)).action, without.run(bytes(60)).return_value) == ("XDP_PASS", 3)
        assert count.maps[0].typed[0] == 1


def _instructions(program: Program) -> list[str]:
    """Return a program's instructions without their order: functions are placed in another one."""
    moved = r"(?<=callx ).*|(?<=idx:)\d+"
    return sorted(re.sub(moved, "", line) for line in program.disassemble().splitlines())
