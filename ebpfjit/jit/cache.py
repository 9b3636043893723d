"""Images in files: saved by hand, or kept in a folder for the next process.

    magic  blake2 of what follows  length  header (JSON)  bytecode  code  pc starts  pc owners  routines
     8            32                 4                              u32 each    i32 each

The routines are those that all programs share (`ebpfjit/jit/routines.py`): with them a process that finds
all its programs here needs no assembler at all.

The header holds the whole key: what machine code depends on besides the bytecode, which is there
too. An image is used only where every part of both is what it would be compiled from here and now.

Machine code is loaded to be run, so whoever can write such a file can run code as the one who loads
it: a checksum tells damage, not malice. Files and cache folders that belong to somebody else (but
root), or that others may write to, are not used.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import LoadError
from ebpfjit.jit import cpu
from ebpfjit.jit.image import Image
from ebpfjit.jit.recipe import Recipe
from ebpfjit.jit.routines import layout_of_host, provide, routines
from ebpfjit.once import once
from ebpfjit.options import CHOSEN
from ebpfjit.program import Program
from ebpfjit.record import dataclass, fields, is_dataclass, lazy
from ebpfjit.runtime.rights import Rights

try:
    from _blake2 import blake2b  # what hashlib has, which loads all of OpenSSL besides
except ImportError:
    from hashlib import blake2b

MAGIC = b"eBPFjit\x02"
SUFFIX = ".ebpfjit"
MAX_SIZE = 1 << 28
"""Bytes of the largest image that is read."""
_LENGTH = struct.Struct("<I")
_DIGEST_SIZE = 32
_START = len(MAGIC) + _DIGEST_SIZE

_WORD, _TEXT, _YES = (int,), (str,), (bool,)
_MAYBE_TEXT, _MAYBE_WORD = (str, type(None)), (int, type(None))
_HEADER: Any = {
    "key": {
        "frame_sizes": [[_WORD, _WORD], ...],
        "symbols": [[_WORD, _TEXT], ...],
        "type": _MAYBE_TEXT,
        "checked": _YES,
        "optimize": _YES,
    },
    "program": [_MAYBE_TEXT, _MAYBE_TEXT],
    "image": [_WORD, _MAYBE_WORD, {...: _WORD}, [[_TEXT, _WORD, _YES], ...]],
    "routines": [{...: _WORD}, {...: _WORD}],
    "sizes": [_WORD, _WORD, _WORD, _WORD],
}
"""The shape of a header: types of single values, lists (`...`: of as many as there are) and dictionaries."""


class Unusable(Exception):  # noqa: N818 - why a file is passed over; it does not leave the library
    """Why a file is not used."""


def _named(path: str | os.PathLike[str]) -> str:
    named = os.fspath(path)
    if not isinstance(named, str):
        raise TypeError(f"a path is a str, or gives one, and is not {path!r}")
    return named


def _digest(*parts: bytes | memoryview) -> bytes:
    """Return what nobody finds twice."""
    digest = blake2b(digest_size=_DIGEST_SIZE)
    for part in parts:
        digest.update(part)
    return digest.digest()


UPPER = {
    "assembler", "bench", "capture", "classic", "cli", "compatibility", "cost", "coverage", "dask",
    "difftest", "elf", "filters", "fuzzing", "interpreter", "kernel", "listing", "mocks", "prove",
    "pytest_plugin", "seccomp", "verifier",
}  # fmt: skip
"""The packages that no byte of machine code depends on: they bring programs, or look at what is there."""


def sources() -> Iterator[str]:
    """Yield the files that machine code depends on: all of the library but the declared packages."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for folder, below, files in os.walk(root, followlinks=True):
        skipped = {"__pycache__"} if folder != root else {"__pycache__", *UPPER}
        below[:] = sorted(set(below) - skipped)
        for name in sorted(files):
            yield f"{folder}{os.sep}{name}"


@once
def build() -> str:
    """Return what tells this library, as it stands on disk, from any other.

    The version alone does not: machine code changes while one works on the translators. Nor do the dates of
    files, which installers set as they like.
    """
    parts: list[bytes] = []
    for path in sources():
        with open(path, "rb") as file:
            content = file.read()
        parts += (f"{os.path.basename(path)} {len(content)}\n".encode(), content)
    return _digest(*parts).hex()


SETTLED = 2 * 10**9
"""Nanoseconds behind which no clock of a file system is: a file that was changed later may change unseen."""


