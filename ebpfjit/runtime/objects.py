"""Objects of the kernel that an environment describes: which struct, at which address, what is in it.

    environment.struct("sk_buff", len=54)  ->  KernelPointer   an address that programs are given
                                               KernelObject    laid out for a run (`elf.objects`)

What a struct looks like depends on the kernel, so the bytes are made when a program runs: by the types of
the environment, where it has some, else by those that the program was made for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ebpfjit.record import dataclass, field
from ebpfjit.runtime.given import TEXT

WINDOW = 1 << 20
"""Bytes of addresses that each object has for itself; a larger struct is refused."""

FIRST_OBJECT = 0xFFFF_8881_0000_0000
CURRENT_TASK = FIRST_OBJECT - WINDOW
"""Where objects are (in the kernel's map of physical memory), and the process that runs."""

UNDESCRIBED = CURRENT_TASK - WINDOW
"""The address of what is there and nobody describes: nothing is there to read, so that loads give zero."""

FIRST_OF_RUN = UNDESCRIBED - 16 * WINDOW
"""Where the objects are that one run comes with."""


class KernelPointer(int):
    """The address of an object of the kernel, as a program is given it (`struct.pack("<Q", pointer)`)."""

    struct: str

    def __new__(cls, address: int, struct: str) -> KernelPointer:
        """Make a pointer to a struct of that name."""
        pointer = super().__new__(cls, address)
        pointer.struct = struct
        return pointer

    def __reduce__(self) -> tuple[type[KernelPointer], tuple[int, str]]:
        return KernelPointer, (int(self), self.struct)

    def __repr__(self) -> str:
        return f"<struct {self.struct} at {int(self):#x}>"


@dataclass(frozen=True, slots=True)
class KernelObject:
    """What is at a pointer: a struct with these members, zero elsewhere; or `data`, as it is.

    `path` is the text that bpf_d_path gives for a struct path, or for the f_path of a struct file.
    Where it is `lenient`, members that the struct does not have are left out.
    """

    pointer: KernelPointer
    members: Mapping[str, Any] = field(default_factory=dict)
    data: Any = None
    path: str | None = None
    lenient: bool = False

    def number(self, member: str, default: int = 0) -> int:
        """Return a member that is a number."""
        value = self.members.get(member, default)
        return value if isinstance(value, int) else default


TASK = "task_struct"


def _pointers(value: Any) -> Iterator[int]:
    """Yield what the members of a struct point to."""
    if isinstance(value, KernelPointer):
        yield value
    elif isinstance(value, Mapping):
        yield from (found for each in value.values() for found in _pointers(each))
    elif isinstance(value, list | tuple):
        yield from (found for each in value for found in _pointers(each))


class KernelObjects:
    """The objects of one environment, in the order in which they were described.

    `laid_out` is what was made of them, by whoever does it.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.all: list[KernelObject] = []
        self.laid_out: dict[Any, Any] = {}

    def add(self, struct: str, members: Mapping[str, Any], **more: Any) -> KernelPointer:
        """Describe an object; return its address, which stays the same. Raises TypeError for no text."""
        TEXT.check("the name of a struct", struct)
        TEXT.or_none().check("path", more.get("path"))
        pointer = KernelPointer(FIRST_OBJECT + next(self._numbers) * WINDOW, struct)
        self.all.append(KernelObject(pointer, dict(members), **more))
        return pointer

    def at(self, address: int) -> KernelObject | None:
        """Return the object that starts at an address, None where none does."""
        index, offset = divmod(address - FIRST_OBJECT, WINDOW)
        known = self.all
        if offset or not 0 <= index < len(known):
            return None
        return known[index] if known[index].pointer == address else None

    def of_struct(self, name: str) -> Iterator[KernelObject]:
        """Yield the objects of one struct."""
        return (each for each in list(self.all) if each.pointer.struct == name)

    @property
    def current_task(self) -> KernelObject | None:
        """The first task that no other task points to: a parent has to be described before its child."""
        tasks = [each for each in list(self.all) if each.pointer.struct == TASK]
        pointed = {pointer for each in tasks for pointer in _pointers(each.members)}
        return next((each for each in tasks if each.pointer not in pointed), tasks[0] if tasks else None)

    def __getstate__(self) -> dict[str, Any]:
        return {"all": list(self.all)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.all = state["all"]
        self._numbers = itertools.count(len(self.all))
        self.laid_out = {}
