"""Asking Linux what a helper takes: programs with one call each, arguments right but for one.

    r6 = r1                     the context
    [r10-64] .. = 0             memory in the frame that is initialised; what is below is not
    r8 = data, 64 bytes of it   where there is a packet
    r7 = ...                    what takes more than an instruction to make
    ... the arguments, one by one
    call N
    r0 = 0; exit

Arguments behind the one in question are left uninitialised: where Linux complains of those, or of what is
behind the call, it has taken that one.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, replace
from functools import cache

from ebpfjit.errors import LoadError
from ebpfjit.kernel import syscalls, vmlinux
from ebpfjit.kernel.objects import KernelBtf, KernelMap
from ebpfjit.kernel.program_types import PROGRAM_TYPES
from ebpfjit.kernel.syscalls import LoadAttributes
from ebpfjit.runtime.attach import SLEEPABLE, attachment
from ebpfjit.runtime.contexts.types import effective_type
from ebpfjit.runtime.helpers.maps import TAKES
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.verifier.contexts import PacketUse, context_load, packet_use
from ebpfjit.verifier.prototypes import Argument, Prototype

SIZE, ROOM = 8, 64
"""Bytes of memory that calls are given, and of what there is of it."""

FRAME, BELOW = -64, -192
"""Where memory in the frame is initialised, and where it is not."""


def insn(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    """Return the bytes of an instruction."""
    return struct.pack("<BBhi", opcode, dst | src << 4, offset, imm)


def move(dst: int, src: int) -> bytes:
    """Return r(dst) = r(src)."""
    return insn(0xBF, dst, src)


def constant(dst: int, value: int) -> bytes:
    """Return r(dst) = a number."""
    return insn(0xB7, dst, imm=value)


def frame(dst: int, offset: int) -> bytes:
    """Return r(dst) = r10 + offset."""
    return move(dst, 10) + insn(0x07, dst, imm=offset)


def wide(dst: int, kind: int, value: int, more: int = 0) -> bytes:
    """Return lddw with one of the meanings that src_reg gives it."""
    return insn(0x18, dst, kind, imm=value) + insn(0, imm=more)


def call(number: int) -> bytes:
    """Return the call of a helper."""
    return insn(0x85, imm=number)


EXIT = insn(0x95)

# -- maps and types --------------------------------------------------------------------------------


def _btf(*types: bytes, strings: bytes) -> bytes:
    body = b"".join(types)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)) + body + strings


_NAMES = "int main callback locked timed bpf_spin_lock bpf_timer val lock timer opaque u64 rest"
_STRINGS = f" {_NAMES} ".replace(" ", "\0").encode()


def _text(name: str) -> int:
    return _STRINGS.index(b"\0" + name.encode() + b"\0") + 1


_INT, _MAIN, _CALLBACK, _NUMBER, _LOCKED, _TIMED = 1, 3, 4, 5, 9, 10


@cache
def types() -> KernelBtf:
    """Return the types of the programs' functions and of the maps' values, in the kernel."""
    return KernelBtf(_btf(
        struct.pack("<IIII", _text("int"), 1 << 24, 4, 1 << 24 | 32),                    # 1
        struct.pack("<III", 0, 13 << 24, 1),                                            # 2 int ()
        struct.pack("<III", _text("main"), 12 << 24 | 1, 2),                            # 3
        struct.pack("<III", _text("callback"), 12 << 24, 2),                            # 4
        struct.pack("<IIII", _text("u64"), 1 << 24, 8, 64),                             # 5
        struct.pack("<IIIIII", _text("bpf_spin_lock"), 4 << 24 | 1, 4, _text("val"), 1, 0),  # 6
        struct.pack("<IIIIII", 0, 3 << 24, 0, 5, 1, 2),                                 # 7 u64[2]
        struct.pack("<IIIIII", _text("bpf_timer"), 4 << 24 | 1, 16, _text("opaque"), 7, 0),  # 8
        struct.pack("<9I", _text("locked"), 4 << 24 | 2, 16, _text("lock"), 6, 0, _text("rest"), 5, 64),  # 9
        struct.pack("<9I", _text("timed"), 4 << 24 | 2, 24, _text("timer"), 8, 0, _text("rest"), 5, 128),
        strings=_STRINGS,
    ))  # fmt: skip


_STORAGES = frozenset({
    MapType.SK_STORAGE, MapType.TASK_STORAGE, MapType.INODE_STORAGE, MapType.CGRP_STORAGE,
})  # fmt: skip
_NO_KEYS = frozenset({MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER})
_RINGS = frozenset({MapType.RINGBUF, MapType.USER_RINGBUF})
_READ_BY_PROGRAMS = 1 << 7
"""BPF_F_RDONLY_PROG."""


@cache
def map_of(kind: MapType, flags: int = 0, user: Where | None = None) -> KernelMap:
    """Return a map in the kernel: keys of 4 bytes and values of 8 where the type lets them be.

    An array of programs is for those of one type and hook, `user`.
    """
    no_types, key_size, value_size, entries = (0, 0, 0), 4, SIZE, 4
    if kind in _STORAGES:
        return KernelMap(8, max_entries=0, map_type=kind, flags=1, types=(types().fd, _INT, _NUMBER))
    if kind in _NO_KEYS:
        key_size = 0
    elif kind in _RINGS:
        key_size, value_size, entries = 0, 0, 4096
    elif kind in (MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE):
        key_size, entries = 8, 0
    elif kind is MapType.LPM_TRIE:
        key_size, flags = 8, flags | 1
    elif kind is MapType.STACK_TRACE:
        value_size = 80
    elif kind in (
        MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY, MapType.SOCKMAP, MapType.XSKMAP,
        MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS,
        MapType.SOCKHASH,
    ):  # fmt: skip
        value_size = 4
    inner = map_of(MapType.ARRAY).fd if kind in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS) else 0
    return KernelMap(
        value_size, max_entries=entries, key_size=key_size, map_type=kind, flags=flags, inner_map_fd=inner,
        types=no_types,
    )  # fmt: skip


@cache
def lock_map() -> KernelMap:
    """Return an array of one value: a spin lock, and a number."""
    return KernelMap(16, max_entries=1, types=(types().fd, _INT, _LOCKED))


@cache
def timer_map() -> KernelMap:
    """Return an array of one value: a timer, and a number."""
    return KernelMap(24, max_entries=1, types=(types().fd, _INT, _TIMED))


@cache
def value_map() -> KernelMap:
    """Return an array of one value, which programs may point into."""
    return KernelMap(ROOM, max_entries=1)


@cache
def text_map() -> KernelMap:
    """Return an array that nothing changes any more, with a text in it."""
    made = KernelMap(ROOM, max_entries=1, flags=_READ_BY_PROGRAMS)
    made.update(b"text".ljust(ROOM, b"\0"))
    syscalls.map_freeze(made.fd)
    return made


# -- asking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Where:
    """What programs are loaded as."""

    type: str
    section: str = ""

    @property
    def number(self) -> int:
        """The type's number in bpf(2)."""
        return PROGRAM_TYPES["action" if self.type == "sched_act" else self.type].number

    @property
    def attributes(self) -> LoadAttributes:
        """What bpf(2) is told besides the code. Raises LoadError for a hook that the kernel does not have."""
        attached = attachment(self.type, self.section)
        return LoadAttributes(attached.type, attached.flags, attach_id=vmlinux.attach_id(attached))

    @property
    def is_sleepable(self) -> bool:
        """True where programs may sleep."""
        return bool(self.attributes.flags & SLEEPABLE)

    def pointer(self, kind: str) -> int:
        """Return the offset in the context of a pointer of a kind ("pkt"), -1 where there is none."""
        return _pointers(self).get(kind, -1)

    @property
    def has_packet(self) -> bool:
        """True where programs get at the packet."""
        return self.pointer("pkt") >= 0 and packet_use(self.type) is not PacketUse.NEVER


