"""The commands: run, asm, disasm, verify, listing, diff, fuzz, bench, prove.

Exit status 0: done; 1: the program or the input was refused or faulted, with one line on stderr;
2: wrong usage; 130: interrupted; 141: nobody reads on. Every command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ebpfjit.cli import files
from ebpfjit.cli.bench import bench
from ebpfjit.cli.diff import diff
from ebpfjit.cli.fuzz import fuzz
from ebpfjit.cli.options import Btf, File, Json, Kconfig, Maps, ProgramName, loading, one_program, programs
from ebpfjit.cli.prove import prove
from ebpfjit.errors import EbpfError
from ebpfjit.program import Program

if TYPE_CHECKING:
    from ebpfjit.runner import Result
    from ebpfjit.vm import EbpfVmFixedMbuff, EbpfVmRaw

app = typer.Typer(
    name="ebpfjit",
    help="eBPF in user space: run, assemble, disassemble, verify, list, compare and measure programs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Engine(StrEnum):
    """What runs a program."""

    JIT = "jit"
    INTERPRETER = "interpreter"
    KERNEL = "kernel"


class Dialect(StrEnum):
    """How a program is written as text."""

    RBPF = "rbpf"
    LINUX = "linux"


@app.command()
def run(
    file: File,
    program: ProgramName = None,
    mem: Annotated[str | None, typer.Option(metavar="FILE", help="The packet, as a file.")] = None,
    hex_: Annotated[str | None, typer.Option("--hex", metavar="HEX", help="The packet, in hex.")] = None,
    pcap: Annotated[
        str | None, typer.Option(metavar="FILE", help="Run on each packet of a capture (pcap, pcapng).")
    ] = None,
    write: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --pcap: write the packets that pass, as pcap.")
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", help="The program's type: xdp, tc, ..., none for plain memory."
        ),
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=N", help="A field of the context; may be repeated.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="What runs the program.")] = Engine.JIT,
    mbuff_offsets: Annotated[
        str | None,
        typer.Option(metavar="DATA,END", help="Where a metadata buffer holds the packet's addresses."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many instructions.")] = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Run a program and print r0; on a capture, count its verdicts.

    A program with a type (an object file's section tells it, or --type) gets the context of its
    type on an Ethernet frame. One without (--type none) gets the packet's address in r1 and its
    size in r2; with --mbuff-offsets the address and size of a metadata buffer, in which the packet's
    start and end are stored.
    """
    if sum(given is not None for given in (mem, hex_, pcap)) > 1:
        raise typer.BadParameter("--mem, --hex and --pcap exclude each other")
    if write is not None and pcap is None:
        raise typer.BadParameter("--write goes with --pcap")
    offsets = _offsets(mbuff_offsets)
    fields = _fields(context)
    data = _packet(mem, hex_)
    if engine is Engine.KERNEL and (offsets is not None or limit is not None):
        raise typer.BadParameter("the kernel takes neither --mbuff-offsets nor --limit")
    chosen = one_program(file, program, loading(btf, kconfig, maps))
    if type_ is not None:
        # Without a section too, it is bytecode that gets plain memory.
        chosen = replace(chosen, type=None, section=None) if type_ == "none" else replace(chosen, type=type_)
    if offsets is not None and pcap is not None:
        raise typer.BadParameter("--mbuff-offsets is for single packets, not for --pcap")

    def execute(packet: bytes | bytearray) -> Result:
        return chosen.run(packet, engine=engine.value, limit=limit, context=fields)

    if pcap is not None:
        _run_capture(chosen, pcap, write, execute, as_json=as_json)
        return
    from ebpfjit.ready import for_one_run

    with _naming(file), _printed(as_json) as output:
        if offsets is not None:
            value = _execute(_machine(chosen, offsets, limit), data, engine)
            lines = output.getvalue().splitlines()
            from ebpfjit.runner import Result

            result = Result(value, bytes(data), output=tuple(lines))
        else:
            if engine is Engine.JIT:
                for_one_run(chosen)
            result = execute(data)
            if not as_json:
                print(*result.output, sep="\n", end="\n" if result.output else "")
    if as_json:
        _print_json(_result_json(result, chosen))
    else:
        action = f" {result.action}" if result.action else ""
        print(f"{result.return_value} ({result.return_value:#x}){action}")


def _result_json(result: Result, program: Program) -> dict[str, object]:
    """Return what --json prints; without a type there is no context to speak of."""
    shown: dict[str, object] = {
        "return_value": result.return_value,
        "hex": f"{result.return_value:#x}",
        "data": result.data.hex(),
        "output": list(result.output),
    }
    if program.type is not None:
        shown |= {
            "action": result.action,
            "metadata": result.metadata.hex(),
            "context": dict(result.context),
            "events": [[name, data.hex()] for name, data in result.events],
            "redirect": None if result.redirect is None else asdict(result.redirect),
        }
    return shown


