"""Limits of memory for what runs in a child of a process that has run other tests."""

from __future__ import annotations

import resource

ROOM = 1 << 30


def limit_of_memory(room: int = ROOM) -> int:
    """Return the RLIMIT_AS that leaves so many bytes besides what this process has already."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize() + room


def limit_memory(room: int = ROOM) -> None:
    """Give this process, a child that ends soon, so many bytes of address space besides what it has."""
    most = limit_of_memory(room)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
