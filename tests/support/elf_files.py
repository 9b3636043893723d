"""Object files for tests: where they are, and BTF made by hand."""

from __future__ import annotations

import struct
from pathlib import Path

OBJECTS = Path(__file__).resolve().parents[1] / "elf"


class BtfMaker:
    """BTF that no compiler writes: types are added one by one, `bytes()` gives the section."""

    def __init__(self) -> None:
        self.strings = bytearray(b"\0")
        self.types = bytearray()
        self.count = 0

    def string(self, text: str) -> int:
        offset = len(self.strings)
        self.strings += text.encode() + b"\0"
        return offset if text else 0

    def add(
        self, kind: int, name: str = "", third: int = 0, *rest: int, vlen: int = 0, flag: bool = False
    ) -> int:
        info = int(flag) << 31 | kind << 24 | vlen
        self.types += struct.pack("<III", self.string(name), info, third)
        self.types += b"".join(struct.pack("<I", word & 0xFFFFFFFF) for word in rest)
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, encoding: int = 0, bits: int = 0) -> int:
        return self.add(1, name, size, encoding << 24 | (bits or 8 * size))

    def struct(self, name: str, size: int, *members: tuple[str, int, int], kind: int = 4) -> int:
        words = [word for member, type_, bit in members for word in (self.string(member), type_, bit)]
        return self.add(kind, name, size, *words, vlen=len(members))

    def pointer(self, target: int) -> int:
        return self.add(2, "", target)

    def array(self, element: int, count: int) -> int:
        return self.add(3, "", 0, element, 0, count)

    def enum(self, name: str, *values: tuple[str, int], flag: bool = False) -> int:
        words = [word for value, number in values for word in (self.string(value), number)]
        return self.add(6, name, 4, *words, vlen=len(values), flag=flag)

    def enum64(self, name: str, *values: tuple[str, int], flag: bool = False) -> int:
        words = [w for text, n in values for w in (self.string(text), n & 0xFFFFFFFF, n >> 32)]
        return self.add(19, name, 8, *words, vlen=len(values), flag=flag)

    def __bytes__(self) -> bytes:
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return header + bytes(self.types) + bytes(self.strings)
