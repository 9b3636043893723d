"""Objects of which a part cannot be had, maps that the user gives, programs that only some loaders see."""

from __future__ import annotations

import errno
import re
import struct
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from ebpfjit import Environment, kernel
from ebpfjit.elf import Object, load
from ebpfjit.errors import EbpfError, HelperNotFound, LoadError, MapError, MapRefused
from ebpfjit.runtime.maps import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.vm import EbpfVmRaw
from tests.support.elf_files import OBJECTS

ENGINES = (
    "interpreter",
    "jit",
    pytest.param(
        "kernel",
        marks=pytest.mark.skipif(
            kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
        ),
    ),
)
FRAME = bytes(64)


def run(obj: Object, name: str, engine: str) -> int:
    return obj.program(name).run(FRAME, engine=engine).return_value


# What the user says of maps


@pytest.mark.parametrize("engine", ENGINES)
def test_sizes_from_the_user(engine: str) -> None:
    obj = load(OBJECTS / "maps_by_loader.o", maps={"flows": 128, "sized": 4096})
    assert run(obj, "count", engine) == 2
    assert run(obj, "report_sized", engine) == 2
    assert obj.refusals == {}
    flows = obj.maps["flows"]
    for key in range(2, 129):
        flows[key] = 1
    assert len(flows) == 128
    with pytest.raises(MapError, match="full with 128"):
        flows[129] = 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_map_without_a_size_says_how_to_give_it(engine: str) -> None:
    obj = load(OBJECTS / "maps_by_loader.o")
    advice = r"map 'flows' .*max_entries is 0.*load\(\.\.\., maps=\{'flows': n\}\)"
    with pytest.raises(
        MapRefused, match=r"'count', pc \d+ \(\./maps_by_loader\.c:\d+: .*" + advice
    ) as caught:
        run(obj, "count", engine)
    assert caught.value.errno == 22
    assert run(obj, "add", engine) == 7
    assert set(obj.refusals) == {"flows", "count", "sized", "report_sized"}
    for use in (
        lambda: obj.maps["flows"][1],
        lambda: len(obj.maps["flows"]),
        lambda: list(obj.maps["flows"]),
    ):
        with pytest.raises(MapRefused, match=advice):
            use()


@pytest.mark.parametrize("engine", ENGINES)
def test_sizes_that_loaders_fill_in(engine: str) -> None:
    obj = load(OBJECTS / "maps_by_loader.o", environment=Environment(cpus=4))
    samples, ring = obj.maps["samples"].definition, obj.maps["ring"].definition
    assert (samples.key_size, samples.value_size, samples.max_entries) == (4, 4, 4)
    assert (ring.key_size, ring.value_size, ring.max_entries) == (0, 0, 8192)
    assert ring.value_type is not None
    result = load(OBJECTS / "maps_by_loader.o").program("report").run(FRAME, engine=engine)
    assert result.return_value == 2
    event = struct.pack("<IIQ", 1, 0, 2)
    assert [(name, data[:16]) for name, data in result.events] == [("samples", event), ("ring", event)]
    assert ring.value_type.decode(event) == {"what": 1, "when": 2}


@pytest.mark.parametrize(("size", "pages"), [(1, 1), (4096, 1), (4097, 2), (8192, 2), (12288, 4)])
def test_ring_buffers_have_a_power_of_two_of_pages(size: int, pages: int) -> None:
    obj = load(OBJECTS / "maps_by_loader.o", maps={"sized": size})
    assert obj.maps["sized"].definition.max_entries == 4096 * pages


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["pins", "maps"])
def test_two_objects_share_a_map(way: str, engine: str) -> None:
    pins: dict[str, Any] = {}
    first = load(OBJECTS / "maps_by_loader.o", pins=pins)
    given = {"pins": pins} if way == "pins" else {"maps": {"shared": first.maps["shared"]}}
    second = load(OBJECTS / "maps_by_loader.o", **given)
    assert list(pins) == ["shared"]  # the others are not to be pinned
    assert second.maps["shared"] is first.maps["shared"]
    assert first.maps["flows"] is not second.maps["flows"]
    assert run(first, "share", engine) == 2
    assert second.maps["shared"][1] == struct.pack("<Q", 1)
    assert load(OBJECTS / "maps_by_loader.o").maps["shared"] is not first.maps["shared"]


