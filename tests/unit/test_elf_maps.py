"""Map definitions, references to maps, what maps hold from the start."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ebpfjit.elf import Object, load
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.maps import DefinedMap, find_maps
from ebpfjit.elf.reader import read_object
from ebpfjit.elf.tail_calls import Slot, fill, find_slots
from ebpfjit.errors import LoadError, MapRefused
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from tests.support.elf_files import OBJECTS


def defined(name: str) -> list[DefinedMap]:
    file = read_object((OBJECTS / name).read_bytes(), name)
    section = file.section(".BTF")
    return find_maps(file, Btf(section.data) if section is not None else None)


def definitions(name: str) -> dict[str, MapDefinition]:
    return {map_.definition.name: map_.definition for map_ in defined(name)}


def shape(definition: MapDefinition) -> tuple[object, ...]:
    each = definition
    return each.type, each.key_size, each.value_size, each.max_entries, each.flags, each.pinning


# BTF


def test_every_form_of_a_definition() -> None:
    maps = definitions("btf_maps.o")
    assert {name: shape(map_) for name, map_ in maps.items()} == {
        "first": (MapType.ARRAY, 4, 8, 2, 0, 0),
        "second": (MapType.ARRAY, 4, 8, 2, 0, 0),
        "outer": (MapType.ARRAY_OF_MAPS, 4, 4, 4, 0, 0),
        "jumps": (MapType.PROG_ARRAY, 4, 4, 4, 0, 0),
        "flows": (MapType.HASH, 12, 48, 100, 1, 1),
        "sizes": (MapType.PERCPU_ARRAY, 4, 24, 3, 0, 0),
        "by_number": (MapType.HASH_OF_MAPS, 8, 4, 8, 0, 0),
        "events": (MapType.RINGBUF, 0, 0, 4096, 0, 0),
        "seen": (MapType.BLOOM_FILTER, 0, 4, 64, 0, 0),
    }
    assert {name: map_.extra for name, map_ in maps.items() if map_.extra} == {"seen": 3}
    assert {map_.section for map_ in maps.values()} == {".maps"}
    assert maps["outer"].values == ((0, "first"), (3, "second"))
    assert maps["jumps"].values == ((1, "leaf"), (2, "other_leaf"))
    inner = maps["outer"].inner
    assert inner is not None
    assert (inner.name, shape(inner)) == ("outer.inner", (MapType.ARRAY, 4, 8, 2, 0, 0))
    template = maps["by_number"].inner
    assert template is not None
    assert shape(template) == (MapType.HASH, 2, 1, 5, 0, 0)
    assert maps["by_number"].values == ()


def test_keys_and_values_have_their_types() -> None:
    maps = definitions("btf_maps.o")
    key, value = maps["flows"].key_type, maps["flows"].value_type
    assert key is not None
    assert value is not None
    assert key.decode(b"\1\0\0\0\2\0abcdef") == {"address": 1, "port": 2, "mac": b"abcdef"}
    assert value.size == 48
    assert maps["sizes"].key_type is None


def test_definitions_need_btf() -> None:
    data = (OBJECTS / "btf_maps.o").read_bytes()
    without = data.replace(b"\0.BTF\0", b"\0.BTX\0").replace(b"\0.rel.BTF\0", b"\0.rel.BTX\0")
    for damaged, why, end in (
        (data, "which cannot be read", "says why)"),
        (without, "and there is", "compile with -g"),
    ):
        maps = find_maps(read_object(damaged, "x.o"), None)
        assert maps
        for map_ in maps:
            said = str(map_.refusal)
            assert said.startswith(f"x.o: section '.maps': its maps are defined by BTF, {why}")
            assert said.endswith(end)


def patch_name(name: str, old: str, new: str) -> bytes:
    """An object with one of BTF's strings changed, length kept."""
    data = (OBJECTS / name).read_bytes()
    old_bytes, new_bytes = f"\0{old}\0".encode(), f"\0{new}\0".encode()
    assert len(old_bytes) == len(new_bytes)
    assert data.count(old_bytes) == 1
    return data.replace(old_bytes, new_bytes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("map_flags", "map_flavs", "map 'flows': 'map_flavs' is no part of a map's definition"),
        ("type", "nype", "'nype' is no part"),
        ("max_entries", "key_size_xx", "is no part"),
    ],
)
def test_wrong_definitions_name_the_map(old: str, new: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load(patch_name("btf_maps.o", old, new), strict=True)


# Records


@pytest.mark.parametrize("size", [16, 20, 24, 28, 32, 36, 280])
def test_records_of_every_length(size: int) -> None:
    maps = definitions(f"legacy_maps_{size}.o")
    assert {name: shape(map_) for name, map_ in maps.items()} == {
        "table": (MapType.HASH, 8, 16, 64, 0, 0),
        "counters": (MapType.ARRAY, 4, 8, 3, 0, 0),
    }
    program = load(OBJECTS / f"legacy_maps_{size}.o").program("count")
    assert [map_.name for map_ in program.maps] == ["table", "counters"]


def test_records_whose_types_btf_knows() -> None:
    (pairs,) = definitions("annotated_map.o").values()
    assert pairs.key_type is not None
    assert pairs.value_type is not None
    assert pairs.key_type.decode(b"\1\0\0\0") == 1
    assert pairs.value_type.decode(b"\1\0\0\0\xff\xff\xff\xff") == {"a": 1, "b": -1}


def test_records_without_sizes_end_at_the_next() -> None:
    maps = definitions("untyped.o")
    assert {name: shape(map_)[:4] for name, map_ in maps.items()} == {
        "counters": (MapType.ARRAY, 4, 8, 3),
        "other": (MapType.HASH, 2, 8, 5),
    }


def test_maps_of_maps_of_the_samples() -> None:
    maps = definitions("maps_of_maps_samples.o")
    assert maps["outer"].inner == maps["inner"]
    assert shape(maps["outer"])[:4] == (MapType.ARRAY_OF_MAPS, 4, 4, 2)


def test_maps_of_maps_of_iproute2() -> None:
    maps = definitions("iproute2.o")
    assert maps["outer"].inner == maps["inner"]
    assert maps["outer"].values == ((2, "inner"),)
    assert [map_.id for map_ in defined("iproute2.o")] == [7, 1, 0]


def test_a_record_that_is_too_short() -> None:
    data = bytearray((OBJECTS / "legacy_maps_16.o").read_bytes())
    record = struct.pack("<4I", 2, 4, 8, 3)
    assert record in data
    symbol = data.index(struct.pack("<QQ", 16, 16))  # st_value, st_size of counters
    struct.pack_into("<Q", data, symbol + 8, 12)
    with pytest.raises(LoadError, match="section 'maps': map 'counters': the record has 12 bytes"):
        load(bytes(data), strict=True)


@pytest.mark.parametrize(
    ("type_", "message"),
    [(0, "'table' .type 0."), (99, "'table' .type 99."), (MapType.ARRAY, "'table' .array.")],
)
def test_a_map_that_is_not_to_be_had(type_: int, message: str) -> None:
    data = bytearray((OBJECTS / "legacy_maps_16.o").read_bytes())
    record = data.index(struct.pack("<4I", MapType.HASH, 8, 16, 64))
    struct.pack_into("<I", data, record, type_)  # an array's keys have 4 bytes
    with pytest.raises(MapRefused, match=rf"<bytes>: section 'maps': map {message}") as caught:
        load(bytes(data), strict=True)
    assert caught.value.errno > 0


# References


def test_wide_loads_count_the_programs_own_maps() -> None:
    obj = load(OBJECTS / "btf_maps.o")
    program = obj.program("leaf")
    assert [map_.name for map_ in program.maps] == ["flows", "sizes"]
    loads = {insn.pc: insn for insn in program.instructions if insn.opcode == 0x18}
    assert [(insn.src_reg, insn.imm, insn.next_imm) for insn in loads.values()] == [(5, 0, 0), (5, 1, 0)]
    assert program.references == {
        pc: obj.maps[name].address for pc, name in zip(loads, ("flows", "sizes"), strict=True)
    }
    assert obj.program("other_leaf").maps == ()


def test_a_reference_into_the_middle_of_a_map_is_refused() -> None:
    data = bytearray((OBJECTS / "legacy_maps_16.o").read_bytes())
    symbol = data.index(struct.pack("<QQ", 16, 16))
    table = data.index(struct.pack("<QQ", 0, 16))
    struct.pack_into("<H", data, table - 2, 0xFFF1)  # st_shndx: no symbol of the section any more
    struct.pack_into("<Q", data, symbol, 16)
    with pytest.raises(LoadError, match=r"'count', pc .*: refers to symbol 'table', which is not defined"):
        load(bytes(data), strict=True)


def test_license_and_version() -> None:
    obj = load(OBJECTS / "btf_maps.o")
    assert (obj.license, obj.version) == ("Dual MIT/GPL", 0x060C05)
    plain = load(OBJECTS / "subprograms.o")
    assert (plain.license, plain.version) == ("", 0)


# What maps hold from the start


def slots(name: str) -> set[tuple[str, int, str]]:
    programs: dict[str, Program] = dict(load(OBJECTS / name).programs)
    return {(slot.map, slot.index, slot.name) for slot in find_slots(defined(name), programs)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "btf_maps.o",
            {("outer", 0, "first"), ("outer", 3, "second"), ("jumps", 1, "leaf"), ("jumps", 2, "other_leaf")},
        ),
        ("iproute2.o", {("jumps", 0, "tail_zero"), ("jumps", 3, "tail_three"), ("outer", 2, "inner")}),
        ("numbered_samples.o", {("jmp_table", 1, "one"), ("jmp_table", 5, "five")}),
        ("numbered_ovs.o", {("tailcalls", 1, "one"), ("tailcalls", 5, "five")}),
    ],
)
def test_what_belongs_into_maps(name: str, expected: set[tuple[str, int, str]]) -> None:
    assert slots(name) == expected


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("iproute2.o", {"tail_zero": "tc", "tail_three": "tc", "entry": "tc"}),
        ("numbered_ovs.o", {"one": "tc", "five": "tc", "entry": "tc"}),
        ("numbered_samples.o", {"one": "socket_filter", "five": "socket_filter", "entry": "socket_filter"}),
    ],
)
def test_types_of_programs_in_numbered_sections(name: str, types: dict[str, str]) -> None:
    assert {key: program.type for key, program in load(OBJECTS / name).programs.items()} == types


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize(
    ("name", "result"), [("iproute2.o", 103), ("numbered_samples.o", 5), ("numbered_ovs.o", 5)]
)
def test_tail_calls_arrive_where_the_sections_say(name: str, result: int, engine: str) -> None:
    program = load(OBJECTS / name).program("entry", type="tc")
    assert program.run(bytes(64), engine=engine).return_value == result


