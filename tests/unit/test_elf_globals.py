"""Global variables: from Python, from programs, through BTF and without."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support.elf_maker import ALLOC, FUNCTION, NOBITS, WRITE, ElfMaker

from ebpfjit.elf import Object, load
from ebpfjit.elf import globals as variables
from ebpfjit.errors import LoadError, MemoryFault
from ebpfjit.program import Program
from tests.support.elf_files import OBJECTS

TYPED = {
    "threshold": 10,
    "limits": {"first": 1, "last": -2, "mac": bytes(range(1, 7)), "bits": 5, "rest": 100},
    "total": -5,
    "flag": 1,
    "ports": [80, 443, 0, 0],
    "label": b"abcd\0",
    "enabled": True,
    "hidden": 0,
    "large": [0] * 100,
    "own": 77,
    "elsewhere": 42,
}


@pytest.fixture
def obj() -> Object:
    return load(OBJECTS / "globals.o")


def run(obj: Object, name: str, data: bytes = b"", engine: str = "jit") -> int:
    """Run a socket filter's code on plain memory: its context is the data."""
    program = obj.program(name)
    plain = Program(
        program.code, program.name, symbols=program.symbols, references=program.references,
        maps=program.maps, lines=program.lines,
    )  # fmt: skip
    return plain.run(data, engine=engine).return_value


def test_values_through_btf(obj: Object) -> None:
    assert {name: obj.globals[name] for name in TYPED} == TYPED
    assert set(obj.globals) == {*TYPED, "chosen", "words"}
    assert len(obj.globals) == len(TYPED) + 2
    assert list(obj.maps) == [".rodata", ".data", ".data.own", "settings", ".bss", ".rodata.str1.1"]


def test_values_by_size() -> None:
    untyped = load(OBJECTS / "globals_untyped.o").globals
    assert untyped["total"] == (1 << 64) - 5
    assert untyped["enabled"] == 1
    assert untyped["label"] == b"abcd\0"
    assert untyped["limits"] == struct.pack("<Ii", 1, -2) + bytes(range(1, 7)) + struct.pack(
        "<H", 5 | 100 << 4
    )
    untyped["label"] = b"xy"
    assert untyped["label"] == b"xy\0\0\0"
    untyped["flag"] = 255
    with pytest.raises(ValueError, match="flag: 256 is not from 0 to 255"):
        untyped["flag"] = 256


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("name", ["globals.o", "globals_untyped.o"])
def test_programs_and_python_see_the_same(name: str, engine: str) -> None:
    obj = load(OBJECTS / name)
    obj.globals["threshold"] = 30
    obj.globals["own"] = 5
    assert run(obj, "count", struct.pack("<Q", 4), engine) == ord("t") + 42  # words[1] == "two"
    assert obj.globals["hidden"] == 4
    assert obj.globals["total"] in (-1, (1 << 64) - 1)
    assert obj.globals["own"] == 6
    assert bytes(variables.contents(obj.maps[".bss"])).find(struct.pack("<I", 31)) >= 0
    obj.globals["hidden"] = 100
    assert run(obj, "count", struct.pack("<Q", 1), engine) == ord("t") + 42  # words[101 % 3]
    assert obj.globals["hidden"] == 101


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_constants_are_read_only_to_programs(obj: Object, engine: str) -> None:
    with pytest.raises(MemoryFault, match=r"'\.rodata' .*is read-only") as caught:
        run(obj, "write_constant", b"", engine)
    assert caught.value.access == "store"
    assert obj.globals["threshold"] == 10


def test_constants_are_settable_before_the_first_run(obj: Object) -> None:
    obj.globals["threshold"] = 11
    obj.globals["limits"] = {"first": 7}
    assert obj.globals["limits"] == {"first": 7, "last": 0, "mac": bytes(6), "bits": 0, "rest": 0}
    run(obj, "count", bytes(8), "interpreter")
    with pytest.raises(LoadError, match=r"'threshold' is in \.rodata, .* set it before the first program"):
        obj.globals["threshold"] = 12
    assert obj.globals["threshold"] == 11
    obj.globals["total"] = 3  # variables stay settable


def test_compiling_freezes_too(obj: Object) -> None:
    obj.program("count").compile()
    with pytest.raises(LoadError, match="before the first"):
        obj.globals["threshold"] = 12


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("flag", 256, "flag: 256 is not from 0 to 255"),
        ("total", 1 << 63, "total: .* is not from"),
        ("ports", [1], r"ports: \[1\] is not a sequence of 4 elements"),
        ("label", b"too long", "label: 8 bytes do not fit 5"),
        ("limits", {"absent": 1}, "limits: struct limits has no member 'absent'"),
        ("limits", {"mac": b"1234567"}, "limits: mac: 7 bytes do not fit 6"),
    ],
)
def test_values_that_do_not_fit(obj: Object, name: str, value: Any, message: str) -> None:
    before = obj.globals[name]
    with pytest.raises(ValueError, match=message):
        obj.globals[name] = value
    assert obj.globals[name] == before


def test_bytes_of_the_right_size_always_fit(obj: Object) -> None:
    obj.globals["ports"] = struct.pack("<4H", 1, 2, 3, 4)
    assert obj.globals["ports"] == [1, 2, 3, 4]
    obj.globals["total"] = bytes(8)
    assert obj.globals["total"] == 0
    with pytest.raises(TypeError, match="total: "):
        obj.globals["total"] = bytes(7)


def test_unknown_names_list_the_variables(obj: Object) -> None:
    with pytest.raises(KeyError, match=r"no global variable 'x'; there are: .*threshold"):
        obj.globals["x"]
    with pytest.raises(KeyError):
        obj.globals["x"] = 1
    assert "x" not in obj.globals