def test_variables_are_shared_as_they_are() -> None:
    first = load(OBJECTS / "maps_by_loader.o")
    first.globals["counted"] = 100
    second = load(OBJECTS / "maps_by_loader.o", maps={".data": first.maps[".data"]})
    assert second.globals["counted"] == 100
    assert run(second, "add", "interpreter") == 100
    assert first.globals["counted"] == 101


def make(**changes: Any) -> Any:
    shape = MapDefinition("shared", MapType.HASH, 4, 8, 8)
    return create(replace(shape, **changes))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"type": MapType.LRU_HASH}, "it is of type lru_hash, not hash"),
        ({"key_size": 8}, "its key_size is 8, not 4"),
        ({"value_size": 4}, "its value_size is 4, not 8"),
        ({"max_entries": 9}, "its max_entries is 9, not 8"),
        ({"flags": 1}, "its flags is 1, not 0"),
        ({"is_readonly": True}, "programs may only read it"),
    ],
)
def test_maps_of_another_shape_are_refused(changes: dict[str, Any], difference: str) -> None:
    other = make(**changes)
    with pytest.raises(
        MapRefused, match=rf"maps={{'shared': \.\.\.}} does not fit .*{difference}.*leave it out"
    ):
        load(OBJECTS / "maps_by_loader.o", maps={"shared": other})
    with pytest.raises(MapRefused, match=rf"pins\['shared'\] does not fit .*{difference}.*unpin it"):
        load(OBJECTS / "maps_by_loader.o", pins={"shared": other})


def test_maps_of_maps_of_another_shape_are_refused() -> None:
    inner = MapDefinition("inner", MapType.ARRAY, 4, 8, 3)
    outer = MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=replace(inner, value_size=4))
    path = OBJECTS / "inner_map_in_sections.o"
    with pytest.raises(MapRefused, match="of the maps inside: its value_size is 4, not 8"):
        load(path, maps={"outer": create(outer)})
    fitting = create(replace(outer, inner=inner))
    assert load(path, maps={"outer": fitting}).maps["outer"] is fitting


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"maps": {"flaws": 1}}, r"maps={'flaws': \.\.\.}: no such map; there are: 'flows', "),
        ({"maps": {"flows": 0}}, "cannot have 0 entries"),
        ({"maps": {"flows": 1 << 32}}, "cannot have 4294967296 entries"),
        ({"maps": {".data": 2}}, "a section of variables has one entry"),
        ({"only": ["add", "ad"]}, "only='ad': no such program; there are: 'count', "),
    ],
)
def test_what_the_user_gives_is_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load(OBJECTS / "maps_by_loader.o", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"types": 5}, "types is a program type, or maps names to types: strings, and is not 5"),
        ({"types": {"add": {}}}, "types is a program type, or maps names to types: strings, and is not"),
        ({"only": [["add"]]}, r"only= has names of programs or sections, not \['add'\]"),
    ],
)
def test_what_names_no_type_and_no_program_is_said_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        load(OBJECTS / "maps_by_loader.o", **given)


def test_only_some_programs() -> None:
    obj = load(OBJECTS / "maps_by_loader.o", only=["report", "add"])
    assert list(obj.programs) == ["report", "add"]
    assert set(obj.refusals) == {"flows", "sized"}
    assert list(load(OBJECTS / "static_programs.o", only=["2/5"]).programs) == ["by_section"]
    assert load(OBJECTS / "static_programs.o", only=[]).programs == {}


# Static programs and tail calls


@pytest.mark.parametrize("engine", ENGINES)
def test_static_programs_of_one_name_are_told_apart_by_their_place(engine: str) -> None:
    obj = load(OBJECTS / "same_names.o")
    third = next(name for name in obj.programs if "+0x" in name)
    assert list(obj.programs) == ["main_a", "main_b", "main_c", "tail_a", "tc:tail_a", third]
    assert not obj.refusals
    for name, value in {"main_a": 11, "main_b": 22, "main_c": 33, "tc:tail_a": 22, third: 33}.items():
        assert run(obj, name, engine) == value
    alone = load(OBJECTS / "same_names.o", only=["main_b"])
    assert not alone.refusals
    assert run(alone, "main_b", engine) == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["static_programs.o", "static_programs_cilium.o"])
