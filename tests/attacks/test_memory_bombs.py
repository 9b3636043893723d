"""Small files whose numbers multiply: refused, or loaded, within 5 s and a limit of 1 GiB of memory.

Each runs in a child with RLIMIT_AS; MemoryError, or any exception but an EbpfError, is a failure.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.elf_files import BtfMaker
from support.elf_maker import (
    ALLOC,
    EXIT,
    FUNCTION,
    GLOBAL,
    NOBITS,
    WEAK,
    WRITE,
    ElfMaker,
    btf_ext,
    btf_section,
)

from ebpfjit import AssemblyError, EbpfError, Environment, LoadError, Program, assembler, load
from ebpfjit.difftest.children import run_forked
from ebpfjit.elf import read_btf
from ebpfjit.elf.btf import Btf
from ebpfjit.program import TypeInfo
from tests.support.kfunc_runs import PACKET, program_of
from tests.support.limits import limit_memory
from tests.support.pace import within

MEMORY, MOST_SECONDS = 1 << 30, 5
MEMBERS = 65535
LDDW = bytes([0x18, 1]) + bytes(14)


def within_limits(job: Callable[[], Any]) -> str:
    """Run a job in a child; return what it said: its result's text, or the EbpfError's.

    Fails where it took too long, too much memory, or raised anything else.
    """

    def limited() -> tuple[str, float]:
        limit_memory()
        began = time.process_time()
        try:
            said = str(job())
        except EbpfError as error:
            said = f"{type(error).__name__}: {str(error)[:300]}"
        except BaseException as error:
            said = f"BROKEN: {type(error).__name__}: {str(error)[:300]}"
        return said, time.process_time() - began

    ended = run_forked(limited, 4 * MOST_SECONDS)
    assert ended.value is not None, ended
    said, took = ended.value
    assert not said.startswith("BROKEN"), said
    assert within(MOST_SECONDS, took), f"{took:.1f} s: {said}"
    return str(said)


def load_and_look(data: bytes, **options: Any) -> str:
    """Load an object and look at all that is in it; return what there is."""
    obj = load(data, **options)
    for name in obj.globals:
        obj.globals[name]
    for map_ in obj.maps.values():
        repr(map_)
    if obj.btf is not None:
        for type_ in obj.btf.types():
            obj.btf.describe(type_.id)
    return f"{len(obj.programs)} programs, {len(obj.maps)} maps"


# -- BTF ------------------------------------------------------------------------------------------


def map_section(types: bytes, strings: bytes, name: str = "m") -> ElfMaker:
    """Return an object with a map in .maps, and BTF."""
    elf = ElfMaker()
    elf.symbol(name, elf.section(".maps", bytes(8), flags=ALLOC | WRITE), 0, 8)
    elf.section(".BTF", btf_section(types, strings))
    elf.code("xdp")
    return elf


def suffixes(kind: int, words: int, string: bytes) -> bytes:
    """Return an object whose type 1 has 65,535 parts, each named by another suffix of one string."""
    strings = b"\0.maps\0m\0" + string + b"\0"
    parts = b"".join(
        struct.pack(f"<{words}I", 9 + index % len(string), *[0] * (words - 1)) for index in range(MEMBERS)
    )
    types = struct.pack("<III", 0, kind << 24 | MEMBERS, 8) + parts
    types += struct.pack("<IIII", 7, 14 << 24, 1, 1)  # 2: variable m
    types += struct.pack("<III", 1, 15 << 24 | 1, 8) + struct.pack("<III", 2, 0, 8)  # 3: section .maps
    return bytes(map_section(types, strings))


STRINGS = {
    "ascii": b"a" * 1_000_000,
    "one wide character": b"a" * 400_000 + "\U0001f600".encode(),
    "no UTF-8": b"\xff" * 400_000,
}


@pytest.mark.parametrize(
    ("kind", "words", "string"),
    [*((4, 3, each) for each in STRINGS), *((*each, "ascii") for each in ((5, 3), (6, 2), (13, 2), (19, 3)))],
)
def test_names_that_share_one_string(kind: int, words: int, string: str) -> None:
    data = suffixes(kind, words, STRINGS[string])
    said = within_limits(lambda: load_and_look(data))
    assert "strings of BTF" in said or (kind not in (4, 5) and "not a struct" in said)


def test_names_of_types_that_share_one_string() -> None:
    string = b"a" * 1_000_000
    types = b"".join(struct.pack("<III", 1 + index, 7 << 24, 0) for index in range(MEMBERS))
    elf = ElfMaker()
    elf.section(".BTF", btf_section(types, b"\0" + string + b"\0"))
    elf.code("xdp")
    data = bytes(elf)
    assert "strings of BTF" in within_limits(lambda: load_and_look(data))
    assert "strings of BTF" in within_limits(lambda: load_and_look(bytes(small_object()), btf=data) and
                                             list(read_btf(data).types()))  # fmt: skip


def small_object() -> ElfMaker:
    elf = ElfMaker()
    elf.code("xdp")
    return elf


def with_lines(record: Callable[[int], bytes], count: int, strings: bytes, headers: int = 1) -> bytes:
    elf = ElfMaker()
    elf.section(".BTF", btf_section(b"", strings))
    body = b"".join(map(record, range(count)))
    part = struct.pack("<I", 16) + struct.pack("<II", 1, count) + body
    part += b"".join(struct.pack("<II", 9 + index, 0) for index in range(headers - 1))
    elf.section(".BTF.ext", btf_ext(lines=part))
    elf.code("xdp")
    return bytes(elf)


def test_source_lines_that_share_one_string() -> None:
    long = b"\0xdp\0   \0" + b" " + b"a" * 1_000_000 + b"\0"
    same = with_lines(lambda index: struct.pack("<IIII", 0, 1, 9, 1 << 10), 60_000, long)
    texts = with_lines(lambda index: struct.pack("<IIII", 0, 1, 9 + index, 1 << 10), 60_000, long)
    files = with_lines(lambda index: struct.pack("<IIII", 0, 9 + index, 1, 1 << 10), 60_000, long)
    sections = with_lines(lambda index: b"", 0, long, headers=60_000)
    assert "1 programs" in within_limits(lambda: load_and_look(same))
    for data in (texts, files, sections):
        assert "strings of BTF" in within_limits(lambda data=data: load_and_look(data))


def test_a_definition_with_the_same_member_60000_times_for_many_maps() -> None:
    strings = b"\0.maps\0type\0"
    types = struct.pack("<IIIIII", 0, 3 << 24, 0, 0, 0, 2)  # 1: array of 2
    types += struct.pack("<III", 0, 2 << 24, 1)  # 2: pointer to it
    types += struct.pack("<III", 0, 4 << 24 | MEMBERS, 8) + struct.pack("<III", 7, 2, 0) * MEMBERS  # 3
    count = 3000
    names = [f"m{number}" for number in range(count)]
    offsets = []
    for name in names:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    types += b"".join(struct.pack("<IIII", offset, 14 << 24, 3, 1) for offset in offsets)
    types += struct.pack("<III", 1, 15 << 24 | count, 8 * count)
    types += b"".join(struct.pack("<III", 4 + number, 8 * number, 8) for number in range(count))
    elf = ElfMaker()
    section = elf.section(".maps", bytes(8 * count), flags=ALLOC | WRITE)
    for number, name in enumerate(names):
        elf.symbol(name, section, 8 * number, 8)
    elf.section(".BTF", btf_section(types, strings))
    elf.code("xdp")
    data = bytes(elf)
    assert "LoadError" in within_limits(lambda: load_and_look(data)) or count < 64


def variable(make: Callable[[BtfMaker], int], size: int) -> bytes:
    """Return an object with a variable of a type in .bss."""
    maker = BtfMaker()
    type_ = make(maker)
    maker.add(14, "v", type_, 1)
    elf = ElfMaker()
    elf.symbol("v", elf.section(".bss", type_=NOBITS, flags=ALLOC | WRITE, size=size), 0, size)
    elf.section(".BTF", bytes(maker))
    elf.code("xdp")
    return bytes(elf)


def numbers(maker: BtfMaker) -> int:
    return maker.array(maker.integer("int", 4), 1 << 24)


def structs(maker: BtfMaker) -> int:
    return maker.array(maker.struct("s", 1, ("c", maker.integer("char", 1), 0)), 1 << 26)


def union(maker: BtfMaker) -> int:
    block = maker.array(maker.integer("char", 1), 1 << 20)
    return maker.struct("u", 1 << 20, *((f"m{number}", block, 0) for number in range(3000)), kind=5)


def nested(maker: BtfMaker) -> int:
    type_ = maker.array(maker.integer("char", 1), 1 << 26)
    for number in range(20):
        type_ = maker.struct(f"s{number}", 1 << 26, ("m", type_, 0))
    return type_


def shared_by_arrays(maker: BtfMaker) -> int:
    type_ = maker.integer("int", 4)
    for _ in range(4):
        type_ = maker.array(type_, 64)
    return type_


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (numbers, 1 << 26),
        (structs, 1 << 26),
        (union, 1 << 20),
        (nested, 1 << 26),
        (shared_by_arrays, 1 << 26),
    ],
)
def test_values_that_python_has_no_room_for_are_read_as_bytes(
    make: Callable[[BtfMaker], int], size: int
) -> None:
    data = variable(make, size)
    assert within_limits(lambda: len(load(data).globals["v"])) == str(size)


def test_a_struct_of_the_environment_whose_size_is_damaged() -> None:
    maker = BtfMaker()
    maker.struct("task_struct", 0xFFFF_FFF0, ("pid", maker.integer("int", 4), 0))
    program = Program(assembler.assemble("mov r0, 0\nexit"), type="kprobe")

    def job() -> str:
        environment = Environment(btf=bytes(maker))
        environment.task(pid=7)
        return str(program.run(environment=environment))

    assert "task_struct of the environment takes more than" in within_limits(job)


def test_anonymous_members_that_many_structs_share() -> None:
    maker = BtfMaker()
    integer = maker.integer("char", 1)
    inner = maker.struct("", 64, *((f"m{number}", integer, 8 * (number % 64)) for number in range(1000)))
    outer = [maker.struct(f"s{number}", 64, *[("", inner, 0)] * 60) for number in range(500)]
    for number, type_ in enumerate(outer):
        maker.add(14, f"v{number}", type_, 1)
    elf = ElfMaker()
    bss = elf.section(".bss", type_=NOBITS, flags=ALLOC | WRITE, size=64 * 500)
    for number in range(500):
        elf.symbol(f"v{number}", bss, 64 * number, 64)
    elf.section(".BTF", bytes(maker))
    elf.code("xdp")
    data = bytes(elf)
    assert "members of types" in within_limits(lambda: load_and_look(data))


def arrays_of_lists(maker: BtfMaker) -> int:
    type_ = maker.struct("bpf_list_head", 16, ("opaque", maker.array(maker.integer("long", 8), 2), 0))
    for _ in range(12):
        type_ = maker.array(type_, 1000)
    return maker.struct("value", 16, ("m", type_, 0))


def an_array_of_itself(maker: BtfMaker) -> int:
    maker.struct("bpf_list_head", 16)
    return maker.struct("value", 16, ("m", maker.array(maker.count + 1, 3), 0))


def many_arrays_of_locks(maker: BtfMaker) -> int:
    type_ = maker.array(maker.struct("bpf_spin_lock", 4, ("val", maker.integer("int", 4), 0)), 11)
    inner = maker.struct("inner", 16, ("m" * 100_000, type_, 0))
    return maker.struct("value", 16, *[("", maker.array(inner, 1), 8)] * MEMBERS)


def heads_of_nothing(maker: BtfMaker) -> int:
    count = 16_000
    head, number = maker.struct("bpf_list_head", 16), maker.integer("int", 4)
    maker.struct("big", 16, *[("m", number, 0)] * count)
    type_ = maker.struct("value", 16, *[("m", head, 8)] * count)
    tag = maker.string("contains:big:none")
    for index in range(count):
        maker.types += struct.pack("<IIII", tag, 17 << 24, type_, index)
    maker.count += count
    return type_


def structs_of_structs(maker: BtfMaker) -> int:
    type_ = maker.struct("bpf_spin_lock", 4, ("m", maker.integer("int", 4), 0))
    for number in range(4):
        type_ = maker.struct(f"s{number}", 16, *[("m", type_, 64)] * 2000)
    return type_


@pytest.mark.parametrize(
    "make", [arrays_of_lists, an_array_of_itself, many_arrays_of_locks, heads_of_nothing]
)
def test_special_fields_of_variables_that_nest(make: Callable[[BtfMaker], int]) -> None:
    maker = BtfMaker()
    maker.add(15, ".bss", 16, maker.add(14, "v", make(maker), 1), 0, 16, vlen=1)
    elf = ElfMaker()
    elf.symbol("v", elf.section(".bss", type_=NOBITS, flags=ALLOC | WRITE, size=16), 0, 16)
    elf.section(".BTF", bytes(maker))
    elf.code("xdp")
    data = bytes(elf)
    within_limits(lambda: load(data))


@pytest.mark.parametrize("make", [an_array_of_itself, structs_of_structs])
def test_objects_of_structs_that_nest(make: Callable[[BtfMaker], int]) -> None:
    maker = BtfMaker()
    made = f"mov r1, {make(maker)}\nmov r2, 0\ncall kfunc {{bpf_obj_new}}\nexit"
    program = program_of(made, types=TypeInfo(bytes(maker)))
    within_limits(lambda: program.run(PACKET, engine="interpreter"))


def test_anonymous_structs_in_structs_of_the_environment() -> None:
    maker = BtfMaker()
    type_ = maker.struct("", 64, ("pid", maker.integer("int", 4), 0))
    for _ in range(30):
        type_ = maker.struct("", 64, ("", type_, 0), ("", type_, 0))
    for name in ("task_struct", "bpf_iter__task"):
        maker.struct(name, 64, ("", type_, 0))
    types = Btf(bytes(maker), "the object's BTF")
    asks = Program(assembler.assemble("call 158\nexit"), type="tracing", kernel_types=types, license="GPL")
    iterates = Program(assembler.assemble("exit"), type="tracing", kernel_types=types, section="iter/task")
    assert "refer to each other too often" in within_limits(lambda: asks.run(engine="interpreter"))
    said = within_limits(lambda: iterates.run(context={"pid": 1}, engine="interpreter"))
    assert "too many members" in said or "refer to each other too often" in said


def core_object(access: bytes, relocations: int, target: bool) -> tuple[bytes, bytes]:
    maker = BtfMaker()
    integer = maker.integer("int", 4)
    structs = [
        maker.struct(f"s___{number}", 4, *((f"m{index}", integer, 0) for index in range(50)))
        for number in range(relocations)
    ]
    place = maker.string(access.decode())
    section = maker.string("xdp")
    records = b"".join(struct.pack("<IIII", 0, type_, place, 12 if target else 0) for type_ in structs)
    elf = ElfMaker()
    elf.section(".BTF", bytes(maker))
    part = struct.pack("<III", 16, section, len(structs)) + records
    elf.section(".BTF.ext", btf_ext(relocations=part))
    elf.code("xdp")
    return bytes(elf), bytes(maker)


def test_co_re_compares_types_for_a_limited_time() -> None:
    data, types = core_object(b"0", 1500, target=True)
    assert "LoadError" in within_limits(lambda: load_and_look(data, btf=types))


def test_long_paths_of_co_re() -> None:
    data, types = core_object(b"0:" * 400_000 + b"0", 1000, target=False)
    assert "CO-RE relocation" in within_limits(lambda: load_and_look(data, btf=types, strict=True))
    within_limits(lambda: load_and_look(data, btf=types))


def test_relocations_of_co_re_that_share_a_long_path() -> None:
    maker, elf = BtfMaker(), ElfMaker()
    record = struct.pack(
        "<IIII", 0, maker.struct("s", 4, ("m", maker.integer("int", 4), 0)), maker.string("0:" * 400_000), 0
    )
    part = struct.pack("<III", 16, maker.string("xdp"), 6000) + record * 6000
    elf.section(".BTF", bytes(maker))
    elf.section(".BTF.ext", btf_ext(relocations=part))
    elf.code("xdp")
    data, types = bytes(elf), bytes(maker)
    assert "1 programs" in within_limits(lambda: load_and_look(data, btf=types))


LONG = "a" * 1_000_000


@pytest.mark.parametrize(
    "tag", [f"tail:{LONG}/x", f"tail:{LONG}/1", f"contains:{LONG}:m", f"exception_callback:{LONG}"],
    ids=["tail", "tail with an index", "contains", "exception_callback"],
)  # fmt: skip
def test_declaration_tags_that_share_a_long_name(tag: str) -> None:
    maker, elf = BtfMaker(), ElfMaker()
    prototype, name = maker.add(13, "", maker.integer("int", 4)), maker.string(tag)
    head = maker.struct("value", 16, ("m", maker.struct("bpf_list_head", 16), 0))
    maker.add(15, ".bss", 16, maker.add(14, "v", head, 1), 0, 16, vlen=1)
    for number in range(4000):
        maker.add(17, "", maker.add(12, f"f{number}", prototype, vlen=1), 0xFFFF_FFFF)
        maker.types[-16:-12] = struct.pack("<I", name)
    elf.symbol("v", elf.section(".bss", type_=NOBITS, flags=ALLOC | WRITE, size=16), 0, 16)
    elf.section(".BTF", bytes(maker))
    elf.code("xdp")
    data = bytes(elf)
    assert "xdp" in within_limits(lambda: load(data))


def test_special_fields_are_looked_for_among_symbols_for_a_limited_time() -> None:
    maker, elf = BtfMaker(), ElfMaker()
    maker.struct("bpf_spin_lock", 4)
    code, name = elf.code("xdp"), elf.string(b"v")
    for number in range(200):
        elf.section(f".data.{number}", bytes(8), flags=ALLOC | WRITE)
    for _ in range(60_000):
        elf.symbol(name, code, binding=0)
    elf.section(".BTF", bytes(maker))
    data = bytes(elf)
    assert "refer to each other too often" in within_limits(lambda: load(data))


def test_many_types_are_looked_for_in_one_pass_over_the_names() -> None:
    maker = BtfMaker()
    for number in range(30_000):
        maker.struct(f"a_rather_long_name_of_a_type_{number}", 4)
    btf = read_btf(bytes(maker))

    def job() -> int:
        found = [btf.named(f"a_rather_long_name_of_a_type_{n}", {4}, flavors=True) for n in range(20_000)]
        return sum(map(len, found))

    assert within_limits(job) == "20000"


# -- symbols, relocations, functions --------------------------------------------------------------


def test_symbols_that_share_long_names() -> None:
    elf = ElfMaker()
    xdp = elf.code("xdp")
    name = elf.string(b"\xff" * 4000)
    for index in range(4000):
        elf.symbol(name + index, xdp, 0, 16, FUNCTION, 0)
    data = bytes(elf)
    assert "the names of" in within_limits(lambda: load_and_look(data))


def test_sections_with_long_names() -> None:
    elf = ElfMaker()
    for index in range(3000):
        elf.code(f"{index}" + "x" * 4000)
    data = bytes(elf)
    assert within_limits(lambda: load_and_look(data)).startswith("3000 programs")


CALL = struct.pack("<BBhi", 0x85, 0x10, 0, -1)


def shared_function(programs: int, size: int, aliases: bool) -> bytes:
    elf = ElfMaker()
    text = elf.code(".text", bytes.fromhex("b700000000000000") * (size - 1) + EXIT[8:])
    body = text
    function = elf.symbol("f", text, 0, 8 * size, FUNCTION)
    if aliases:
        for number in range(programs):
            elf.symbol(f"alias{number}", text, 0, 8 * size, FUNCTION)
        return bytes(elf)
    body = elf.code("xdp", (CALL + EXIT[8:]) * programs)
    for number in range(programs):
        elf.symbol(f"p{number}", body, 16 * number, 16, FUNCTION)
    elf.relocations(body, *((16 * number, 10, function) for number in range(programs)))
    return bytes(elf)


@pytest.mark.parametrize(
    ("programs", "size", "aliases"), [(1000, 4000, False), (100, 40_000, True), (4000, 1000, True)]
)
def test_functions_that_programs_share(programs: int, size: int, aliases: bool) -> None:
    data = shared_function(programs, size, aliases)
    assert "LoadError" in within_limits(lambda: load_and_look(data))


def test_what_honest_objects_share_is_loaded() -> None:
    data = shared_function(60, 4000, False)
    assert within_limits(lambda: load_and_look(data)) == "60 programs, 0 maps"


def refused_pointers(count: int) -> bytes:
    """Return an object with pointers that nobody can follow, and as many uses of another variable."""
    elf = ElfMaker()
    data = elf.section(".data", bytes(8 * count + 8), flags=ALLOC | WRITE)
    text, code = elf.code(".text"), elf.code("xdp", LDDW * count + EXIT)
    elf.symbol("f", text, 0, 16, FUNCTION)
    elf.symbol("prog", code, 0, 16 * count + 16, FUNCTION)
    middle, used = elf.symbol(0, text, 8, 0, 3, 0), elf.symbol("used", data, 8 * count, 8)
    name = elf.string(b"v")
    for number in range(count):
        elf.symbol(name, data, 8 * number, 8, binding=0)
    elf.relocations(data, *((8 * number, 2, middle) for number in range(count)))
    elf.relocations(code, *((16 * number, 1, used) for number in range(count)))
    return bytes(elf)


def users_of_tables(programs: int, uses: int) -> bytes:
    """Return an object whose programs call one function, which has many uses of a variable."""
    elf = ElfMaker()
    data, end = elf.section(".data", bytes(8), flags=ALLOC | WRITE), 16 * uses + 16
    text = elf.code(".text", LDDW * uses + EXIT + EXIT)
    code = elf.code("xdp", (struct.pack("<BBhi", 0x85, 0x10, 0, -1) + EXIT) * programs)
    shared = elf.symbol("shared", text, 0, end, FUNCTION)
    pointed, used = elf.symbol("pointed", text, end, 16, FUNCTION), elf.symbol("used", data, 0, 8)
    for number in range(programs):
        elf.symbol(f"p{number}", code, 24 * number, 24, FUNCTION)
    elf.relocations(text, *((16 * number, 1, used) for number in range(uses)))
    elf.relocations(data, (0, 2, pointed))
    elf.relocations(code, *((24 * number, 10, shared) for number in range(programs)))
    return bytes(elf)


def exception_callbacks(programs: int) -> bytes:
    """Return an object each of whose programs names the last of its functions."""
    maker, elf = BtfMaker(), ElfMaker()
    prototype, tag = maker.add(13, "", maker.integer("int", 4)), maker.string("exception_callback:last")
    code, last = elf.code("xdp", EXIT * programs), elf.code("z")
    for number in range(programs):
        elf.symbol(f"p{number}", code, 16 * number, 16, FUNCTION)
        maker.add(17, "", maker.add(12, f"p{number}", prototype, vlen=1), 0xFFFF_FFFF)
        maker.types[-16:-12] = struct.pack("<I", tag)
    elf.symbol("last", last, 0, 16, FUNCTION)
    elf.section(".BTF", bytes(maker))
    return bytes(elf)


@pytest.mark.parametrize(
    ("make", "sizes", "said"),
    [
        (refused_pointers, (14_000,), "variables that are refused"),
        (users_of_tables, (4000, 40_000), "functions that programs share"),
        (exception_callbacks, (12_000,), ""),
    ],
)
def test_what_each_program_or_use_looks_through(
    make: Callable[..., bytes], sizes: tuple[int, ...], said: str
) -> None:
    data = make(*sizes)
    assert said in within_limits(lambda: load(data))


def test_calls_of_one_kernel_function_share_what_is_said_of_it() -> None:
    maker, elf, count, name = BtfMaker(), ElfMaker(), 50, "a" * 4000 + "___x"
    function = maker.add(12, name, maker.add(13, "", maker.integer("int", 4)), vlen=2)
    maker.add(15, ".ksyms", 0, function, 0, 0, vlen=1)
    code = elf.code("xdp", CALL * count + EXIT)
    symbol = elf.symbol(name, 0, type_=0, binding=WEAK)
    elf.symbol("p", code, 0, 8 * count + 16, FUNCTION)
    elf.relocations(code, *((8 * number, 10, symbol) for number in range(count)))
    elf.section(".BTF", bytes(maker))
    data = bytes(elf)
    program = load(data).program("p")
    kept = program.absent.values(), program.kernel_symbols.values(), program.weak_kfuncs.values()
    assert [len(each) for each in kept] == [count] * 3
    assert [len({id(one) for one in each}) for each in kept] == [1] * 3


def prog_array_values(count: int) -> bytes:
    """Return a prog_array whose `.values` name many programs, by their sections' starts."""
    maker = BtfMaker()
    integer = maker.integer("int", 4)
    kind, four = (maker.pointer(maker.array(integer, number)) for number in (3, 4))
    most = maker.pointer(maker.array(integer, count))
    prototype = maker.add(13, "", integer)
    values = maker.array(maker.pointer(prototype), 0)
    members = (("type", kind, 0), ("key_size", four, 64), ("value_size", four, 128),
               ("max_entries", most, 192), ("values", values, 256))  # fmt: skip
    definition = maker.struct("", 32, *members)
    var = maker.add(14, "jumps", definition, 1)
    maker.add(15, ".maps", 32, var, 0, 32, vlen=1)
    elf = ElfMaker()
    xdp = elf.code("xdp", EXIT * count)
    for number in range(count):
        elf.symbol(f"p{number}", xdp, 16 * number, 16, FUNCTION)
    start = elf.symbol(0, xdp, 0, 0, 3, 0)
    data = bytes(32) + b"".join(struct.pack("<Q", 16 * number) for number in range(count))
    maps = elf.section(".maps", data, flags=ALLOC | WRITE)
    elf.symbol("jumps", maps, 0, len(data))
    elf.relocations(maps, *((32 + 8 * number, 2, start) for number in range(count)))
    elf.section(".BTF", bytes(maker))
    return bytes(elf)


