"""Helpers of programs that are attached to functions, and of iterators."""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32, W64
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.plain import StructContext
from ebpfjit.runtime.helpers.printf import BadFormat, render
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import RETVAL, SEQUENCE, SIGNALS, World

WORD = 8
SEQUENCE_SIZE = 32768
"""Bytes of an iterator's buffer (PAGE_SIZE << 3, kernel/bpf/bpf_iter.c)."""
MOST_ARGUMENTS = 12
"""MAX_BPRINTF_VARARGS."""
LAST_SIGNAL = 64
"""_NSIG."""
PT_REGS_AX = 80
_STRUCT_PATH = 16


def _slots(world: World) -> int:
    """Return how many words the context has: the arguments, behind them a result where there is one."""
    argument = getattr(world.context, "argument", None)
    return argument.size // WORD if argument is not None and argument.rights is None else 0


def _has_result(world: World) -> bool:
    return bool(world.has_result) and _slots(world) > 0


def _argument_count(world: World) -> int:
    return _slots(world) - _has_result(world)


@helper("bpf_get_func_arg_cnt", differs="the words of the context, without the result of fexit and fmod_ret")
def get_func_arg_cnt(world: World, context: int) -> int:
    """Return how many arguments the traced function has."""
    return _argument_count(world)


@helper("bpf_get_func_arg", differs="the words of the context, without the result of fexit and fmod_ret")
def get_func_arg(world: World, context: int, number: int, value: int) -> int:
    """Write an argument of the traced function; 0, or -EINVAL where it has no such one."""
    memory.check(value, WORD, "store")
    number = W32.wrap(number)
    if number >= _argument_count(world):
        return -errno.EINVAL
    memory.write(value, memory.read(W64.wrap(context + WORD * number), WORD))
    return 0


@helper("bpf_get_func_ret", differs="the last word of the context of fexit and fmod_ret")
def get_func_ret(world: World, context: int, value: int) -> int:
    """Write what the traced function returned; 0, or -EOPNOTSUPP where it has not run."""
    memory.check(value, WORD, "store")
    if not _has_result(world):
        return -errno.EOPNOTSUPP
    memory.write(value, memory.read(W64.wrap(context + WORD * _argument_count(world)), WORD))
    return 0


@helper("bpf_override_return", gpl=True, differs="sets ax in the context; nothing is skipped")
def override_return(world: World, registers: int, value: int) -> int:
    """Make the probed function return a value: it is ax of the pt_regs that the run leaves."""
    context = world.context
    if isinstance(context, StructContext) and len(context.memory) >= PT_REGS_AX + WORD:
        context.memory[PT_REGS_AX : PT_REGS_AX + WORD] = struct.pack("<Q", value)
    return 0


@helper("bpf_set_retval")
def set_retval(world: World, value: int) -> int:
    """Set what the hook returns to whoever made the system call; return 0."""
    world.kept[RETVAL] = W32.signed(value)
    return 0


@helper("bpf_get_retval")
def get_retval(world: World) -> int:
    """Return what the hook is to return: 0, or what was set in this run."""
    value: int = world.kept.get(RETVAL, 0)
    return value


@helper("bpf_send_signal", "bpf_send_signal_thread", differs="is told in Result.signals; nobody gets it")
def send_signal(world: World, number: int) -> int:
    """Send a signal to the process that the program runs in; 0 or a negative error number."""
    number = W32.wrap(number)
    if number > LAST_SIGNAL:
        return -errno.EINVAL
    if not world.leaves(0):
        return -errno.EBUSY
    world.kept.setdefault(SIGNALS, []).append(number)
    return 0


def _append(world: World, text: bytes) -> int:
    """Add to what the iterator shows; -EOVERFLOW, and nothing of it, where its buffer is full."""
    sequence: bytearray = world.kept.setdefault(SEQUENCE, bytearray())
    if len(sequence) + len(text) >= SEQUENCE_SIZE:
        return -errno.EOVERFLOW
    sequence += text
    return 0


@helper("bpf_seq_write", gpl=True, differs="writes Result.output, whatever the first argument is")
def seq_write(world: World, sequence: int, data: int, size: int) -> int:
    """Write bytes to the iterator's text; 0 or -EOVERFLOW."""
    return _append(world, memory.read(data, W32.wrap(size)))


@helper("bpf_seq_printf", gpl=True, differs="writes Result.output, whatever the first argument is")
def seq_printf(world: World, sequence: int, text: int, size: int, data: int, data_size: int) -> int:
    """Write formatted text to the iterator's; 0 or a negative error number."""
    size, data_size = W32.wrap(size), W32.wrap(data_size)
    if data_size % WORD or data_size > WORD * MOST_ARGUMENTS or (data_size and not data):
        return -errno.EINVAL
    arguments = struct.unpack(f"<{data_size // WORD}Q", memory.read(data, data_size))
    form, zero, _ = memory.read(text, size).partition(b"\0")
    if not zero:
        return -errno.EINVAL
    try:
        line, count = render(form, arguments, SEQUENCE_SIZE, world.foreign)
    except BadFormat as error:
        return -error.number
    return _append(world, line) if count < SEQUENCE_SIZE else -errno.EOVERFLOW


@helper(
    "bpf_d_path", differs="tells environment.path() and the f_path of environment.file(), by their address"
)
def d_path(world: World, path: int, buffer: int, size: int) -> int:
    """Write the name of a struct path; return its bytes with the zero byte, or a negative error number."""
    return write_path(world, path, buffer, size)


def write_path(world: World, path: int, buffer: int, size: int) -> int:
    """Write the name of a struct path; return its bytes with the zero byte, or a negative error number."""
    size = W32.wrap(size)
    memory.check(buffer, size, "store")
    if not size:
        return 0
    name = world.foreign.paths.get(path)
    if name is None:
        return -errno.EFAULT if world.foreign.read(path, _STRUCT_PATH) is None else -errno.ENOENT
    text = name.encode() + b"\0"
    if len(text) > size:
        return -errno.ENAMETOOLONG
    memory.write(buffer, text)
    return len(text)
