"""Which context a program type has: made, or taken from those that no run of this thread is using."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ebpfjit.errors import EbpfError, InputError
from ebpfjit.runtime.contexts.flow import FlowContext
from ebpfjit.runtime.contexts.frags import FragsContext
from ebpfjit.runtime.contexts.message import MessageContext
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.netfilter import NetfilterContext
from ebpfjit.runtime.contexts.outcome import Outcome, Redirect
from ebpfjit.runtime.contexts.packet import LARGEST_PACKET, ROOM, PacketContext
from ebpfjit.runtime.contexts.plain import StructContext
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.contexts.sock_ops import SockOpsContext
from ebpfjit.runtime.contexts.sysctl import SysctlContext
from ebpfjit.runtime.contexts.types import ContextKind, ProgramType, effective_type, program_type
from ebpfjit.runtime.contexts.xdp import XdpContext

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

Context = XdpContext | SkbContext | StructContext

_CLASSES_OF_TYPES: dict[str, type[XdpContext] | type[SkbContext]] = {
    "flow_dissector": FlowContext,
    "xdp.frags": FragsContext,
}
_CLASSES: dict[ContextKind, type[XdpContext] | type[SkbContext]] = {
    ContextKind.XDP: XdpContext,
    ContextKind.SK_BUFF: SkbContext,
}
_NAMED_CLASSES: dict[str, type[NamedContext]] = {
    "cgroup_sysctl": SysctlContext,
    "netfilter": NetfilterContext,
    "sk_msg": MessageContext,
    "sock_ops": SockOpsContext,
}
_KEPT = 4

idle = threading.local()
"""Contexts of this thread that no run is using, by program type: mapping memory takes longer than a run."""


def packet_context(type_: ProgramType, room: int = ROOM) -> XdpContext | SkbContext:
    """Return a new context of a type that has packets, for packets of up to `room` bytes."""
    return _CLASSES_OF_TYPES.get(type_.name, _CLASSES[type_.context])(type_, room)


def take(type_: ProgramType, data: memoryview, fields: Mapping[str, Any] | None) -> Context:
    """Return a context for one run on a copy of `data`; it is the caller's until `give_back`.

    Raises InputError for a packet or a field that the type does not take.
    """
    if type_.context is ContextKind.STRUCT:
        named = _NAMED_CLASSES.get(type_.name, NamedContext)
        return (StructContext if type_.layout is None else named)(type_, data, fields)
    size = len(data)
    if size > LARGEST_PACKET:
        raise InputError(f"packets have at most {LARGEST_PACKET} bytes, this one has {size}")
    unused: list[Any] = vars(idle).setdefault(type_.name, [])
    kept = unused.pop() if unused and size <= ROOM else None
    context = kept or packet_context(type_, max(size, ROOM))
    try:
        context.start(data, fields)
    except EbpfError:
        give_back(context)
        raise
    made: Context = context
    return made


def give_back(context: Context) -> None:
    """Let the next run of this thread have the context's memory."""
    if not isinstance(context, StructContext) and context.room == ROOM:
        unused: list[Any] = vars(idle).setdefault(context.type.name, [])
        if len(unused) < _KEPT:
            unused.append(context)


@contextmanager
def prepared(type_: ProgramType, data: memoryview, fields: Mapping[str, Any] | None) -> Iterator[Context]:
    """Give a context for the length of a block; see `take`."""
    context = take(type_, data, fields)
    try:
        yield context
    finally:
        give_back(context)
