"""What a program or a map needs of a kernel: one feature, the release that has it, the place."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ebpfjit.compatibility.advice import advice
from ebpfjit.compatibility.lookup import Answer
from ebpfjit.compatibility.release import Release
from ebpfjit.named import cut
from ebpfjit.program import SourceLine
from ebpfjit.record import dataclass

Kind = Literal[
    "program type", "attach type", "flag", "helper", "kfunc", "map type", "map flag", "map field",
    "context field", "instruction", "calls", "loop", "size", "variable", "types", "CO-RE", "license",
    "target", "object",
]  # fmt: skip
"""What kind of feature a need is of."""

Evidence = tuple[Literal["name", "function", "struct", "typedef", "variable"], str]
"""What the types of a kernel hold where it has a feature: a name among all, or a type of a kind and name."""


@dataclass(frozen=True, slots=True)
class Need:
    """One feature that a program, or a map of its object, needs of Linux.

    `feature` names it: "bpf_loop", "map type ringbuf", "atomic operation"; `kind` says what it is.
    `release` is the first release that has it for a program of this type, "5.17"; `until` the last one,
    None where the last release known still does. Where `release` is None no release has it for this
    program, or, with `is_known` false, that is not known; `reason` says why. `pc` is the slot that needs it
    first and `line` its line of source, both None where no instruction does, or nothing tells; `count` how
    many instructions do. `map` is the name of the map that needs it.

    Without `is_needed` it is done without where the kernel lacks it: by loaders (kinds of BTF, weak symbols),
    or by the program, which asks first whether it is there. `of_types` is true of what only a kernel's types
    tell: without them nothing is said of it. `evidence` is what the types of a
    kernel hold that has the feature, None where they do not tell.
    """

    kind: Kind
    feature: str
    release: Release | None
    pc: int | None = None
    line: SourceLine | None = None
    reason: str = ""
    is_known: bool = True
    is_needed: bool = True
    until: Release | None = None
    map: str | None = None
    count: int = 1
    of_types: bool = False
    evidence: Evidence | None = None

    def __str__(self) -> str:
        """The need on one line: "bpf_loop, since 5.17: pc 12 (prog.c:31: bpf_loop(...))"."""
        where = f": {self.where}" if self.where else ""
        return f"{self.feature}, {self.since}{where}"

    def __repr__(self) -> str:
        return cut(f"<need of {self.kind}: {self}>")

    @property
    def since(self) -> str:
        """Which releases have it, in words."""
        if not self.is_known:
            return f"not known: {self.reason}"
        if self.of_types:
            return "where the kernel's types have it"
        if self.kind == "CO-RE" and self.release is None:
            return self.reason
        if self.release is None:
            return f"in no release: {self.reason}"
        return f"since {self.release}" if self.until is None else f"from {self.release} to {self.until}"

    @property
    def where(self) -> str:
        """The place that needs it: its map, its slot and its line of source; "" where there is none."""
        slot = "" if self.pc is None else f"pc {self.pc}"
        line = f" ({self.line})" if self.line is not None else ""
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        place = f"{slot}{line}{more}"
        return place if self.map is None else f"map {self.map}" + (f", {place}" if place else "")

    @property
    def advice(self) -> str:
        """What helps where a kernel lacks it, "" where nothing is known to."""
        name = self.evidence[1] if self.evidence is not None else self.feature
        return advice(self.kind, self.feature, name, is_absent=self.release is None and not self.of_types)

    def once_more(self) -> Need:
        """Return the need of one more instruction than this one's."""
        return replace(self, count=self.count + 1)

    def json(self) -> dict[str, object]:
        """Return it as plain values."""
        line = None
        if self.line is not None:
            line = {"file": self.line.file, "line": self.line.line, "text": self.line.text}
        return {
            "kind": self.kind, "feature": self.feature, "release": self.release, "until": self.until,
            "known": self.is_known, "needed": self.is_needed, "reason": self.reason, "map": self.map,
            "pc": self.pc, "line": line, "count": self.count, "advice": self.advice,
        }  # fmt: skip


def need(kind: Kind, feature: str, answer: Answer, **others: object) -> Need:
    """Return a need of which the tables give an answer."""
    made = Need(kind, feature, answer.since, None, None, answer.reason, answer.is_known, True, answer.until)
    return replace(made, **others) if others else made  # type: ignore[arg-type]  # by the names of its fields
