"""Executable memory: written while writable, then executable, never both."""

from __future__ import annotations

import ctypes
import mmap
import os

from ebpfjit.errors import JitUnavailable

_TRAP = 0xCC  # int3: what is beyond the code stops at once


class CodeBuffer:
    """Machine code, mapped read and execute; unmapped when the last reference is gone.

    `address` is where it starts, `size` how many bytes were given. `guarded` puts a page that
    nobody may touch before and behind it. The rest of the last page is filled with traps.
    """

    def __init__(self, code: bytes, *, guarded: bool = False) -> None:
        self.size = len(code)
        guard = mmap.PAGESIZE if guarded else 0
        length = -(-max(self.size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            self._map = mmap.mmap(
                -1,
                length + 2 * guard,
                flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        except OSError as error:
            raise JitUnavailable(f"no memory for {length} bytes of machine code: {error}") from None
        self._map.seek(guard)
        self._map.write(code)
        self._map.write(bytes([_TRAP]) * (length - self.size))
        self._pin = ctypes.c_char.from_buffer(self._map)
        start = ctypes.addressof(self._pin)
        self.address = start + guard
        _protect(self.address, length, mmap.PROT_READ | mmap.PROT_EXEC)
        if guard:
            _protect(start, guard, 0)
            _protect(self.address + length, guard, 0)

    def __contains__(self, address: int) -> bool:
        """True for an address inside the code."""
        return self.address <= address < self.address + self.size


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _protect(address: int, length: int, protection: int) -> None:
    if _libc.mprotect(address, length, protection) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise JitUnavailable(f"this system does not let memory become executable: {reason}")