def test_static_programs_are_programs(name: str, engine: str) -> None:
    obj = load(OBJECTS / name)
    assert list(obj.programs) == [
        "to_value", "to_section", "to_tag", "by_tag_too", "by_value", "by_section", "by_tag",
    ]  # fmt: skip
    assert {program.type for program in obj.programs.values()} == {"tc"}
    found = [
        run(obj, name, engine) for name in ("to_value", "to_section", "to_tag", "by_value", "by_tag_too")
    ]
    assert found == [11, 12, 13, 11, 14]
    assert obj.maps["tagged"][2] is obj.programs["by_tag_too"]


def test_a_prog_array_that_another_object_uses_takes_what_belongs_to_it() -> None:
    """What an object puts in from the start is decided by the first user, which was there before."""
    first = load(OBJECTS / "static_programs.o")
    assert run(first, "to_tag", "interpreter") == 13
    given = {"tagged": first.maps["tagged"]}
    second = load(OBJECTS / "static_programs.o", maps=given)
    assert first.maps["tagged"][3] is second.programs["by_tag"]
    data = (OBJECTS / "static_programs.o").read_bytes()
    other = load(data.replace(b"\0tc/tail\0", b"\0xdp/tai\0"), maps=given)
    assert "tagged" in other.refusals
    assert "belongs to tc programs" in str(other.refusals["tagged"])
    assert first.maps["tagged"][3] is second.programs["by_tag"]


# Parts that are refused


REASONS = {
    "uses_map": "uses what was refused: .*map 'unknown' .type 99.",
    "uses_outer": "map 'outer', index 0: 'unknown' does not fit: .*program 'uses_outer' uses the map",
    "uses_kconfig": "'CONFIG_NOT_GIVEN' in section '.kconfig' has no value: give it with",
    "uses_kfunc": "calls kfunc 'a_kfunc', which is not there",
    "uses_symbol": "refers to kernel symbol 'a_symbol', which is not there",
    "uses_function": "calls symbol 'elsewhere', which is not defined in this file",
    "uses_pointer": "variable 'where', byte 0x0, points to symbol 'known' in section '.maps'",
    "uses_subprogram": "function 'inner', pc 1 .*calls kfunc 'a_kfunc'",
}


@pytest.fixture(scope="module")
def parts() -> Object:
    return load(OBJECTS / "parts.o", kconfig={"CONFIG_GIVEN": 10})


def test_a_function_that_is_not_there_is_no_recursion(parts: Object) -> None:
    (error,) = parts.program("uses_function").verify(seconds=0).errors
    assert (error.pc, error.kind) == (1, "call")
    assert "calls symbol 'elsewhere', which is not defined in this file" in error.message


def test_what_is_whole_runs(parts: Object) -> None:
    for engine in ("interpreter", "jit"):
        assert run(parts, "fine", engine) == 17
        assert run(parts, "also_fine", engine) == 2
    parts.maps["known"][5] = 6
    assert list(parts.maps["known"].values()) == [struct.pack("<Q", 6)]


@pytest.mark.parametrize("name", REASONS)
def test_what_is_not_is_refused_by_name_and_line_when_it_is_used(parts: Object, name: str) -> None:
    program = parts.program(name)
    uses: list[Any] = [
        lambda: program.run(FRAME),
        lambda: program.run(FRAME, engine="interpreter"),
        lambda: program.run(FRAME, engine="kernel"),
        program.compile,
        lambda: EbpfVmRaw(program),
        lambda: replace(program, type="tc").run(FRAME),
    ]
    for use in uses:
        with pytest.raises(LoadError, match=REASONS[name]) as caught:
            use()
        assert re.search(r"\./parts\.c:\d+: ", str(caught.value))
    assert re.search(REASONS[name], str(parts.refusals[name]))


