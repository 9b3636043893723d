"""Object files: programs, calls between functions, and files that are damaged."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import struct
import time
from pathlib import Path

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.elf import Object, builtins, load
from ebpfjit.elf.relocation import RELOCATION_TYPES
from ebpfjit.elf.sections import TYPE_OF_SECTION, program_type
from ebpfjit.errors import IllegalInstruction, LoadError
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from tests.support.pace import within

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ROOT / "tests" / "elf"
BLOCK_PORT = ROOT / "examples" / "block_port.o"


def bytes_of(name: str) -> bytearray:
    return bytearray((OBJECTS / name).read_bytes())


class Header:
    """The few fields of an object file that tests damage, by name."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        (self.table,) = struct.unpack_from("<Q", data, 0x28)
        (self.count,) = struct.unpack_from("<H", data, 0x3C)
        (names,) = struct.unpack_from("<H", data, 0x3E)
        (start,) = struct.unpack_from("<Q", data, self.table + 64 * names + 24)
        self.names = start

    def section(self, name: str) -> int:
        """Return the file offset of the header of the section called `name`."""
        for index in range(self.count):
            header = self.table + 64 * index
            (offset,) = struct.unpack_from("<I", self.data, header)
            end = self.data.index(0, self.names + offset)
            if self.data[self.names + offset : end] == name.encode():
                return header
        raise KeyError(name)

    def contents(self, name: str) -> int:
        """Return the file offset of the contents of the section called `name`."""
        return int(struct.unpack_from("<Q", self.data, self.section(name) + 24)[0])

    def set(self, name: str, field: int, value: int, layout: str = "<Q") -> None:
        struct.pack_into(layout, self.data, self.section(name) + field, value)


OFFSET, SIZE, LINK, INFO, ENTRY_SIZE, FLAGS, TYPE = 24, 32, 40, 44, 56, 8, 4


def refuse(data: bytes | bytearray, *words: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(bytes(data), strict=True)
    for word in words:
        assert word in str(caught.value)


# Programs


def test_the_program_of_the_example() -> None:
    obj = load(BLOCK_PORT)
    assert list(obj.programs) == ["block_port"]
    program = obj.program("block_port")
    assert program.section == ".classifier"
    assert program.type is None
    assert program.name == "block_port"
    assert len(program) == 45
    assert program.symbols == {0: "block_port"}
    assert obj.sections == {".classifier": (program,)}
    assert obj.program(".classifier") is program
    assert obj.program("block_port", type="tc").type == "tc"
    assert obj.program("block_port", type="tc").code == program.code


def test_every_kind_of_source_gives_the_same() -> None:
    data = BLOCK_PORT.read_bytes()
    programs = load(BLOCK_PORT).programs
    assert load(str(BLOCK_PORT)).programs == programs
    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data)):
        assert load(source).programs == programs
    with BLOCK_PORT.open("rb") as file:
        obj = load(file)
    assert obj.programs == programs
    assert obj.name == str(BLOCK_PORT)


def test_a_missing_file_is_an_oserror() -> None:
    with pytest.raises(FileNotFoundError):
        load("no/such/file.o")


def test_a_text_file_object_is_refused() -> None:
    with pytest.raises(LoadError, match="binary mode"):
        load(io.StringIO("exit"))  # type: ignore[arg-type]


def test_programs_are_in_file_order_and_static_functions_of_their_sections_follow() -> None:
    obj = load(OBJECTS / "subprograms.o")
    assert list(obj.programs) == ["squares", "mixed", "tripled", "plus_one"]
    assert [program.section for program in obj.programs.values()] == ["xdp", "xdp", "tc/ingress", "xdp"]
    assert [program.type for program in obj.programs.values()] == ["xdp", "xdp", "tc", "xdp"]


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("squares", {0: "squares", 4: "sum_of_squares", 11: "square"}),
        ("mixed", {0: "mixed", 10: "triple", 13: "square", 16: "plus_one"}),
        ("tripled", {0: "tripled", 3: "triple"}),
    ],
)
def test_called_functions_follow_the_program_once_each(name: str, symbols: dict[int, str]) -> None:
    program = load(OBJECTS / "subprograms.o").programs[name]
    assert program.symbols == symbols
    targets = {insn.target for insn in program.instructions if insn.row and insn.row.kind is Kind.CALL_LOCAL}
    assert targets == set(symbols) - {0}
    assert program.functions == symbols
    assert program.instructions[-1].row is not None
    assert program.instructions[-1].row.operation == "EXIT"