def test_pointers_among_the_data_are_resolved(obj: Object) -> None:
    strings = obj.maps[".rodata.str1.1"].value_address
    assert obj.globals["words"] == [strings, strings + 4, strings + 8]
    assert obj.globals["chosen"] == obj.maps[".rodata"].value_address + 24


def test_each_load_has_its_own_variables() -> None:
    first, second = load(OBJECTS / "globals.o"), load(OBJECTS / "globals.o")
    first.globals["total"] = 1
    assert second.globals["total"] == -5


@pytest.mark.parametrize("name", ["globals.o", "globals_untyped.o"])
def test_a_huge_section_is_refused_before_memory_is_taken(name: str) -> None:
    data = bytearray((OBJECTS / name).read_bytes())
    (table,) = struct.unpack_from("<Q", data, 0x28)
    (count,) = struct.unpack_from("<H", data, 0x3C)
    bss = next(
        table + 64 * n for n in range(count) if struct.unpack_from("<I", data, table + 64 * n + 4) == (8,)
    )
    struct.pack_into("<Q", data, bss + 32, 1 << 40)
    with pytest.raises(LoadError, match=r"section '\.bss': 1099511627776 bytes of variables"):
        load(bytes(data))


# .kconfig and .ksyms

CONFIG = {
    "LINUX_KERNEL_VERSION": 0x060C00,
    "CONFIG_HZ": 250,
    "CONFIG_BPF": "y",
    "CONFIG_NET": "y",
    "CONFIG_LOCALVERSION": "-test",
}


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_configuration(engine: str) -> None:
    obj = load(OBJECTS / "externs.o", kconfig=CONFIG)
    assert obj.globals["CONFIG_HZ"] == 250
    assert obj.globals["CONFIG_LOCALVERSION"] == b"-test\0\0\0"
    assert run(obj, "configured", b"", engine) == 0x060C00 + 250_000_000_000
    assert run(obj, "letters", b"", engine) == ord("y") | ord("t") << 8 | 1 << 16
    with pytest.raises(LoadError, match="before the first"):
        obj.globals["CONFIG_HZ"] = 100


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_weak_symbols_are_zero(engine: str) -> None:
    obj = load(OBJECTS / "externs.o", kconfig=CONFIG)
    assert run(obj, "weak", b"", engine) == 2
    from ebpfjit.errors import HelperNotFound

    with pytest.raises(HelperNotFound, match=r"2002000000 .instead of a weak function"):
        run(obj, "weak_reached", b"", engine)


def test_the_version_is_that_of_the_running_kernel_where_nobody_says() -> None:
    given = {name: value for name, value in CONFIG.items() if name != "LINUX_KERNEL_VERSION"}
    assert load(OBJECTS / "externs.o", kconfig=given).globals["LINUX_KERNEL_VERSION"] > 0x020000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CONFIG_HZ": None}, "extern 'CONFIG_HZ' in section '.kconfig' cannot be None"),
        ({"CONFIG_HZ": 1 << 32}, "cannot be 4294967296: .* is not from 0 to"),
        ({"CONFIG_LOCALVERSION": b"much too long"}, "13 bytes do not fit 8"),
    ],
)
def test_wrong_configuration(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load(OBJECTS / "externs.o", kconfig={**CONFIG, **change})


def test_missing_configuration() -> None:
    with pytest.raises(
        LoadError, match=r"extern 'CONFIG_HZ' in section '\.kconfig' has no value: .*kconfig="
    ):
        load(OBJECTS / "externs.o", strict=True)


def test_a_kernel_version_that_does_not_fit_is_refused_to_who_reads_it() -> None:
    loaded = load(OBJECTS / "short_version.o")
    with pytest.raises(LoadError, match=r"LINUX_KERNEL_VERSION.* has 2 bytes"):
        loaded.program("version").run(bytes(64))
    assert loaded.program("other").run(bytes(64)).return_value == 7


def test_kernel_functions_are_refused_by_name_and_line() -> None:
    with pytest.raises(LoadError, match=r"section 'xdp': .*'caller', pc .*kfunc\.c:13: .*kfunc 'bpf_needed'"):
        load(OBJECTS / "kfunc.o", strict=True)
    with pytest.raises(LoadError, match=r"'caller', pc .*kfunc 'bpf_needed'"):
        load(OBJECTS / "kfunc.o").program("caller").run(bytes(64))


def test_a_pointer_in_a_section_without_data_is_that_of_its_target() -> None:
    """No compiler writes one: there is nothing in the file to add to."""
    maker = ElfMaker()
    code = maker.code("xdp", bytes.fromhex("1800000000000000 0000000000000000 9500000000000000"))
    zeros = maker.section(".bss", type_=NOBITS, flags=ALLOC | WRITE, size=32)
    text = maker.section(".rodata", b"constant", flags=ALLOC)
    maker.relocations(zeros, (24, 2, maker.symbol("text", text, size=8)))
    maker.relocations(code, (0, 1, maker.symbol("zeros", zeros, size=32)))
    maker.symbol("main", code, size=24, type_=FUNCTION)
    obj = load(bytes(maker))
    values, constants = obj.maps.values()
    assert int.from_bytes(bytes(values[0])[24:], "little") == constants.regions[0].start


@pytest.mark.parametrize(("name", "value"), [("label", "\ud800"), ("limits", {"mac": "\ud800"})])
def test_text_that_has_no_bytes_is_a_wrong_value(name: str, value: Any) -> None:
    obj = load(OBJECTS / "globals.o")
    with pytest.raises(ValueError, match=f"^{name}: .*surrogates not allowed"):
        obj.globals[name] = value