def test_the_refusals_of_an_object(parts: Object) -> None:
    assert set(parts.refusals) == {*REASONS, "unknown", "outer", "CONFIG_NOT_GIVEN"}
    assert all(isinstance(each, EbpfError) for each in parts.refusals.values())
    assert isinstance(parts.refusals["uses_map"], MapRefused)
    with pytest.raises(MapRefused, match=r"type 99"):
        parts.maps["unknown"][1]
    with pytest.raises(LoadError, match="CONFIG_NOT_GIVEN"):
        parts.globals["CONFIG_NOT_GIVEN"]
    assert parts.globals["CONFIG_GIVEN"] == 10
    assert "refused" in repr(parts.maps["unknown"])


def test_everything_at_once() -> None:
    with pytest.raises(MapRefused) as caught:
        load(OBJECTS / "parts.o", kconfig={"CONFIG_GIVEN": 10}, strict=True)
    for word in ("'unknown'", "'a_kfunc'", "'a_symbol'", "'elsewhere'", "'where'", "CONFIG_NOT_GIVEN"):
        assert word in str(caught.value)
    assert load(OBJECTS / "maps_by_loader.o", maps={"flows": 1, "sized": 1}, strict=True).refusals == {}


def test_an_error_is_raised_anew_each_time(parts: Object) -> None:
    errors = []
    for _ in range(2):
        with pytest.raises(LoadError) as caught:
            parts.program("uses_kfunc").run(FRAME)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_locks_where_linux_has_none_are_refused_by_field_and_line(engine: str) -> None:
    obj = load(OBJECTS / "locks_refused.o")
    assert run(obj, "use_plain", engine) == 7
    assert obj.maps["plain"][0][8:] == struct.pack("<Q", 1)
    for kind in ("lru_hash", "percpu_hash", "percpu_array", "lru_percpu_hash"):
        message = (
            rf"'use_{kind}', pc \d+ \(\./locks_refused\.c:\d+: .*map '{kind}' \({kind}\): 'lock' \(bpf_spin"
        )
        with pytest.raises(MapRefused, match=message) as caught:
            run(obj, f"use_{kind}", engine)
        assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_array_of_tc_programs_takes_no_xdp_program(engine: str) -> None:
    """Whoever comes first owns it: the other is refused, when it is put in or when it jumps."""
    obj = load(OBJECTS / "locks_refused.o")
    obj.maps["jumps"][1] = obj.programs["target"]
    with pytest.raises(MapError, match=r"'jumps' .*'caller': it belongs to xdp programs.* one of tc"):
        run(obj, "caller", engine)
    obj = load(OBJECTS / "locks_refused.o")
    assert run(obj, "caller", engine) == 9
    with pytest.raises(MapError, match=r"'jumps' .*belongs to tc programs") as caught:
        obj.maps["jumps"][1] = obj.programs["target"]
    assert caught.value.errno == errno.EINVAL


# Tables of functions


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_tables_of_functions(engine: str) -> None:
    obj = load(OBJECTS / "function_table.o")
    assert set(obj.refusals) == {"of_a_program"}

    def call(name: str, *words: int) -> int:
        program = obj.program(name)
        plain = replace(program, type=None, section=None)
        return plain.run(struct.pack(f"<{len(words)}Q", *words), engine=engine).return_value

    assert call("choose", 0, 5) == 6
    assert call("choose", 1, 5) == 16
    assert call("choose_later", 1, 7, 0) == 10 * (22 + 22 + 8) + 4
    assert call("no_table", 0, 9) == 9
    first, later = obj.program("choose"), obj.program("choose_later")
    assert len(first) > 20
    assert {name: pc for pc, name in first.functions.items() if pc} == {
        name: pc for pc, name in later.functions.items() if pc
    }
    assert len(obj.program("no_table").functions) == 1


def test_a_table_with_what_is_no_function_is_refused_by_name() -> None:
    obj = load(OBJECTS / "function_table.o")
    with pytest.raises(LoadError, match=r"variable 'wrong', .* 'socket', where no function starts that"):
        obj.program("of_a_program").run(FRAME)


def test_a_pointer_that_no_program_names_is_refused_by_its_variables_name() -> None:
    obj = load(OBJECTS / "data_pointers.o")
    assert set(obj.refusals) == {"first"}
    refusal = (
        "variable 'first', byte 0x0, points to symbol 'numbers' in section '.maps', which programs cannot"
    )
    assert refusal in str(obj.refusals["first"])
    assert obj.program("limit").run(FRAME).return_value == 5
    load(OBJECTS / "data_pointers.o", strict=True)  # libbpf looks at no pointers in data


