"""`ebpfjit asm` and `ebpfjit disasm`: programs as text, and back."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

from ebpfjit.cli import files
from ebpfjit.cli.options import Btf, File, Json, Kconfig, Maps, ProgramName, loading, programs
from ebpfjit.cli.output import print_json, shown_name, write_file
from ebpfjit.cli.parameters import Option


class Dialect(StrEnum):
    """How a program is written as text."""

    RBPF = "rbpf"
    LINUX = "linux"


def asm(
    file: File,
    output: Annotated[
        str | None, Option("-o", "--output", metavar="OUT", help="Write the bytes to this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Assemble text: raw bytes to OUT or a pipe, hex to a terminal."""
    data = files.read_bytes(file)
    if files.kind_of(file, data) is files.FileKind.OBJECT:
        raise files.FileError(f"{file}: an object file, not assembly text")
    code = files.assemble_text(file, data)
    if output is not None:
        write_file(output, code)
    if as_json:
        print_json({"size": len(code), "hex": code.hex()})
    elif output is None and sys.stdout.isatty():
        for start in range(0, len(code), 8):
            print(code[start : start + 8].hex(" "))
    elif output is None:
        sys.stdout.buffer.write(code)


def disasm(
    file: File,
    program: ProgramName = None,
    dialect: Annotated[Dialect, Option(help="How to write instructions.")] = Dialect.RBPF,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Print a program as assembly text; of an object file all programs, or one."""
    from ebpfjit.disassembler import disassemble

    found = programs(file, program, loading(btf, kconfig, maps))
    texts = {name: disassemble(chosen, dialect.value) for name, chosen in found.items()}
    if as_json:
        print_json({name: text.splitlines() for name, text in texts.items()})
        return
    for number, (name, text) in enumerate(texts.items()):
        if len(texts) > 1:
            print(f"{chr(10) if number else ''}# {shown_name(name)}")
        print(text.rstrip("\n"))