def test_addresses_of_functions_become_code_references() -> None:
    program = load(OBJECTS / "function_pointer.o").programs["looping"]
    references = [insn for insn in program.instructions if insn.row and insn.row.operation == "LDDW_CODE"]
    assert [program.symbols[insn.pc + 1 + insn.imm] for insn in references] == ["other", "step"]
    assert [insn.next_imm for insn in references] == [0, 0]


def test_text_is_a_program_where_nothing_else_is_and_debug_information_is_ignored() -> None:
    obj = load(OBJECTS / "text_only.o")
    assert list(obj.programs) == ["first", "second"]
    assert [len(program) for program in obj.programs.values()] == [2, 2]


def test_a_section_without_symbols_is_one_program_of_its_name() -> None:
    data = bytearray(BLOCK_PORT.read_bytes())
    symbols = Header(data).contents(".symtab")
    (size,) = struct.unpack_from("<Q", data, Header(data).section(".symtab") + SIZE)
    data[symbols : symbols + size] = bytes(size)  # they say nothing
    obj = load(data)
    assert list(obj.programs) == [".classifier"]
    assert obj.programs[".classifier"].code == load(BLOCK_PORT).programs["block_port"].code


def test_calls_work_where_the_names_of_static_functions_were_stripped() -> None:
    data = bytes_of("subprograms.o")
    symbols = Header(data).contents(".symtab")
    for number in (4, 5):  # sum_of_squares and square: no functions any more
        data[symbols + 24 * number : symbols + 24 * number + 5] = bytes(5)
    program = load(data).programs["squares"]
    assert program.symbols == {0: "squares", 4: ".text+0x18"}
    calls = [insn.target for insn in program.instructions if insn.row and insn.row.kind is Kind.CALL_LOCAL]
    assert calls == [4, 11, 11]


def test_unknown_names_list_the_programs() -> None:
    obj = load(OBJECTS / "subprograms.o")
    with pytest.raises(
        LoadError, match="no program 'xd'; there are: 'squares', 'mixed', 'tripled', 'plus_one'"
    ):
        obj.program("xd")
    with pytest.raises(
        LoadError, match="section 'xdp' has several programs, name one of them: 'squares', 'mixed'"
    ):
        obj.program("xdp")
    assert obj.program("tc/ingress").name == "tripled"
    with pytest.raises(
        KeyError, match="no program 'xd'; there are: 'squares', 'mixed', 'tripled', 'plus_one'"
    ):
        obj.programs["xd"]
    with pytest.raises(KeyError, match="no map 'xd'; there is none at all"):
        obj.maps["xd"]
    with pytest.raises(LoadError, match="no program 'xd'; there is none at all"):
        load(OBJECTS / "maps_only.o").program("xd")


def test_strict_wants_the_type_of_each_program() -> None:
    """As libbpf: a mistake in SEC() else makes a program on plain memory."""
    path = OBJECTS.parents[1] / "examples" / "block_port.o"
    assert load(path).programs["block_port"].type is None
    with pytest.raises(
        LoadError, match=r"section '.classifier': function 'block_port': .* no program type, .*types="
    ):
        load(path, strict=True)
    assert load(path, strict=True, types={"block_port": "tc"}).refusals == {}
    assert load(OBJECTS / "text_only.o", strict=True).refusals == {}


