"""`ebpfjit run`: a program once, or on each packet of a capture."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from ebpfjit.cli import files
from ebpfjit.cli.options import (
    Btf,
    File,
    Json,
    Kconfig,
    MapContents,
    Maps,
    ProgramName,
    Variables,
    in_hex,
    loading,
    one_of,
)
from ebpfjit.cli.output import fail, naming, print_json
from ebpfjit.cli.parameters import Option, WrongUsage, taking
from ebpfjit.literals import EngineName, named_engine, named_type
from ebpfjit.program import Program
from ebpfjit.record import dataclass, replace

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object
    from ebpfjit.function import JitFunction
    from ebpfjit.runner import Result
    from ebpfjit.vm import EbpfVmFixedMbuff


class Engine(StrEnum):
    """What runs a program."""

    JIT = "jit"
    INTERPRETER = "interpreter"
    KERNEL = "kernel"


@dataclass(frozen=True)
class Options:
    """What `ebpfjit run` is told."""

    file: File
    program: ProgramName = None
    mem: Annotated[str | None, Option(metavar="FILE", help="The packet, as a file.")] = None
    hex_: Annotated[str | None, Option("--hex", metavar="HEX", help="The packet, in hex.")] = None
    pcap: Annotated[
        str | None, Option(metavar="FILE", help="Run on each packet of a capture (pcap, pcapng).")
    ] = None
    write: Annotated[
        str | None,
        Option(metavar="FILE", help="With --pcap: write the packets that pass, as pcap; - is the output."),
    ] = None
    verdicts: Annotated[
        str | None,
        Option(metavar="FILE", help="With --pcap: write each verdict, as .csv, .jsonl or .parquet."),
    ] = None
    reasons: Annotated[
        bool, Option("--reasons", help="With --pcap: show which lines decide what does not pass.")
    ] = False
    type_: Annotated[
        str | None,
        Option("--type", metavar="TYPE", help="The program's type: xdp, tc, ..., none for plain memory."),
    ] = None
    context: Annotated[
        list[str] | None, Option(metavar="FIELD=N", help="A field of the context; may be repeated.")
    ] = None
    map_: MapContents = None
    variables: Variables = None
    show_maps: Annotated[
        bool, Option("--show-maps", help="Show maps, variables and events after the run.")
    ] = False
    engine: Annotated[Engine | None, Option(help="What runs the program; the best there is unless told.")] = (
        None
    )
    mbuff_offsets: Annotated[
        str | None,
        Option(metavar="DATA,END", help="Where a metadata buffer holds the packet's addresses."),
    ] = None
    limit: Annotated[int | None, Option(min=1, help="At most this many instructions.")] = None
    repeat: Annotated[int, Option(min=1, help="Run so often, on the maps as they are then.")] = 1
    btf: Btf = None
    kconfig: Kconfig = None
    maps: Maps = None
    cache: Annotated[
        str | None,
        Option(
            metavar="DIR",
            help="Keep machine code of programs without maps there; $EBPFJIT_CACHE unless told.",
        ),
    ] = None
    as_json: Json = False


@taking(Options)
def run(asked: Options) -> None:
    """Run a program and print r0; on a capture, count its verdicts.

    A program with a type (an object file's section tells it, or --type) gets the context of its
    type on an Ethernet frame. One without (--type none) gets the packet's address in r1 and its
    size in r2; with --mbuff-offsets the address and size of a metadata buffer, in which the packet's
    start and end are stored.
    """
    offsets, fields, data = _offsets(asked.mbuff_offsets), _fields(asked.context), _packet(asked)
    _check(asked)
    program, obj = _chosen(asked)
    cache = asked.cache or os.environ.get("EBPFJIT_CACHE") or None
    if cache is not None and os.path.exists(cache) and not os.path.isdir(cache):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), cache)
    single = asked.pcap is None and asked.repeat == 1 and offsets is None
    with naming(asked.file):
        engine = _engine(asked.engine, program, single=single, cache=cache)

    def execute(packet: bytes | bytearray) -> Result:
        return program.run(packet, engine=engine, limit=asked.limit, context=fields, repeat=asked.repeat)

    if asked.pcap is not None:
        if asked.reasons and engine != "jit":
            raise WrongUsage(f"--reasons are told by machine code{_why_not_here(asked.engine)}")
        function = _compiled(asked, program, fields, cache) if engine == "jit" else None
        _run_capture(asked, program, asked.pcap, execute, function, obj if asked.show_maps else None)
        return
    with naming(asked.file), _printed(asked.as_json) as output:
        if offsets is not None:
            result = _on_machine(program, offsets, asked.limit, data, engine, output)
        else:
            if single and engine == "jit":
                from ebpfjit.ready import for_one_run

                for_one_run(program, cache)
            result = execute(data)
            if not asked.as_json:
                print(*result.output, sep="\n", end="\n" if result.output else "")
    _print(asked, result, program, obj)


def _check(asked: Options) -> None:
    """Raise WrongUsage for options that do not go together."""
    is_capture, has_offsets = asked.pcap is not None, asked.mbuff_offsets is not None
    for option, given in (("write", asked.write), ("verdicts", asked.verdicts), ("reasons", asked.reasons)):
        if given not in (None, False) and not is_capture:
            raise WrongUsage(f"--{option} goes with --pcap")
    if asked.engine is Engine.KERNEL and (has_offsets or asked.limit is not None):
        raise WrongUsage("the kernel takes neither --mbuff-offsets nor --limit")
    if has_offsets and is_capture:
        raise WrongUsage("--mbuff-offsets is for single packets, not for --pcap")
    if asked.repeat > 1 and (has_offsets or is_capture):
        raise WrongUsage("--repeat is for single packets, without --mbuff-offsets")


def _chosen(asked: Options) -> tuple[Program, Object | None]:
    """Return the program that is meant, of the type that is said, and its object; maps are filled."""
    told = loading(asked.btf, asked.kconfig, asked.maps)
    program, obj = one_of(asked.file, asked.program, told)
    if asked.type_ == "none":  # without a section too, it is bytecode that gets plain memory
        program = replace(program, type=None, section=None)
    elif asked.type_ is not None:
        program = replace(program, type=named_type(asked.type_))
    if asked.map_ or asked.variables:
        from ebpfjit.cli.state import prepare

        prepare(obj, asked.file, asked.map_ or (), asked.variables or ())
    return program, obj


def _print(asked: Options, result: Result, program: Program, obj: Object | None) -> None:
    """Print what a run returned, and what it left where that is asked for."""
    if asked.as_json:
        print_json(_result_json(result, program) | (_state(obj) if asked.show_maps else {}))
        return
    action = f" {result.action}" if result.action else ""
    print(f"{result.return_value} ({result.return_value:#x}){action}")
    if asked.show_maps:
        from ebpfjit.cli.state import print_state

        for where, event in result.events:
            print(f"event of {where!r}: {event.hex(' ')}")
        print_state(obj)


def _compiled(
    asked: Options, program: Program, fields: dict[str, int | list[int]], cache: str | None
) -> JitFunction:
    """Return the function that batches go through."""
    if not asked.reasons:
        return program.compile(limit=asked.limit, context=fields or None, cache=cache)
    from ebpfjit.compiling import with_reasons

    return with_reasons(program, limit=asked.limit, context=fields or None)


def _state(obj: Object | None) -> dict[str, Any]:
    """Return what --show-maps adds to JSON."""
    from ebpfjit.cli.state import shown_state

    return shown_state(obj)


def _engine(asked: Engine | None, program: Program, *, single: bool, cache: str | None) -> EngineName:
    """Return the engine that was asked for, or the best there is for the program.

    The interpreter is through a straight program before its machine code is made, or found in the cache.
    """
    if asked is not None:
        return named_engine(asked.value)
    from ebpfjit.engines import best_engine
    from ebpfjit.ready import made_for_one_run, runs_straight

    if single and runs_straight(program):
        return "interpreter"
    if single and cache is not None:
        return "jit" if made_for_one_run(program, cache) else "interpreter"

    return best_engine()


def _why_not_here(asked: Engine | None) -> str:
    """Return why there is no machine code where nobody asked for another engine, as the end of a sentence."""
    from ebpfjit.engines import unavailable

    return "" if asked is not None else f": {unavailable('jit')}"


def _result_json(result: Result, program: Program) -> dict[str, object]:
    """Return what --json prints; without a type there is no context to speak of."""
    shown: dict[str, object] = {
        "return_value": result.return_value,
        "hex": f"{result.return_value:#x}",
        "data": result.data.hex(),
        "output": list(result.output),
    }
    if program.type is not None:
        from dataclasses import asdict

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
            raise WrongUsage(f"--context takes FIELD=NUMBER, mark=5, not {text!r}") from None
        fields[name] = numbers if len(numbers) > 1 else numbers[0]
    return fields


def _run_capture(
    asked: Options,
    program: Program,
    file: str,
    execute: Callable[[bytes], Result],
    function: JitFunction | None,
    shown: Object | None,
) -> None:
    """Run the program on each packet of a capture; print how often which verdict was."""
    from ebpfjit.cli import capture, state

    write = asked.write
    if write is not None and program.type is None:
        raise WrongUsage("--write needs the program's type, which says what passes; give --type")
    for option, output in (("write", write), ("verdicts", asked.verdicts)):
        files.check_output(option, output, file)
    if write is not None and write == asked.verdicts:
        raise WrongUsage("--write and --verdicts name the same file")
    report = capture.run(
        program,
        file,
        write,
        execute,
        show=not asked.as_json,
        function=function,
        verdicts=asked.verdicts,
        reasons=asked.reasons,
    )
    with contextlib.redirect_stdout(sys.stderr if write == "-" else sys.stdout):
        if asked.as_json:
            print_json(report.as_json() | state.shown_state(shown))
        else:
            capture.print_table(report)
            if report.written is not None:
                print(f"{report.written} packets written to {write}")
            state.print_state(shown)
    if report.error is not None:
        fail(f"{file}: {report.error}")


def _offsets(text: str | None) -> tuple[int, int] | None:
    """Parse DATA,END: two byte offsets, decimal or 0x."""
    if text is None:
        return None
    try:
        data, end = (int(part, 0) for part in text.split(","))
    except ValueError:
        raise WrongUsage(f"--mbuff-offsets takes two numbers, 0x40,0x50, not {text!r}") from None
    if min(data, end) < 0 or abs(data - end) < 8 or max(data, end) > 1 << 20:
        raise WrongUsage("--mbuff-offsets: two addresses of 8 bytes, apart, in the first MiB")
    return data, end


def _packet(asked: Options) -> bytearray:
    """Return the packet that --mem or --hex gives; empty without them."""
    if sum(given is not None for given in (asked.mem, asked.hex_, asked.pcap)) > 1:
        raise WrongUsage("--mem, --hex and --pcap exclude each other")
    if asked.mem is not None:
        return bytearray(files.read_bytes(asked.mem))
    return bytearray() if asked.hex_ is None else bytearray(in_hex([asked.hex_])[0])


def _on_machine(
    program: Program,
    offsets: tuple[int, int],
    limit: int | None,
    data: bytearray,
    engine: EngineName,
    output: io.StringIO,
) -> Result:
    """Return what a run with a metadata buffer leaves; `output` collects what helpers print."""
    from ebpfjit.runner import Result

    value = _execute(_machine(program, offsets, limit), data, engine)
    return Result(value, bytes(data), output=tuple(output.getvalue().splitlines()))


def _machine(program: Program, offsets: tuple[int, int], limit: int | None) -> EbpfVmFixedMbuff:
    """Return a machine with the program loaded and the stock helpers registered."""
    from ebpfjit.runtime.helpers import stock
    from ebpfjit.vm import EbpfVmFixedMbuff

    helpers = {
        stock.BPF_KTIME_GETNS_IDX: stock.bpf_time_getns,
        stock.BPF_TRACE_PRINTK_IDX: stock.bpf_trace_printf,
    }
    return EbpfVmFixedMbuff(program, *offsets, limit=limit, helpers=helpers)


def _execute(machine: EbpfVmFixedMbuff, data: bytearray, engine: EngineName) -> int:
    if engine == "interpreter":
        return machine.execute_program(data)
    machine.jit_compile()
    return machine.execute_program_jit(data)


def _printed(captured: bool) -> contextlib.AbstractContextManager[io.StringIO]:
    """Collect what helpers print, where the output must stay JSON."""
    return contextlib.redirect_stdout(io.StringIO()) if captured else contextlib.nullcontext(io.StringIO())
