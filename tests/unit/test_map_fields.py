"""Fields of struct bpf_map, read through a map's address: as Linux, or an object's types, lay them out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit import Clock, EbpfError, Environment, ExecutionError, MemoryFault, Object, Program, load
from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.map_structs import map_structs
from ebpfjit.kernel import unavailable_reason, vmlinux

OBJECT = Path(__file__).parents[1] / "elf" / "map_fields.o"
FRAME = bytes(64)
READERS = ("array", "hash", "rings", "arena", "inside", "each", "sum")
NO_KERNEL = unavailable_reason() or ("" if vmlinux.PATH.exists() else f"there is no {vmlinux.PATH}")
ENGINES = ("interpreter", "jit")
engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def obj() -> Object:
    return load(OBJECT)


@engines
@pytest.mark.parametrize("name", READERS)
def test_fields_are_there(obj: Object, name: str, engine: str) -> None:
    """Each program returns 0, or the line of C that is wrong; and the same a second time."""
    for _ in range(2):
        assert obj.programs[name].run(FRAME, engine=engine).return_value == 0


def test_compiled_functions_have_them(obj: Object) -> None:
    for name in READERS:
        assert obj.programs[name].compile()(FRAME) == 0


@pytest.mark.skipif(bool(NO_KERNEL), reason=str(NO_KERNEL))
def test_they_are_where_linux_has_them() -> None:
    """Laid out by the types of the running kernel, which runs the same programs."""
    there = load(OBJECT, btf=vmlinux.PATH)
    for name in READERS:
        results = {engine: there.programs[name].run(FRAME, engine=engine) for engine in (*ENGINES, "kernel")}
        assert {engine: result.return_value for engine, result in results.items()} == dict.fromkeys(
            results, 0
        ), name
    for name in ("writes", "behind"):
        for engine in (*ENGINES, "kernel"):
            with pytest.raises(EbpfError, match=r"read-only|only read|outside|beyond"):
                there.programs[name].run(FRAME, engine=engine)


@engines
def test_they_are_read_only(obj: Object, engine: str) -> None:
    message = r"store of 4 bytes at 0x\w+: struct bpf_map of map 'numbers' \(array\) is read-only"
    with pytest.raises(MemoryFault, match=message):
        obj.programs["writes"].run(FRAME, engine=engine)
    with pytest.raises(MemoryFault, match="load of 4 bytes"):
        obj.programs["behind"].run(FRAME, engine=engine)


@engines
def test_what_a_timer_calls_has_them(engine: str) -> None:
    """It is given the map as the program has it, which helpers take as well."""
    clock = Clock(0)
    there = load(OBJECT, environment=Environment(clock=clock))
    assert there.programs["starts"].run(FRAME, engine=engine).return_value == 0
    assert clock.advance(ns=1000) == 1
    assert there.maps["timers"].typed[0]["entries"] == 7


@engines
def test_the_number_of_entries_is_that_of_now(obj: Object, engine: str) -> None:
    """What Python put in before the run counts."""
    flows = obj.maps["flows"]
    flows[5] = 1
    try:
        line = obj.programs["hash"].run(FRAME, engine=engine).return_value
    finally:
        del flows[5]
    text = OBJECT.with_suffix(".c").read_text().splitlines()[line - 1]
    assert text.strip() == "CHECK(hash->count.counter == 0);"


@engines
def test_numbers_of_maps_are_theirs(obj: Object, engine: str) -> None:
    """Two objects that share a map see one id; the layout is that of each."""
    other = load(OBJECT, maps={"inner": obj.maps["inner"]})
    for each in (other, obj):
        assert each.programs["inside"].run(FRAME, engine=engine).return_value == 0
    ids = {map_.id for map_ in (*obj.maps.values(), *other.maps.values()) if map_.id is not None}
    assert len(ids) == len({id(map_) for map_ in (*obj.maps.values(), *other.maps.values()) if map_.id})


@engines
def test_without_types_a_map_is_nothing_to_read(obj: Object, engine: str) -> None:
    """So it is where the types that are there do not have the struct, or are damaged."""
    program = obj.programs["array"]
    assert program.types is not None
    renamed = replace(program.types, btf=program.types.btf.replace(b"\0bpf_map\0", b"\0bpf_mop\0"))
    damaged = replace(program.types, btf=program.types.btf[:40] + b"\0bpf_map\0")
    for types in (None, renamed, damaged):
        untold: Program = replace(program, types=types)
        with pytest.raises(MemoryFault, match="load of 4 bytes"):
            untold.run(FRAME, engine=engine)


def test_a_struct_of_gigabytes_is_none(obj: Object) -> None:
    """A file chooses the size of its structs, and would have memory of so many bytes for each map."""
    program = obj.programs["array"]
    assert program.types is not None
    types = bytearray(program.types.btf)
    found = Btf(bytes(types))
    start = int.from_bytes(types[4:8], "little") + 4 * found.offset_of(
        found.named("bpf_map", {Kind.STRUCT})[0]
    )
    assert types[start + 8 : start + 12] == (20).to_bytes(4, "little")
    types[start + 8 : start + 12] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(MemoryFault, match="load of 4 bytes"):
        replace(program, kernel_types=Btf(bytes(types))).run(FRAME)


@pytest.mark.parametrize("member", ["id", "max_entries", "map_type"])
def test_members_that_damaged_types_make_structs_of_are_zero(obj: Object, member: str) -> None:
    program = obj.programs["array"]
    assert program.types is not None
    types = bytearray(program.types.btf)
    found = Btf(bytes(types))
    (id_,) = found.named("bpf_map", {Kind.STRUCT})
    (other,) = found.named("found", {Kind.STRUCT})
    record = int.from_bytes(types[4:8], "little") + 4 * found.offset_of(id_)
    index = [each.name for each in found.type(id_).members].index(member)
    at = record + 12 + 12 * index + 4
    types[at : at + 4] = other.to_bytes(4, "little")
    known = map_structs(replace(program, kernel_types=Btf(bytes(types))))
    assert known is not None
    region = known.region_of(program.maps[0])
    assert bytes(region.view[4 * index : 4 * index + 4]) == bytes(4)


@engines
def test_the_address_of_a_field_is_no_map(obj: Object, engine: str) -> None:
    """Helpers take the address of a map's struct, and no other one in it."""
    program = obj.programs["sum"]
    moved = bytearray(program.code)
    call = next(i for i in program.instructions if i.row is not None and i.imm == 2 and i.opcode == 0x85)
    store = next(i for i in reversed(program.instructions[: call.pc]) if i.dst_reg == 4)
    assert store.opcode == 0xB7  # mov r4, 0: becomes add r1, 4
    moved[8 * store.pc : 8 * store.pc + 8] = bytes([0x07, 0x01, 0, 0, 4, 0, 0, 0])
    with pytest.raises(ExecutionError, match="is no map of the program"):
        replace(program, code=bytes(moved)).run(FRAME, engine=engine)