def test_what_is_printed_of_an_object_is_short() -> None:
    obj = load(OBJECTS / "subprograms.o")
    assert repr(obj).endswith("squares (xdp), mixed (xdp), tripled (tc), plus_one (xdp)>"), repr(obj)
    assert repr(obj.programs["squares"]) == "<program 'squares' (xdp): 14 slots>"
    assert repr(Program(b"\x95" + bytes(7))) == "<program (no type): 1 slots>"
    many = Object("many.o", {f"p{number}": obj.programs["squares"] for number in range(1000)})
    assert repr(many).endswith("p6 (xdp), p7 (xdp) and 992 more>")


def test_options_of_another_kind_are_said_in_words() -> None:
    path = OBJECTS / "subprograms.o"
    with pytest.raises(TypeError, match=r"kconfig maps names to values, as .*, and is not a str"):
        load(path, kconfig="/boot/config")  # type: ignore[arg-type] # each name is in a text, or not
    with pytest.raises(TypeError, match="environment is an Environment, not of type dict"):
        load(path, environment={"cpus": 2})  # type: ignore[arg-type] # the mistake


def test_what_is_no_file_at_all_is_said_in_words() -> None:
    with pytest.raises(TypeError, match="by its path, as bytes, or open for reading, not as NoneType"):
        load(None)  # type: ignore[arg-type] # the mistake


@pytest.mark.parametrize(
    ("section", "type_"),
    [
        ("xdp", "xdp"),
        ("xdp/eth0", "xdp"),
        ("xdp_pass", "xdp"),
        ("xdp.frags", "xdp"),
        ("xdp.frags/devmap", "xdp"),
        ("?xdp", "xdp"),
        ("tc", "tc"),
        ("tcx/egress", "tc"),
        ("classifier/ingress", "tc"),
        ("socket", "socket_filter"),
        ("socket1", "socket_filter"),
        ("cgroup_skb/ingress", "cgroup_skb"),
        ("cgroup/skb", "cgroup_skb"),
        ("cgroup/connect4", "cgroup_sock_addr"),
        ("kprobe/do_sys_open", "kprobe"),
        ("kretprobe.multi/x*", "kprobe"),
        ("tp/sched/sched_switch", "tracepoint"),
        ("raw_tp.w/x", "raw_tracepoint_writable"),
        ("fentry/x", "tracing"),
        ("lsm.s/file_open", "lsm"),
        ("tcp_filter", None),
        (".classifier", None),
        (".text", None),
        ("cgroup", None),
        ("", None),
    ],
)
def test_types_from_section_names(section: str, type_: str | None) -> None:
    assert program_type(section) == type_


def test_every_row_of_the_section_table_is_found() -> None:
    assert len(TYPE_OF_SECTION) > 90
    for name, type_ in TYPE_OF_SECTION.items():
        assert program_type(name) == type_
        assert program_type(f"{name}/extra") == type_


# What cannot be loaded


def test_calls_of_undefined_functions_are_refused_by_name() -> None:
    refuse(
        bytes_of("undefined_function.o"),
        "'socket'",
        "'caller', pc 0",
        "calls symbol 'elsewhere'",
        "not defined",
    )


def test_an_object_for_another_machine_is_named() -> None:
    refuse(bytes_of("x86_64.o"), "EM_X86_64, ELF64, little-endian, relocatable", "EM_BPF")


@pytest.mark.parametrize(
    ("position", "value", "words"),
    [
        (0, b"\x7fELG", ["not an ELF file", "7f 45 4c 47"]),
        (4, b"\x01", ["EM_BPF, ELF32"]),
        (5, b"\x02", ["big-endian"]),
        (16, b"\x03\x00", ["shared"]),
        (18, b"\x28\x00", ["EM_ARM"]),
        (18, b"\xcd\xab", ["machine 43981"]),
        (0x28, b"\xff\xff\xff\xff\xff\xff\xff\xff", ["section headers is truncated"]),
        (0x28, bytes(8), ["no section headers"]),
        (0x3A, b"\x3f\x00", ["section headers of 63 bytes"]),
        (0x3C, b"\xff\xfe", ["section headers is truncated"]),
        (0x3E, b"\x77\x00", ["section names are in section 119"]),
    ],
)
def test_damaged_file_headers(position: int, value: bytes, words: list[str]) -> None:
    data = bytes_of("subprograms.o")
    data[position : position + len(value)] = value
    refuse(data, *words)


