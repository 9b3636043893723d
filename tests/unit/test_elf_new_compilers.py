"""Objects of clang 19 and 22: what -mcpu=v4 makes, types, sections; each engine says the same, Linux too."""

from __future__ import annotations

import struct

import pytest

from ebpfjit import kernel, load
from ebpfjit.errors import LoadError, VerifierError
from ebpfjit.program import Program
from tests.support.elf_files import OBJECTS

needs_kernel = pytest.mark.skipif(
    kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
)
ENGINES = ("interpreter", "jit", pytest.param("kernel", marks=needs_kernel))
COMPILERS = ("clang19", "clang22")
FRAME = bytes(64)
U64 = (1 << 64) - 1

# Instructions

NEW_ROWS = {
    "SDIV64_X", "SDIV64_K", "SDIV32_X", "SMOD64_X", "SMOD32_X", "MOVSX64_8", "MOVSX64_16", "MOVSX64_32",
    "MOVSX32_8", "MOVSX32_16", "LDXSB", "LDXSH", "LDXSW", "BSWAP16", "BSWAP32", "BSWAP64", "JA32", "MAY_GOTO",
    "ATOMIC_FETCH_AND64", "ATOMIC_FETCH_OR64", "ATOMIC_FETCH_XOR32", "ATOMIC_XCHG64", "ATOMIC_CMPXCHG64",
}  # fmt: skip
INPUTS = (
    (-(1 << 63), -1, -3, 1000003, 1 << 31, 77, 0x8000, 2),
    (0x123456789ABCDEF0, 7, 0, -(1 << 31), 0xFFFF, 1 << 33, 0x80, 9),
)
KNOWN = {
    "division": (1, [1 << 63, 0, 0, 0, -142857, 3, 0, 1 << 63]),
    "moves": (2, [-1, -1, -1, 0xFFFFFFBE, 0xFFFFBDBE, -1 - 0x4242, 0, 0]),
    "swaps": (4, [0x80, 0xFFFFFFFF, 0xFDFF, 0x43420F80 << 16, 0, 0, 0, 0]),
}
"""What some programs leave of the first input, worked out by hand."""


def run_all(compiler: str, engine: str) -> list[tuple[str, int, list[int]]]:
    """Run each program of v4.c on all inputs; return what it says and leaves."""
    obj = load(OBJECTS / f"v4_{compiler}.o")
    left = []
    for numbers in INPUTS:
        data = struct.pack("<8Q", *(number & U64 for number in numbers))
        for name, program in obj.programs.items():
            obj.globals["results"] = bytes(64)
            left.append((name, program.run(data, engine=engine).return_value, obj.globals["results"]))
    return left


