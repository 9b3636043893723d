"""Run a program in the kernel: one call, with maps and loaded programs kept for the next one.

raw program     wrapped, run as a raw tracepoint (no packet; each local call has 512 bytes of
                stack where the JIT gives every function its own), or as a socket filter when it
                uses packet loads
typed program   as it is: its packet in, its packet and 32-bit return value out
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from functools import cache
from typing import Self

from ebpfjit.errors import InputError, LoadError
from ebpfjit.kernel.objects import KernelMap, LoadedProgram
from ebpfjit.kernel.program_types import PROGRAM_TYPES, ProgramType, TestRun
from ebpfjit.kernel.symbols import with_symbols
from ebpfjit.kernel.syscalls import KernelUnavailable, LoadAttributes
from ebpfjit.kernel.wrapping import RESULT_SIZE, has_may_goto, has_packet_loads, wrap
from ebpfjit.program import Buffer, Program
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.attach import attachment

LINK_HEADER_SIZE = 14
"""Bytes of an Ethernet header: the shortest packet that BPF_PROG_TEST_RUN takes."""


_RAW, _RAW_WITH_PACKET = PROGRAM_TYPES["raw_tracepoint"], PROGRAM_TYPES["socket_filter"]

# Linux 6.18 on x86-64 looks for a may_goto's time stamp at rbp + offset
# (arch/x86/net/bpf_timed_may_goto.S), but a tracing program with a private stack keeps it at r9 +
# offset: its loops end after 65536 rounds or after 250 ms, as chance has it. Syscall programs have
# no private stack.
_RAW_WITH_MAY_GOTO = PROGRAM_TYPES["syscall"]

#  version  ethertype     shortest header that the kernel takes with it
_NETWORK = {
    4:     (b"\x08\x00", 20),
    6:     (b"\x86\xdd", 40),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelResult:
    """What a run in the kernel left.

    `return_value` is a u64 (typed programs: 32 bits). `data` is the memory of a raw program, or the
    packet of a typed one, after the run; `context` the whole context after the run, where one was
    given. `log` is the verifier's, where a log level was asked for.
    """

    return_value: int
    data: bytes
    context: bytes = b""
    log: str = ""


def _link_header(packet: bytes) -> bytes:
    """Return the Ethernet header that the kernel takes off again; its type says IPv4, IPv6 or none."""
    ethertype, shortest = _NETWORK.get(packet[0] >> 4 if packet else 0, (b"\0\0", 0))
    return bytes(LINK_HEADER_SIZE - 2) + (ethertype if len(packet) >= shortest else b"\0\0")


def _refers_to_objects(program: Program) -> bool:
    """True where the bytecode holds descriptors: the same bytes may mean another map next time."""
    return any(insn.row is not None and insn.row.reference is not None for insn in program.instructions)


@dataclass(slots=True)
class _Loaded:
    """A loaded program and the map that is its memory (None without memory or when typed)."""

    program: LoadedProgram
    memory: KernelMap | None


class Kernel:
    """The kernel engine with what it keeps: a result map, memory maps by size, loaded programs.

    The `kept` most recently used of each stay open; `close()` or the end of a `with` block closes
    them all. One run at a time: a lock makes it safe to share between threads. `license` is what
    programs are loaded under; the kernel grants some helpers to "GPL" alone. Raises
    KernelUnavailable at the first use where bpf(2) is not permitted.
    """

    def __init__(self, *, license: str = "GPL", kept: int = 32) -> None:
        self.license = license
        self._kept = kept
        self._result: KernelMap | None = None
        self._memories: OrderedDict[int, KernelMap] = OrderedDict()
        self._programs: OrderedDict[tuple[object, ...], _Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def run_program(
        self,
        program: Program | Buffer,
        data: Buffer = b"",
        *,
        packet: Buffer | None = None,
        context: Buffer = b"",
        log_level: int = 0,
    ) -> KernelResult:
        """Run `program` once and return what it left.

        A program without a type is raw: r1 = address of a copy of `data`, r2 = its length (both 0 when
        empty), other registers 0, the stack zeroed. Packet loads in it read `packet` (`data` where None); r6
        is the context then. A typed program gets `data` as its packet, from the first byte it sees. `context`
        is a `struct xdp_md`, `struct __sk_buff` or the arguments of a tracepoint, as bytes; the kernel sets
        what it allows of it. With a `log_level` of 1 or 2 the result has the verifier's log.

        Raises KernelVerifierError, KernelUnavailable, LoadError (a type the kernel cannot test),
        InputError (an input the kernel does not run).
        """
        program = program if isinstance(program, Program) else Program.from_bytes(program)
        if program.kfuncs:
            program = replace(program, code=with_symbols(program, program.code), kfuncs={})
        with self._lock:
            if program.type is None:
                return self._run_raw(program, bytes(data), packet, log_level)
            return self._run_typed(program, bytes(data), bytes(context), log_level)

    def _run_raw(self, program: Program, data: bytes, packet: Buffer | None, log_level: int) -> KernelResult:
        on_packet = packet is not None or has_packet_loads(program)
        loaded = self._raw(program, len(data), on_packet, log_level)
        assert self._result is not None, "_raw has made it"
        if loaded.memory is not None:
            loaded.memory.update(data)
        self._result.update(bytes(RESULT_SIZE))
        if on_packet:
            seen = data if packet is None else bytes(packet)
            output = loaded.program.run(bytes(LINK_HEADER_SIZE) + seen)
        else:
            output = loaded.program.run()
        result = self._result.lookup() or bytes(RESULT_SIZE)
        finished = result[8] != 0
        # A packet load out of range ends the program there: what it returned is all there is.
        value = int.from_bytes(result[:8], "little") if finished else output.return_value
        after = data if loaded.memory is None else loaded.memory.lookup()
        return KernelResult(value, after or b"", log=loaded.program.log)

    def _run_typed(self, program: Program, data: bytes, context: bytes, log_level: int) -> KernelResult:
        name = program.type or ""
        kind = PROGRAM_TYPES.get(name)
        if kind is None or kind.test_run not in (TestRun.PACKET, TestRun.CONTEXT):
            known = ", ".join(
                name
                for name, each in PROGRAM_TYPES.items()
                if each.test_run in (TestRun.PACKET, TestRun.CONTEXT)
            )
            raise LoadError(f"the kernel engine runs no programs of type {name!r}; it knows {known}")
        if kind.packet and not kind.network_layer and len(data) < LINK_HEADER_SIZE:
            raise InputError(
                f"Linux runs {name} programs on packets of at least {LINK_HEADER_SIZE} bytes "
                f"(an Ethernet header), this one has {len(data)}"
            )
        if data and not kind.packet:
            raise InputError(f"{name} programs have no packet; give their arguments as context")
        loaded = self._typed(program, kind, log_level)
        header = _link_header(data) if kind.network_layer else b""
        output = loaded.program.run(header + data if kind.packet else None, context)
        return KernelResult(
            output.return_value, output.data[len(header) :], output.context, loaded.program.log
        )

    def _raw(self, program: Program, size: int, on_packet: bool, log_level: int) -> _Loaded:
        """Return the wrapped program, loaded, and its memory map of `size` bytes."""
        key = None if _refers_to_objects(program) else (program.code, size, on_packet, log_level)
        if loaded := self._recall(key):
            return loaded
        if self._result is None:
            self._result = KernelMap(RESULT_SIZE)
        memory = self._memory(size) if size else None
        wrapped = wrap(program, self._result.fd, memory.fd if memory else None, size, context_in_r6=on_packet)
        kind = _RAW_WITH_PACKET if on_packet else _RAW_WITH_MAY_GOTO if has_may_goto(program) else _RAW
        return self._keep(key, self._load(wrapped.code, kind, log_level, wrapped.first_slot), memory)

    def _typed(self, program: Program, kind: ProgramType, log_level: int) -> _Loaded:
        """Return the typed program, loaded."""
        key = None if _refers_to_objects(program) else (program.code, kind, program.section, log_level)
        if loaded := self._recall(key):
            return loaded
        attach_type = attachment(program.type, program.section).type
        return self._keep(key, self._load(program.code, kind, log_level, 0, attach_type), None)

    def _load(
        self, code: bytes, kind: ProgramType, log_level: int, first_slot: int, attach_type: int = 0
    ) -> LoadedProgram:
        return LoadedProgram(
            code,
            kind.number,
            LoadAttributes(attach_type, kind.flags, self.license),
            log_level=log_level,
            first_slot=first_slot,
        )

    def _recall(self, key: tuple[object, ...] | None) -> _Loaded | None:
        if key is None or key not in self._programs:
            return None
        self._programs.move_to_end(key)
        return self._programs[key]

    def _keep(
        self, key: tuple[object, ...] | None, program: LoadedProgram, memory: KernelMap | None
    ) -> _Loaded:
        """Remember a loaded program under `key`; None: it closes when the caller drops it."""
        loaded = _Loaded(program, memory)
        if key is None:
            return loaded
        self._programs[key] = loaded
        if len(self._programs) > self._kept:
            self._programs.popitem(last=False)[1].program.close()
        return loaded

    def _memory(self, size: int) -> KernelMap:
        """Return a map with one value of `size` bytes; a map that falls out lives on in its programs."""
        if size not in self._memories:
            self._memories[size] = KernelMap(size)
            if len(self._memories) > self._kept:
                self._memories.popitem(last=False)
        self._memories.move_to_end(size)
        return self._memories[size]

    def close(self) -> None:
        """Close every descriptor; the engine may be used again."""
        with self._lock:
            for loaded in self._programs.values():
                loaded.program.close()
                if loaded.memory is not None:
                    loaded.memory.close()
            for memory in self._memories.values():
                memory.close()
            if self._result is not None:
                self._result.close()
            self._programs.clear()
            self._memories.clear()
            self._result = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def _shared() -> Kernel:
    """Return the engine that `run_program` uses."""
    return Kernel()


# A child that shared its parent's maps would disturb the parent's runs.
os.register_at_fork(after_in_child=_shared.cache_clear)


def run_program(
    program: Program | Buffer,
    data: Buffer = b"",
    *,
    packet: Buffer | None = None,
    context: Buffer = b"",
    log_level: int = 0,
) -> KernelResult:
    """Run `program` in the kernel and return what it left.

    `data`, `packet`, `context` and `log_level` are those of `Kernel.run_program`, and so is what is raised.
    """
    return _shared().run_program(program, data, packet=packet, context=context, log_level=log_level)


@cache
def unavailable_reason() -> str | None:
    """Return why the kernel cannot be used as an engine here, None where it can.

    Loads and runs `exit` once; the answer is kept. A kernel without its JIT is no reason: it
    interprets.
    """
    exit_program = bytes.fromhex("b700000000000000 9500000000000000")
    try:
        with Kernel() as kernel:
            kernel.run_program(exit_program)
    except KernelUnavailable as error:
        return str(error)
    except (LoadError, InputError) as error:
        return f"the kernel does not run raw tracepoint programs: {error}"
    return None
