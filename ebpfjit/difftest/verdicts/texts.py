"""Programs with the verdict that they should get, one text file each (tests/verifier).

    # The last byte that is read is one behind those that were tested.
    # type: xdp
    # verdict: refused
    # kind: memory
    # pc: 5
    # says: past data_end
    # linux: R2 offset is outside of the packet
    r2 = *(u32 *)(r1 + 0)
    ...

`says` are words of our message, `linux` words of its log. Where Linux's verdict is another, `linux verdict`
says which, and `because` why. `capabilities: none` is of a user without any. The rest is assembly text, whose
maps are those of `verdicts.maps`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ebpfjit.difftest.verdicts.sample import Sample

_HEADER = re.compile(r"# (type|section|capabilities|verdict|kind|pc|says|linux|linux verdict|because): (.*)")
VERDICTS = ("accepted", "refused", "undecided")


@dataclass(frozen=True, slots=True)
class Expected:
    """A program and what is expected of its verdict; "" and None where the file says nothing."""

    sample: Sample
    verdict: str
    linux_verdict: str
    kind: str = ""
    pc: int | None = None
    says: str = ""
    linux: str = ""
    because: str = ""
    unprivileged: bool = False


def read(path: Path) -> Expected:
    """Return what a file expects. Raises AssemblyError, KeyError, ValueError for one that is wrong."""
    text = path.read_text()
    said = {found[1]: found[2] for line in text.splitlines() if (found := _HEADER.fullmatch(line))}
    verdict = said["verdict"]
    linux_verdict = said.get("linux verdict", verdict)
    if not {verdict, linux_verdict} <= set(VERDICTS):
        raise ValueError(f"{path.name}: a verdict is one of {', '.join(VERDICTS)}")
    if (linux_verdict != verdict) != ("because" in said):
        raise ValueError(f"{path.name}: because says why Linux's verdict is another, and only that")
    return Expected(
        Sample.of_text(said["type"], text, said.get("section")),
        verdict,
        linux_verdict,
        said.get("kind", ""),
        int(said["pc"]) if "pc" in said else None,
        said.get("says", ""),
        said.get("linux", ""),
        said.get("because", ""),
        said.get("capabilities") == "none",
    )
