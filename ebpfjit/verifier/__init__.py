"""Whether a program is safe, before it is run.

`check` are the structural rules, which all that runs must keep. `verify` says what Linux would: it proves,
without running anything, that a program stays inside its memory, or tells where it may not
(`Program.verify`).
"""

from typing import TYPE_CHECKING, Any

from ebpfjit.analysis.verifier import MAX_INSTRUCTIONS, check

if TYPE_CHECKING:
    from ebpfjit.verifier.verdict import Refusal, Verdict, verify

__all__ = ["MAX_INSTRUCTIONS", "Refusal", "Verdict", "check", "verify"]


def __getattr__(name: str) -> Any:
    if name not in ("Refusal", "Verdict", "verify"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ebpfjit.verifier import verdict

    return getattr(verdict, name)
