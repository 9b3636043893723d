"""What a FILE argument is, and the programs in it.

.o, or an ELF magic number  object file
.bin                        raw bytecode
.s .asm .bpf                assembly text
anything else, and -        text where it reads as text, bytecode otherwise
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from ebpfjit.cli.parameters import WrongUsage
from ebpfjit.errors import AssemblyError, EbpfError, LoadError
from ebpfjit.named import absent
from ebpfjit.program import Program

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object
    from ebpfjit.keywords import LoadOptions

STDIN = "-"
T = TypeVar("T")


class FileKind(Enum):
    """What a file holds."""

    OBJECT = "object file"
    BYTECODE = "raw bytecode"
    ASSEMBLY = "assembly text"


def check_output(option: str, output: str | None, pcap: str) -> None:
    """Raise WrongUsage where an option's file is the capture that is read."""
    if output is not None and all(map(os.path.isfile, (output, pcap))) and os.path.samefile(output, pcap):
        raise WrongUsage(f"--{option} and --pcap name the same file")


KIND_OF_SUFFIX = {
    ".o": FileKind.OBJECT,
    ".bin": FileKind.BYTECODE,
    ".s": FileKind.ASSEMBLY,
    ".asm": FileKind.ASSEMBLY,
    ".bpf": FileKind.ASSEMBLY,
}


class FileError(EbpfError):
    """An error in a file, said with the file's name in front."""


def read_bytes(file: str) -> bytes:
    """Return what `file` holds; "-" is the standard input. Raises OSError, LoadError for too much of it."""
    from ebpfjit.elf.source import read_path, read_stream

    return read_stream(sys.stdin.buffer, "stdin") if file == STDIN else read_path(file)


def kind_of(file: str, data: bytes) -> FileKind:
    """Tell what a file is, by its magic number, its name, and last by its bytes."""
    if data.startswith(b"\x7fELF"):
        return FileKind.OBJECT
    known = KIND_OF_SUFFIX.get(_suffix(file))
    if known is not None:
        return known
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return FileKind.BYTECODE
    is_text = all(character.isprintable() or character.isspace() for character in text)
    return FileKind.ASSEMBLY if is_text else FileKind.BYTECODE


def _suffix(file: str) -> str:
    return os.path.splitext(file)[1]


def _stem(file: str) -> str:
    return "stdin" if file == STDIN else os.path.splitext(os.path.basename(file))[0]


def assemble_text(file: str, data: bytes) -> bytes:
    """Return the bytecode of assembly text. Raises FileError naming line and column."""
    from ebpfjit.assembler import assemble

    return _of_text(file, data, assemble)


def _of_text(file: str, data: bytes, read: Callable[[str], T]) -> T:
    """Return what is made of assembly text. Raises FileError naming line and column."""
    try:
        return read(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: not assembly text: byte {error.start} is not UTF-8") from error
    except AssemblyError as error:
        raise FileError(f"{file}: line {error.line}, column {error.column}: {error.reason}") from error


def read_file(
    file: str,
    told: LoadOptions,
    *,
    may_be_empty: bool = False,
    besides: LoadOptions | None = None,
) -> tuple[dict[str, Program], Object | None]:
    """Return the programs of a file by name, and the object where it is one.

    The program of a file without names is called as the file's stem. `told` are arguments of `load`, which is
    for object files; `besides` are others, which nobody asked for and all else goes without. Raises an
    EbpfError naming the file where it cannot be read as what it is, also for an
    object without programs unless it `may_be_empty`, and OSError.
    """
    if _suffix(file) == ".c":
        made = f"{_stem(file)}.o"
        build = "clang -O2 -g -target bpf -I/usr/include/$(uname -m)-linux-gnu"
        raise FileError(f"{file}: C source; first: {build} -c {file} -o {made}")
    data = read_bytes(file)
    kind = kind_of(file, data)
    if told and kind is not FileKind.OBJECT:
        raise FileError(f"{file}: {kind.value}; --{next(iter(told))} is for object files")
    match kind:
        case FileKind.OBJECT:
            from ebpfjit.elf.loader import load_bytes

            given: LoadOptions = {**(besides or {}), **told}
            obj = load_bytes(data, file, **given)
            if not obj.programs and not may_be_empty:
                raise LoadError(
                    f"{file}: there are no programs in it, only maps: no section holds instructions"
                )
            return dict(obj.programs), obj
        case FileKind.ASSEMBLY:
            from ebpfjit.from_text import programs_of

            return _of_text(file, data, lambda text: programs_of(text, _stem(file))), None
        case FileKind.BYTECODE:
            pass
    name = _stem(file)
    try:
        return {name: Program.from_bytes(data, name=name)}, None
    except EbpfError as error:
        raise FileError(f"{file}: {error}") from error


def find_program(file: str, programs: Mapping[str, Program], name: str) -> Program:
    """Return the program of that name. Raises LoadError listing those there are."""
    try:
        return programs[name]
    except KeyError:
        raise LoadError(f"{file}: {absent(name, 'program', programs)}") from None