def test_values_that_are_named_by_their_place() -> None:
    data = prog_array_values(6000)
    assert within_limits(lambda: load_and_look(data)) == "6000 programs, 1 maps"


# -- maps -----------------------------------------------------------------------------------------


def legacy(count: int, *words: int) -> bytes:
    elf = ElfMaker()
    record = struct.pack(f"<{len(words)}I", *words)
    maps = elf.section("maps", record * count, flags=ALLOC | WRITE)
    for number in range(count):
        elf.symbol(f"m{number}", maps, len(record) * number, len(record))
    elf.code("xdp")
    return bytes(elf)


@pytest.mark.parametrize(
    "words",
    [
        (2, 4, 8, 1, 0),  # arrays
        (1, 4, 8, 1 << 20, 0),  # hashes of 2**20
        (12, 4, 4, 4, 0, 0, 0),  # maps of maps: each looks for its template
        (12, 4, 4, 4, 0, 5, 0, 5, 0),
    ],
)
def test_many_maps(words: tuple[int, ...]) -> None:
    data = legacy(20_000, *words)
    assert "LoadError" in within_limits(lambda: load_and_look(data)).replace("MapRefused", "LoadError")


def test_a_thousand_maps_are_no_matter() -> None:
    data = legacy(1000, 2, 4, 8, 1, 0)
    assert within_limits(lambda: load_and_look(data)) == "1 programs, 1000 maps"