# CO-RE


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("field", "struct task, field no_such_field is not among"),
        ("nested", r"struct task, field parts\[1\].gone is not among"),
        ("value", "state, value NOT_THERE is not among"),
    ],
)
def test_what_core_does_not_find_is_named(name: str, wanted: str, engine: str) -> None:
    obj = load(OBJECTS / "missing_field.o", btf=OBJECTS / "core_target.o")
    assert set(obj.refusals) == {"field", "nested", "value"}
    with pytest.raises(HelperNotFound, match=rf"{wanted}.*\(\./missing_field\.c:\d+: ") as caught:
        obj.program(name).run(bytes(64), engine=engine)
    assert "register_helper" not in str(caught.value)
    assert str(obj.refusals[name]) == str(caught.value)
    assert obj.program("guarded").run(bytes(64), engine=engine).return_value == 3


@pytest.mark.skipif(kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason()))
def test_what_core_does_not_find_is_named_where_linux_refuses_it() -> None:
    obj = load(OBJECTS / "missing_field.o", btf=OBJECTS / "core_target.o")
    wanted = r"pc \d+: struct task, field no_such_field is not among .*\(\./missing_field\.c:\d+: .*\n"
    with pytest.raises(kernel.KernelVerifierError, match=wanted + "pc .*invalid func unknown#195896080"):
        kernel.load_program(replace(obj.program("field"), type="raw_tracepoint", section=None))


# Whole files


def test_an_object_of_maps_only() -> None:
    obj = load(OBJECTS / "maps_only.o")
    assert dict(obj.programs) == {}
    obj.maps["shared"][1] = 2
    assert len(obj.maps["shared"]) == 1


def test_an_object_of_a_table_for_the_kernel_only() -> None:
    obj = load(OBJECTS / "struct_ops_only.o")
    assert (dict(obj.programs), dict(obj.refusals)) == ({}, {})


def test_a_stripped_object_says_so() -> None:
    with pytest.raises(LoadError, match=r"there is no symbol table: the file was stripped.*build it again"):
        load(OBJECTS / "stripped.o")


def test_another_byte_order_says_what_to_do() -> None:
    with pytest.raises(LoadError, match=r"EM_BPF, ELF64, big-endian.*-target bpfel"):
        load(OBJECTS / "big_endian.o")


def test_types_of_another_byte_order_say_what_to_do() -> None:
    """Beside sound code, which runs without them; given by the user, they are refused."""
    data = (OBJECTS / "counter.o").read_bytes()
    obj = load(data.replace(b"\x9f\xeb\x01\0", b"\xeb\x9f\x01\0"))
    assert re.search(r"section '\.BTF': .*big-endian.*-target bpfel", str(obj.refusals[".BTF"]))
    assert obj.program("without_maps").run(FRAME).return_value == 3
    with pytest.raises(LoadError, match=r"big-endian.*-target bpfel"):
        load(data, btf=b"\xeb\x9f\1\0" + bytes(40))
    with pytest.raises(LoadError, match=r"big_endian\.o: not a little-endian ELF64 file; types are in"):
        load(data, btf=OBJECTS / "big_endian.o")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"maps": {"flows": "many"}},
            r"maps={'flows': \.\.\.} is a number of entries, a mapping of sizes or a map, not a str",
        ),
        ({"pins": {"shared": 5}}, r"pins\['shared'\] is a int, and no map"),
        ({"maps": ["flows"]}, "maps= maps names of maps to maps, not a list"),
        ({"pins": MappingProxyType({})}, "pins= is where new maps are put; a mappingproxy cannot be changed"),
        ({"pins": "/sys/fs/bpf"}, "pins= maps names of maps to maps, not a str"),
    ],
)
def test_what_is_no_map_is_a_type_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        load(OBJECTS / "maps_by_loader.o", **given)


