"""`ebpfjit run`: a program once, or on each packet of a capture."""

from __future__ import annotations

import contextlib
import io
import os
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
from ebpfjit.cli.parameters import Option, WrongUsage
from ebpfjit.literals import EngineName, named_engine, named_type
from ebpfjit.program import Program
from ebpfjit.record import replace

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


def run(
    file: File,
    program: ProgramName = None,
    mem: Annotated[str | None, Option(metavar="FILE", help="The packet, as a file.")] = None,
    hex_: Annotated[str | None, Option("--hex", metavar="HEX", help="The packet, in hex.")] = None,
    pcap: Annotated[
        str | None, Option(metavar="FILE", help="Run on each packet of a capture (pcap, pcapng).")
    ] = None,
    write: Annotated[
        str | None, Option(metavar="FILE", help="With --pcap: write the packets that pass, as pcap.")
    ] = None,
    verdicts: Annotated[
        str | None,
        Option(metavar="FILE", help="With --pcap: write each verdict, as .csv, .jsonl or .parquet."),
    ] = None,
    reasons: Annotated[
        bool, Option("--reasons", help="With --pcap: show which lines decide what does not pass.")
    ] = False,
    type_: Annotated[
        str | None,
        Option("--type", metavar="TYPE", help="The program's type: xdp, tc, ..., none for plain memory."),
    ] = None,
    context: Annotated[
        list[str] | None, Option(metavar="FIELD=N", help="A field of the context; may be repeated.")
    ] = None,
    map_: MapContents = None,
    variables: Variables = None,
    show_maps: Annotated[
        bool, Option("--show-maps", help="Show maps, variables and events after the run.")
    ] = False,
    engine: Annotated[
        Engine | None, Option(help="What runs the program; the best there is unless told.")
    ] = None,
    mbuff_offsets: Annotated[
        str | None,
        Option(metavar="DATA,END", help="Where a metadata buffer holds the packet's addresses."),
    ] = None,
    limit: Annotated[int | None, Option(min=1, help="At most this many instructions.")] = None,
    repeat: Annotated[int, Option(min=1, help="Run so often, on the maps as they are then.")] = 1,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    cache: Annotated[
        str | None,
        Option(metavar="DIR", help="Keep machine code there for the next run; $EBPFJIT_CACHE unless told."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a program and print r0; on a capture, count its verdicts.

    A program with a type (an object file's section tells it, or --type) gets the context of its
    type on an Ethernet frame. One without (--type none) gets the packet's address in r1 and its
    size in r2; with --mbuff-offsets the address and size of a metadata buffer, in which the packet's
    start and end are stored.
    """
    if sum(given is not None for given in (mem, hex_, pcap)) > 1:
        raise WrongUsage("--mem, --hex and --pcap exclude each other")
    for option, given in (("--write", write), ("--verdicts", verdicts), ("--reasons", reasons or None)):
        if given is not None and pcap is None:
            raise WrongUsage(f"{option} goes with --pcap")
    offsets = _offsets(mbuff_offsets)
    fields = _fields(context)
    data = _packet(mem, hex_)
    if engine is Engine.KERNEL and (offsets is not None or limit is not None):
        raise WrongUsage("the kernel takes neither --mbuff-offsets nor --limit")
    if offsets is not None and pcap is not None:
        raise WrongUsage("--mbuff-offsets is for single packets, not for --pcap")
    if repeat > 1 and (offsets is not None or pcap is not None):
        raise WrongUsage("--repeat is for single packets, without --mbuff-offsets")
    chosen, obj = one_of(file, program, loading(btf, kconfig, maps))
    if type_ is not None:
        # Without a section too, it is bytecode that gets plain memory.
        no_type = type_ == "none"
        chosen = (
            replace(chosen, type=None, section=None) if no_type else replace(chosen, type=named_type(type_))
        )
    if map_ or variables:
        from ebpfjit.cli.state import prepare

        prepare(obj, file, map_ or (), variables or ())
    cache = cache or os.environ.get("EBPFJIT_CACHE") or None
    single = pcap is None and repeat == 1 and offsets is None
    with naming(file):
        name = _engine(engine, chosen, single=single, cache=cache)

    def execute(packet: bytes | bytearray) -> Result:
        return chosen.run(packet, engine=name, limit=limit, context=fields, repeat=repeat)

    if pcap is not None:
        if reasons and name != "jit":
            raise WrongUsage(f"--reasons are told by machine code{_why_not_here(engine)}")
        function = _compiled(chosen, limit, fields, cache, reasons=reasons) if name == "jit" else None
        shown = obj if show_maps else None
        _run_capture(
            chosen, pcap, write, execute, function, verdicts,
            reasons=reasons, as_json=as_json, shown=shown,
        )  # fmt: skip
        return
    from ebpfjit.ready import for_one_run

    with naming(file), _printed(as_json) as output:
        if offsets is not None:
            value = _execute(_machine(chosen, offsets, limit), data, name)
            lines = output.getvalue().splitlines()
            from ebpfjit.runner import Result

            result = Result(value, bytes(data), output=tuple(lines))
        else:
            if name == "jit" and repeat == 1:
                for_one_run(chosen, cache)
            result = execute(data)
            if not as_json:
                print(*result.output, sep="\n", end="\n" if result.output else "")
    if as_json:
        print_json(_result_json(result, chosen) | (_state(obj) if show_maps else {}))
        return
    action = f" {result.action}" if result.action else ""
    print(f"{result.return_value} ({result.return_value:#x}){action}")
    if show_maps:
        from ebpfjit.cli.state import print_state

        for where, event in result.events:
            print(f"event of {where!r}: {event.hex(' ')}")
        print_state(obj)


def _compiled(
    program: Program, limit: int | None, fields: dict[str, Any], cache: str | None, *, reasons: bool
) -> JitFunction:
    """Return the function that batches go through."""
    if not reasons:
        return program.compile(limit=limit, context=fields or None, cache=cache)
    from ebpfjit.compiling import with_reasons

    return with_reasons(program, limit=limit, context=fields or None)


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
    program: Program,
    file: str,
    write: str | None,
    execute: Callable[[bytes], Result],
    function: JitFunction | None,
    verdicts: str | None,
    *,
    reasons: bool,
    as_json: bool,
    shown: Any,
) -> None:
    from ebpfjit.cli import capture, state

    if write is not None and program.type is None:
        raise WrongUsage("--write needs the program's type, which says what passes; give --type")
    if write is not None and os.path.exists(write) and os.path.samefile(write, file):
        raise WrongUsage("--write and --pcap name the same file")
    report = capture.run(
        program,
        file,
        write,
        execute,
        show=not as_json,
        function=function,
        verdicts=verdicts,
        reasons=reasons,
    )
    if as_json:
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


def _packet(mem: str | None, text: str | None) -> bytearray:
    """Return the packet that --mem or --hex gives; empty without them."""
    if mem is not None:
        return bytearray(files.read_bytes(mem))
    if text is None:
        return bytearray()
    return bytearray(in_hex([text])[0])


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
