"""Programs with a type in the kernel, as `Program.run` has them: frames and fields in and out.

    data, fields -> struct xdp_md or __sk_buff -> BPF_PROG_TEST_RUN -> KernelOutcome

The checks of a packet and of fields are those of `ebpfjit.runtime.contexts`, so that both refuse the
same ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ebpfjit.elf.btf import Kind
from ebpfjit.elf.contexts import context_layout
from ebpfjit.elf.operations import member_of
from ebpfjit.errors import InputError, LoadError
from ebpfjit.kernel import vmlinux
from ebpfjit.kernel.loading import kind_of, load_linked
from ebpfjit.kernel.maps import KernelMaps, pinned
from ebpfjit.kernel.objects import Link, LoadedProgram
from ebpfjit.kernel.program_types import PROGRAM_TYPES, TestRun
from ebpfjit.kernel.syscalls import CONTEXT_ROOM
from ebpfjit.program import Program
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime.attach import attachment
from ebpfjit.runtime.contexts import SkbContext, XdpContext, prepared
from ebpfjit.runtime.contexts.arguments import Prototype
from ebpfjit.runtime.contexts.netfilter import Hooked
from ebpfjit.runtime.contexts.outcome import FieldValues
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.structs import FLOW_KEYS
from ebpfjit.runtime.contexts.types import ContextKind, ProgramType, effective_type

#  what convert_skb_to___skb gives back (net/bpf/test_run.c); gso_size is as it went in
REPORTED = (
    "mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "wire_len", "gso_segs",
    "gso_size", "hwtstamp",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelOutcome:
    """What a run in the kernel left: as `runtime.contexts.Outcome`, with r0's low 32 bits.

    `return_value` is that, `data` the packet, `metadata` what stands before it, `fields` those of the context
    by name. `events` are what went to ring and perf buffers: (map name, bytes); perf pads them to 8 bytes.
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
    license: str | None = None,
    cpu: int = 0,
) -> KernelOutcome:
    """Run a program with a type once in the kernel, its maps filled before and read back after.

    `data` is the packet, or the context's bytes, `fields` are those of the context by name. It runs on
    processor `cpu`, where there is such a one. `license` stands for what the object says.

    Raises MapError (a prog_array of programs of another type), KernelVerifierError, KernelUnavailable,
    LoadError (a type, or a map, that the kernel's test run does not have), InputError (an input the
    kernel does not run).
    """
    type_ = effective_type(program.type or "", program.section)
    kind = kind_of(program)
    for map_ in program.maps:
        map_.used_by(program)
        map_.is_frozen = True  # as on the other engines, and where libbpf loads it
    if kind.test_run is TestRun.NONE:
        load_program(program, license=license)
        raise _no_test_run(program, f"programs of type {type_.name!r}")
    run = partial(_RUNS[kind.test_run], type_=type_, data=data, fields=fields or {})
    if not program.maps:
        with _lock:
            return run(_without_maps(program, license), program)
    with KernelMaps(license, cpu) as maps, maps.load(program) as loaded:
        maps.fill()
        with pinned(cpu):
            outcome = run(loaded, program)
        return replace(outcome, events=tuple(maps.read_back()))


def load_program(program: Program, *, license: str | None = None, cpu: int = 0) -> None:
    """Load a program with its maps, and let go of it: what Linux's verifier says of it.

    `license` stands for what the object says (None: that), `cpu` is the processor whose values per-CPU
    maps are filled for.

    Raises KernelVerifierError, KernelUnavailable, LoadError, and what the loader kept for the program.
    """
    program.refuse()
    if program.type is None:
        raise LoadError(
            f"program {program.name!r}, section {program.section!r}: the section does not tell its type, "
            f"and Linux loads none without; give it one: load(..., types={{{program.name!r}: 'xdp'}})"
        )
    with KernelMaps(license, cpu) as maps:
        maps.load(program)