def test_files_with_more_sections_than_their_header_can_count() -> None:
    """Their number and the index of their names are in the first section header."""
    data = bytes_of("subprograms.o")
    (table,), (count, names) = struct.unpack_from("<Q", data, 0x28), struct.unpack_from("<HH", data, 0x3C)
    struct.pack_into("<HH", data, 0x3C, 0, 0xFFFF)
    struct.pack_into("<QI", data, table + SIZE, count, names)
    assert list(load(bytes(data)).programs) == list(load(OBJECTS / "subprograms.o").programs)
    struct.pack_into("<Q", data, table + SIZE, 0)
    refuse(data, "section names are in section 65535")


def test_empty_and_truncated_files() -> None:
    refuse(b"", "it is empty")
    data = bytes_of("subprograms.o")
    refuse(data[:10], "truncated ELF header")
    refuse(data[:50], "truncated ELF header")
    for size in range(0, len(data), 7):
        refuse(data[:size])


@pytest.mark.parametrize(
    ("section", "field", "value", "layout", "words"),
    [
        ("xdp", SIZE, 1 << 40, "<Q", ["section 'xdp' is truncated"]),
        ("xdp", OFFSET, (1 << 64) - 8, "<Q", ["section 'xdp' is truncated"]),
        ("xdp", SIZE, 135, "<Q", ["outside of section 'xdp'"]),
        ("xdp", SIZE, 139, "<Q", ["section 'xdp'", "no multiple of 8"]),
        ("xdp", FLAGS, 0x806, "<Q", ["'xdp' is compressed"]),
        (".symtab", SIZE, 1 << 20, "<Q", ["section '.symtab' is truncated"]),
        (".symtab", ENTRY_SIZE, 0, "<Q", ["'.symtab' is no table of 24-byte entries"]),
        (".symtab", LINK, 99, "<I", ["names in section 99"]),
        (".relxdp", ENTRY_SIZE, 1, "<Q", ["'.relxdp' is no table of 16-byte entries"]),
        (".relxdp", LINK, 3, "<I", ["section 3 is no symbol table"]),
        (".relxdp", TYPE, 4, "<I", ["relocations with addends"]),
        (".reltc/ingress", INFO, 3, "<I", ["two sections of relocations"]),
    ],
)
def test_damaged_section_headers(section: str, field: int, value: int, layout: str, words: list[str]) -> None:
    data = bytes_of("subprograms.o")
    Header(data).set(section, field, value, layout)
    refuse(data, *words)


SYMBOL_OF_MIXED = 24 * 8


@pytest.mark.parametrize(
    ("field", "value", "layout", "words"),
    [
        (0, 0xFFFFFF, "<I", ["name of symbol 8 is outside"]),
        (6, 0x70, "<H", ["symbol 'mixed' is in section 112"]),
        (8, 1 << 40, "<Q", ["symbol 'mixed' is outside of section 'xdp'"]),
        (8, 0x30, "<Q", ["functions 'squares' and 'mixed' overlap"]),
        (16, 81, "<Q", ["symbol 'mixed' is outside of section 'xdp'"]),
        (16, 12, "<Q", ["function 'mixed' has 12 bytes"]),
        (16, 8, "<Q", []),
    ],
)
def test_damaged_symbols(field: int, value: int, layout: str, words: list[str]) -> None:
    data = bytes_of("subprograms.o")
    struct.pack_into(layout, data, Header(data).contents(".symtab") + SYMBOL_OF_MIXED + field, value)
    if words:
        refuse(data, *words)
    else:
        assert len(load(data).programs["mixed"]) == 1