def test_sections_of_variables_take_no_more_than_maps_may() -> None:
    elf = ElfMaker()
    for number in range(40):
        elf.section(f".bss.{number}", type_=NOBITS, flags=ALLOC | WRITE, size=1 << 28)
    elf.code("xdp")
    data = bytes(elf)
    assert "maps may have" in within_limits(lambda: load_and_look(data))


# -- files, programs, texts -----------------------------------------------------------------------


def test_files_without_an_end_or_too_large(tmp_path: Path) -> None:
    large = tmp_path / "large.o"
    large.touch()
    os.truncate(large, 3 << 30)
    for path in ("/dev/zero", large):
        assert "LoadError" in within_limits(lambda path=path: load(path))
        assert "LoadError" in within_limits(lambda path=path: read_btf(path))
        with pytest.raises(LoadError, match="bytes"):
            load(path)


def test_a_compressed_section_is_never_unpacked() -> None:
    elf = ElfMaker()
    elf.code("xdp")
    elf.sections[-1].flags |= 0x800
    with pytest.raises(LoadError, match="compressed"):
        load(bytes(elf))


def test_programs_of_too_many_slots() -> None:
    assert "DecodeError" in within_limits(lambda: Program.from_bytes(bytes(1 << 28)))
    assert "DecodeError" in within_limits(lambda: Program.from_bytes(EXIT[8:] * 2_000_001))


