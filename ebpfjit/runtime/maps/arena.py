"""arena: pages that programs and Python share, to which programs have pointers of 32 bits.

    pointer of a user's    user_start ............ user_start + size     64 bits: what programs keep
    program's number       its low half; user_start and the end have the same upper half
    memory                 base .................. base + size           where the bytes are, here
    table                  one byte for each page: 1 where it is allocated

A program reaches an arena by numbers that are no addresses: of a register that holds a pointer the low half
counts, wherever it came from, and what is not in an allocated page is zero when loaded, and not stored.
So nothing but an arena's pages can be reached through one. `reach` is that rule; machine code has the same
(`find_arena`, translators/x86_64/checks.py), and reads the words of `Descriptor`.

Pages are allocated by programs (bpf_arena_alloc_pages), and where Python touches one that is not, as a page
fault of a process does it in Linux. The account of all maps pays for those that are allocated.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from ebpfjit.bits import W32
from ebpfjit.errors import MapRefused
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.account import account
from ebpfjit.runtime.maps.definition import MapDefinition, MapFlag
from ebpfjit.runtime.maps.events import Unkeyed
from ebpfjit.runtime.maps.ranges import FreeRanges
from ebpfjit.runtime.maps.rules import PAGE_SIZE
from ebpfjit.runtime.maps.storage import Storage, changing
from ebpfjit.runtime.memory import flat_view

PAGE_SHIFT = PAGE_SIZE.bit_length() - 1
WINDOW = 1 << 32
USER_WINDOW = 1 << 45
"""Where arenas are that nobody gave an address: each at the end of the 4 GiB from there on."""

DESCRIPTOR = struct.Struct("<QQQQQ")
"""Low half of user_start, bytes, addresses of the table and of the memory, a word that is zero."""

_INVERTED = bytes((1, 0)) + bytes(254)
_NORESERVE = 0x4000  # MAP_NORESERVE, which Python's mmap has no name for


class _Paid:
    """The pages of one arena that the account of all maps was charged for; given back with its memory."""

    __slots__ = ("pages",)

    def __init__(self) -> None:
        self.pages = 0

    def charge(self, pages: int) -> bool:
        """Pay for pages; False where there is no memory for them."""
        if account.refusal(pages * PAGE_SIZE, mappings=0):
            return False
        self.pages += pages
        return True

    def give_back(self, pages: int) -> None:
        """Note pages that are free again, or were not taken."""
        self.pages -= pages
        account.give_back(pages * PAGE_SIZE, mappings=0)

    def give_back_all(self) -> None:
        """Note that nobody has the memory any more."""
        self.give_back(self.pages)


class Arena(Unkeyed):
    """arena: memory of pages, shared with programs that have 32-bit pointers into it.

    `user_start` is the address (u64) that pointers of programs count from: `map_extra`, or a number of ours.
    `size` counts bytes. Addresses that methods take are such pointers, of which the low half counts.
    """

    carried = ("_free", "allocated_pages")
    regions = ()
    refusal = -errno.EOPNOTSUPP
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.EFAULT: "the page is not allocated, and BPF_F_SEGV_ON_FAULT lets only programs allocate",
        errno.ERANGE: "these are not bytes of the arena, which has {entries} pages",
        errno.ENOMEM: "there is no memory for more pages; see set_map_memory_limit",
        errno.EOPNOTSUPP: "an arena has no entries, but pages; see view, read and write",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self.size = definition.max_entries * PAGE_SIZE
        self.user_start = definition.extra or USER_WINDOW + WINDOW - self.size
        self._free = FreeRanges(definition.max_entries)
        self._storage = Storage(definition, DESCRIPTOR.size, definition.max_entries)
        self.address = self._storage.address
        start = self._storage.offsets[1]
        self._table = self._storage.view[start : start + definition.max_entries]
        self._memory = _reserve(definition, self.size)
        self._view = memoryview(self._memory)
        self._pin = ctypes.c_char.from_buffer(self._memory)
        base = ctypes.addressof(self._pin)
        self._storage.write(
            0, DESCRIPTOR.pack(W32.wrap(self.user_start), self.size, self.address + start, base, 0)
        )
        self._paid = _Paid()
        weakref.finalize(self._memory, self._paid.give_back_all).atexit = False

    @property
    def pins(self) -> tuple[Any, ...]:
        """What keeps the descriptor, the table and the pages where they are."""
        return self._storage.pin, self._pin

    @property
    def header_size(self) -> int:
        """The descriptor's, which has addresses."""
        return self._storage.offsets[1]

    @property
    def allocated_pages(self) -> dict[int, bytes]:
        """The bytes of each page that is allocated; setting them pays for them."""
        pages = [page for page, state in enumerate(self._table) if state]
        return {page: self._memory[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] for page in pages}

    @allocated_pages.setter
    def allocated_pages(self, pages: dict[int, bytes]) -> None:
        if not self._paid.charge(len(pages)):
            raise MapRefused(f"{self.definition}: {self.reasons[errno.ENOMEM]} (ENOMEM)", errno.ENOMEM)
        for page, data in pages.items():
            self._memory[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = data

    @property
    def value_address(self) -> int:
        """What programs get for the arena's first byte: the pointer of a user's."""
        return self.user_start

    @property
    def converts(self) -> bool:
        """True where a cast of a program's number gives a pointer of a user's, not the number itself."""
        return not self.definition.flags & MapFlag.NO_USER_CONV

    # -- what programs do -------------------------------------------------------------------------

    def to_user(self, number: int) -> int:
        """Return the pointer of a user's for a number (its low half): 0 for 0."""
        low = W32.wrap(number)
        return low | self.user_start & ~W32.mask if low and self.converts else low

    def reach(self, number: int, offset: int, size: int) -> memoryview | None:
        """Return the `size` bytes at `offset` from a number (its low half); None where not all are there."""
        at = W32.wrap(number) + offset - W32.wrap(self.user_start)
        if at < 0 or at + size > self.size:
            return None
        if not (self._table[at >> PAGE_SHIFT] and self._table[at + size - 1 >> PAGE_SHIFT]):
            return None
        return self._view[at : at + size]

    def allocate(self, address: int, pages: int) -> int:
        """Allocate pages, zeroed, at a pointer or (0) anywhere; return the pointer, 0 where there are none.

        As arena_alloc_pages in Linux: an address is a multiple of 4096, and all pages there are free.
        """
        wanted = self._page_of(address)
        most = self.definition.max_entries
        if not 0 < pages <= most or (address and (address % PAGE_SIZE or wanted > most - pages)):
            return 0
        if not self._paid.charge(pages):
            return 0
        with changing.held:
            start: int | None = wanted
            if not address:
                start = self._free.find(pages)
            elif not self._free.are_free(wanted, pages):
                start = None
            if start is not None:
                self._allocate(start, pages)
        if start is None:
            self._paid.give_back(pages)
            return 0
        return self.user_start + start * PAGE_SIZE

    def free(self, address: int, pages: int) -> None:
        """Free the pages that are allocated, and those that are reserved, from a pointer's page on.

        Those of them that are not the arena's are no matter.
        """
        first = (W32.wrap(address) - W32.wrap(self.user_start)) >> PAGE_SHIFT
        page = max(first, 0)
        pages = min(first + pages, self.definition.max_entries) - page
        if pages <= 0:
            return
        with changing.held:
            self._free.give(page, pages)
            freed = bytes(self._table[page : page + pages]).count(1)
            if freed:
                self._table[page : page + pages] = bytes(pages)
                self._memory.madvise(mmap.MADV_DONTNEED, page * PAGE_SIZE, pages * PAGE_SIZE)
        self._paid.give_back(freed)

    def reserve(self, address: int, pages: int) -> int:
        """Let no page be allocated there but by Python's touch; return 0 or a negative error number."""
        if not pages or address % PAGE_SIZE:
            return 0
        page = self._page_of(address)
        if page + pages > self.definition.max_entries:
            return -errno.EINVAL
        with changing.held:
            if not self._free.are_free(page, pages):
                return -errno.EBUSY
            self._free.take(page, pages)
        return 0

    def _page_of(self, address: int) -> int:
        """Return the page of a pointer; not all of them are the arena's."""
        return W32.wrap(address - self.user_start) >> PAGE_SHIFT

    def _allocate(self, page: int, pages: int) -> None:
        """Let pages that were paid for be there, zeroed: who has a view of them may have written to them."""
        self._free.take(page, pages)
        self._memory.madvise(mmap.MADV_DONTNEED, page * PAGE_SIZE, pages * PAGE_SIZE)
        self._table[page : page + pages] = b"\1" * pages

    @property
    def fragments(self) -> int:
        """How many ranges of free pages there are: what looking for one costs."""
        return len(self._free)

    # -- what Python does -------------------------------------------------------------------------

    def view(self, address: int, size: int) -> memoryview:
        """Return bytes of the arena to read and write; pages that are not allocated are from now on.

        So a process touches them in Linux. Raises MapError (EFAULT) for one that is not allocated where the
        map has BPF_F_SEGV_ON_FAULT, ERANGE for bytes that are not the arena's, ENOMEM.
        """
        at = W32.wrap(address - self.user_start)
        what = f"{size} bytes at {address:#x}"
        if size < 0 or at + size > self.size:
            self.refuse(-errno.ERANGE, what)
        if size:
            self._touch(at >> PAGE_SHIFT, (at + size - 1 >> PAGE_SHIFT) + 1, what)
        return self._view[at : at + size]

    def first_bytes(self, size: int) -> memoryview:
        """Return the arena's start for an object's variables, in pages that are allocated for them.

        Raises MapError where there is no memory for them.
        """
        self._touch(0, -(-size // PAGE_SIZE), f"{size} bytes of variables", by_process=False)
        return self._view[:size]

    def _touch(self, first: int, behind: int, what: str, *, by_process: bool = True) -> None:
        """Allocate those of some pages that are not. Raises MapError."""
        while missing := bytes(self._table[first:behind]).count(0):
            if by_process and self.definition.flags & MapFlag.SEGV_ON_FAULT:
                self.refuse(-errno.EFAULT, what)
            if not self._paid.charge(missing):
                self.refuse(-errno.ENOMEM, what)
            with changing.held:
                table = bytes(self._table[first:behind])
                is_so = table.count(0) == missing  # else others were faster
                for start, stop in _absent(table) if is_so else ():
                    self._allocate(first + start, stop - start)
            if not is_so:
                self._paid.give_back(missing)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the arena; see `view`."""
        return bytes(self.view(address, size))

    def write(self, address: int, data: Any) -> None:
        """Write a bytes-like object into the arena; see `view`."""
        data = flat_view(data)
        self.view(address, data.nbytes)[:] = data

    def pages(self) -> list[int]:
        """Return the pointers of the pages that are allocated, in ascending order."""
        return self._pointers(bytes(self._table).translate(_INVERTED))

    def reserved(self) -> list[int]:
        """Return the pointers of the pages that are reserved, and not allocated, in ascending order."""
        with changing.held:
            free = self._free.ranges()
            table = bytearray(self._table)
        for start, last in free:
            table[start : last + 1] = b"\1" * (last + 1 - start)
        return self._pointers(bytes(table))

    def _pointers(self, table: bytes) -> list[int]:
        """Return the pointers of the pages for which a table has zeros."""
        runs = (range(*run) for run in _absent(table))
        return [self.user_start + page * PAGE_SIZE for run in runs for page in run]

    def take_over(self, pages: Mapping[int, bytes]) -> None:
        """Let these pages, by their pointers, be the ones that are allocated, with these bytes.

        Raises MapError where there is no memory for them.
        """
        for page in self.pages():
            if page not in pages:
                self.free(page, 1)
        for pointer, data in pages.items():
            page = self._page_of(pointer)
            self._touch(page, page + 1, "pages of a run in the kernel", by_process=False)
            self._view[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = data

    def __len__(self) -> int:
        """How many pages are allocated."""
        return bytes(self._table).count(1)

    def clear(self) -> None:
        """Free all pages."""
        self.free(self.user_start, self.definition.max_entries)

    def __repr__(self) -> str:
        pages = f"{len(self)} of {self.definition.max_entries} pages"
        return f"<{self.definition}: {pages}, at {self.user_start:#x}>"


def _absent(table: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each run of zeros starts, and where it stops."""
    start = table.find(0)
    while start >= 0:
        stop = table.find(1, start)
        stop = len(table) if stop < 0 else stop
        yield start, stop
        start = table.find(0, stop)


def _reserve(definition: MapDefinition, size: int) -> mmap.mmap:
    """Return `size` bytes of zeroed memory, which costs nothing before it is touched, so nobody pays yet."""
    try:
        memory = mmap.mmap(
            -1,
            size,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    except (OSError, OverflowError, ValueError, MemoryError):
        raise MapRefused(
            f"{definition}: there are no {size} bytes of addresses; make max_entries smaller (ENOMEM)",
            errno.ENOMEM,
        ) from None
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # else a page that is touched takes 2 MiB, which nobody counts
    return memory