@pytest.mark.parametrize(
    ("field", "value", "layout", "words"),
    [
        (0, 0x29, "<Q", ["relocation at 0x29 is at no instruction of section 'xdp'"]),
        (0, 1 << 40, "<Q", ["is at no instruction"]),
        (0, 0x30, "<Q", ["pc 3", "does not fit EXIT"]),
        (8, 10, "<I", ["pc 2", "calls symbol '', which is not defined"]),
        (8, 1, "<I", ["R_BPF_64_64", "does not fit CALL_LOCAL"]),
        (8, 3, "<I", ["R_BPF_64_ABS32", "not supported"]),
        (8, 77, "<I", ["type 77", "not supported"]),
        (12, 1000, "<I", ["against symbol 1000, there are 10"]),
    ],
)
def test_damaged_relocations(field: int, value: int, layout: str, words: list[str]) -> None:
    data = bytes_of("subprograms.o")
    entry = Header(data).contents(".relxdp")
    if (field, value) == (8, 10):
        struct.pack_into("<I", data, entry + 12, 0)
    struct.pack_into(layout, data, entry + field, value)
    refuse(data, *words)


def test_calls_outside_of_the_section_are_refused() -> None:
    data = bytes_of("subprograms.o")
    struct.pack_into("<i", data, Header(data).contents("xdp") + 5 * 8 + 4, 1000)
    refuse(data, "'squares', pc 2", "calls section '.text' at 0x1f48, which is no instruction of it")


def test_jumps_out_of_a_function_are_refused() -> None:
    data = bytes_of("subprograms.o")
    struct.pack_into("<BBhi", data, Header(data).contents("xdp") + 3 * 8, 0x05, 0, 6, 0)
    refuse(data, "'squares', pc 0: jumps to pc 7, outside of the function")


def test_a_file_without_programs_is_refused() -> None:
    data = bytes_of("text_only.o")
    Header(data).set(".text", FLAGS, 2)
    refuse(data, "no programs")


def test_shared_functions_cannot_multiply_without_limit() -> None:
    """Each of many programs would copy one large function: a small file, much memory."""
    from ebpfjit.elf import linker

    data = bytes_of("subprograms.o")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linker, "MAX_OBJECT_SLOTS", 30)
        refuse(data, "too large")
        patch.setattr(linker, "MAX_OBJECT_SLOTS", 33 + 6 + 3)
        assert len(load(bytes(data)).programs) == 4


def test_the_relocation_table_names_its_types() -> None:
    assert {number: row.name for number, row in RELOCATION_TYPES.items()} == {
        1: "R_BPF_64_64",
        10: "R_BPF_64_32",
    }


# Functions without a type, and files of old compilers


def test_symbols_without_type_and_size_are_functions_but_labels_are_none() -> None:
    obj = load(OBJECTS / "untyped.o")
    assert list(obj.programs) == ["first", "second"]
    assert obj.program("first").symbols == {0: "first", 9: "helper"}
    assert len(obj.program("second")) == 2


def old_object(data: bytes, *, addends: bool) -> bytes:
    """The same object as LLVM 3.7 wrote it: EM_NONE, relocations of type 0, perhaps SHT_RELA."""
    old = bytearray(data)
    struct.pack_into("<H", old, 18, 0)
    header = Header(old)
    for number in range(header.count):
        section = header.table + 64 * number
        kind, start, size = (
            struct.unpack_from(f, old, section + at)[0] for f, at in (("<I", 4), ("<Q", 24), ("<Q", 32))
        )
        if kind != 9:
            continue
        entries = [struct.unpack_from("<QQ", old, start + at) for at in range(0, size, 16)]
        for index, (offset, info) in enumerate(entries):
            struct.pack_into("<QQ", old, start + 16 * index, offset, info >> 32 << 32)
        if addends:
            start = len(old)
            old += b"".join(struct.pack("<QQq", offset, info >> 32 << 32, 0) for offset, info in entries)
            struct.pack_into("<QQ", old, section + 24, start, 24 * len(entries))
            struct.pack_into("<I", old, section + 4, 4)
            struct.pack_into("<Q", old, section + 56, 24)
    return bytes(old)


