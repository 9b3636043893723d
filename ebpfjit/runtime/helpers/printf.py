"""Linux's format strings, as bpf_snprintf and bpf_trace_printk have them (kernel/bpf/helpers.c).

%[0+- ][width] d i u x X, l and ll before them | c | s ps-like: %pks %pus
%p %px %pK %ps %pS %pB          an address: 16 hexadecimal digits; names of symbols are not known
%pi4 %pI4 %pi6 %pI6             the address of an IP address

What is not in the program's memory is looked for in the environment's, by the kernel's rules: strings at
addresses of processes (%s, %pus) and of the kernel (%s, %pks), IP addresses in the kernel.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence

from ebpfjit.bits import W32, W64, Width
from ebpfjit.record import dataclass
from ebpfjit.runtime import memory
from ebpfjit.runtime.foreign import KERNEL_START, USER_END, ForeignMemory
from ebpfjit.runtime.network import ip_address

MAX_BUFFER = 512
"""Bytes that strings and other arguments of one call may take (MAX_BPRINTF_BIN_ARGS)."""

FREE_PERCENTS = 16
"""Percent signs of a format that go with the call; each further one takes as long as an instruction."""

MAX_WIDTH = (1 << 23) - 1
"""The widest field (FIELD_WIDTH_MAX in lib/vsprintf.c)."""

_FLAGS_AND_WIDTH = re.compile(rb"([0+\- ]*)([1-9][0-9]*)?")
_INTEGER = re.compile(rb"(l{0,2})([diuxX])")
_IP = re.compile(rb"([iI])([46])")
# Linux's classes of characters are those of Latin-1 (lib/ctype.c); what is not ASCII may stand anywhere.
_ASCII_ALLOWED = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\v\f\r")
_ALLOWED = bytes(_ASCII_ALLOWED | frozenset(range(0x80, 0x100)))
_ALPHANUMERIC = frozenset(range(0xC0, 0x100)) - {0xD7, 0xF7} | frozenset(
    byte for byte in range(0x80) if chr(byte).isalnum()
)
_LETTERS = re.compile(b"[" + re.escape(bytes(sorted(_ALPHANUMERIC))) + b"]*")
_ENDS_WORD = _ASCII_ALLOWED - _ALPHANUMERIC | frozenset(range(0xA0, 0xC0)) | {0xD7, 0xF7}


class BadFormat(Exception):  # noqa: N818 - never seen by users: it carries a helper's result
    """A format, or arguments, that Linux refuses with error number `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


@dataclass(slots=True)
class _Field:
    """What stands between a percent sign and the conversion's letter."""

    flags: bytes
    width: int


def _width(digits: bytes | None) -> int:
    """Return the width that is written there; more digits than it may have are not read."""
    return min(int((digits or b"0")[:8]), MAX_WIDTH)


def _signed(field: _Field, value: int) -> bytes:
    plus = b"+" if b"+" in field.flags else b" " if b" " in field.flags else b""
    return (b"" if value < 0 else plus) + b"%d" % value


_CONVERSIONS: dict[bytes, Callable[[_Field, Width, int], bytes]] = {
    b"d": lambda field, width, value: _signed(field, width.signed(value)),
    b"i": lambda field, width, value: _signed(field, width.signed(value)),
    b"u": lambda field, width, value: b"%d" % value,
    b"x": lambda field, width, value: b"%x" % value,
    b"X": lambda field, width, value: b"%X" % value,
}


class _Formatter:
    """One format with its arguments, taken from left to right."""

    def __init__(
        self, text: bytes, arguments: Sequence[int], shown: int, foreign: ForeignMemory | None
    ) -> None:
        self.text = text
        self.foreign = foreign
        self.shown = shown
        self.unseen = 0
        self.arguments = arguments
        self.used = 0
        self.room = MAX_BUFFER

    def pad(self, field: _Field, text: bytes, *, numeric: bool = False) -> bytes:
        """Return the text padded to the width: left, right, or zeros behind a sign.

        Of the padding there is as much as can be seen; the rest is counted.
        """
        missing = max(field.width - len(text), 0)
        count = min(missing, self.shown)
        self.unseen += missing - count
        memory.pay(count)
        if b"-" in field.flags:
            return text + b" " * count
        if numeric and b"0" in field.flags:
            sign = text[:1] if text[:1] in (b"+", b"-", b" ") else b""
            return sign + b"0" * count + text[len(sign) :]
        return b" " * count + text

    def argument(self) -> int:
        if self.used >= len(self.arguments):
            raise BadFormat(errno.EINVAL)
        value = self.arguments[self.used]
        self.used += 1
        return value

    def take(self, size: int, *, alignment: int = 1) -> None:
        """Pay for what an argument takes of the buffer."""
        self.room -= self.room % alignment
        if self.room < size:
            raise BadFormat(errno.ENOSPC)
        self.room -= size

    def ends_word(self, index: int) -> bool:
        """True where no letter or digit stands at `index`."""
        return index >= len(self.text) or self.text[index] in _ENDS_WORD

    def string(self, where: bytes = b"") -> bytes:
        """Return the string that the next argument points to, empty where it cannot be read.

        `where` is "u" for one of a process, "k" for one of the kernel.
        """
        address = self.argument()
        if not self.room:
            raise BadFormat(errno.ENOSPC)
        text = memory.string(address, self.room)
        if text is None and self.foreign is not None and _may_be(address, where):
            text = self.foreign.string(address, self.room)
        text = text or b""
        text = text[: self.room - 1]  # its zero byte needs room as well
        self.room -= len(text) + 1
        return text

    def convert(self, index: int) -> tuple[bytes, int]:
        """Return the text of the conversion behind the percent sign before `index`, and where it ends."""
        head = _FLAGS_AND_WIDTH.match(self.text, index)
        assert head is not None  # it matches the empty string
        field = _Field(head[1], _width(head[2]))
        index = head.end()
        letter = self.text[index : index + 1]
        if letter == b"p":
            return self.pointer(field, index + 1)
        if letter == b"s":
            if not self.ends_word(index + 1):
                raise BadFormat(errno.EINVAL)
            return self.pad(field, self.string()), index + 1
        if letter == b"c":
            self.take(1)
            return self.pad(field, bytes([self.argument() & 0xFF])), index + 1
        integer = _INTEGER.match(self.text, index)
        if integer is None:
            raise BadFormat(errno.EINVAL)
        width = W64 if integer[1] else W32
        value = width.wrap(self.argument())
        self.take(width.bits // 8, alignment=4)
        return self.pad(field, _CONVERSIONS[integer[2]](field, width, value), numeric=True), integer.end()

    def pointer(self, field: _Field, index: int) -> tuple[bytes, int]:
        """Return the text of a %p with its suffix, and where it ends."""
        suffix = self.text[index : index + 1]
        if suffix in (b"k", b"u") and self.text[index + 1 : index + 2] == b"s":
            if not self.ends_word(index + 2):
                raise BadFormat(errno.EINVAL)
            return self.string(suffix), index + 2  # Linux does not pad it
        ip = _IP.match(self.text, index)
        if ip is not None:
            return self.ip_address(ip[1] + ip[2]), self.skip_letters(ip.end())
        if not self.ends_word(index) and suffix not in (b"K", b"x", b"s", b"S", b"B"):
            raise BadFormat(errno.EINVAL)
        value = self.argument()
        if suffix in (b"s", b"S", b"B"):
            text = b"0x%x" % value  # what Linux writes where it knows no symbol
            self.take(len(text) + 1 if suffix == b"B" else 8, alignment=1 if suffix == b"B" else 4)
            return text if suffix == b"B" else self.pad(field, text), self.skip_letters(index)
        self.take(8, alignment=4)
        if not field.width:
            field = _Field(field.flags + b"0", 16)
        return self.pad(field, b"%x" % value, numeric=True), self.skip_letters(index)

    def skip_letters(self, index: int) -> int:
        """Return where the letters and digits at `index` end: all of them belong to a %p."""
        letters = _LETTERS.match(self.text, index)
        assert letters is not None  # it matches the empty string
        return letters.end()

    def ip_address(self, kind: bytes) -> bytes:
        """Return an IP address, all of its digits for `i4`, `I6` and `i6`."""
        size = 4 if kind.endswith(b"4") else 16
        address = self.argument()
        if self.room < size:
            raise BadFormat(errno.ENOSPC)
        found = memory.find(address, size, "probe")
        raw = None if found is None else bytes(found)
        if raw is None and self.foreign is not None and _may_be(address, b"k"):
            raw = self.foreign.read(address, size)
        raw = raw or bytes(size)
        text = _IP_TEXT[kind](raw)[: max(self.room - 1, 0)]
        self.room -= len(text) + 1
        return text


_IP_TEXT: dict[bytes, Callable[[bytes], bytes]] = {
    b"I4": lambda raw: b"%d.%d.%d.%d" % tuple(raw),
    b"i4": lambda raw: b"%03d.%03d.%03d.%03d" % tuple(raw),
    b"I6": lambda raw: ip_address(raw).exploded.encode(),
    b"i6": lambda raw: raw.hex().encode(),
}


def _may_be(address: int, where: bytes) -> bool:
    """True for an address where Linux looks: of a process ("u"), of the kernel ("k"), or of either."""
    return address < USER_END if where == b"u" else address >= KERNEL_START or not where


def render(
    text: bytes, arguments: Sequence[int], shown: int, foreign: ForeignMemory | None = None
) -> tuple[bytes, int]:
    """Return the format (without a zero byte) filled in with u64 arguments; some may be left over.

    The first `shown` bytes are as they should be; the number is how many bytes there are in all.

    Strings and addresses are followed inside the running program's memory and `foreign`; what cannot be
    read is empty. Raises BadFormat where Linux has an error number. The program pays for percent signs and
    padding.
    """
    if text.translate(None, _ALLOWED):
        raise BadFormat(errno.EINVAL)
    memory.spend(text.count(b"%") - FREE_PERCENTS)
    formatter, parts, index = _Formatter(text, arguments, shown, foreign), [], 0
    while (percent := text.find(b"%", index)) >= 0:
        parts.append(text[index:percent])
        if text[percent + 1 : percent + 2] == b"%":
            part, index = b"%", percent + 2
        else:
            part, index = formatter.convert(percent + 1)
        parts.append(part)
    parts.append(text[index:])
    line = b"".join(parts)
    return line, len(line) + formatter.unseen
