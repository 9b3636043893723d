"""What a run of the fuzzer found, and how far it came."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from ebpfjit.fuzzing.finding import Finding, plain
from ebpfjit.record import dataclass


@dataclass
class Report:
    """What a run found, and how far it came: so many `runs`, `kept` packets that went new ways.

    `findings` are what is wrong, each once; `faults` how many runs ended with one. It took so many `seconds`,
    and was `interrupted` where Ctrl-C ended it; `failure` is an error of our own in making inputs that did.
    For programs without packets `kept` are the bytes of a context, or memory. `contexts` are fields
    of the context, for each of those kept. `refused` runs did not begin, since no context has such fields.
    `reached` of `instructions` were executed, `ways` of `all_ways` of branches gone. `worst` is the packet of
    those kept that took most instructions, `worst_cost` how many.
    """

    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    faults: int = 0
    refused: int = 0
    kept: list[bytes] = field(default_factory=list)
    contexts: list[dict[str, Any]] = field(default_factory=list)
    reached: int = 0
    instructions: int = 0
    ways: int = 0
    all_ways: int = 0
    seconds: float = 0.0
    worst: bytes = b""
    worst_cost: int = 0
    interrupted: bool = False
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        said = dict(self.__dict__)
        said |= {"kept": plain(self.kept), "contexts": plain(self.contexts), "worst": self.worst.hex()}
        return {**said, "findings": [each.to_json() for each in self.findings]}