@pytest.mark.parametrize("addends", [False, True])
@pytest.mark.parametrize("name", ["legacy_maps_20.o", "untyped.o"])
def test_objects_of_old_compilers(name: str, addends: bool) -> None:
    data = bytes_of(name)
    programs, old = load(bytes(data)).programs, load(old_object(data, addends=addends)).programs
    assert [program.code for program in old.values()] == [program.code for program in programs.values()]
    assert [[map_.name for map_ in program.maps] for program in old.values()] == [
        [map_.name for map_ in program.maps] for program in programs.values()
    ]


# Functions that nobody defines


def test_the_built_in_functions_are_what_their_text_says() -> None:
    assert set(builtins.SOURCE) == set(builtins.CODE) == {"memcpy", "memmove", "memset", "memcmp"}
    for name, text in builtins.SOURCE.items():
        assert builtins.CODE[name] == assemble(text)


def work(a: bytes = b"", b: bytes = b"", size: int = 0, shift: int = 0) -> bytes:
    return struct.pack("<32s32sQQ", a, b, size, shift)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_memory_functions(engine: str) -> None:
    programs = {
        name: Program(program.code, symbols=program.symbols)
        for name, program in load(OBJECTS / "builtins.o").programs.items()
    }
    letters = bytes(range(65, 97))
    for size in (0, 1, 7, 8, 9, 16, 31, 32):
        result = programs["copy"].run(work(b=letters, size=size), engine=engine)
        assert result.data[:32] == letters[:size].ljust(32, b"\0")
        assert result.return_value == 1
        result = programs["fill"].run(work(letters, size=size, shift=0x1FE), engine=engine)
        assert result.data[:32] == (b"\xfe" * size + letters[size:])
    for shift, size in ((0, 24), (8, 24), (12, 20), (4, 20), (12, 0)):
        expected = bytearray(letters)
        expected[shift : shift + size] = letters[8 : 8 + size]
        result = programs["move"].run(work(letters, size=size, shift=shift), engine=engine)
        assert result.data[:32] == expected
    for a, b, size in ((b"abc", b"abd", 3), (b"abc", b"abd", 2), (b"b", b"a", 1), (b"\xff", b"\x01", 1)):
        value = programs["compare"].run(work(a, b, size), engine=engine).return_value
        signed = value - (1 << 64) if value >> 63 else value
        assert (signed > 0) - (signed < 0) == (a[:size] > b[:size]) - (a[:size] < b[:size])


# Relocations and maps of damaged kinds


def test_an_object_names_what_cannot_be_referred_to() -> None:
    data = bytes_of("legacy_maps_16.o")
    names = Header(data).names
    start = data.index(b"\0maps\0", names)
    data[start + 1 : start + 5] = b"mops"  # now a section of variables, which two wide loads point into
    program = load(bytes(data)).program("count")
    assert [map_.name for map_ in program.maps] == ["mops"]
    assert {insn.src_reg for insn in program.instructions if insn.opcode == 0x18} == {6}
    header = Header(data).section("mops")
    struct.pack_into("<Q", data, header + 8, 0)  # not in memory when the program runs
    refuse(data, "'count'", "refers to symbol", "in section 'mops'", "neither maps nor variables")


# Hostile bytes