def test_two_definitions_of_one_symbol_are_named() -> None:
    data = (OBJECTS / "static_programs.o").read_bytes()
    twice = data.replace(b"\0by_tag_too\0", b"\0to_section\0")
    with pytest.raises(LoadError, match=r"symbol 'to_section' is defined twice, in section 'tc.* rename one"):
        load(twice)


def test_static_functions_of_one_name_are_two_programs() -> None:
    data = (OBJECTS / "static_programs.o").read_bytes()
    programs = load(data.replace(b"\0by_section\0", b"\0to_section\0")).programs
    assert programs["to_section"].section == "tc"
    assert programs["2/5:to_section"].run(FRAME).return_value == 12


def damage(data: bytes, section: bytes, offset: int) -> bytes:
    """Return an object with a section's word overwritten; `section` is its header magic's name."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    count, names = struct.unpack_from("<HH", data, 0x3C)
    (strings,) = struct.unpack_from("<Q", data, table + 64 * names + 24)
    for at in range(table, table + 64 * count, 64):
        name, _, _, _, start = struct.unpack_from("<IIQQQ", data, at)
        if data[strings + name :].startswith(section + b"\0"):
            return data[: start + offset] + b"\xff\xff\xff\x7f" + data[start + offset + 4 :]
    raise AssertionError(section)


@pytest.mark.parametrize(
    ("section", "offset"),
    [
        *((b".BTF", at) for at in (0, 8, 24 + 4, 20)),
        *(
            (b".BTF.ext", at) for at in (0, 16, 32, 36, 40)
        ),  # the last: of the record, section and number of functions
    ],
)
def test_damaged_types_beside_sound_code(section: bytes, offset: int) -> None:
    """The code runs without them, and the object says so."""
    obj = load(damage((OBJECTS / "counter.o").read_bytes(), section, offset))
    refusal = obj.refusals[section.decode()]
    assert isinstance(refusal, LoadError)
    assert "section '.BTF" in str(refusal)  # names of .BTF.ext are strings of .BTF
    for engine in ("interpreter", "jit"):
        assert obj.program("without_maps").run(FRAME, engine=engine).return_value == 3
    assert obj.globals["plain"] == 3
    if section == b".BTF":
        with pytest.raises(LoadError, match=r"map|\.maps") as caught:
            obj.program("count").run(FRAME)
        assert "compile with -g" not in str(caught.value)
    else:
        assert obj.program("count").run(FRAME).return_value == 2
    with pytest.raises(LoadError):
        load(damage((OBJECTS / "counter.o").read_bytes(), section, offset), strict=True)


def test_each_name_of_a_type_may_be_damaged() -> None:
    data = (OBJECTS / "counter.o").read_bytes()
    types = load(data).btf
    assert types is not None
    said = 0
    for id in range(1, len(types)):
        obj = load(damage(data, b".BTF", 24 + 4 * types.offset_of(id)))
        assert obj.program("without_maps").run(FRAME, engine="interpreter").return_value == 3
        said += ".BTF" in obj.refusals
    assert said


def test_damaged_types_where_relocations_were_asked_for() -> None:
    data = damage((OBJECTS / "missing_field.o").read_bytes(), b".BTF", 8)
    assert load(data).program("field").run(struct.pack("<2I", 1, 77)).return_value == 77
    obj = load(data, btf=OBJECTS / "core_target.o")
    with pytest.raises(LoadError, match=r"relocations for the types of load\(\.\.\., btf=\) cannot be read"):
        obj.program("guarded").run(bytes(64))


def test_inner_maps_are_counted_over_the_whole_file() -> None:
    obj = load(OBJECTS / "inner_map_in_sections.o")
    inner = obj.maps["outer"].definition.inner
    assert inner is not None
    assert (inner.name, inner.type, inner.max_entries) == ("inner", MapType.ARRAY, 3)
    assert obj.refusals == {}


def test_a_string_of_the_configuration_is_cut_as_libbpf_cuts_it() -> None:
    config = {"CONFIG_HZ": 1, "CONFIG_BPF": "y", "CONFIG_NET": "n", "CONFIG_LOCALVERSION": "-longer-than"}
    obj = load(OBJECTS / "externs.o", kconfig=config)
    assert obj.globals["CONFIG_LOCALVERSION"] == b"-longer\0"
