"""bpf(2) through ctypes: its attributes as packed bytes, its refusals as exceptions.

    bpf(command, attributes, size) -> file descriptor, or 0; -1 and errno

Command numbers and the layout of `union bpf_attr`: Linux include/uapi/linux/bpf.h. Integers are in
the machine's byte order; addresses of buffers are u64. The kernel accepts a prefix of the union, so
each command passes the fields up to the last one it needs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
import sys
from collections.abc import Callable
from functools import cache

from ebpfjit.errors import EbpfError, ExecutionError, InputError, VerifierError
from ebpfjit.record import dataclass

SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280}

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_GET_NEXT_KEY, PROG_LOAD = range(6)
PROG_TEST_RUN, MAP_LOOKUP_AND_DELETE, MAP_FREEZE = 10, 21, 22
RAW_TRACEPOINT_OPEN, BTF_LOAD = 17, 18

MAP_TYPE_ARRAY = 2

# One struct a command: the fields of union bpf_attr in order, "x" for padding.
_MAP_CREATE = struct.Struct("=IIIIII4x16s4xIII4xQ")
_MAP_ELEMENT = struct.Struct("=IxxxxQQQ")
_PROG_LOAD = struct.Struct("=IIQQIIQII16sIIIIQIIQIII")
_BTF_LOAD = struct.Struct("=QQIII")
_RAW_TRACEPOINT = struct.Struct("=QI4x")

_FUNCTION_INFO_SIZE, _LINE_INFO_SIZE = 8, 16
"""Bytes of struct bpf_func_info and of struct bpf_line_info."""
_TEST_RUN = struct.Struct("=IIIIQQIIIIQQIIIxxxx")

_ENOTSUPP = 524
"""What the kernel returns inside for "not supported"; not in C's errno.h (include/linux/errno.h)."""

_LOG_SIZES = tuple(1 << bits for bits in (16, 20, 24))
_LOAD_ATTEMPTS = 5
"""A signal ends the verifier early with EAGAIN; libbpf tries five times as well."""

CONTEXT_ROOM = 512
"""Bytes for a context to come back in; struct __sk_buff, the largest, has about 200."""

NAME_SIZE = 15
"""Bytes of the name of a map or of a program, without the zero behind it (BPF_OBJ_NAME_LEN)."""

_LOG_SUMMARY = (
    "processed ",
    "verification time",
    "stack depth",
    "mark_precise",
    "insns ",
    "cur state:",
    "old state:",
)
_LOG_INSTRUCTION = re.compile(r"^(\d+): \([0-9a-f]{2}\)")
_LOG_MENTION = re.compile(r"\binsn (\d+)")


class KernelUnavailable(EbpfError):  # noqa: N818 - named as JitUnavailable
    """bpf(2) cannot be used here; the message says what is missing."""


class KernelVerifierError(VerifierError):
    """The kernel refused a program.

    The message's first line is the reason, the rest the end of the verifier's log. `log` is the
    whole log (text, "" where the kernel wrote none), `errno` the number bpf(2) failed with, `pc` the
    slot of the program as it was handed in, where the log names one.
    """

    def __init__(
        self, message: str, pc: int | None = None, rule: str = "kernel", errno: int = 0, log: str = ""
    ) -> None:
        super().__init__(message, pc, rule)
        self.errno = errno
        self.log = log

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.pc, self.rule, self.errno, self.log)


@cache
def _syscall() -> Callable[[int, int, int], int]:
    """Return bpf(command, address of attributes, size) -> result, or -1 with ctypes' errno set.

    Raises KernelUnavailable where the system is not Linux on a machine with a known number.
    """
    if not sys.platform.startswith("linux"):
        raise KernelUnavailable(f"the kernel engine needs Linux, this is {sys.platform}")
    number = SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        known = " and ".join(SYSCALL_NUMBERS)
        raise KernelUnavailable(f"bpf(2) is known for {known}, not for {platform.machine()}")
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
    return lambda command, address, size: int(function(number, command, address, size))


def errno_name(number: int) -> str:
    """Return the symbolic name of an errno, "EINVAL"."""
    return "ENOTSUPP" if number == _ENOTSUPP else errno.errorcode.get(number, f"errno {number}")


