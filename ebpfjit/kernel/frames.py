"""Programs with a type in the kernel, as `Program.run` has them: frames and fields in and out.

    data, fields -> struct xdp_md or __sk_buff -> BPF_PROG_TEST_RUN -> KernelOutcome

The checks of a packet and of fields are those of `ebpfjit.runtime.contexts`, so that both refuse the
same ones.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from ebpfjit.errors import LoadError
from ebpfjit.kernel.engine import PROGRAM_TYPES
from ebpfjit.kernel.engine import ProgramType as KernelProgramType
from ebpfjit.kernel.kfuncs import with_kernel_ids
from ebpfjit.kernel.maps import KernelMaps, pinned
from ebpfjit.kernel.objects import LoadedProgram
from ebpfjit.program import Program
from ebpfjit.runtime.contexts import SkbContext, XdpContext, prepared
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE, FieldValues
from ebpfjit.runtime.contexts.types import ContextKind, ProgramType, program_type

#  what convert_skb_to___skb gives back (net/bpf/test_run.c); gso_size is as it went in
REPORTED = (
    "mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "wire_len", "gso_segs",
    "gso_size", "hwtstamp",
)  # fmt: skip

_KERNEL_NAMES = {"sched_act": "action"}


@dataclass(frozen=True, slots=True)
class KernelOutcome:
    """What a run in the kernel left: as `runtime.contexts.Outcome`, with r0's low 32 bits.

    `events` are what went to ring and perf buffers: (map name, bytes); perf pads them to 8 bytes.
    """

    return_value: int
    data: bytes
    metadata: bytes = b""
    fields: FieldValues = field(default_factory=dict)
    events: tuple[tuple[str, bytes], ...] = ()


def run_frame(
    program: Program,
    data: bytes,
    fields: Mapping[str, Any] | None = None,
    *,
    license: str = "GPL",
    cpu: int = 0,
) -> KernelOutcome:
    """Run a program with a type once in the kernel, its maps filled before and read back after.

    It runs on processor `cpu`, where there is such a one.

    Raises MapError (a prog_array of programs of another type), KernelVerifierError, KernelUnavailable,
    LoadError (a type, or a map, that the kernel's test run does not have), ExecutionError (an input the
    kernel does not run).
    """
    program = with_kernel_ids(program)
    type_ = program_type(program.type or "")
    kind = PROGRAM_TYPES.get(_KERNEL_NAMES.get(type_.name, type_.name))
    if kind is None:
        known = ", ".join(PROGRAM_TYPES)
        raise LoadError(f"Linux has no test run for programs of type {type_.name!r}; it has for {known}")
    for map_ in program.maps:
        map_.used_by(program)
    context = _context(type_, data, fields)
    if not program.maps:
        with _lock:
            return _run(_without_maps(program.code, kind, license), type_, data, context)
    with KernelMaps(kind, license, cpu) as maps, maps.load(program) as loaded:
        maps.fill()
        with pinned(cpu):
            outcome = _run(loaded, type_, data, context)
        return replace(outcome, events=tuple(maps.read_back()))


_lock = threading.Lock()


@lru_cache(maxsize=32)
def _without_maps(code: bytes, kind: KernelProgramType, license: str) -> LoadedProgram:
    """Return a loaded program, the same one as long as it is among the last; it closes when it is dropped."""
    return LoadedProgram(code, kind.number, attach_type=kind.attach_type, flags=kind.flags, license=license)


def _context(type_: ProgramType, data: bytes, fields: Mapping[str, Any] | None) -> bytes:
    """Return the struct that BPF_PROG_TEST_RUN is to be given."""
    given = dict(fields or {})
    with prepared(type_, memoryview(data), given) as made:
        if isinstance(made, XdpContext):
            given.setdefault("data_end", len(data))
        elif not isinstance(made, SkbContext):
            return bytes(data)
        struct = bytearray(made.struct.size)
        for name, value in given.items():
            each = made.struct.by_name[name]
            struct[each.offset : each.stop] = each.encode(value)
    return bytes(struct)


def _run(loaded: LoadedProgram, type_: ProgramType, data: bytes, context: bytes) -> KernelOutcome:
    if type_.context is ContextKind.STRUCT:
        output = loaded.run(None, context)
        return KernelOutcome(output.return_value, output.context)
    output = loaded.run(data, context)
    struct = type_.context.value
    assert struct is not None  # it has a packet
    after = memoryview(output.context)
    values: FieldValues = {each.name: each.read(after) for each in struct.fields if each.stop <= len(after)}
    if type_.context is ContextKind.XDP:
        meta = values["data"]
        assert isinstance(meta, int)
        values["ingress_ifindex"] = (
            values["ingress_ifindex"] or 1
        )  # the loopback device, as the program sees it
        return KernelOutcome(output.return_value, output.data[meta:], output.data[:meta], values)
    packet = output.data
    if type_.network_layer:  # the kernel gives zeros for the header that it took off
        packet = data[:LINK_HEADER_SIZE] + packet[LINK_HEADER_SIZE:]
    return KernelOutcome(
        output.return_value, packet, fields={name: values[name] for name in REPORTED if name in values}
    )
