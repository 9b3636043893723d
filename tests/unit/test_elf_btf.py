"""BTF: parsing, names, sizes; values of its types as Python values and back."""

from __future__ import annotations

import math
import struct

import pytest

from ebpfjit.elf.btf import Btf, Kind, essential_name
from ebpfjit.elf.codec import codec_of
from ebpfjit.elf.loader import load, read_btf
from ebpfjit.errors import LoadError
from tests.support.elf_files import OBJECTS, BtfMaker

VMLINUX = "/sys/kernel/btf/vmlinux"


def test_the_types_of_an_object() -> None:
    btf = read_btf(OBJECTS / "btf_maps.o")
    assert btf is not None
    (id_,) = btf.named("value", {Kind.STRUCT})
    type_ = btf.type(id_)
    assert type_.size == 48
    assert [member.name for member in type_.members][:3] == ["total", "color", "seen"]
    assert btf.describe(id_) == "struct value"
    assert btf.size_of(id_) == 48
    (color,) = btf.named("color", {Kind.ENUM})
    assert btf.type(color).enumerators == (("RED", 0), ("GREEN", 7))
    assert sum(1 for _ in btf.types()) == len(btf) - 1


def test_an_object_has_its_types() -> None:
    btf = load(OBJECTS / "core.o").btf
    assert btf is not None
    assert btf.named("task", {Kind.STRUCT})
    assert len(btf.named("task", {Kind.STRUCT}, flavors=True)) == 2
    assert load(OBJECTS / "subprograms.o").btf is None


@pytest.mark.parametrize(
    ("name", "essential"),
    [("task", "task"), ("task___old", "task"), ("___x", "___x"), ("a___b___c", "a___b"), ("a___", "a___")],
)
def test_flavors(name: str, essential: str) -> None:
    assert essential_name(name) == essential


def test_names_that_share_their_end() -> None:
    maker = BtfMaker()
    maker.integer("unsigned int", 4)
    types = Btf(bytes(maker))
    assert types.named("int", {Kind.INT}) == []  # the string is there, no type starts at it
    assert types.named("unsigned int", {Kind.INT}) == [1]


def test_the_types_of_a_kernel() -> None:
    try:
        btf = read_btf(VMLINUX)
    except OSError:
        pytest.skip(f"no {VMLINUX}")
    assert btf is not None
    (id_,) = btf.named("xdp_md", {Kind.STRUCT})
    assert [member.name for member in btf.type(id_).members][:2] == ["data", "data_end"]
    assert btf.size_of(id_) == 24
    assert codec_of(btf, id_).decode(bytes(range(24)))["data_end"] == 0x07060504


# Values


def codec(maker: BtfMaker, id_: int):
    return codec_of(Btf(bytes(maker)), id_)


