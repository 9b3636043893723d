"""What a fuzzer found: a packet, or several one after the other, with the maps that they meet."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, field
from typing import Any

from ebpfjit.fuzzing.contexts import without_metadata
from ebpfjit.fuzzing.handlers import Handler
from ebpfjit.fuzzing.state import Held
from ebpfjit.record import dataclass

Entries = dict[str, list[tuple[bytes, Held]]]
"""What maps hold, by name: keys and values."""


@dataclass
class Finding:
    """Something that is wrong: its `kind`, and in words what (`text`).

    kind            what
    "fault"         the program goes wrong on a packet (a memory fault, a limit that is reached)
    "verdict"       a predicate does not hold
    "difference"    another version of the program has another verdict, or leaves another packet
    "engines"       the interpreter and machine code do not do the same: a bug of this library

    `packets` lead there, the last of them shows it, with the fields of its context in `contexts` (none: no
    packet has any). They are bytes of a struct, or memory, for a program that gets no packets: `frames` is
    true where they are such. `maps` are entries that maps have to hold before, by name, and `cleared` those
    maps that hold nothing else than these. `pc` and `line` say where, where that is known, in `program` where
    that is another one that was tail-called. `handlers` are what program arrays hold besides,
    `other_handlers` those of the other version. `count` is how often it was met, `limit` how many
    instructions a run may take.
    """

    kind: str
    text: str
    packets: list[bytes]
    maps: Entries = field(default_factory=dict)
    contexts: list[dict[str, Any]] = field(default_factory=list)
    pc: int | None = None
    line: str = ""
    fault: str = ""
    predicate: str = ""
    count: int = 1
    cleared: list[str] = field(default_factory=list)
    frames: bool = True
    limit: int = 1_000_000
    program: str = ""
    handlers: list[Handler] = field(default_factory=list)
    other_handlers: list[Handler] = field(default_factory=list)

    @property
    def packet(self) -> bytes:
        """The packet that shows it."""
        return self.packets[-1]

    @property
    def context(self) -> dict[str, Any]:
        """Fields of its context."""
        return self.contexts[-1] if self.contexts else {}

    @property
    def scapy(self) -> str:
        """The packet as scapy writes it, "" where scapy is not installed, or it is no packet."""
        return scapy_text(without_metadata(self.packet, self.context)) if self.frames else ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it, bytes in hex."""
        said = asdict(self)
        said["packets"] = [each.hex() for each in self.packets]
        said["maps"] = {name: plain(items) for name, items in self.maps.items()}
        said["contexts"] = plain(self.contexts)
        for name in ("handlers", "other_handlers"):
            said[name] = [asdict(each) | {"code": each.code.hex()} for each in getattr(self, name)]
        return {**said, "packet": self.packet.hex(), "scapy": self.scapy}

    def pytest(self, object_file: str, program: str, number: int = 1, against: str = "", **how: Any) -> str:
        """Return a test that shows it, as a file: it fails until the program is mended.

        `object_file` is the path of the object that has the program, `number` stands in the test's name.
        `against` is the file of the other version; `how` are fields of `written.Origin`.
        """
        from ebpfjit.fuzzing.written import Origin, pytest_file

        return pytest_file([self], Origin(object_file, program, against, **how), number)


def plain(value: Any) -> Any:
    """Return a value as JSON has it, bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def scapy_text(packet: bytes) -> str:
    """Return a frame as scapy writes it ("Ether(...)/IP(...)"), "" where scapy is not installed."""
    if importlib.util.find_spec("scapy") is None:
        return ""
    from scapy.layers import inet, inet6  # noqa: F401 - Ether finds what is there
    from scapy.layers.l2 import Ether

    try:
        return str(Ether(packet).command())
    except Exception:
        return ""