def stamp() -> str | None:
    """Return what tells whether any source was changed since; None where one was just now.

    It is made of what the kernel notes at each change (ctime), which nobody sets, besides names and sizes:
    a fifth of the time that reading them takes.
    """
    newest, said = 0, []
    for name in sources():
        found = os.stat(name)
        newest = max(newest, found.st_ctime_ns)
        said.append(f"{name} {found.st_size} {found.st_ctime_ns} {found.st_ino} {found.st_dev}")
    now = _digest("\n".join(said).encode("utf-8", "surrogateescape")).hex()
    return now if newest < time.time_ns() - SETTLED else None


NOTE = "build.json"
"""The file of a cache folder that says what `build` is, as long as the stamp is the same."""


_LONGEST_NOTE = 1024


def _noted(path: str, now: str | None) -> str | None:
    """Return the `build` that a folder's note tells, None where it does not hold any more."""
    try:
        with _open(path) as file:
            _refuse_others(os.fstat(file.fileno()))
            note = json.loads(file.read(_LONGEST_NOTE))
    except (OSError, ValueError, RecursionError, Unusable):
        return None
    holds = isinstance(note, list) and len(note) == 2 and note[0] == now and isinstance(note[1], str)
    return note[1] if holds else None


APART: Mapping[str, str] = {
    "Recipe.why_baseline": "the code is what `optimize` says; this is why",
    "Options.release_gil": "the same code runs with the lock and without, but for maps: `why_not`",
    "Options.resumes": "such images are for runs of this process",
    "Options.limits": "such images are for runs of this process",
    "Options.cache": "where the image is, not what",
    "Options.keeps_text": "what stays beside the image, for who looks at it",
    "Options.harden": "such images are not kept: `why_not`",
    "Options.trace": "such images are not kept: `why_not`",
    "Options.reasons": "such images are not kept: `why_not`",
    "Options.audit": "such images are not kept: `why_not`",
    "Options.why_unproven": "for who asks why: the code relies on nothing",
    "Verified.kernel_loads": "such images are not kept: `why_not`",
    "Verified.arena": "such images are not kept: `why_not`",
    "Program.references": "such images are not kept: `why_not`",
    "Program.maps": "such images are not kept: `why_not`",
    "Program.kfuncs": "such images are not kept: `why_not`",
    "Program.weak_kfuncs": "each is a kfunc of the program where somebody has it, and a number where not",
    "Program.exception_callback": "only a kernel function calls it",
    "Program.code": "it is in the file as it is, and compared",
    "Program.name": "it is in the file, for messages",
    "Program.section": "it is in the file, for messages",
    "Program.lines": "for messages",
    "Program.absent": "for messages",
    "Program.refusals": "programs with any are not compiled",
    "Program.unmet": "programs with any are not compiled, or somebody has what is missing",
    "Program.environment": "runs have it, and the helpers, of which the key says which are machine code",
    "Program.license": "it says which helpers may be called, before anything is compiled",
    "Program.types": "only what has maps or kernel functions is asked for them",
    "Program.kernel_symbols": "for the kernel, which makes code of its own",
    "Program.kernel_types": "for contexts and objects of runs",
    "Program.operation": "it says what context runs have: of that the promises tell",
    "Program.relocations": "they are made: the code is what came of them",
}
"""Fields of a recipe, and of what is inside of it, that are not in the key, and why."""


def key_of(recipe: Recipe, known_build: str | None = None) -> dict[str, Any]:
    """Return all that the machine code of a program depends on, but for the bytecode itself, as JSON has it.

    That is the library, the process, and each field of the recipe that is not declared to be apart.
    """
    return {
        "build": known_build or build(),
        "python": sys.version,
        "host": layout_of_host(),
        "machine": cpu.target(),
        **dict(_fields_of(recipe)),
        "features": sorted(recipe.features),
    }


