"""Variables of the kernel by name (extern ... __ksym): where they are, and what an environment says is there.

    SYMBOLS_START + WINDOW * n    [ the variable ]                        n follows from the name
                                  [ nothing ][ processor 0 ][ 1 ] ...     one for each processor

An address depends on nothing but the name, so that all programs, and all runs, have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.runtime.memory import flat_view

SYMBOLS_START = 0xFFFF_C000_0000_0000
WINDOW, WINDOWS = 1 << 24, 1 << 21
STRIDE = 1 << 16
"""Bytes from one processor's variable to the next one's."""
MOST_PROCESSORS = WINDOW // STRIDE - 1


def address_of_symbol(name: str) -> int:
    """Return where the kernel's variable of a name is."""
    import zlib  # few programs have any

    return SYMBOLS_START + zlib.crc32(name.encode("utf-8", "surrogateescape")) % WINDOWS * WINDOW


def _bytes_of(name: str, value: Any, room: int) -> bytes:
    if isinstance(value, int):
        return (value & (1 << 64) - 1).to_bytes(8, "little")
    try:
        data = bytes(flat_view(value))
    except TypeError:
        raise ValueError(
            f"symbols: {name!r} is bytes, a number, or a list of these for the processors, not {value!r}"
        ) from None
    if not 0 < len(data) <= room:
        raise ValueError(f"symbols: {name!r} has 1 to {room} bytes, not {len(data)}")
    return data


def memory_of(symbols: Mapping[str, Any], cpus: int) -> dict[int, bytes]:
    """Return the bytes of variables by address. Raises ValueError for what cannot be one."""
    found: dict[int, bytes] = {}
    names: dict[int, str] = {}
    for name, value in symbols.items():
        start = address_of_symbol(name)
        if start in names:
            raise ValueError(f"symbols: {names[start]!r} and {name!r} have the same place here; give one")
        names[start] = name
        if not is_per_cpu(value):
            found[start] = _bytes_of(name, value, WINDOW)
            continue
        if len(value) != cpus or cpus > MOST_PROCESSORS:
            raise ValueError(
                f"symbols: {name!r} has values for {len(value)} processors, and there are {cpus}"
                f" (at most {MOST_PROCESSORS} for a variable of each)"
            )
        for cpu, each in enumerate(value):
            found[start + (1 + cpu) * STRIDE] = _bytes_of(name, each, STRIDE)
    return found


def is_per_cpu(value: Any) -> bool:
    """True for what each processor has for itself."""
    return isinstance(value, list | tuple)


def on_processor(symbols: Mapping[str, Any], address: int, cpu: int) -> int:
    """Return where a processor has the variable at an address; the same address for any other variable."""
    if any(is_per_cpu(value) and address_of_symbol(name) == address for name, value in symbols.items()):
        return address + (1 + cpu) * STRIDE
    return address