def _fields(texts: list[str] | None) -> dict[str, int | list[int]]:
    """Parse FIELD=N, or FIELD=N,N,... for an array."""
    fields: dict[str, int | list[int]] = {}
    for text in texts or []:
        name, _, value = text.partition("=")
        try:
            numbers = [int(part, 0) for part in value.split(",")]
        except ValueError:
            raise typer.BadParameter(f"--context takes FIELD=NUMBER, mark=5, not {text!r}") from None
        fields[name] = numbers if len(numbers) > 1 else numbers[0]
    return fields


def _run_capture(
    program: Program,
    file: str,
    write: str | None,
    execute: Callable[[bytes], Result],
    *,
    as_json: bool,
) -> None:
    from ebpfjit.cli import capture

    if write is not None and program.type is None:
        raise typer.BadParameter("--write needs the program's type, which says what passes; give --type")
    if write is not None and os.path.exists(write) and os.path.samefile(write, file):
        raise typer.BadParameter("--write and --pcap name the same file")
    report = capture.run(program, file, write, execute, show=not as_json)
    if as_json:
        _print_json(report.as_json())
    else:
        capture.print_table(report)
        if report.written is not None:
            print(f"{report.written} packets written to {write}")
    if report.error is not None:
        raise files.FileError(f"{file}: {report.error}")


@app.command()
def asm(
    file: File,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT", help="Write the bytes to this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Assemble text: raw bytes to OUT or a pipe, hex to a terminal."""
    data = files.read_bytes(file)
    if files.kind_of(file, data) is files.FileKind.OBJECT:
        raise files.FileError(f"{file}: an object file, not assembly text")
    code = files.assemble_text(file, data)
    if output is not None:
        with open(output, "wb") as out:
            out.write(code)
    if as_json:
        _print_json({"size": len(code), "hex": code.hex()})
    elif output is None and sys.stdout.isatty():
        for start in range(0, len(code), 8):
            print(code[start : start + 8].hex(" "))
    elif output is None:
        sys.stdout.buffer.write(code)


@app.command()
def disasm(
    file: File,
    program: ProgramName = None,
    dialect: Annotated[Dialect, typer.Option(help="How to write instructions.")] = Dialect.RBPF,
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
        _print_json({name: text.splitlines() for name, text in texts.items()})
        return
    for number, (name, text) in enumerate(texts.items()):
        if len(texts) > 1:
            print(f"{chr(10) if number else ''}# {_shown(name)}")
        print(text.rstrip("\n"))


@app.command()
def verify(
    file: File,
    program: ProgramName = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Check programs against the rules of the structural verifier.

    What a valid program needs and its object lacks is told too, as what Linux refuses for its license.
    """
    from ebpfjit.analysis.verifier import check
    from ebpfjit.runtime.helpers.licenses import describe, restricted_calls

    found = programs(file, program, loading(btf, kconfig, maps))
    for name, chosen in found.items():
        with _naming(f"{file}: {_shown(name)}"):
            check(chosen)
    if as_json:
        _print_json({name: {"slots": len(chosen), "type": chosen.type} for name, chosen in found.items()})
        return
    for name, chosen in found.items():
        print(f"{_shown(name)}: {len(chosen)} slots, valid")
        missing = [chosen.refusal, *chosen.unmet.values()]
        for refusal in [first for first in missing if first is not None][:1]:
            print(f"{_shown(name)}: cannot run as it is: {refusal}")
        for helper, call in restricted_calls(chosen).items():
            print(f"{_shown(name)}: {describe(chosen, helper, call)}")


@app.command()
def listing(
    file: File,
    program: ProgramName = None,
    optimize: Annotated[bool, typer.Option(help="Look for checks and instructions to save.")] = True,
    checks: Annotated[bool, typer.Option(help="With memory checks, or without.")] = True,
    harden: Annotated[bool, typer.Option("--harden", help="Blind the program's constants.")] = False,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="OUT", help="Write it as a page to this file; - prints it."),
    ] = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Print a program's eBPF, the assembly text made from it and its bytes side by side.

    Of a program that cannot be compiled it prints what there is, and says why that is all.
    """
    from ebpfjit.cli.shown import print_listing

    if html is not None and as_json:
        raise typer.BadParameter("--html and --json exclude each other")
    chosen = one_program(file, program, loading(btf, kconfig, maps))
    with _naming(file):
        shown = chosen.listing(optimize=optimize, checked=checks, harden=harden)
    print_listing(shown, html=html, as_json=as_json)
    if shown.view.refusal:
        raise files.FileError(f"{file}: {shown.view.refusal}")


app.command()(diff)
app.command()(fuzz)
app.command()(bench)
app.command()(prove)


def _offsets(text: str | None) -> tuple[int, int] | None:
    """Parse DATA,END: two byte offsets, decimal or 0x."""
    if text is None:
        return None
    try:
        data, end = (int(part, 0) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--mbuff-offsets takes two numbers, 0x40,0x50, not {text!r}") from None
    if min(data, end) < 0 or abs(data - end) < 8 or max(data, end) > 1 << 20:
        raise typer.BadParameter("--mbuff-offsets: two addresses of 8 bytes, apart, in the first MiB")
    return data, end


def _packet(mem: str | None, text: str | None) -> bytearray:
    """Return the packet that --mem or --hex gives; empty without them."""
    if mem is not None:
        return bytearray(files.read_bytes(mem))
    if text is None:
        return bytearray()
    digits = "".join(text.removeprefix("0x").replace(":", " ").split())
    try:
        return bytearray.fromhex(digits)
    except ValueError:
        raise typer.BadParameter(f"--hex takes pairs of hexadecimal digits, not {text!r}") from None


def _machine(
    program: Program, offsets: tuple[int, int] | None, limit: int | None
) -> EbpfVmFixedMbuff | EbpfVmRaw:
    """Return a machine with the program loaded and the stock helpers registered."""
    from ebpfjit.runtime.helpers import stock as helpers
    from ebpfjit.vm import EbpfVmFixedMbuff, EbpfVmRaw

    machine: EbpfVmFixedMbuff | EbpfVmRaw
    if offsets is None:
        machine = EbpfVmRaw(program, instruction_limit=limit)
    else:
        machine = EbpfVmFixedMbuff(program, *offsets, instruction_limit=limit)
    machine.register_helper(helpers.BPF_KTIME_GETNS_IDX, helpers.bpf_time_getns)
    machine.register_helper(helpers.BPF_TRACE_PRINTK_IDX, helpers.bpf_trace_printf)
    return machine


def _execute(machine: EbpfVmFixedMbuff | EbpfVmRaw, data: bytearray, engine: Engine) -> int:
    if engine is Engine.INTERPRETER:
        return machine.execute_program(data)
    machine.jit_compile()
    return machine.execute_program_jit(data)


def _printed(captured: bool) -> contextlib.AbstractContextManager[io.StringIO]:
    """Collect what helpers print, where the output must stay JSON."""
    return contextlib.redirect_stdout(io.StringIO()) if captured else contextlib.nullcontext(io.StringIO())


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put `what` in front of an error's message."""
    try:
        yield
    except EbpfError as error:
        text = str(error)
        raise files.FileError(text if text.startswith(f"{what}: ") else f"{what}: {text}") from error