def test_numbers() -> None:
    maker = BtfMaker()
    u8, s16, u64 = maker.integer("u8", 1), maker.integer("s16", 2, 1), maker.integer("u64", 8)
    bool_, float_, double = maker.integer("bool", 1, 4), maker.add(16, "float", 4), maker.add(16, "double", 8)
    pointer, enum = maker.pointer(u8), maker.enum("e", ("A", -3), flag=True)
    wide = maker.enum64("w", ("B", 1 << 40))
    for type_, value, data in (
        (u8, 200, b"\xc8"),
        (s16, -2, b"\xfe\xff"),
        (u64, 1 << 63, bytes(7) + b"\x80"),
        (bool_, True, b"\x01"),
        (float_, 0.5, struct.pack("<f", 0.5)),
        (double, math.pi, struct.pack("<d", math.pi)),
        (pointer, 0x1234, b"\x34\x12" + bytes(6)),
        (enum, -3, b"\xfd\xff\xff\xff"),
        (wide, 1 << 40, (1 << 40).to_bytes(8, "little")),
    ):
        each = codec(maker, type_)
        assert each.decode(data) == value
        assert each.encode(value) == data
        assert each.size == len(data)
    for type_, wrong in (
        (u8, 256), (u8, -1), (s16, 32768), (bool_, 2), (enum, 1 << 31), (float_, 1e300), (u64, 1.5),
        (u8, "x"),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            codec(maker, type_).encode(wrong)


def test_structs_unions_and_arrays() -> None:
    btf = read_btf(OBJECTS / "btf_maps.o")
    assert btf is not None
    value = codec_of(btf, btf.named("value", {Kind.STRUCT})[0])
    assert value.size == 48
    given = {
        "total": -1, "color": 7, "seen": True, "name": b"flow", "word": 0x00020001,
        "low": 5, "high": 17, "below": -8, "next": 1 << 47, "ratio": 0.25,
    }  # fmt: skip
    data = value.encode(given)
    decoded = value.decode(data)
    assert decoded == {**given, "name": b"flow" + bytes(7), "halves": [1, 2]}
    assert value.encode(decoded) == data
    assert value.encode({}) == bytes(48)
    assert value.encode({"halves": [3, 4]})[24:28] == b"\x03\x00\x04\x00"
    for wrong, message in (
        ({"nothing": 1}, "struct value has no member 'nothing'; it has total, color"),
        ({"low": 8}, "low: 8 is not from 0 to 7"),
        ({"below": -9}, "below: -9 is not from -8 to 7"),
        ({"halves": [1]}, "halves: .* is not a sequence of 2 elements"),
        ({"name": b"far too long"}, "name: 12 bytes do not fit 11"),
    ):
        with pytest.raises(ValueError, match=message):
            value.encode(wrong)
    with pytest.raises(TypeError, match="is not a mapping"):
        value.encode(5)


def test_bit_fields_of_old_compilers() -> None:
    maker = BtfMaker()
    three_bits = maker.integer("int", 4, bits=3)
    each = codec(maker, maker.struct("s", 4, ("a", three_bits, 0), ("b", three_bits, 3)))
    assert each.decode(b"\x2b\0\0\0") == {"a": 3, "b": 5}
    assert each.encode({"a": 3, "b": 5}) == b"\x2b\0\0\0"


# What is damaged


def test_damaged_headers() -> None:
    good = bytes(BtfMaker())
    for data, message in (
        (good[:20], "truncated header: 20 of 24"),
        (b"\xeb\x9f" + good[2:], "magic number is 0x9feb, not 0xeb9f: types of big-endian"),
        (good[:2] + b"\2" + good[3:], "version 2"),
        (good[:20] + b"\xff" + good[21:], "truncated: strings"),
        (good[:12] + b"\xff" + good[13:], "truncated: types"),
        (good[:12] + b"\x01" + good[13:], "no multiple of 4"),
    ):
        with pytest.raises(LoadError, match=message):
            Btf(data)


def test_damaged_types() -> None:
    maker = BtfMaker()
    maker.add(25)
    with pytest.raises(LoadError, match="type 1 has an unknown kind 25"):
        len(Btf(bytes(maker)))
    maker = BtfMaker()
    maker.add(4, "s", 4, vlen=3)
    with pytest.raises(LoadError, match="type 1 is truncated"):
        len(Btf(bytes(maker)))
    maker = BtfMaker()
    circle = maker.add(8, "t", 2)
    maker.add(8, "u", 1)
    with pytest.raises(LoadError, match="or refers to itself"):
        Btf(bytes(maker)).resolve(circle)
    maker = BtfMaker()
    itself = maker.struct("s", 8, ("s", 1, 0))
    with pytest.raises(LoadError, match=r"nested too deep|too many members"):
        codec(maker, itself)
    maker = BtfMaker()
    outside = maker.struct("s", 8, ("m", 1 + maker.integer("int", 4), 64))
    with pytest.raises(LoadError):
        codec(maker, outside)
    maker = BtfMaker()
    number = maker.integer("int", 4)
    with pytest.raises(LoadError, match="member 'm' is outside of type 2, struct s"):
        codec(maker, maker.struct("s", 8, ("m", number, 40)))
    with pytest.raises(LoadError, match="there is no type 99"):
        Btf(bytes(maker)).type(99)
    with pytest.raises(LoadError, match="has no size"):
        codec(maker, maker.add(13, "", 0))


def test_anonymous_members_cannot_multiply_without_limit() -> None:
    maker = BtfMaker()
    inner = maker.struct("", 0)
    for _ in range(12):
        inner = maker.struct("", 0, *[("", inner, 0)] * 30)
    with pytest.raises(LoadError, match="too many members"):
        codec(maker, inner)


def test_a_btf_that_is_not_there() -> None:
    with pytest.raises(LoadError, match=r"no section '\.BTF'"):
        read_btf(OBJECTS / "subprograms.o")
    with pytest.raises(LoadError, match="magic number"):
        read_btf(b"nothing that anyone knows, but long enough")
    with pytest.raises(FileNotFoundError):
        read_btf("no/such/file")
