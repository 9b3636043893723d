"""Kernel functions on strings (kernel/bpf/helpers.c): each ends with a zero byte.

What is not the program's memory is -ERANGE where a process would have it, -EFAULT elsewhere, and where a
string runs out of it; one that goes on for LONGEST bytes is -E2BIG.
"""

from __future__ import annotations

import errno

from ebpfjit.record import dataclass
from ebpfjit.runtime import memory
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World

LONGEST = 65536
"""XATTR_SIZE_MAX."""

KERNEL = 0xFFFF_8000_0000_0000
"""The lowest address of the kernel's."""

NUL = b"\0"
SHORT = 256
"""Bytes that are looked at before all that there may be are copied: most strings end there."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A string without its zero byte; `failure` is what comes behind it where it has none, else 0."""

    data: bytes
    failure: int


def _text(address: int, size: int = LONGEST) -> _Text:
    """Return at most `size` bytes of the string at an address."""
    space = memory.running()
    rest = space.rest(address) if space is not None else None
    if rest is None:
        return _Text(b"", -errno.EFAULT if address >= KERNEL else -errno.ERANGE)
    most = min(size, LONGEST)
    data = bytes(rest[: min(most, SHORT)])
    if NUL not in data:
        data = bytes(rest[:most])
    head, end, _ = data.partition(NUL)
    memory.pay(len(head))
    return _Text(head, 0 if end else -errno.E2BIG if len(data) == LONGEST else -errno.EFAULT)


def _compared(first: int, second: int, *, folds: bool = False) -> int:
    one, other = _text(first), _text(second)
    for text in (one, other):
        if not text.data and text.failure == -errno.ERANGE:
            return text.failure
    a, b = (one.data.lower(), other.data.lower()) if folds else (one.data, other.data)
    common = min(len(a), len(b))
    if a[:common] != b[:common]:
        return -1 if a[:common] < b[:common] else 1
    for text in (one, other):
        if len(text.data) == common and text.failure:
            return text.failure
    return (len(a) > common) - (len(b) > common)


@kfunc("bpf_strcmp")
def strcmp(world: World, first: int, second: int) -> int:
    """Compare two strings: -1, 0 or 1, or a negative error number."""
    return _compared(first, second)


@kfunc("bpf_strcasecmp")
def strcasecmp(world: World, first: int, second: int) -> int:
    """Compare two strings, capital letters as small ones: -1, 0 or 1, or a negative error number."""
    return _compared(first, second, folds=True)


@kfunc("bpf_strnchr")
def strnchr(world: World, string: int, count: int, character: int) -> int:
    """Return where a character is first among so many; -ENOENT, or another error number."""
    count = min(count, LONGEST)
    text = _text(string, count)
    if not text.data and text.failure == -errno.ERANGE:
        return text.failure
    found = (text.data if text.failure else text.data + NUL).find(character & 0xFF)
    if found >= 0:
        return found
    if not text.failure or (len(text.data) == count and count < LONGEST):
        return -errno.ENOENT
    return text.failure


@kfunc("bpf_strchr")
def strchr(world: World, string: int, character: int) -> int:
    """Return where a character is first; -ENOENT, or another error number."""
    return strnchr(world, string, LONGEST, character)


@kfunc("bpf_strchrnul")
def strchrnul(world: World, string: int, character: int) -> int:
    """Return where a character is first, or the end; a negative error number."""
    text = _text(string)
    found = text.data.find(character & 0xFF)
    return found if found >= 0 else text.failure or len(text.data)


@kfunc("bpf_strrchr")
def strrchr(world: World, string: int, character: int) -> int:
    """Return where a character is last; -ENOENT, or another error number."""
    text = _text(string)
    found = (text.data + NUL).rfind(character & 0xFF)
    return text.failure or (found if found >= 0 else -errno.ENOENT)


@kfunc("bpf_strnlen")
def strnlen(world: World, string: int, count: int) -> int:
    """Return how long a string is, at most `count`; a negative error number."""
    count = min(count, LONGEST)
    text = _text(string, count)
    is_cut = len(text.data) == count and count < LONGEST and text.failure != -errno.ERANGE
    return len(text.data) if is_cut or not text.failure else text.failure


@kfunc("bpf_strlen")
def strlen(world: World, string: int) -> int:
    """Return how long a string is; a negative error number."""
    return strnlen(world, string, LONGEST)


def _span(string: int, characters: int, *, of_them: bool) -> int:
    text, others = _text(string), _text(characters)
    for each in (text, others):
        if not each.data and each.failure == -errno.ERANGE:
            return each.failure
    known = bytes(int(character in others.data) for character in range(256))
    at = text.data.translate(known).find(0 if of_them else 1)  # in C: a program pays little for a character
    if others.failure and not of_them and text.data and at != 0:
        return others.failure
    if at >= 0:
        return (of_them and others.failure) or at
    return text.failure or len(text.data)


@kfunc("bpf_strspn")
def strspn(world: World, string: int, accept: int) -> int:
    """Return how many characters at the start are among others; a negative error number."""
    return _span(string, accept, of_them=True)


@kfunc("bpf_strcspn")
def strcspn(world: World, string: int, reject: int) -> int:
    """Return how many characters at the start are not among others; a negative error number."""
    return _span(string, reject, of_them=False)


@kfunc("bpf_strnstr")
def strnstr(world: World, string: int, searched: int, count: int) -> int:
    """Return where a string is first in so many characters of another; -ENOENT, or another error number."""
    count = min(count, LONGEST)
    text, other = _text(string, count), _text(searched)
    for each, address in ((text, string), (other, searched)):
        if not each.data and each.failure and _is_missing(address):
            return each.failure
    if other.failure:
        return other.failure
    found = text.data.find(other.data)
    if found >= 0:
        return found
    return -errno.ENOENT if not text.failure or (len(text.data) == count < LONGEST) else text.failure


def _is_missing(address: int) -> bool:
    """True where no byte at an address is the program's."""
    space = memory.running()
    return space is None or space.rest(address) is None


@kfunc("bpf_strstr")
def strstr(world: World, string: int, searched: int) -> int:
    """Return where a string is first in another; -ENOENT, or another error number."""
    return strnstr(world, string, searched, LONGEST)
