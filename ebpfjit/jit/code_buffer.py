"""Executable memory: written while writable, then executable, never both."""

from __future__ import annotations

import ctypes
import mmap
import os

from ebpfjit.errors import JitUnavailable
from ebpfjit.sealed import Sealed, inside, seal

_TRAP = 0xCC  # int3: what is beyond the code stops at once


class CodeBuffer(Sealed):
    """Machine code, mapped read and execute; unmapped when the last reference is gone.

    `address` is where it starts, `size` how many bytes were given. `guarded` puts a page that
    nobody may touch before and behind it. The rest of the last page is filled with traps.
    """

    __slots__ = ()

    def __init__(self, code: bytes, *, guarded: bool = False) -> None:
        size = len(code)
        guard = mmap.PAGESIZE if guarded else 0
        length = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            mapping = mmap.mmap(
                -1,
                length + 2 * guard,
                flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        except OSError as error:
            raise JitUnavailable(f"no memory for {length} bytes of machine code: {error}") from None
        mapping.seek(guard)
        mapping.write(code)
        mapping.write(bytes([_TRAP]) * (length - size))
        pin = ctypes.c_char.from_buffer(mapping)  # as long as it is there the mapping cannot be closed
        start = ctypes.addressof(pin)
        address = start + guard
        _protect(address, length, mmap.PROT_READ | mmap.PROT_EXEC)
        if guard:
            _protect(start, guard, 0)
            _protect(address + length, guard, 0)
        seal(self, (address, size, pin))

    @property
    def address(self) -> int:
        """Where it starts."""
        address: int = inside(self)[0]
        return address

    @property
    def size(self) -> int:
        """How many bytes were given."""
        size: int = inside(self)[1]
        return size

    def __contains__(self, address: int) -> bool:
        """True for an address inside the code."""
        return self.address <= address < self.address + self.size


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _protect(address: int, length: int, protection: int) -> None:
    if _libc.mprotect(address, length, protection) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise JitUnavailable(f"this system does not let memory become executable: {reason}")