def _no_test_run(program: Program, what: str) -> LoadError:
    known = ", ".join(name for name, kind in PROGRAM_TYPES.items() if kind.test_run is not TestRun.NONE)
    return LoadError(
        f"Linux loads program {program.name!r}, and has no test run for {what}; it has for {known}"
    )


_lock = threading.Lock()
_kept: OrderedDict[tuple[object, ...], LoadedProgram] = OrderedDict()
_MOST_KEPT = 32


def _without_maps(program: Program, license: str | None) -> LoadedProgram:
    """Return a loaded program, the same one as long as it is among the last; it closes when it is dropped."""
    key = (
        program.code,
        program.type,
        program.section,
        program.license,
        program.types,
        license,
        *program.kernel_symbols.items(),
        *program.kfuncs.items(),
    )
    loaded = _kept.pop(key, None) or load_linked(program, program.code, license)
    _kept[key] = loaded
    if len(_kept) > _MOST_KEPT:
        _kept.popitem(last=False)
    return loaded


def _context(type_: ProgramType, data: bytes, fields: Mapping[str, Any] | None) -> bytes:
    """Return the struct that BPF_PROG_TEST_RUN is to be given."""
    given = dict(fields or {})
    with prepared(type_, memoryview(data), given) as made:
        if isinstance(made, XdpContext):
            given.setdefault("data_end", len(data))
        elif not isinstance(made, SkbContext):
            return made.outcome().data
        struct = bytearray(made.struct.size)
        for name, value in given.items():
            each = made.struct.by_name[name]
            struct[each.offset : each.stop] = each.encode(value)
    return bytes(struct)


def _run_on_packet(
    loaded: LoadedProgram, program: Program, *, type_: ProgramType, data: bytes, fields: Mapping[str, Any]
) -> KernelOutcome:
    if type_.context is ContextKind.XDP and attachment(type_.name, program.section).type in _XDP_IN_MAPS:
        raise _no_test_run(program, "XDP programs of a devmap or cpumap")
    output = loaded.run(data, _context(type_, data, fields))
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


_XDP_IN_MAPS = (33, 35)
"""BPF_XDP_DEVMAP and BPF_XDP_CPUMAP."""


def _run_on_context(
    loaded: LoadedProgram, program: Program, *, type_: ProgramType, data: bytes, fields: Mapping[str, Any]
) -> KernelOutcome:
    layout = context_layout(program) if fields else None
    if layout is None:
        output = loaded.run(None, _context(type_, data, fields))
        return KernelOutcome(output.return_value, output.context)
    made = layout.context(type_, data, fields)
    output = loaded.run(None, bytes(made.memory))
    left = made.after(output.context)
    return KernelOutcome(output.return_value, left.data, fields=left.fields)


_DUMMY, _STATE = "bpf_dummy_ops", "bpf_dummy_ops_state"
"""The struct whose operations Linux has a test run for, and that of the first argument of each."""


def _run_on_operation(
    loaded: LoadedProgram, program: Program, *, type_: ProgramType, data: bytes, fields: Mapping[str, Any]
) -> KernelOutcome:
    """Run an operation of bpf_dummy_ops: what its first argument points to is copied, and copied back."""
    if vmlinux.struct_ops(program)[1] != vmlinux.find(_DUMMY, Kind.STRUCT):
        raise _no_test_run(program, f"operations but those of struct {_DUMMY}")
    layout = context_layout(program) if fields else None
    made = layout.context(type_, data, fields) if isinstance(layout, Prototype) else None
    words = data if made is None else bytes(made.memory)
    state = made.pointed.get(0) if made is not None else None
    size = vmlinux.size_of(_STATE)
    if (state is None and any(words[:8])) or (state is not None and state.size < size):
        raise InputError(
            f"{_DUMMY}.{member_of(program)}: Linux writes {size} bytes where its first argument points to: "
            f"give these as context={{'args': [bytes({size}), ...]}}, or None"
        )
    output = loaded.run(None, words)
    if made is None:
        return KernelOutcome(output.return_value, output.context)
    left = made.after(output.context)
    return KernelOutcome(output.return_value, left.data, fields=left.fields)


