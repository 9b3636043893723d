"""The configuration of a kernel as text, as libbpf reads it: /proc/config.gz, /boot/config-*, .config.

CONFIG_NET=y                  "y": y, m or n
CONFIG_HZ=250                 250: a number, as C writes it
CONFIG_LOCALVERSION="-own"    "-own"
# CONFIG_BPF is not set       nothing: whoever needs it has no value
"""

from __future__ import annotations

import re

from ebpfjit.elf.externs import TRISTATE
from ebpfjit.errors import LoadError

GZIP = b"\x1f\x8b"
MAX_TEXT = 1 << 24
"""Bytes of a configuration; those of today's kernels have some 300 thousand."""

PREFIX = "CONFIG_"
SHOWN = 60
OCTAL = re.compile("-?0[0-7]+")


def parse_config(data: bytes, name: str) -> dict[str, int | str]:
    """Return the values of a configuration by name, those of `kconfig=` of `load`; it may be compressed.

    Lines that do not start with CONFIG_ say nothing, of two that give one value the first counts. Raises
    LoadError naming the line that is none of a configuration.
    """
    values: dict[str, int | str] = {}
    for number, line in enumerate(_unpacked(data, name).decode("utf-8", "replace").splitlines(), 1):
        if line.startswith(PREFIX):
            key, is_pair, text = line.partition("=")
            try:
                if not is_pair:
                    raise ValueError("there is no '=' in it")
                values.setdefault(key, parse_value(text))
            except ValueError as error:
                raise LoadError(f"{name}: line {number}: {line[:SHOWN]!r}: {error}") from None
    if not values:
        raise LoadError(f"{name}: not the configuration of a kernel: no line of it is {PREFIX}NAME=VALUE")
    return values


def parse_value(text: str) -> int | str:
    """Return the value that is written behind the "=" of a configuration. Raises ValueError for another."""
    if text in TRISTATE:
        return text
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    try:
        return int(text, 8 if OCTAL.fullmatch(text) else 0)
    except ValueError:
        raise ValueError(f"{text[:SHOWN]!r} is neither y, m, n, a number nor text in double quotes") from None


def _unpacked(data: bytes, name: str) -> bytes:
    """Return the text of a configuration, compressed or not."""
    if data.startswith(GZIP):
        import zlib

        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            data = stream.decompress(data, MAX_TEXT + 1)
        except zlib.error as error:
            raise LoadError(f"{name}: damaged: {error}") from None
        if not stream.eof and len(data) <= MAX_TEXT:
            raise LoadError(f"{name}: truncated: the compressed file ends early")
    if len(data) > MAX_TEXT:
        raise LoadError(f"{name}: more than {MAX_TEXT} bytes, which is too much for a configuration")
    return data
