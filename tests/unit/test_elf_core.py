"""CO-RE relocations: what an object gets from its own types and from another kernel's."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ebpfjit.elf import Object, load
from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.btf_ext import CoreRelocation
from ebpfjit.elf.core import Answer, RelocationKind, answer_for, match_spec, parse_spec
from ebpfjit.elf.core_types import Comparison, CoreError
from ebpfjit.elf.loader import read_btf
from ebpfjit.errors import HelperNotFound, LoadError
from ebpfjit.program import Program
from ebpfjit.runtime.faults import CORE_POISON
from tests.support.elf_files import OBJECTS, BtfMaker

OWN = {
    "fields": [8, 4, 1, 1, 1, 0, 20, 55, 0, 8, 38, 16],  # clang reads the bit-field from 8 bytes
    "types": [1, 1, 64, 4, 1, 1, 1],
    "values": [1, 1, 5, 0x11223344],
}
OTHER = {
    "fields": [8, 1, 0, 1, 1, 0, 53, 53, 0, 8, 48, 16],
    "types": [1, 0, 96, 0, 1, 1, 1],
    "values": [1, 0, 3, 0x44332211],
}


@pytest.fixture(scope="module")
def own() -> Object:
    return load(OBJECTS / "core.o")


@pytest.fixture(scope="module")
def other() -> Object:
    return load(OBJECTS / "core.o", btf=OBJECTS / "core_target.o")


def raw(program: Program) -> Program:
    """The same program, on plain memory instead of a packet."""
    return Program(program.code, program.name, symbols=program.symbols, lines=program.lines)


def words(obj: Object, name: str, engine: str, count: int) -> list[int]:
    result = raw(obj.program(name)).run(bytes(128), engine=engine)
    return list(struct.unpack_from(f"<{count}Q", result.data))


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("name", ["fields", "types", "values"])
def test_what_the_types_say(own: Object, other: Object, name: str, engine: str) -> None:
    assert words(own, name, engine, len(OWN[name])) == OWN[name]
    assert words(other, name, engine, len(OTHER[name])) == OTHER[name]


def test_flavors_of_the_target_count_too(own: Object) -> None:
    with pytest.raises(LoadError, match=r"struct task .*, struct task___flavor"):
        load(OBJECTS / "core.o", btf=own.btf, strict=True)


def test_ids_of_types(own: Object, other: Object) -> None:
    target = read_btf(OBJECTS / "core_target.o")
    assert target is not None
    assert own.btf is not None
    (local_id,), (target_id,) = (btf.named("task", {Kind.STRUCT}) for btf in (own.btf, target))
    missing = own.btf.named("missing", {Kind.STRUCT})[0]
    assert words(own, "types", "jit", 10)[7:] == [local_id, local_id, missing]
    assert words(other, "types", "jit", 10)[7:] == [local_id, target_id, 0]


#  a struct task of core_target.c
TARGET = struct.pack("<IxxxxQQ", 0, 777, 4321) + bytes(72)


@pytest.mark.parametrize(
    ("name", "place", "size"),
    [
        ("pid", 16, 4),
        ("start", 8, 8),
        ("inner_y", 24, 8),
        ("table_2", 46, 2),
        ("shrunk", 72, 1),
        ("nested", 92, 4),
    ],
)
@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_fields_are_read_where_they_are(other: Object, name: str, place: int, size: int, engine: str) -> None:
    memory = bytearray(b"\xee" * 96)
    memory[place : place + size] = bytes(range(1, size + 1))
    result = raw(other.program(name)).run(memory, engine=engine)
    assert result.return_value == int.from_bytes(bytes(range(1, size + 1)), "little")


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_what_is_missing_fails_where_it_is_reached(other: Object, engine: str) -> None:
    assert raw(other.program("careful")).run(TARGET, engine=engine).return_value == 1234
    for name in ("gone", "lost_value", "resized"):  # a signed field cannot be read at another size
        with pytest.raises(
            HelperNotFound, match=rf"{CORE_POISON} .instead of what CO-RE.*core\.c:"
        ) as caught:
            raw(other.program(name)).run(TARGET, engine=engine)
        assert caught.value.helper == CORE_POISON


def test_a_kernels_types() -> None:
    try:
        btf = read_btf("/sys/kernel/btf/vmlinux")
    except OSError:
        pytest.skip("no types of a kernel here")
    obj = load(OBJECTS / "core.o", btf=btf)
    assert words(obj, "types", "interpreter", 10)[1] == 0  # no kernel has a struct missing


@pytest.mark.parametrize("kind", ["path", "bytes", "object"])
def test_every_kind_of_btf_gives_the_same(other: Object, kind: str) -> None:
    path = OBJECTS / "core_target.o"
    sources: dict[str, Any] = {"path": path, "bytes": path.read_bytes(), "object": read_btf(path)}
    obj = load(OBJECTS / "core.o", btf=sources[kind])
    assert [p.code for p in obj.programs.values()] == [p.code for p in other.programs.values()]


# Rules that clang 14 has no words for


def ask(local: BtfMaker, target: BtfMaker, id_: int, access: str, kind: RelocationKind) -> list[Answer]:
    """Return the answers of all types of the target that are taken for the local one."""
    mine, theirs = Btf(bytes(local)), Btf(bytes(target))
    spec = parse_spec(mine, CoreRelocation(0, id_, access, kind), kind)
    kinds = frozenset(Kind)
    matches = [
        match_spec(kind, spec, candidate, Comparison(mine, theirs))
        for candidate in theirs.named(mine.type(id_).name, kinds, flavors=True)
    ]
    return [answer_for(kind, match) for match in matches]


def pair() -> tuple[BtfMaker, BtfMaker]:
    return BtfMaker(), BtfMaker()


def matches(local: BtfMaker, target: BtfMaker, id_: int) -> list[int | None]:
    return [answer.value for answer in ask(local, target, id_, "0", RelocationKind.TYPE_MATCHES)]


def test_values_of_64_bits() -> None:
    local, target = pair()
    id_ = local.enum64("wide", ("A", 1), ("B", 1 << 40))
    target.enum64("wide", ("B", 1 << 50), ("C", 3))
    target.enum("wide", ("B", -2))
    answers = ask(local, target, id_, "1", RelocationKind.ENUMVAL_VALUE)
    assert [answer.value for answer in answers] == [1 << 50, -2]


def test_matching_types() -> None:
    def build(maker: BtfMaker, size: int, *extra: str) -> int:
        number = maker.integer("int", size, 1)
        other = maker.struct("far", 8, *[(name, number, 0) for name in extra])
        pointer = maker.pointer(other)
        return maker.struct("s", 16, ("a", number, 0), ("p", pointer, 64))

    local, target = pair()
    id_ = build(local, 4, "x")
    build(target, 4)  # what is behind a pointer need not match
    assert matches(local, target, id_) == [1]
    target = BtfMaker()
    build(target, 8, "x")
    assert matches(local, target, id_) == [0]
    target = BtfMaker()
    number = target.integer("int", 4, 1)
    target.struct("s", 8, ("a", number, 0))
    assert matches(local, target, id_) == [0]
    target = BtfMaker()
    number, forward = target.integer("int", 4, 1), target.add(7, "far")
    target.struct("s", 16, ("p", target.pointer(forward), 64), ("q", number, 32), ("a", number, 0))
    assert matches(local, target, id_) == [1]


def test_types_that_match_in_every_kind() -> None:
    local, target = pair()
    ids = []
    for maker in (local, target):
        number = maker.integer("int", 4, 1)
        array = maker.array(number, 3)
        prototype = maker.add(13, "", number, maker.string("x"), array, vlen=1)
        enum = maker.enum("e", ("A", 1))
        forward = maker.add(7, "u", flag=True)
        ids = [
            maker.add(8, name, type_)
            for name, type_ in (
                ("t0", array),
                ("t1", maker.pointer(prototype)),
                ("t2", enum),
                ("t3", forward),
            )
        ]
    for id_ in ids:
        assert matches(local, target, id_) == [1]
        answers = ask(local, target, id_, "0", RelocationKind.TYPE_EXISTS)
        assert [answer.value for answer in answers] == [1]


def test_types_that_are_ambiguous() -> None:
    target = BtfMaker()
    number = target.integer("unsigned int", 4)
    for name, bit in (("task", 0), ("task___two", 32)):
        target.struct(name, 8, ("pid", number, bit))
    with pytest.raises(LoadError, match=r"core\.c:\d+: .*several types of the target fit, and disagree"):
        load(OBJECTS / "core.o", btf=bytes(target), strict=True)
    target = BtfMaker()
    number = target.integer("unsigned int", 4)
    for name in ("task", "task___two"):
        target.struct(name, 8, ("pid", number, 32))
    with pytest.raises(LoadError, match="type id target of struct task"):  # of the fields both say the same
        load(OBJECTS / "core.o", btf=bytes(target), strict=True)


def test_flexible_arrays_and_paths_that_lead_nowhere() -> None:
    local = BtfMaker()
    number = local.integer("int", 4)
    id_ = local.struct("s", 4, ("n", number, 0), ("rest", local.array(number, 0), 32))
    (answer,) = ask(local, local, id_, "0:1:5", RelocationKind.FIELD_BYTE_OFFSET)
    assert answer.value == 24
    for access in ("0:2", "0:0:1", "", "x", "0:-1", "0:" * 70 + "0"):
        with pytest.raises(CoreError):
            ask(local, local, id_, access, RelocationKind.FIELD_BYTE_OFFSET)
    with pytest.raises(CoreError, match="no parts"):
        ask(local, local, id_, "0:0", RelocationKind.TYPE_SIZE)
    with pytest.raises(CoreError, match="has no value"):
        ask(local, local, id_, "0", RelocationKind.ENUMVAL_VALUE)


def test_comparisons_are_bounded() -> None:
    maker = BtfMaker()
    inner = maker.struct("inner", 0)
    for _ in range(30):
        inner = maker.struct("inner", 0, *[("m", inner, 0)] * 40)
    other = BtfMaker()
    inner_2 = other.struct("inner", 0, ("m", other.integer("int", 4), 0))
    for _ in range(30):
        inner_2 = other.struct("inner", 0, *[("m", inner_2, 0)] * 40)
    mine, theirs = Btf(bytes(maker)), Btf(bytes(other))
    comparison = Comparison(mine, theirs, steps_left=10_000)
    with pytest.raises(CoreError, match="steps"):
        comparison.types_match(inner, inner_2)


def test_relocations_without_types_are_refused() -> None:
    data = (OBJECTS / "core.o").read_bytes().replace(b"\0.BTF\0", b"\0.BTX\0")
    with pytest.raises(LoadError, match=r"'\.BTF\.ext' has CO-RE relocations, but no \.BTF has"):
        load(data)


@pytest.mark.parametrize("field", ["type", "access", "kind", "offset"])
def test_damaged_relocations(field: str) -> None:
    data = bytearray((OBJECTS / "core.o").read_bytes())
    start = data.index(
        struct.pack("<HBBI", 0xEB9F, 1, 0, 32), data.index(struct.pack("<HBBI", 0xEB9F, 1, 0, 24)) + 1
    )
    offset = struct.unpack_from("<I", data, start + 24)[0]
    record = start + 32 + offset + 4 + 8
    column = ["offset", "type", "access", "kind"].index(field)
    struct.pack_into("<I", data, record + 4 * column, {"offset": 0x7FFFFFF8}.get(field, 0x7FFF))
    with pytest.raises(LoadError):
        load(bytes(data), btf=OBJECTS / "core_target.o", strict=True)