def _run_on_written(
    loaded: LoadedProgram, program: Program, *, type_: ProgramType, data: bytes, fields: Mapping[str, Any]
) -> KernelOutcome:
    context = _context(type_, data, fields)
    output = loaded.run(None, context, room=CONTEXT_ROOM)
    after = output.context[: len(context)]
    shown = type_.layout.shown if type_.layout is not None else ()
    values: FieldValues = {
        each.name: each.read(memoryview(after)) for each in shown if each.stop <= len(after)
    }
    if type_.name == "sk_lookup":
        values["cookie"] = int.from_bytes(after[:8], "little")
    return KernelOutcome(output.return_value, after, fields=values)


def _run_on_flow(
    loaded: LoadedProgram, program: Program, *, type_: ProgramType, data: bytes, fields: Mapping[str, Any]
) -> KernelOutcome:
    """Run a flow dissector on a frame: what it makes of it, struct bpf_flow_keys, is the outcome's data."""
    with prepared(type_, memoryview(data), fields):
        flags = int(fields.get("flags", 0))
    keys = flags.to_bytes(4, "little").rjust(_FLOW_FLAGS_AT + 4, b"\0") if flags else b""
    output = loaded.run(data, keys, room=0)
    made = memoryview(output.data)
    return KernelOutcome(
        output.return_value, output.data, fields={field.name: field.read(made) for field in FLOW_KEYS.shown}
    )


_FLOW_FLAGS_AT = 48
"""Where `flags` is in struct bpf_flow_keys."""

_HOOK_STATE_SIZE = 48


def _run_on_netfilter(
    loaded: LoadedProgram, program: Program, *, type_: ProgramType, data: bytes, fields: Mapping[str, Any]
) -> KernelOutcome:
    """Run a netfilter program on a frame of IPv4 or IPv6, or on a packet from its IP header on.

    `fields` may have `hook` (enum nf_inet_hooks, NF_INET_LOCAL_OUT by default: there Linux wants no Ethernet
    header) and `pf` (NFPROTO_*, by default what the frame says).
    """
    hooked = Hooked.of(data, fields)
    if hooked.device_in or hooked.device_out:
        raise InputError("a test run of Linux's chooses in and out itself: leave them to it")
    state = bytes((hooked.hook, hooked.pf)).ljust(_HOOK_STATE_SIZE, b"\0")
    output = loaded.run(hooked.data, state, room=0)
    return KernelOutcome(output.return_value, data)


_TESTED = ("bpf_fentry_test", "bpf_modify_return_test")
"""How the functions start that the kernel calls in a test run of a tracing program."""


def _run_on_tracing(
    loaded: LoadedProgram, program: Program, *, type_: ProgramType, data: bytes, fields: Mapping[str, Any]
) -> KernelOutcome:
    """Attach a tracing program to one of the kernel's functions for tests, and let the kernel call those.

    Their arguments are the kernel's: bpf_fentry_test1(1), bpf_fentry_test2(2, 3) and so on. What is returned
    is the test run's own: 0, or what bpf_modify_return_test made of the program's result.
    """
    target = attachment(program.type, program.section).target
    if not target.startswith(_TESTED):
        raise _no_test_run(program, f"what is attached to {target!r}: it calls bpf_fentry_test1 to 8 alone")
    with Link(loaded):
        output = loaded.run(None, b"")
    return KernelOutcome(output.return_value, data)


_RUNS: Mapping[TestRun, Callable[..., KernelOutcome]] = {
    TestRun.PACKET: _run_on_packet,
    TestRun.CONTEXT: _run_on_context,
    TestRun.OPERATION: _run_on_operation,
    TestRun.WRITTEN: _run_on_written,
    TestRun.FLOW: _run_on_flow,
    TestRun.NETFILTER: _run_on_netfilter,
    TestRun.TRACING: _run_on_tracing,
}