@pytest.mark.parametrize(
    "make",
    [
        lambda: "\n" * 2_000_001,
        lambda: "a:" * (1 << 18),
        lambda: "\n".join(f"label_{number}:" for number in range(1_000_001)),
        lambda: "(" * (1 << 18),
        lambda: "a" * (1 << 18),
        lambda: "mov r0, " + "1" * (1 << 18),
        lambda: "ja " + "b" * (1 << 18) + "\n",
        lambda: "+ " * (1 << 18),
        lambda: ".8byte " + "1," * (1 << 18),
        lambda: " " * (1 << 18) + ":",
        lambda: "/*" * (1 << 18),
        lambda: "x" * ((1 << 20) + 1),
        lambda: "\n" * ((1 << 25) + 1),
    ],
    ids=["lines", "labels", "names", "tokens", "word", "digits", "label", "signs", "data", "blanks",
         "comments", "line", "text"],
)  # fmt: skip
def test_texts_of_no_program(make: Callable[[], str]) -> None:
    text = make()
    assert "AssemblyError" in within_limits(lambda: assembler.assemble(text))


def test_a_text_has_as_many_slots_as_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebpfjit.assembler.passes.MAX_SLOTS", 4)
    assert len(assembler.assemble(".8byte 1, 2\nlddw r1, 5")) == 32
    with pytest.raises(AssemblyError, match="at most 4 slots"):
        assembler.assemble(".8byte 1, 2, 3\nlddw r1, 5")