def _call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Call bpf(2); return (result, attributes as the kernel left them), result = -errno on failure."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _syscall()(command, ctypes.addressof(buffer), len(attributes))
    return (result if result >= 0 else -ctypes.get_errno()), buffer.raw


_SOCKET_FILTER = 1
_RETURNS_ZERO = bytes.fromhex("b700000000000000 9500000000000000")


def _not_permitted(number: int) -> KernelUnavailable:
    if number == errno.ENOSYS:
        return KernelUnavailable("this kernel has no bpf(2)")
    return KernelUnavailable(
        f"bpf(2) is not permitted here ({errno_name(number)}): it needs root or CAP_BPF, CAP_PERFMON "
        "and CAP_NET_ADMIN, and a sandbox that lets it through"
    )


def _buffer(content: bytes) -> tuple[ctypes.Array[ctypes.c_char] | None, int]:
    """Return a C buffer with `content` and its address; (None, 0) for no content."""
    if not content:
        return None, 0
    buffer = ctypes.create_string_buffer(content, len(content))
    return buffer, ctypes.addressof(buffer)


def map_create(
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    inner_map_fd: int = 0,
    extra: int = 0,
    *,
    name: str = "",
    types: tuple[int, int, int] = (0, 0, 0),
) -> int:
    """Create a map and return its file descriptor; sizes in bytes, `flags` BPF_F_*, `extra` map_extra.

    `types` are the descriptor of BTF and the ids of key and value in it.
    Raises KernelUnavailable where bpf(2) is not permitted, EbpfError where the kernel refuses.
    """
    attributes = _MAP_CREATE.pack(
        map_type, key_size, value_size, max_entries, flags, inner_map_fd, object_name(name), *types, extra
    )
    result, _ = _call(MAP_CREATE, attributes)
    if result in (-errno.EPERM, -errno.ENOSYS):
        raise _not_permitted(-result)
    if result < 0:
        raise EbpfError(
            f"the kernel refused a map of {max_entries} values of {value_size} bytes ({errno_name(-result)})"
        )
    return result


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """Return the value under `key`, None where there is none; `value_size` is what the kernel copies."""
    key_buffer, key_address = _buffer(key)
    value = ctypes.create_string_buffer(value_size)
    result, _ = _call(MAP_LOOKUP, _MAP_ELEMENT.pack(fd, key_address, ctypes.addressof(value), 0))
    del key_buffer
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise EbpfError(f"lookup in a kernel map failed ({errno_name(-result)})")
    return value.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Store `value` under `key`; both as long as the map says. Raises EbpfError on refusal."""
    key_buffer, key_address = _buffer(key)
    value_buffer, value_address = _buffer(value)
    result, _ = _call(MAP_UPDATE, _MAP_ELEMENT.pack(fd, key_address, value_address, 0))
    del key_buffer, value_buffer
    if result < 0:
        raise EbpfError(f"update of a kernel map failed ({errno_name(-result)})")


def map_delete(fd: int, key: bytes) -> None:
    """Remove a key. Raises EbpfError on refusal."""
    key_buffer, key_address = _buffer(key)
    result, _ = _call(MAP_DELETE, _MAP_ELEMENT.pack(fd, key_address, 0, 0))
    del key_buffer
    if result < 0:
        raise EbpfError(f"deleting from a kernel map failed ({errno_name(-result)})")


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes | None:
    """Return the key after `key`, the first after None; None behind the last."""
    key_buffer, key_address = _buffer(key or b"")
    following = ctypes.create_string_buffer(key_size)
    result, _ = _call(MAP_GET_NEXT_KEY, _MAP_ELEMENT.pack(fd, key_address, ctypes.addressof(following), 0))
    del key_buffer
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise EbpfError(f"walking through a kernel map failed ({errno_name(-result)})")
    return following.raw


def map_pop(fd: int, value_size: int) -> bytes | None:
    """Take the next value out of a queue or a stack, None where it is empty."""
    value = ctypes.create_string_buffer(value_size)
    result, _ = _call(MAP_LOOKUP_AND_DELETE, _MAP_ELEMENT.pack(fd, 0, ctypes.addressof(value), 0))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise EbpfError(f"taking from a kernel map failed ({errno_name(-result)})")
    return value.raw


def map_freeze(fd: int) -> None:
    """Make a map's values constant to user space. Raises EbpfError on refusal."""
    result, _ = _call(MAP_FREEZE, struct.pack("=I", fd))
    if result < 0:
        raise EbpfError(f"freezing a kernel map failed ({errno_name(-result)})")


