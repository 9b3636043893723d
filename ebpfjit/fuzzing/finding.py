"""What a fuzzer found: a packet, or several one after the other, with the maps that they meet."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import asdict, field
from typing import Any

from ebpfjit.fuzzing.state import Held
from ebpfjit.record import dataclass


@dataclass
class Finding:
    """Something that is wrong: its `kind`, and in words what.

    kind            what
    "fault"         the program goes wrong on a packet (a memory fault, a limit that is reached)
    "verdict"       a predicate does not hold
    "difference"    another version of the program has another verdict, or leaves another packet

    `packets` lead there, the last of them shows it, with the fields of its context in `contexts` (none: no
    packet has any); `maps` are what maps have to hold before, by name. `pc`
    and `line` say where, where that is known. `count` is how often it was met.
    """

    kind: str
    text: str
    packets: list[bytes]
    maps: dict[str, list[tuple[bytes, Held]]] = field(default_factory=dict)
    contexts: list[dict[str, Any]] = field(default_factory=list)
    pc: int | None = None
    line: str = ""
    fault: str = ""
    predicate: str = ""
    count: int = 1

    @property
    def packet(self) -> bytes:
        """The packet that shows it."""
        return self.packets[-1]

    @property
    def scapy(self) -> str:
        """The packet as scapy writes it, "" where scapy is not installed."""
        return scapy_text(self.packet)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it, bytes in hex."""
        said = asdict(self)
        said["packets"] = [each.hex() for each in self.packets]
        said["maps"] = {name: plain(items) for name, items in self.maps.items()}
        said["contexts"] = plain(self.contexts)
        return {**said, "packet": self.packet.hex(), "scapy": self.scapy}

    def pytest(self, object_file: str, program: str, number: int = 1, against: str = "") -> str:
        """Return a test that shows it, for a file of its own: it fails until the program is mended."""
        name = re.sub(r"\W+", "_", f"{program}_{self.fault or self.kind}_{number}").lower()
        lines = [f'"""Found by a fuzzer: {_one_line(self.text)}"""', "", "from ebpfjit import load", ""]
        if self.scapy:
            lines += [f"# {_one_line(self.scapy)}"]
        lines += [f"PACKETS = {[each.hex() for each in self.packets]!r}"]
        lines += [f"CONTEXTS = {self.contexts!r}"] if self.contexts else []
        lines += ["", ""]
        lines += [
            f"def test_{name}():",
            f"    obj = load({object_file!r})",
            f"    program = obj.program({program!r})",
        ]
        if self.kind == "difference":
            lines += [f"    other = load({against!r})", f"    old = other.program({program!r})"]
        for holder in ("obj", "other") if self.kind == "difference" else ("obj",):
            for map_name, entries in self.maps.items():
                for key, value in entries:
                    place = f"{holder}.maps[{map_name!r}]"
                    lines += [f"    {place}[{_literal(key)}] = {_literal(value)}"]
        runs = "packet"
        if self.contexts:
            runs = "packet, context=context or None"
            lines += ["    for packet, context in zip(map(bytes.fromhex, PACKETS), CONTEXTS, strict=True):"]
        else:
            lines += ["    for packet in map(bytes.fromhex, PACKETS):"]
        if self.kind == "difference":
            lines += [
                f"        new_result, old_result = program.run({runs}), old.run({runs})",
                "        assert new_result.action == old_result.action",
                "        assert new_result.data == old_result.data",
            ]
        elif self.kind == "verdict":
            lines += [
                f"        result = program.run({runs})",
                f"        assert Predicate({self.predicate!r}).holds(",
                "            {",
                '                "action": result.action,',
                '                "return_value": result.return_value,',
                '                "packet": packet,',
                '                "data": result.data,',
                '                "maps": obj.maps,',
                "            }",
                "        )",
            ]
            lines.insert(3, "from ebpfjit.fuzzing import Predicate")
        else:
            limit = ", limit=1_000_000" if self.fault == "BudgetExhausted" else ""
            lines += [f"        program.run({runs}{limit})  # raises {self.fault}: {_one_line(self.text)}"]
        return "\n".join(lines) + "\n"


def plain(value: Any) -> Any:
    """Return a value as JSON has it, bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def _literal(value: Any) -> str:
    if isinstance(value, bytes):
        return f"bytes.fromhex({value.hex()!r})"
    return f"[{', '.join(map(_literal, value))}]"


def _one_line(text: str) -> str:
    shown = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in shown).replace('"""', "'''")


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