def test_what_is_made_by_hand_here_is_sound() -> None:
    """What is refused above is refused for its size."""
    elf = ElfMaker()
    elf.symbol("entry", elf.code("xdp"), 0, 16, FUNCTION, GLOBAL)
    assert load(bytes(elf)).programs["entry"].run(bytes(64)).return_value == 0


def test_sections_of_maps_that_share_their_variables() -> None:
    maker = BtfMaker()
    var = maker.add(14, "m", maker.integer("int", 4), 1)
    maker.add(15, ".maps", 0, *(var, 0, 0) * 20_000, vlen=20_000)
    elf = ElfMaker()
    for number in range(400):
        elf.symbol(f"m{number}", elf.section(".maps", type_=NOBITS, flags=ALLOC, size=8), 0, 8)
    elf.section(".BTF", bytes(maker))
    elf.code("xdp")
    data = bytes(elf)
    assert "sections of maps" in within_limits(lambda: load_and_look(data))


def test_sizes_of_types_that_nest_are_worked_out_once() -> None:
    """32 arrays of arrays, each behind 31 typedefs, that 20,000 variables of the configuration have."""
    maker = BtfMaker()
    type_ = maker.integer("char", 1)
    for _ in range(30):
        for _ in range(31):
            type_ = maker.add(8, "t", type_)
        type_ = maker.array(type_, 1)
    arrays = [maker.array(type_, 1) for _ in range(20_000)]
    variables = [maker.add(14, f"v{number}", array, 2) for number, array in enumerate(arrays)]
    words = [word for variable in variables for word in (variable, 0, 1)]
    maker.add(15, ".kconfig", 0, *words, vlen=len(variables))
    elf = ElfMaker()
    for number in range(len(variables)):
        elf.symbol(f"v{number}", 0, binding=WEAK)
    elf.section(".BTF", bytes(maker))
    elf.code("xdp")
    data = bytes(elf)
    assert within_limits(lambda: load(data).maps[".kconfig"].definition.value_size) == str(8 * 20_000 - 7)