def test_maps_hold_what_the_object_says() -> None:
    obj = load(OBJECTS / "btf_maps.o")
    assert obj.maps["outer"][3] is obj.maps["second"]
    assert obj.maps["jumps"][1] is obj.programs["leaf"]


def test_the_environment_reaches_maps_and_programs() -> None:
    environment = Environment(cpus=3)
    obj = load(OBJECTS / "btf_maps.o", environment=environment)
    assert len(obj.maps["sizes"][0]) == 3
    assert obj.program("leaf").environment is environment
    assert load(OBJECTS / "btf_maps.o").program("leaf").environment is None


def test_the_user_gives_types() -> None:
    path = OBJECTS / "text_only.o"
    assert {program.type for program in load(path).programs.values()} == {None}
    assert {program.type for program in load(path, types="xdp").programs.values()} == {"xdp"}
    by_name = load(path, types={"first": "xdp", ".text": "tc"}).programs
    assert [program.type for program in by_name.values()] == ["xdp", "tc"]
    assert load(OBJECTS / "subprograms.o", types="tc").program("squares").type == "xdp"


def test_a_slot_that_names_nothing_is_refused() -> None:
    refusals = fill("x.o", [Slot("jumps", 1, "leaf")], {"jumps": {}}, {})
    assert str(refusals["jumps"]) == "x.o: map 'jumps', index 1: there is no program or map 'leaf'"


def test_a_slot_that_is_not_there_is_refused() -> None:
    programs = {"leaf": load(OBJECTS / "core.o").program("pid")}
    refusals = fill("x.o", [Slot("jumps", 1, "leaf")], {"jumps": []}, programs)
    assert str(refusals["jumps"]).startswith("x.o: map 'jumps', index 1: 'leaf' does not fit")


def examples() -> list[Path]:
    return sorted((OBJECTS.parents[1] / "examples" / "packets").glob("*.o"))


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_the_packet_examples_load(path: Path) -> None:
    obj = load(path)
    assert isinstance(obj, Object)
    assert obj.license == "GPL"
    for program in obj.programs.values():
        assert program.type in ("xdp", "tc", "socket_filter")
        assert program.lines
        assert set(program.references) == {
            insn.pc for insn in program.instructions if insn.opcode == 0x18 and insn.src_reg in (5, 6)
        }