@cache
def _pointers(where: Where) -> dict[str, int]:
    """Return where the context's pointers are, by kind."""
    layout, hook = effective_type(where.type, where.section or None).layout, where.attributes.attach_type
    fields = layout.fields if layout is not None else ()
    kinds = {field.offset: context_load(where.type, hook, field.offset, field.size) for field in fields}
    return {kind: offset for offset, kind in kinds.items() if kind}


WHERES = (
    *map(Where, (
        "tc", "xdp", "socket_filter", "cgroup_skb", "sched_act", "kprobe", "tracepoint", "perf_event",
        "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "sock_ops", "sk_skb", "sk_msg",
        "cgroup_device", "raw_tracepoint", "raw_tracepoint_writable", "sk_reuseport", "flow_dissector",
        "cgroup_sysctl", "sk_lookup", "syscall",
    )),
    Where("cgroup_sock", "cgroup/post_bind4"),
    Where("cgroup_sock_addr", "cgroup/connect4"),
    Where("cgroup_sock_addr", "cgroup/bind4"),
    Where("cgroup_sockopt", "cgroup/getsockopt"),
    Where("cgroup_sockopt", "cgroup/setsockopt"),
    Where("netfilter", "netfilter"),
    Where("kprobe", "kprobe.multi/x"),
    Where("tracing", "iter/task"),
    Where("tracing", "tp_btf/sched_switch"),
    Where("tracing", "fentry/bpf_fentry_test1"),
    Where("lsm", "lsm/file_open"),
    Where("lsm", "lsm_cgroup/socket_bind"),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What Linux said of an argument: `taken`, or its complaint; `result` is what r0 is behind the call."""

    taken: bool
    complaint: str
    result: str = ""


_STEP = re.compile(r"^(?:from \d+ to \d+: .*|(\d+): \([0-9a-f]{2}\).*)$")
_RESULT = re.compile(r"; R0(?:_w)?=([a-z_0-9]+.*)")
_NOT_SAID = ("processed", "verification", "max_states", "stack depth")


class CannotMake(Exception):  # noqa: N818 - no error: there is nothing to ask
    """An argument that no program of ours makes."""


def load(where: Where, code: bytes, license: str = "GPL") -> tuple[bool, list[str]]:
    """Load a program; return whether Linux took it, and the lines of its verifier's log."""
    given = replace(where.attributes, license=license)
    if _callbacks(code):
        functions = struct.pack("<IIII", 0, _MAIN, len(code) // 8 - 2, _CALLBACK)
        given = replace(given, btf=types().fd, functions=functions)
    result, log = syscalls.load_once(code, where.number, given, 1, 1 << 16)
    if result >= 0:
        os.close(result)
    return result >= 0, [line for line in log.splitlines() if line and not line.startswith(_NOT_SAID)]


@cache
def programs_load(where: Where) -> bool:
    """True where the kernel loads programs as these at all."""
    try:
        return any(load(where, constant(0, returns) + EXIT)[0] for returns in (0, 1))
    except LoadError:
        return False


_NOT_THERE = re.compile(
    "unknown func|cannot use helper|program of this type|not allowed in probe|might sleep"
    "|not supported for program type|supported only for"
)


@cache
def is_there(where: Where, number: int) -> bool:
    """True where programs may call the helper."""
    if not programs_load(where):
        return False
    _, lines = load(where, call(number) + constant(0, 0) + EXIT)
    return not _NOT_THERE.search("\n".join(lines))


def is_for_the_gpl(where: Where, number: int) -> bool:
    """True where programs of another license may not call the helper."""
    _, lines = load(where, call(number) + constant(0, 0) + EXIT, license="")
    return "cannot call GPL-restricted function" in "\n".join(lines)


def _callbacks(code: bytes) -> list[int]:
    """Return where a program takes the address of its callback."""
    return [at for at in range(0, len(code), 8) if code[at] == 0x18 and code[at + 1] >> 4 == 4]


class Call:
    """A program that calls a helper."""

    def __init__(self, where: Where, row: Prototype) -> None:
        self.where, self.row = where, row
        self.packet = where.has_packet

    def ask(self, index: int, value: bytes, size: int = SIZE) -> Answer:
        """Ask for argument number `index`, from 0, as `value` makes it; memory is given as `size` bytes."""
        row = self.row
        body = self._begin(index) + self._right(index) + value
        arguments = index + 1
        if index < len(row.arguments) and self._has_size(index):
            body += constant(index + 2, size)
            arguments += 1
        return self._told(body, min(arguments, len(row.arguments)))

    def ask_right(self) -> Answer:
        """Ask with all arguments as they have to be.

        Behind the call the packet is read, and then what is not there: so Linux refuses each of
        these, and its log tells of the result.
        """
        count = len(self.row.arguments)
        body = self._begin(count) + self._right(count)
        looks = insn(0x71, 9, 8) if self.packet else b""
        return self._told(body, count, looks + insn(0x79, 9, 10))

    def _told(self, body: bytes, arguments: int, behind: bytes = b"") -> Answer:
        pc = len(body) // 8
        code = body + call(self.row.number) + behind + constant(0, 0) + EXIT
        if found := _callbacks(code):
            end, code = len(code) // 8, code + constant(0, 0) + EXIT
            for at in found:
                target = insn(0x18, code[at + 1] & 15, 4, imm=end - at // 8 - 1)
                code = code[:at] + target + code[at + 8 :]
        taken, lines = load(self.where, code)
        complaint = "" if taken else lines[-1] if lines else "nothing said"
        steps = [(int(step[1]), step[0]) for line in lines if (step := _STEP.match(line)) and step[1]]
        results = [found[1] for at, line in steps if at == pc and (found := _RESULT.search(line))]
        missing = complaint == f"R{arguments + 1} !read_ok"
        later = bool(steps) and steps[-1][0] > pc
        return Answer(taken or later or missing, complaint, results[-1] if results else "")

    def _right(self, count: int) -> bytes:
        return b"".join(self.right(index, index + 1) for index in range(count))

    def _has_size(self, index: int) -> bool:
        wanted = self.row.arguments[index]
        return wanted.kind == "ptr_to_mem" and not wanted.size

    def right(self, index: int, register: int) -> bytes:
        """Return instructions that make an argument as it has to be, in a register from 1 to 5."""
        row, wanted = self.row, self.row.arguments[index]
        match wanted.kind:
            case "anything":
                return constant(register, 0)
            case "const_size" | "const_size_or_zero" | "const_alloc_size_or_zero":
                return constant(register, SIZE)
            case "ptr_to_ctx":
                return move(register, 6)
            case "const_map_ptr" if row.name == "bpf_timer_init":
                return wide(register, 1, timer_map().fd)
            case "const_map_ptr":
                return wide(register, 1, map_of(taken_map(row.name), user=self.where).fd)
            case "ptr_to_mem" if row.name == "bpf_dynptr_from_mem":
                return wide(register, 2, value_map().fd)
            case "ptr_to_map_key" | "ptr_to_map_value" | "ptr_to_stack" | "ptr_to_mem":
                return frame(register, FRAME)
            case "ptr_to_dynptr" if wanted.uninit:
                return frame(register, BELOW)
            case "ptr_to_func":
                return wide(register, 4, 0)  # where it is, is known once the program is whole
            case "ptr_to_const_str":
                return wide(register, 2, text_map().fd)
            case "ptr_to_spin_lock":
                return wide(register, 2, lock_map().fd)
            case "ptr_to_timer":
                return wide(register, 2, timer_map().fd)
            case _:
                return move(register, 7)

    def _begin(self, arguments: int) -> bytes:
        """Return what stands before the arguments. Raises CannotMake."""
        code = move(6, 1) + constant(0, 0)
        code += b"".join(insn(0x7A, 10, 0, offset) for offset in range(FRAME, 0, 8))
        code += self._packet() if self.packet else b""
        return code + b"".join(self._made(wanted) for wanted in self.row.arguments[:arguments])

    def _packet(self) -> bytes:
        """Return what makes r8 point to some of the packet."""
        start, end = self.where.pointer("pkt"), self.where.pointer("pkt_end")
        load = 0x61 if self.where.type in ("xdp",) or end - start == 4 else 0x79
        return b"".join((
            insn(load, 8, 6, start), insn(load, 9, 6, end), move(5, 8), insn(0x07, 5, imm=ROOM),
            insn(0xBD, 5, 9, 2), constant(0, 1), EXIT, constant(5, 0),
        ))  # fmt: skip

    def _made(self, wanted: Argument) -> bytes:
        """Return what makes r7, where an argument is made before all others. Raises CannotMake."""
        or_exit = insn(0x55, 7, 0, 2, 0) + constant(0, 1) + EXIT
        reserve = wide(1, 1, map_of(MapType.RINGBUF).fd) + constant(2, SIZE) + constant(3, 0)
        sk = self.where.pointer("sock_common_or_null")
        match wanted.kind:
            case "ptr_to_btf_id_sock_common" if wanted.release:
                if not is_there(self.where, NUMBERS["bpf_sk_lookup_tcp"]):
                    raise CannotMake(wanted.kind)
                arguments = move(1, 6) + frame(2, FRAME) + constant(3, 12) + constant(4, 0) + constant(5, 0)
                return arguments + call(NUMBERS["bpf_sk_lookup_tcp"]) + move(7, 0) + or_exit
            case "ptr_to_sock_common" | "ptr_to_btf_id_sock_common" if sk >= 0:
                return insn(0x79, 7, 6, sk) + or_exit
            case "ptr_to_btf_id" if wanted.btf == "task_struct":
                return call(NUMBERS["bpf_get_current_task_btf"]) + move(7, 0)
            case "ptr_to_ringbuf_mem":
                return reserve + call(NUMBERS["bpf_ringbuf_reserve"]) + move(7, 0) + or_exit
            case "ptr_to_dynptr" if wanted.uninit:
                return b""
            case "ptr_to_dynptr" if wanted.dynptr == "ringbuf":
                return (
                    reserve + frame(4, BELOW) + call(NUMBERS["bpf_ringbuf_reserve_dynptr"]) + frame(7, BELOW)
                )
            case "ptr_to_dynptr":
                memory = wide(1, 2, value_map().fd) + constant(2, SIZE) + constant(3, 0) + frame(4, BELOW)
                return memory + call(NUMBERS["bpf_dynptr_from_mem"]) + frame(7, BELOW)
            case kind if kind in _MADE:
                raise CannotMake(kind)
        return b""


_MADE = frozenset({
    "ptr_to_sock_common", "ptr_to_btf_id_sock_common", "ptr_to_socket", "ptr_to_btf_id",
    "ptr_to_percpu_btf_id", "kptr_xchg_dest",
})  # fmt: skip


def taken_map(name: str) -> MapType:
    """Return a type of map that the helper takes."""
    kinds = sorted(TAKES.get(name, {MapType.ARRAY}))
    return MapType.ARRAY if MapType.ARRAY in kinds else kinds[0]
