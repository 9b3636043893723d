"""`ebpfjit diff`: one program on several engines, with many inputs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ebpfjit.cli import files
from ebpfjit.cli.options import (
    Btf,
    Engines,
    FilterExpression,
    Json,
    Kconfig,
    MapContents,
    Maps,
    ProgramName,
    Variables,
    captured,
    check_one_of,
    engines_of,
    in_hex,
    loading,
    one_of,
)
from ebpfjit.cli.output import print_json
from ebpfjit.cli.parameters import Argument, Option
from ebpfjit.errors import InputError
from ebpfjit.record import replace

if TYPE_CHECKING:
    from ebpfjit.difftest.case import Case, Input
    from ebpfjit.keywords import LoadOptions
    from ebpfjit.program import Program


def diff(
    file: Annotated[
        str | None,
        Argument(metavar="FILE", help="Object file, bytecode, assembly text, or a corpus file (.txt)."),
    ] = None,
    program: ProgramName = None,
    expression: FilterExpression = None,
    engines: Engines = None,
    hex_: Annotated[
        list[str] | None, Option("--hex", metavar="HEX", help="Memory, in hex; may be repeated.")
    ] = None,
    mem: Annotated[
        list[Path] | None, Option(metavar="FILE", help="Memory, as a file; may be repeated.")
    ] = None,
    pcap: Annotated[
        str | None, Option(metavar="FILE", help="The packets of a capture (pcap, pcapng) too.")
    ] = None,
    count: Annotated[
        int, Option("--random", min=0, help="So many random inputs too: packets, for packet programs.")
    ] = 0,
    seed: Annotated[int, Option(help="What the random inputs are drawn from.")] = 1,
    limit: Annotated[int | None, Option(min=1, help="At most this many instructions.")] = 1_000_000,
    map_: MapContents = None,
    variables: Variables = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Run a program on several engines and say where they differ.

    An expression of tcpdump's runs on plain memory, and is compared with what the interpreter of classic BPF
    says too; the engine kernel is Linux's machine of classic BPF then.

    Each memory is what r1 points to; for a program with a type it is a packet, or the context's bytes.
    Without any, the program runs without memory, on an empty frame or on a context of zeros. Time, process
    and random numbers are the same on all engines but the kernel. Where engines differ the answers are
    printed, and the first pc where they part, with its machine code; the exit status is 1 then. The line
    before the last says how many inputs ended, faulted and were refused (on the interpreter), and how many of
    the program's instructions any of them reached.
    """
    from ebpfjit.difftest.case import Case, Input
    from ebpfjit.difftest.engines import check_engines
    from ebpfjit.difftest.inputs import make_input

    chosen = engines_of(engines)
    check_engines(chosen, of_filters=file is None)
    memories = [*in_hex(hex_ or ()), *(files.read_bytes(str(path)) for path in mem or ())]
    memories += captured(pcap) if pcap is not None else []
    told = loading(btf, kconfig, maps)
    check_one_of(file, expression, bool(program or told or map_ or variables))
    found, obj = _filter(expression or "") if file is None else _read(file, program, told)
    if file is not None and (map_ or variables):
        from ebpfjit.cli import state

        state.prepare(obj, file, map_ or (), variables or ())
    rng = random.Random(seed)
    type_ = found.type if not isinstance(found, Case) else "socket_filter" if found.classic else None
    memories += [make_input(rng, type_) for _ in range(count)]
    given = tuple(Input(memory, limit) for memory in memories)
    if not isinstance(found, Case):
        given = given or (Input(_empty(type_), limit),)
        if found.type is None and not found.maps:
            found = Case(found.code, given, name=file or "")
    if isinstance(found, Case):
        found = replace(found, inputs=given) if given else found
        found.check()
        given = found.inputs
    raise SystemExit(_compare(found, given, chosen, as_json=as_json))


def _read(file: str, program: str | None, told: LoadOptions) -> tuple[Case | Program, Any]:
    """Return a corpus file's case, or the program that is meant; and the object that it is of."""
    if Path(file).suffix == ".txt" and not told:
        from ebpfjit.difftest.case import read_case

        return read_case(Path(file)), None
    return one_of(file, program, told)


def _filter(expression: str) -> tuple[Case, None]:
    """Return an expression of tcpdump's as a case, which is of no object."""
    from ebpfjit import filters
    from ebpfjit.difftest.case import Input
    from ebpfjit.difftest.classic import case_of

    return case_of(filters.to_classic(expression), (Input(),), expression), None


def _empty(type_: str | None) -> bytes:
    """Return what a program gets where nothing is given: an empty frame, a context of zeros, nothing."""
    from ebpfjit.difftest.inputs import fixed_size, least_size

    return bytes(least_size(type_)) if fixed_size(type_) is None else b""  # a struct is filled up with zeros


def _compare(
    found: Case | Program, inputs: tuple[Input, ...], engines: tuple[str, ...], *, as_json: bool
) -> int:
    """Compare; print what differs and a last line. Return the exit status."""
    from ebpfjit.difftest.case import Case
    from ebpfjit.difftest.reach import reach, summed

    reached = reach(found, inputs)
    if isinstance(found, Case):
        problems = _of_case(found, engines)
    else:
        taken = [given for given, one in zip(inputs, reached, strict=True) if one.kind != InputError.__name__]
        problems = _of_program(found, taken, engines)
    total = summed(found, reached)
    said = {"inputs": len(inputs), "engines": list(engines), "differ": len(problems), **total.as_json()}
    if as_json:
        print_json(said | {"differences": problems})
        return 1 if problems else 0
    for text in problems:
        print(text)
    what = "1 input" if len(inputs) == 1 else f"{len(inputs)} inputs"
    verdict = f"{len(problems)} differ" if problems else "no difference"
    print(f"{what}: {total}")
    print(f"{what}, {', '.join(engines)}: {verdict}")
    return 1 if problems else 0


def _of_case(case: Case, engines: tuple[str, ...]) -> list[str]:
    """Return what differs, for each input on which something does; each is run in a child process."""
    from ebpfjit.difftest.finding import examine, found, told

    each = [replace(case, inputs=(given,)) for given in case.inputs]
    problems = [(one, examine(one, engines)) for one in each]
    return [told(found(0, one, problem), engines) for one, problem in problems if problem is not None]


def _of_program(program: Program, inputs: Sequence[Input], engines: tuple[str, ...]) -> list[str]:
    """The same for a program with a type or maps."""
    from ebpfjit.difftest.compare import compare
    from ebpfjit.difftest.report import program_text

    report = compare(program, inputs, engines)
    texts = [str(one) for one in report.each() if not one.agree]
    return [f"{program_text(program.code)}\n{texts[0]}", *texts[1:]] if texts else []