def object_name(name: str) -> bytes:
    """Return a name as the kernel takes it: 15 letters, digits, dots and underscores at most."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name, flags=re.ASCII).encode()[:NAME_SIZE]


def btf_load(data: bytes) -> int:
    """Give types to the kernel; return a file descriptor, or -errno where it refuses them."""
    types, address = _buffer(data)
    result, _ = _call(BTF_LOAD, _BTF_LOAD.pack(address, 0, len(data), 0, 0))
    del types
    return result


def raw_tracepoint_open(fd: int) -> int:
    """Attach a tracing program to what it was loaded for; return the link. Raises ExecutionError."""
    result, _ = _call(RAW_TRACEPOINT_OPEN, _RAW_TRACEPOINT.pack(0, fd))
    if result < 0:
        raise ExecutionError(f"attaching the program failed ({errno_name(-result)})")
    return result


@dataclass(frozen=True, slots=True)
class LoadAttributes:
    """What BPF_PROG_LOAD is told of a program besides its type and code (union bpf_attr).

    `flags` are prog_flags (BPF_F_*), `license` and `name` are what the program says (of the name 15 bytes).
    `attach_type` is its expected_attach_type, `attach_id` the id of what it is attached to in the kernel's
    BTF. `btf` is the descriptor of the program's own BTF, to which `functions` (struct bpf_func_info) and
    `lines` (struct bpf_line_info) refer.
    """

    attach_type: int = 0
    flags: int = 0
    license: str = "GPL"
    name: str = "ebpfjit"
    attach_id: int = 0
    btf: int = 0
    functions: bytes = b""
    lines: bytes = b""


def load_once(
    code: bytes, program_type: int, given: LoadAttributes, log_level: int, log_size: int
) -> tuple[int, str]:
    """Try BPF_PROG_LOAD once; return (file descriptor or -errno, the verifier's log).

    Of a log that is longer than `log_size` the end is there, on Linux 6.4 and later.
    """
    instructions, instructions_address = _buffer(code)
    license_text, license_address = _buffer(given.license.encode() + b"\0")
    functions, functions_address = _buffer(given.functions)
    lines, lines_address = _buffer(given.lines)
    log = ctypes.create_string_buffer(log_size) if log_level else None
    attributes = _PROG_LOAD.pack(
        program_type, len(code) // 8, instructions_address, license_address,
        log_level, log_size if log_level else 0, ctypes.addressof(log) if log else 0,
        0, given.flags, object_name(given.name), 0, given.attach_type,
        given.btf, _FUNCTION_INFO_SIZE if functions else 0, functions_address,
        len(given.functions) // _FUNCTION_INFO_SIZE, _LINE_INFO_SIZE if lines else 0, lines_address,
        len(given.lines) // _LINE_INFO_SIZE, given.attach_id, 0,
    )  # fmt: skip
    result = -errno.EAGAIN
    for _ in range(_LOAD_ATTEMPTS):
        result, _unused = _call(PROG_LOAD, attributes)
        if result != -errno.EAGAIN:
            break
    del instructions, license_text, functions, lines
    return result, log.value.decode("utf-8", "replace") if log else ""


def program_load(
    code: bytes,
    program_type: int,
    attributes: LoadAttributes | None = None,
    *,
    log_level: int = 0,
    first_slot: int = 0,
) -> tuple[int, str]:
    """Load a program; return its file descriptor and the verifier's log.

    The log is "" at `log_level` 0; 1 tells the verifier's steps, 2 each path's. A refused program
    is loaded once more at level 1 to learn why. `first_slot` is where the caller's program starts
    inside `code`, for the pc in the error. Raises KernelVerifierError, or KernelUnavailable where bpf(2) is
    not permitted.
    """
    given = attributes if attributes is not None else LoadAttributes()
    result, log = -errno.ENOSPC, ""
    for size in _LOG_SIZES:
        result, log = load_once(code, program_type, given, log_level, size)
        if result != -errno.ENOSPC or not log_level:
            break
    if result >= 0:
        return result, log
    refusal = -result
    for size in () if log_level else _LOG_SIZES:
        result, log = load_once(code, program_type, given, 1, size)
        if result >= 0:  # the first try met a passing shortage, or a signal each time
            return result, ""
        if result != -errno.ENOSPC:
            break
    if refusal in (errno.EPERM, errno.ENOSYS) and not log:
        raise _type_not_permitted(program_type) if _loads_the_smallest() else _not_permitted(refusal)
    raise _refusal(refusal, log, first_slot, len(code) // 8)


def _loads_the_smallest() -> bool:
    """True where a socket filter that returns zero is loaded: then bpf(2) as such is permitted."""
    result, _ = load_once(_RETURNS_ZERO, _SOCKET_FILTER, LoadAttributes(), 0, 0)
    if result >= 0:
        os.close(result)
    return result >= 0


def _type_not_permitted(program_type: int) -> KernelUnavailable:
    return KernelUnavailable(
        f"this kernel loads programs, but not this one of type {program_type} of enum bpf_prog_type (EPERM): "
        "how it was built, a lockdown or a sandbox is against what it attaches to"
    )


def _refusal(number: int, log: str, first_slot: int, slots: int) -> KernelVerifierError:
    """Make the error for a refused program: the last line of the log that says something, then its end."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(_LOG_SUMMARY)]
    reason = lines[-1] if lines else f"no log for {slots} slots"
    slot = None
    if mention := _LOG_MENTION.search(reason):
        slot = int(mention[1])
    else:
        steps = (_LOG_INSTRUCTION.match(line) for line in reversed(lines))
        slot = next((int(step[1]) for step in steps if step), None)
    pc = slot - first_slot if slot is not None and slot >= first_slot else None
    at = "" if pc is None else f"pc {pc}: "
    shift = f"\n(the log counts {first_slot} slots of wrapping before pc 0)" if first_slot and log else ""
    tail = "".join(f"\n  {line}" for line in log.splitlines()[-12:])
    message = f"{at}{reason} ({errno_name(number)}, refused by the Linux verifier){shift}{tail}"
    return KernelVerifierError(message, pc, errno=number, log=log)


def program_run(
    fd: int, data: bytes, output_size: int, context: bytes, repeat: int, context_room: int | None = None
) -> tuple[int, bytes, bytes, int]:
    """Run a loaded program; return (u32 return value, packet after, context after, nanoseconds a run).

    `output_size` is the room for the packet, 0 for a program type without one. A context is given
    back where one went in: with a packet the whole struct, else as long as it was; `context_room` bytes of it
    where that is given. Raises
    InputError where the kernel does not run it.
    """
    packet, packet_address = _buffer(data)
    output, output_address = _buffer(bytes(output_size))
    context_in, context_in_address = _buffer(context)
    # Types without a packet refuse a second buffer; a syscall program's context is written in place.
    context_out_size = max(len(context), CONTEXT_ROOM) if context and output_size else 0
    if context_room is not None:
        context_out_size = context_room
    context_out, context_out_address = _buffer(bytes(context_out_size))
    result, attributes = _call(
        PROG_TEST_RUN,
        _TEST_RUN.pack(
            fd, 0, len(data), output_size, packet_address, output_address, repeat, 0,
            len(context), context_out_size, context_in_address, context_out_address, 0, 0, 0,
        ),
    )  # fmt: skip
    del packet
    if result < 0:
        raise InputError(
            f"BPF_PROG_TEST_RUN of a packet of {len(data)} bytes and a context of {len(context)} bytes "
            f"failed ({errno_name(-result)})"
        )
    fields = _TEST_RUN.unpack(attributes)
    return_value, data_size, duration, context_size = fields[1], fields[3], fields[7], fields[9]
    return (
        return_value,
        output.raw[:data_size] if output else b"",
        context_out.raw[:context_size] if context_out else context_in.raw if context_in else b"",
        duration,
    )
