"""Names of machine code for the system's profilers: what `perf report` calls it.

EBPFJIT_PERF=map     /tmp/perf-PID.map: a line for each stretch of one function and C line; CPython
                     puts its own names there (python -X perf)
EBPFJIT_PERF=dump    FOLDER/jit-PID.dump, with the code and its lines, for `perf record -k 1` and then
                     `perf inject --jit`; FOLDER is $JITDUMPDIR, else a new one for temporary files
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ebpfjit.errors import InputError
from ebpfjit.jit.image import Image
from ebpfjit.once import ForkLock
from ebpfjit.program import Program
from ebpfjit.translators.block import NO_PC

VARIABLE = "EBPFJIT_PERF"
KINDS = ("map", "dump")
MAPS = "/tmp"
_HEADER = struct.Struct("<6I2Q")  # magic, version, size, machine, 0, pid, time, flags
_PREFIX = struct.Struct("<2IQ")  # kind of record, size, time
_LOAD = struct.Struct("<2I4Q")  # pid, thread, address twice, size, number; the name and the code follow
_LINES, _LINE = (
    struct.Struct("<2Q"),
    struct.Struct("<Q2i"),
)  # address, entries; address, line, 0, then the file
_MAGIC, _VERSION, _X86_64 = 0x4A695444, 1, 62
_CODE_LOAD, _DEBUG_INFO = 0, 2

_lock = ForkLock()
_dumps: dict[int, tuple[int, mmap.mmap | None]] = {}
"""The dump of this process: its descriptor, -1 where there is none; the mapping by which perf finds it."""


class Stretch(NamedTuple):
    """Code of one function and one line, so many bytes from an offset on; a line of 0 is none."""

    offset: int
    size: int
    function: str
    file: str
    line: int

    @property
    def name(self) -> str:
        """What perf shows: one word or several, on one line."""
        where = f":{self.file}:{self.line}" if self.line else ""
        return "".join(letter if letter.isprintable() else "?" for letter in f"ebpf::{self.function}{where}")


def stretches(program: Program, image: Image) -> Iterator[Stretch]:
    """Yield what the code of a program consists of, in its order."""
    names = program.function_names
    starts = sorted(names)
    found: Stretch | None = None
    stops = [*image.pc_starts[1:], len(image.code)]
    for start, stop, owner in zip(image.pc_starts, stops, image.pc_owners, strict=True):
        source = program.line_at(owner) if owner != NO_PC else None
        function = names[starts[max(bisect_right(starts, owner) - 1, 0)]]
        file, line = ("", 0) if source is None else (source.file, source.line)
        if found is not None and found[2:] == (function, file, line):
            found = found._replace(size=stop - found.offset)
            continue
        if found is not None and found.size:
            yield found
        found = Stretch(start, stop - start, function, file, line)
    if found is not None and found.size:
        yield found


def tell(program: Program, image: Image, address: int) -> None:
    """Tell profilers of the code of a program at an address, where the environment asks for that.

    Where the file cannot be written nothing is told. Raises InputError for another value of the variable.
    """
    if os.environ.get(VARIABLE):
        _tell([*stretches(program, image)], image.code, address)


def tell_routines(labels: Mapping[str, int], code: bytes, address: int) -> None:
    """Tell profilers of code that programs share, as `tell` does: `labels` are offsets, those inside of a
    routine begin with a dot.
    """
    if os.environ.get(VARIABLE):
        starts = sorted((at, name) for name, at in labels.items() if not name.startswith("."))
        stops = [*(at for at, _ in starts[1:]), len(code)]
        parts = [
            Stretch(at, stop - at, f"shared:{name}", "", 0)
            for (at, name), stop in zip(starts, stops, strict=True)
            if stop > at
        ]
        _tell(parts, code, address)


def _tell(parts: list[Stretch], code: bytes, address: int) -> None:
    kind = os.environ[VARIABLE]
    if kind not in KINDS:
        raise InputError(f"{VARIABLE} is {' or '.join(KINDS)}, not {kind!r}")
    with _lock.held:
        (_add_to_map if kind == "map" else _add_to_dump)(parts, code, address)


def _opened(path: str) -> int:
    """Return the descriptor of a file to add to, -1 where that cannot be, or it is somebody else's."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        file = os.open(path, flags, 0o600)
    except OSError:
        return -1
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return file
    os.close(file)
    return -1


def _written(file: int, data: bytes) -> None:
    """Write all of it, or, on a full disk, what fits."""
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        return


def _add_to_map(parts: Iterable[Stretch], code: bytes, address: int) -> None:
    file = _opened(f"{MAPS}/perf-{os.getpid()}.map")
    if file >= 0:
        lines = [f"{address + part.offset:x} {part.size:x} {part.name}\n" for part in parts]
        _written(file, "".join(lines).encode())
        os.close(file)


def _add_to_dump(parts: list[Stretch], code: bytes, address: int) -> None:
    pid = os.getpid()
    if pid not in _dumps:
        _dumps.clear()  # a parent's
        _dumps[pid] = _new_dump(pid)
    file, _ = _dumps[pid]
    if file < 0:
        return
    start = 0
    for index, part in enumerate(parts):
        if index + 1 == len(parts) or parts[index + 1].function != part.function:
            _written(file, _records(parts[start : index + 1], code, address, pid))
            start = index + 1


def _new_dump(pid: int) -> tuple[int, mmap.mmap | None]:
    """Return a dump with its header, and a page of it that is mapped executable: perf sees that."""
    try:
        folder = os.environ.get("JITDUMPDIR") or tempfile.mkdtemp(prefix="ebpfjit-")
        file = _opened(os.path.join(folder, f"jit-{pid}.dump"))
        if file >= 0:
            _written(
                file, _HEADER.pack(_MAGIC, _VERSION, _HEADER.size, _X86_64, 0, pid, time.monotonic_ns(), 0)
            )
            executable = mmap.PROT_READ | mmap.PROT_EXEC
            return file, mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=executable)
    except (OSError, ValueError):
        pass
    return -1, None


def _records(parts: list[Stretch], code: bytes, address: int, pid: int) -> bytes:
    """Return the records of stretches of one function: their lines, then the code."""
    now, first = time.monotonic_ns(), parts[0]
    start, stop = first.offset, parts[-1].offset + parts[-1].size
    lines = b"".join(
        _LINE.pack(address + part.offset, part.line, 0) + part.file.encode(errors="replace") + b"\0"
        for part in parts
        if part.line
    )
    data = _LINES.pack(address + start, sum(part.line > 0 for part in parts)) + lines
    found = _PREFIX.pack(_DEBUG_INFO, _PREFIX.size + len(data), now) + data if lines else b""
    name = first._replace(line=0).name.encode(errors="replace") + b"\0"
    place = address + start
    data = _LOAD.pack(pid, threading.get_native_id(), place, place, stop - start, place) + name
    data += code[start:stop]
    return found + _PREFIX.pack(_CODE_LOAD, _PREFIX.size + len(data), now) + data