def _shown(name: str) -> str:
    """Return a name as it can be printed: those of an object file may hold anything."""
    return name if name.isprintable() else repr(name)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> str:
    """Return what JSON has no type for: bytes, as hex."""
    return value.hex() if isinstance(value, bytes) else str(value)


def one_line(error: Exception) -> str:
    """Return an error's message as one line: its first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def commands(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line: all of it, or only the command that is named first, as typer is slow."""
    named = [
        each for each in app.registered_commands
        if arguments and each.callback is not None and arguments[0] == (each.name or each.callback.__name__)
    ]  # fmt: skip
    if not named:
        return app
    one = copy(app)
    one.registered_commands = named
    if one.registered_callback is None:
        one.callback()(lambda: None)  # else it would be no group, and the command not named
    return one


BROKEN_PIPE = 128 + signal.SIGPIPE
"""The exit status where whoever read our output has seen enough (`| head`), as shells give other tools."""


def main() -> int:
    """Run the command line and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        status = _guard(lambda: commands(sys.argv[1:])(prog_name="ebpfjit"))
    gc.freeze()  # Python ends by looking for cycles in all there is, which is a quarter of a short process
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or BROKEN_PIPE
    return status


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as an error is printed, without the place in our code that it comes from."""
    print(f"ebpfjit: warning: {message}", file=sys.stderr)


def _guard(command: Callable[[], object]) -> int:
    """Run `command` and return the exit status that its outcome stands for."""
    try:
        command()
    except SystemExit as finished:
        if isinstance(finished.__context__, BrokenPipeError):  # click makes 1 of it, and says nothing
            return BROKEN_PIPE
        return finished.code if isinstance(finished.code, int) else 0
    except (EbpfError, OSError) as error:
        print(f"ebpfjit: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
