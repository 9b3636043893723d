"""Link types: what packets of a capture begin with."""

from __future__ import annotations

from ebpfjit.errors import CaptureError

ETHERNET, NULL, LOOPBACK, COOKED, COOKED_2 = 1, 0, 108, 113, 276
RAW_IP = (12, 14, 101, 228, 229)
NAMES = {
    ETHERNET: "Ethernet",
    NULL: "BSD loopback",
    LOOPBACK: "OpenBSD loopback",
    COOKED: "Linux cooked",
    COOKED_2: "Linux cooked, version 2",
    **dict.fromkeys(RAW_IP, "raw IP"),
}
"""The link types of which packets can be made Ethernet frames (www.tcpdump.org/linktypes.html)."""


def link_name(link_type: int) -> str:
    """Return what a link type is called."""
    return NAMES.get(link_type, f"link type {link_type}")


def check_link(link_type: int, where: str = "") -> None:
    """Raise CaptureError, which begins with `where`, for a link type of which no frames can be made."""
    if link_type not in NAMES:
        known = ", ".join(f"{name} ({number})" for number, name in NAMES.items())
        raise CaptureError(f"{where}packets of link type {link_type}; frames can be made of {known}")
