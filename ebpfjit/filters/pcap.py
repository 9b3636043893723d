"""libpcap's compiler of filter expressions: the system's library, or that of the wheel `libpcap`, the newer
one.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from ebpfjit.classic.check import check
from ebpfjit.classic.code import decode
from ebpfjit.errors import FilterError, VerifierError
from ebpfjit.once import once

ANY_NETMASK = 0xFFFFFFFF
LINK_TYPES = {"ethernet": 1, "null": 0, "loop": 108, "raw": 101, "linux_sll": 113, "linux_sll2": 276}
"""What packets of a filter begin with, by name; other names and numbers are libpcap's (DLT_*)."""
_IN_MEMORY = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}
"""Numbers in Linux's libpcap of link types that have another in files: ATM, raw IP, BSD/OS's SLIP and PPP."""

_compiling = Lock()
"""libpcap's compiler was not for several threads at once before 1.8."""


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("count", ctypes.c_uint), ("instructions", ctypes.c_void_p))


MOST_SHOWN = 200
"""Characters of an expression that messages repeat."""


def named(expression: str) -> str:
    """Return what messages call a filter: its expression, of a long one both ends."""
    half = MOST_SHOWN // 2
    is_short = len(expression) <= MOST_SHOWN
    shown = expression if is_short else f"{expression[:half]}...{expression[-half:]}"
    return f"filter {shown!r}"


def link_number(linktype: str | int) -> int:
    """Return the number of a link type. Raises FilterError for a name that nobody knows."""
    if isinstance(linktype, int):
        if not 0 <= linktype < 1 << 16:
            raise FilterError(f"a link type is a number from 0 to 65535, not {linktype}")
        return linktype
    if not isinstance(linktype, str):
        raise TypeError(f"a link type is a name or a number, not of type {type(linktype).__name__}")
    plain = linktype.lower().removeprefix("dlt_")
    known = LINK_TYPES.get(plain)
    if known is not None:
        return known
    number = (
        int(_library().pcap_datalink_name_to_val(plain.encode())) if plain.replace("_", "").isalnum() else -1
    )
    if number < 0:
        names = ", ".join(LINK_TYPES)
        raise FilterError(f"no link type {linktype!r}; there are {names}, and libpcap's own (EN10MB, ...)")
    return number


def compile(
    expression: str,
    linktype: str | int,
    snaplen: int,
    *,
    optimize: bool = True,
    netmask: str | int | None = None,
) -> bytes:
    """Return an expression as a program of classic BPF. Raises FilterError, in libpcap's words.

    Of `protochain` it becomes a loop, which goes back with `ja`.
    """
    if not isinstance(expression, str):
        raise TypeError(f"a filter expression is text, not of type {type(expression).__name__}")
    if not isinstance(snaplen, int):
        raise TypeError(f"snaplen is a number of bytes, not of type {type(snaplen).__name__}")
    if not 0 <= snaplen < 1 << 31:
        raise ValueError(f"snaplen is a number of bytes below 2**31, not {snaplen}")
    if "\0" in expression:
        raise FilterError("a filter expression has no zero byte")
    try:
        text = expression.encode()
    except UnicodeEncodeError as error:
        raise FilterError(f"{named(expression)}: {error.reason} at character {error.start + 1}") from None
    number = link_number(linktype)
    number = _IN_MEMORY.get(number, number)
    code = _compiled(expression, text, number, snaplen, optimize=optimize, mask=_mask(netmask))
    try:
        check(code, loops=True, machine="libpcap")
    except VerifierError as error:
        raise FilterError(f"{named(expression)}: libpcap makes no program that runs: {error}") from None
    return code


def _compiled(expression: str, text: bytes, number: int, snaplen: int, *, optimize: bool, mask: int) -> bytes:
    library = _library()
    with _compiling:
        handle = library.pcap_open_dead(number, snaplen)
        if not handle:
            raise FilterError(f"libpcap has no memory for link type {number}")
        try:
            program = _Program()
            failed = library.pcap_compile(handle, ctypes.byref(program), text, int(optimize), mask)
            if failed:
                said = library.pcap_geterr(handle).decode(errors="replace")
                raise FilterError(f"{named(expression)}: {said}")
            code = ctypes.string_at(program.instructions, 8 * program.count)
            library.pcap_freecode(ctypes.byref(program))
        finally:
            library.pcap_close(handle)
    return code


def _mask(netmask: str | int | None) -> int:
    """Return a netmask as this libpcap takes it. Raises FilterError."""
    if netmask is None:
        return ANY_NETMASK
    try:
        return int.from_bytes(IPv4Address(netmask).packed, _mask_order())
    except ValueError as error:
        raise FilterError(f"{netmask!r} is no netmask: {error}") from None


@once
def _mask_order() -> Literal["big", "little"]:
    """Return how the bytes of a netmask lie as a number: releases of libpcap differ, so one is asked."""
    number, hosts = LINK_TYPES["ethernet"], 0xFF  # of the mask 255.255.255.0
    made = _compiled("", b"ip broadcast", number, 1, optimize=True, mask=0xFFFFFF00)
    return "big" if any(each.k == hosts for each in decode(made)) else "little"


@once
def _library() -> Any:
    """Return the newest libpcap there is. Raises FilterError where there is none."""
    found: list[tuple[tuple[int, ...], Any]] = []
    for path in _paths():
        try:
            library = ctypes.CDLL(path)
            library.pcap_lib_version.restype = ctypes.c_char_p
            version = re.search(rb"version ([\d.]+)", library.pcap_lib_version())
        except (OSError, AttributeError):
            continue
        numbers = tuple(map(int, version[1].strip(b".").split(b"."))) if version else ()
        found.append((numbers, library))
    if not found:
        raise FilterError(
            "filter expressions are compiled by libpcap, which is not here: pip install 'ebpfjit[filters]',"
            " or apt install libpcap0.8"
        )
    library = max(found, key=lambda each: each[0])[1]
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
    library.pcap_compile.argtypes = (
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32,
    )  # fmt: skip
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = (ctypes.c_void_p,)
    library.pcap_freecode.argtypes = library.pcap_close.argtypes = (ctypes.c_void_p,)
    library.pcap_datalink_name_to_val.argtypes = (ctypes.c_char_p,)
    return library


def _paths() -> Iterator[str]:
    """Yield where a libpcap may be."""
    system = ctypes.util.find_library("pcap")
    if system is not None:
        yield system
    wheel = importlib.util.find_spec("libpcap")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "_platform" / sys.platform / platform.machine().lower()
        for name in ("libpcap.so", "libpcap.dylib", "pcap.dll"):
            yield from map(str, folder.rglob(name))