@pytest.mark.parametrize("compiler", COMPILERS)
def test_instructions_of_v4(compiler: str) -> None:
    programs = load(OBJECTS / f"v4_{compiler}.o").programs.values()
    assert {
        row.name for program in programs for insn in program.instructions if (row := insn.row)
    } >= NEW_ROWS
    oracle = run_all(compiler, "interpreter")
    assert run_all(compiler, "jit") == oracle
    for name, value, results in oracle[: len(oracle) // 2]:
        if name in KNOWN:
            assert (value, results) == (KNOWN[name][0], [number & U64 for number in KNOWN[name][1]]), name


@needs_kernel
@pytest.mark.parametrize("compiler", COMPILERS)
def test_linux_says_the_same_of_v4(compiler: str) -> None:
    assert run_all(compiler, "kernel") == run_all(compiler, "jit")


# Types


BITS = {"byte": -3, "half": -300, "word": -70000, "huge": 0x123456789ABC}


def own_bits() -> bytes:
    """A struct bits as new_types.c has it."""
    fields = -5 & 0x1F | (-700 & 0x7FF) << 5 | (-30000 & 0xFFFF) << 16
    return struct.pack("<bxhiIB3xQ", -3, -300, -70000, fields, 1 | 66 << 1, BITS["huge"])


def other_bits() -> bytes:
    """A struct bits as new_types_target.c has it."""
    fields = -30000 & 0xFFFF | (-700 & 0x7FF) << 23 | (-5 & 0x1F) << 34
    return struct.pack("<qQihBbQ", 1, BITS["huge"], -70000, -300, 66 | 1 << 7, -3, fields)


ANSWERS = {
    None: [0x123456789ABC, -256, 1, -0x7000000000000000, 1, 1, 24, 1],
    "new_types_target.o": [0x223456789ABC, -16, 0, -0x6000000000000000, 1, 0, 32, 0],
}


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("target", ANSWERS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_relocations_of_v4(compiler: str, target: str | None, engine: str) -> None:
    """Fields through loads that extend the sign, bit fields, values of 64 bits, whether types match."""
    btf = None if target is None else OBJECTS / target
    obj = load(OBJECTS / f"new_types_{compiler}.o", btf=btf, strict=True)
    data = own_bits() if target is None else other_bits()

    def results(name: str, value: int, count: int) -> list[int]:
        assert obj.program(name).run(data, engine=engine).return_value == value
        return [number - (number >> 63 << 64) for number in obj.globals["results"][:count]]

    assert results("fields", 2, 4) == list(BITS.values())
    assert results("bit_fields", 1, 6) == [-5, -700, -30000, 1, 66, -3]
    assert results("questions", 2, 8) == ANSWERS[target]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_types_with_tags_and_wide_enums(compiler: str) -> None:
    obj = load(OBJECTS / f"new_types_{compiler}.o")
    assert (obj.globals["choice"], obj.globals["lowest"]) == (0x123456789ABC, -0x7000000000000000)
    obj.maps["by_enum"][0x123456789ABC] = {
        "byte": 1, "half": 2, "word": 77, "first": -1, "second": 5, "third": 6, "flag": 1, "rest": 3,
        "huge": 1,
    }  # fmt: skip
    assert obj.maps["by_enum"].typed[0x123456789ABC]["word"] == 77
    for engine in ("interpreter", "jit"):
        assert obj.program("chosen").run(FRAME, engine=engine).return_value == 77
    mark = obj.maps["marks"].typed[0]
    assert mark == {"count": 2, "pointer": 0, "user": 0}


@needs_kernel
@pytest.mark.parametrize("compiler", COMPILERS)
def test_linux_takes_the_types(compiler: str) -> None:
    for target in ANSWERS:
        obj = load(OBJECTS / f"new_types_{compiler}.o", btf=None if target is None else OBJECTS / target)
        for name in ("fields", "questions", "chosen"):
            kernel.load_program(obj.program(name))


# Sections


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_constants_and_variables_in_sections_of_all_names(compiler: str, engine: str) -> None:
    obj = load(OBJECTS / f"sections_{compiler}.o", strict=True)
    assert {".rodata.cst32", ".rodata.cst4", ".rodata.str1.1", ".data.own", ".bss.named"} <= set(obj.maps)
    runs = [obj.program("variables").run(FRAME, engine=engine).return_value for _ in range(3)]
    assert runs == [16 + 4 + 11, 32 + 6 + 23, 48 + 9 + 36]
    assert obj.program("constants").run(FRAME, engine=engine).return_value == 3 * 16 + 4 + 1
    assert obj.program("strings").run(FRAME, engine=engine).return_value == 2
    if engine != "kernel":  # which reads through no pointer that lies among constants
        assert obj.program("pointers").run(FRAME, engine=engine).return_value == ord("z")


# What there is none of here


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_of_jumps_is_refused_by_name_and_line(engine: str) -> None:
    obj = load(OBJECTS / "jump_table_clang22.o")
    message = (
        r"'table', pc \d+ \(\./jump_table\.c:\d+: .*symbol 'BPF.JT.0.0' .*table of jumps.*-fno-jump-tables"
    )
    with pytest.raises(LoadError, match=message):
        obj.program("table").run(FRAME, engine=engine)
    assert obj.program("plain").run(FRAME, engine=engine).return_value == 2


def test_instructions_that_only_linux_has_are_named() -> None:
    with pytest.raises(VerifierError, match=r"pc 0: .*gotox, a jump to what a register holds.*-fno-jump"):
        Program(bytes.fromhex("0d01000000000000 9500000000000000")).run(FRAME)
    obj = load(OBJECTS / "arena_clang19.o")
    message = r"pc \d+: .*addr_space_cast.*associated arena.*\(\./arena\.c:\d+: "
    with pytest.raises(VerifierError, match=message):
        obj.program("casts").run(b"")  # its code does not refer to the map
    assert obj.program("without").run(FRAME).return_value == 2