def _fields_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the fields of a record and of records in it, by name, which no two of them share."""
    for each in fields(value):
        if f"{type(value).__name__}.{each.name}" not in APART:
            part = getattr(value, each.name)
            if is_dataclass(part) and not isinstance(part, Rights):
                yield from _fields_of(part)
            else:
                yield each.name, _as_json(part)


def _as_json(value: Any) -> Any:
    """Return a field as JSON gives it back."""
    match value:
        case Rights():
            return value.table.hex()
        case Mapping():
            return [[key, each] for key, each in sorted(value.items())]
        case frozenset():
            return sorted(value)
    assert value is None or isinstance(value, bool | int | str), f"how is {value!r} a part of a key?"
    return value


def why_not(recipe: Recipe) -> str | None:
    """Return why the image of a recipe cannot be kept, None where it can."""
    options = recipe.options
    if options.harden:
        return "hardened code holds random numbers, which are not to be used twice"
    if options.trace:
        return "the code is traced: it writes to an address of this process"
    if options.reasons:
        return "the code remembers reasons, which is for looking at a capture"
    if options.promises.proven:
        return "the code relies on a verdict, which is about maps and helpers of this process"
    if options.audit:
        return "the code is an audit build, which is for finding bugs"
    if recipe.verified.program.kfuncs:
        return "the program calls kernel functions, which go by names that a file does not keep"
    if recipe.verified.kernel_loads:
        return "the code reads the kernel's memory, which the bytecode alone does not tell"
    if recipe.verified.arena is not None:
        return "the code reaches an arena, which is memory of this process"
    if recipe.verified.program.references or recipe.verified.program.maps:
        return "the code holds addresses of this process: the program has maps or references"
    return None


# -- one file -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """An image, and what it was compiled from."""

    key: dict[str, Any]
    code: bytes
    name: str | None
    section: str | None
    image: Image
    routines: Image
    labels: dict[str, int]

    @property
    def options(self) -> dict[str, Any]:
        """What its user chose, by name, as far as the code is another."""
        return {name: self.key[name] for name in CHOSEN if f"Options.{name}" not in APART}

    def verified(self) -> Verified:
        """Return the program, which was verified before it was compiled, as it was then."""
        symbols = dict(self.key["symbols"])
        program = Program.trusted(self.code, self.name, self.section, self.key["type"], symbols)
        return Verified(program, dict(self.key["frame_sizes"]))

    def image_for(self, recipe: Recipe, known_build: str | None = None) -> Image:
        """Return the image if it is what the recipe makes. Raises Unusable, naming what differs."""
        wanted = key_of(recipe, known_build)
        for part, value in wanted.items():
            if self.key.get(part) != value:
                raise Unusable(f"its {part}: compiled with {self.key.get(part)}, wanted {value}")
        if self.code != recipe.verified.program.code:
            raise Unusable("it is of another program")
        provide(self.routines, self.labels)
        return self.image


def write(path: str, recipe: Recipe, image: Image) -> None:
    """Write an image, whole or not at all. Raises OSError."""
    program, shared = recipe.verified.program, routines()
    header = {
        "key": key_of(recipe),
        "program": [program.name, program.section],
        "image": [image.entry, image.callback, image.slots, image.limits],
        "routines": [shared.labels, shared.image.slots],
        "sizes": [len(program.code), len(image.code), len(image.pc_starts), len(shared.image.code)],
    }
    text = json.dumps(header).encode()
    parts = (
        _LENGTH.pack(len(text)), text, program.code, image.code,
        image.pc_starts.tobytes(), image.pc_owners.tobytes(), shared.image.code,
    )  # fmt: skip
    content = b"".join(parts)
    _replace(path, MAGIC + _digest(content) + content)


def _replace(path: str, content: bytes) -> None:
    """Write a file for its owner, whole or not at all. Raises OSError."""
    import tempfile  # it imports what compresses archives, and most processes find what they look for

    folder, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(dir=folder or ".", prefix=f".{name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


_REFUSALS = {
    errno.ELOOP: "it is a symbolic link; name the file that it leads to",  # "Too many levels"
    errno.EISDIR: "it is no regular file",
}


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb", opener=_open_itself)  # closed again where it is a directory
    except OSError as error:
        if error.errno in _REFUSALS:
            raise Unusable(_REFUSALS[error.errno]) from None
        raise


def read(path: str) -> Stored:
    """Read an image. Raises OSError, or Unusable for a file that is damaged or not to be trusted."""
    with _open(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unusable("it is no regular file")
        _refuse_others(status)
        if status.st_size > MAX_SIZE:
            raise Unusable(f"it has {status.st_size} bytes, more than any image")
        content = file.read(MAX_SIZE)
    if content[: len(MAGIC)] != MAGIC:
        raise Unusable("it is no saved image of this format")
    body = memoryview(content)[_START:]
    if _digest(body) != content[len(MAGIC) : _START]:
        raise Unusable("it is damaged: its checksum is wrong")
    try:
        return _parse(body)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError, struct.error) as error:
        raise Unusable(f"it is no saved image of this format: {error}") from None


def _parse(body: memoryview) -> Stored:
    (length,) = _LENGTH.unpack_from(body)
    place = _LENGTH.size + length
    header = json.loads(bytes(body[_LENGTH.size : place]))
    if not _has_shape(header, _HEADER):
        raise ValueError("its header has another shape")
    entry, callback, slots, limits = header["image"]
    program_size, code_size, pieces, shared_size = header["sizes"]
    parts = []
    for size in (program_size, code_size, 4 * pieces, 4 * pieces, shared_size):
        parts.append(bytes(body[place : place + size]))
        place += size
    if place != len(body):
        raise ValueError("its parts do not fill it")
    starts, owners = array("I", parts[2]), array("i", parts[3])
    image = Image(parts[1], entry, callback, slots, tuple(tuple(limit) for limit in limits), starts, owners)
    labels, shared_slots = header["routines"]
    shared = Image(parts[4], 0, None, shared_slots, (), array("I"), array("i"))
    name, section = header["program"]
    return Stored(header["key"], parts[0], name, section, image, shared, labels)


def _has_shape(value: Any, shape: Any) -> bool:
    """True where a value that was read is as `_HEADER` says; numbers are u32."""
    if isinstance(shape, tuple):
        return type(value) in shape and (type(value) is not int or 0 <= value < 1 << 32)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return False
        shapes = [shape[0]] * len(value) if shape[-1] is ... else shape
        return len(value) == len(shapes) and all(map(_has_shape, value, shapes))
    if not isinstance(value, dict):
        return False
    if ... in shape:
        return all(_has_shape(each, shape[...]) for each in value.values())
    return all(name in value and _has_shape(value[name], each) for name, each in shape.items())


def _refuse_others(status: os.stat_result) -> None:
    """Raise Unusable for a file or a folder that somebody else has, or may write to."""
    if status.st_uid not in (os.geteuid(), 0):
        raise Unusable(f"it belongs to user {status.st_uid}: whoever writes it can run code as you")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unusable("others may write to it, and so could run code as you (chmod go-w)")


# -- where compiling looks ----------------------------------------------------------------------


class Folder:
    """A cache folder: a file for each program and settings. What cannot be used is passed over.

    It is made, for its owner alone, where it does not exist. Raises LoadError for a folder that
    others may write to, or that is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _named(path)
        self._stamp: str | None = None
        self._is_noted = False
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            _refuse_others(os.stat(self.path))
        except (OSError, Unusable) as error:
            raise LoadError(f"cache folder {self.path}: {error}") from None

    def _file(self, recipe: Recipe) -> str:
        name = _digest(json.dumps(key_of(recipe, self.build)).encode(), recipe.verified.program.code)
        return os.path.join(self.path, name.hex() + SUFFIX)

    def find(self, recipe: Recipe) -> Image | None:
        """Return the image that was kept for a recipe, if there is one that can be used."""
        if why_not(recipe) is not None:
            return None
        try:
            image = read(self._file(recipe)).image_for(recipe, self.build)
        except (OSError, Unusable):
            return None
        self._note()
        return image

    def keep(self, recipe: Recipe, image: Image) -> None:
        """Keep an image for the next process; where it cannot be written it is not kept."""
        if why_not(recipe) is None:
            with suppress(OSError):
                write(self._file(recipe), recipe, image)
                self._note()

    @lazy
    def build(self) -> str:
        """What `build` returns, from the folder's note where that holds."""
        self._stamp = stamp()
        known = _noted(os.path.join(self.path, NOTE), self._stamp)
        self._is_noted = known is not None
        return build() if known is None else known

    def _note(self) -> None:
        """Leave a note beside the images, of a library that nobody is changing right now."""
        if not self._is_noted and self._stamp is not None:
            self._is_noted = True
            with suppress(OSError):
                _replace(os.path.join(self.path, NOTE), json.dumps([self._stamp, self.build]).encode())


class File:
    """A file that was saved by hand. What cannot be used is a LoadError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _named(path)
        try:
            self.stored = read(self.path)
        except (OSError, Unusable) as error:
            raise LoadError(f"{self.path}: {error}") from None

    def find(self, recipe: Recipe) -> Image:
        """Return the file's image. Raises LoadError where it is not what the recipe makes."""
        try:
            return self.stored.image_for(recipe)
        except Unusable as error:
            raise LoadError(f"{self.path}: {error}") from None

    def keep(self, recipe: Recipe, image: Image) -> None:
        """Nothing is ever kept here."""


def save(path: str | os.PathLike[str], recipe: Recipe, image: Image) -> None:
    """Write an image to a file. Raises LoadError where it cannot be kept, OSError as `open` does."""
    reason = why_not(recipe)
    if reason is not None:
        raise LoadError(f"{os.fspath(path)}: {reason}")
    write(_named(path), recipe, image)
