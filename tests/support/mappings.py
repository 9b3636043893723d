"""What this process has mapped, as Linux tells it."""

from __future__ import annotations

from pathlib import Path


def own_mappings() -> list[tuple[int, int, str]]:
    """Start, end and rights of each mapping. Linux shows neighbours of equal rights as one."""
    mappings = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        start, end = span.split("-")
        mappings.append((int(start, 16), int(end, 16), rights))
    return mappings


def rights_at(address: int) -> str:
    """Return the rights of the page at an address, "" where nothing is mapped."""
    return next((rights for start, end, rights in own_mappings() if start <= address < end), "")
