"""An arena in the kernel for one run: the pages of the Python side in it before, read back after.

    arena.pages() -> allocated and reserved there by a program of ours -> mapped here, at user_start -> bytes

Pages that a process touches are allocated, unless the map has BPF_F_SEGV_ON_FAULT: so it has it here, and
what is allocated after the run is what the kernel itself can read there (EFAULT for the rest).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from ebpfjit.assembler import assemble
from ebpfjit.elf.btf import Kind
from ebpfjit.errors import LoadError
from ebpfjit.kernel import vmlinux
from ebpfjit.kernel.objects import LoadedProgram
from ebpfjit.kernel.program_types import PROGRAM_TYPES
from ebpfjit.kernel.syscalls import LoadAttributes
from ebpfjit.record import replace
from ebpfjit.runtime.maps.definition import MapDefinition, MapFlag
from ebpfjit.runtime.maps.rules import PAGE_SIZE

_FIXED_NOREPLACE = 0x100000  # MAP_FIXED_NOREPLACE
_FAILED = ctypes.c_void_p(-1).value
_SYSCALL = PROGRAM_TYPES["syscall"]
_FAILS = {"bpf_arena_alloc_pages": "if r0 == 0 goto +2", "bpf_arena_reserve_pages": "if w0 != 0 goto +2"}
_WANTED = struct.Struct("<QQ")
"""What a program that asks for pages gets as its context: where, and how many."""


def definition_of(arena: Any) -> MapDefinition:
    """Return what an arena's counterpart is made of: pointers are the same there."""
    definition: MapDefinition = arena.definition
    return replace(definition, extra=arena.user_start, flags=definition.flags | int(MapFlag.SEGV_ON_FAULT))


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.pwrite.restype = ctypes.c_ssize_t
    libc.pwrite.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
    return libc


def _asking(name: str, fd: int) -> LoadedProgram:
    """Return a program that calls a kernel function for pages of the arena `fd`, as its context says."""
    id = vmlinux.find(name, Kind.FUNC)
    if not id:
        raise LoadError(f"this kernel has no kfunc {name!r} (in {vmlinux.PATH})")
    code = assemble(f"""
        r6 = r1
        r1 = map[fd:{fd}]
        r2 = *(u64 *)(r6 + 0)
        r3 = *(u64 *)(r6 + 8)
        r4 = -1
        r5 = 0
        call kfunc {id}
        {_FAILS[name]}
        r0 = 0
        exit
        r0 = 1
        exit
    """)
    return LoadedProgram(code, _SYSCALL.number, LoadAttributes(flags=_SYSCALL.flags))


class KernelArena:
    """The pages of an arena's counterpart `fd`, mapped into this process until it is closed.

    Raises LoadError where the addresses are in use.
    """

    def __init__(self, arena: Any, fd: int) -> None:
        self.arena = arena
        self.fd = fd
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _FIXED_NOREPLACE
        found = _libc().mmap(arena.user_start, arena.size, protection, flags, fd, 0)
        if found == _FAILED or found != arena.user_start:
            number = ctypes.get_errno()
            if found != _FAILED:
                _libc().munmap(found, arena.size)
                number = errno.EEXIST
            raise LoadError(
                f"{arena.definition}: its {arena.size} bytes cannot be at {arena.user_start:#x} in this"
                f" process: {os.strerror(number)}; choose another map_extra, a multiple of 4096"
            )

    def close(self) -> None:
        """Take it out of this process again."""
        _libc().munmap(self.arena.user_start, self.arena.size)

    def fill(self) -> None:
        """Allocate and reserve what the Python side has so, with the same bytes."""
        for name, ranges in (
            ("bpf_arena_alloc_pages", list(_runs(self.arena.pages()))),
            ("bpf_arena_reserve_pages", list(_runs(self.arena.reserved()))),
        ):
            if not ranges:
                continue
            with _asking(name, self.fd) as program:
                for start, pages in ranges:
                    if program.run(context=_WANTED.pack(start, pages)).return_value:
                        raise LoadError(
                            f"{self.arena.definition}: the kernel has no {pages} pages at {start:#x}"
                        )
        for page in self.arena.pages():
            ctypes.memmove(page, self.arena.read(page, PAGE_SIZE), PAGE_SIZE)

    def read_back(self) -> None:
        """Let the Python side have the pages that are allocated now, and no others."""
        self.arena.take_over(dict(self._pages()))

    def _pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the pages that are allocated, and their bytes: what can be copied out of this process."""
        start, stop = self.arena.user_start, self.arena.user_start + self.arena.size
        file = os.memfd_create("arena")
        try:
            while start < stop:
                copied = _libc().pwrite(file, start, min(stop - start, 1 << 20), 0)
                for offset in range(0, max(copied, 0) // PAGE_SIZE * PAGE_SIZE, PAGE_SIZE):
                    yield start + offset, os.pread(file, PAGE_SIZE, offset)
                start += max(copied, 0) // PAGE_SIZE * PAGE_SIZE
                if copied < min(stop - start, PAGE_SIZE):
                    start += PAGE_SIZE
        finally:
            os.close(file)


def _runs(pages: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, how many) of pages that lie side by side, of pages in ascending order."""
    start = 0
    for index, page in enumerate(pages):
        if index + 1 == len(pages) or pages[index + 1] != page + PAGE_SIZE:
            yield pages[start], index + 1 - start
            start = index + 1
