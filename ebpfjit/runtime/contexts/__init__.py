"""Contexts: what r1 points to when a program of a type starts, as BPF_PROG_TEST_RUN makes it.

program type, data, fields -> prepared() -> a context: regions and arguments of a run -> outcome()

They are imported when they are first asked for: programs without a type have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfjit.once import import_alone

if TYPE_CHECKING:
    from ebpfjit.runtime.contexts.taking import (
        Context,
        FlowContext,
        FragsContext,
        NamedContext,
        Outcome,
        PacketContext,
        ProgramType,
        Redirect,
        SkbContext,
        StructContext,
        XdpContext,
        effective_type,
        give_back,
        packet_context,
        prepared,
        program_type,
        take,
    )

__all__ = [
    "Context",
    "FlowContext",
    "FragsContext",
    "NamedContext",
    "Outcome",
    "PacketContext",
    "ProgramType",
    "Redirect",
    "SkbContext",
    "StructContext",
    "XdpContext",
    "effective_type",
    "give_back",
    "packet_context",
    "prepared",
    "program_type",
    "take",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_alone(f"{__name__}.taking"), name)
    return value