def mutate(data: bytearray, chance: random.Random) -> bytes:
    """Return `data` with a few bytes, words or ranges changed, most of them where it hurts."""
    data = bytearray(data)
    (table,) = struct.unpack_from("<Q", data, 0x28)
    contents_only = chance.random() < 0.5
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        start = chance.choice((0, table, table, 64, 0))
        position = chance.randrange(start, len(data)) if start < len(data) else 0
        if chance.random() < 0.2:
            position = chance.randrange(64)
        if contents_only:
            position = chance.randrange(64, table)
        match chance.randrange(4 if contents_only else 6):
            case 0:
                data[position] ^= 1 << chance.randrange(8)
            case 1:
                data[position] = chance.randrange(256)
            case 2:
                size = chance.choice((2, 4, 8))
                value = chance.choice((0, 1, 7, 8, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, len(data), (1 << 64) - 1))
                data[position : position + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
            case 3:
                other = chance.randrange(len(data))
                data[position : position + 8] = data[other : other + 8]
            case 4:
                del data[chance.randrange(len(data)) :]
            case 5:
                data[position:position] = bytes(chance.randrange(1, 9))
        if len(data) < 64:
            break
    return bytes(data)


MUTATED = (
    "subprograms.o", "text_only.o", "function_pointer.o", "block_port.o", "btf_maps.o", "globals.o",
    "externs.o", "core.o", "iproute2.o", "untyped.o",
)  # fmt: skip
MUTATIONS = int(os.environ.get("EBPFJIT_MUTATIONS", "800"))
"""How many damaged objects to load; 20,000 is the measure of a release."""


def load_mutated(name: str, data: bytes) -> Object:
    target = OBJECTS / "core_target.o" if name == "core.o" else None
    kconfig = {"CONFIG_HZ": 1, "CONFIG_BPF": "y", "CONFIG_NET": "n", "CONFIG_LOCALVERSION": "x"}
    obj = load(data, btf=target, kconfig=kconfig)
    for variable in obj.globals:
        obj.globals[variable]
    return obj


@pytest.mark.parametrize("name", MUTATED)
def test_mutated_objects_load_or_raise_load_error(name: str) -> None:
    original = bytearray(BLOCK_PORT.read_bytes()) if name == "block_port.o" else bytes_of(name)
    chance = random.Random(20240601)
    loaded, count = 0, MUTATIONS // len(MUTATED)
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + (256 << 10)  # KiB
    for _ in range(count):
        mutated = mutate(original, chance)
        began = time.process_time()
        with contextlib.suppress(LoadError):
            loaded += isinstance(load_mutated(name, mutated), Object)
        assert within(2, time.process_time() - began), mutated.hex()
    assert 0 < loaded < count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < limit


def test_time_is_bounded_by_the_size_of_the_file() -> None:
    """Thousands of section headers that all claim the whole file as their instructions."""
    count = 4000
    names = b"\0.text\0"
    size = 64 + 8 + 64 * count
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 247, 1, 0, 0, 72, 0, 64, 0, 0, 64, count, 0
    )
    entry = struct.pack("<IIQQQQIIQQ", 1, 1, 6, 0, 64, size // 8 * 8 - 64, 0, 0, 8, 0)
    first = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64, 8, 0, 0, 1, 0)
    began = time.process_time()
    refuse(header + names.ljust(8, b"\0") + first + entry * (count - 1), "overlaps")
    assert within(10, time.process_time() - began)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_the_number_of_a_helper_in_a_register_is_what_clang_O0_makes(engine: str) -> None:  # noqa: N802
    program = Program(assemble("mov r2, 1\ncallx r2\nexit"), type="xdp")
    with pytest.raises(
        IllegalInstruction, match=r"callx to 0x1, .* the number of bpf_map_lookup_elem: .* -O2"
    ):
        program.run(bytes(14), engine=engine)


@pytest.mark.parametrize(("data", "value"), [(b"\x01\x05", 10), (b"\x00\x05", 15)])
@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_an_indirect_call_of_an_old_clang(engine: str, data: bytes, value: int) -> None:
    """clang 14 puts callx's register into imm; the loader puts it where the table has it."""
    program = load(OBJECTS / "indirect_call.o").program("choose")
    assert [insn.dst_reg for insn in program.instructions if insn.opcode == 0x8D] == [2]
    assert Program(program.code, symbols=program.symbols).run(data, engine=engine).return_value == value
