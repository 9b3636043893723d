"""`ebpfjit diff`: one program on several engines, with many inputs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebpfjit.cli import files
from ebpfjit.cli.fuzz import _names
from ebpfjit.cli.options import Btf, Kconfig, Maps, ProgramName, loading, one_program

if TYPE_CHECKING:
    from ebpfjit.difftest.case import Case, Input
    from ebpfjit.program import Program

LARGEST_RANDOM = 128


def diff(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Object file, bytecode, assembly text, or a corpus file (.txt)."),
    ],
    program: ProgramName = None,
    engines: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Engines: interpreter, optimized, jit, gate, tiered, kernel."),
    ] = "interpreter,jit",
    hex_: Annotated[
        list[str] | None, typer.Option("--hex", metavar="HEX", help="Memory, in hex; may be repeated.")
    ] = None,
    mem: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Memory, as a file; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option("--random", min=0, help="So many random memories too.")] = 0,
    seed: Annotated[int, typer.Option(help="What the random memories are drawn from.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many instructions.")] = 1_000_000,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
) -> None:
    """Run a program on several engines and say where they differ.

    Each memory is what r1 points to; for a program with a type it is a packet, or the context's bytes.
    Without any, the program runs without memory, on an empty frame or on a context of zeros. Time, process
    and random numbers are the same on all engines but the kernel. Where engines differ the answers are
    printed, and the first pc where they part, with its machine code; the exit status is 1 then.
    """
    from ebpfjit.difftest.case import Case, Input
    from ebpfjit.difftest.engines import check_engines
    from ebpfjit.program import Program

    chosen = _names(engines)
    check_engines(chosen)
    memories = [*_parsed(hex_ or ()), *(files.read_bytes(str(path)) for path in mem or ())]
    found = _read(file, program, loading(btf, kconfig, maps))
    rng = random.Random(seed)
    least, most = _sizes(found.type)
    memories += [rng.randbytes(rng.randint(least, most)) for _ in range(count)]
    given = tuple(Input(memory, limit) for memory in memories)
    if isinstance(found, Program):
        empty = bytes(least) if least < most else b""  # a struct of the right size is made of nothing
        given = given or (Input(empty, limit),)
        if found.type is not None or found.maps:
            raise typer.Exit(_compare_program(found, given, chosen))
        found = Case(found.code, given, name=file)
    case = replace(found, inputs=given) if given else found
    case.check()
    raise typer.Exit(_compare(case, chosen))


def _read(file: str, program: str | None, told: dict[str, Any]) -> Case | Program:
    """Return a corpus file's case, or the program that is meant."""
    if Path(file).suffix == ".txt" and not told:
        from ebpfjit.difftest.case import read_case

        return read_case(Path(file))
    return one_program(file, program, told)


def _sizes(type_: str | None) -> tuple[int, int]:
    """Return how many bytes a random memory has at least and at most: those of the context's struct."""
    from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
    from ebpfjit.runtime.contexts.types import program_type

    if not type_:
        return 0, LARGEST_RANDOM
    kind = program_type(type_)
    if kind.has_packet:
        return LINK_HEADER_SIZE, LARGEST_RANDOM
    return (0, LARGEST_RANDOM) if kind.data_size is None else (kind.data_size, kind.data_size)


def _parsed(texts: list[str] | tuple[()]) -> list[bytes]:
    try:
        return [bytes.fromhex(text.removeprefix("0x").replace(":", " ")) for text in texts]
    except ValueError:
        raise typer.BadParameter("--hex takes pairs of hexadecimal digits") from None


def _compare(case: Case, engines: tuple[str, ...]) -> int:
    """Compare in child processes; print what differs and a last line. Return the exit status."""
    from ebpfjit.difftest.finding import examine, found, told

    wrong = 0
    for given in case.inputs:
        one = replace(case, inputs=(given,))
        problem = examine(one, engines)
        if problem is not None:
            wrong += 1
            print(told(found(0, one, problem), engines))
    return _summed_up(len(case.inputs), engines, wrong)


def _compare_program(program: Program, inputs: tuple[Input, ...], engines: tuple[str, ...]) -> int:
    """The same for a program with a type or maps."""
    from ebpfjit.difftest.compare import compare
    from ebpfjit.difftest.report import program_text

    report = compare(program, inputs, engines)
    if not report.agree:
        print(program_text(program.code))
    wrong = 0
    for one in report.each():
        if not one.agree:
            wrong += 1
            print(one)
    return _summed_up(len(inputs), engines, wrong)


def _summed_up(count: int, engines: tuple[str, ...], wrong: int) -> int:
    inputs = "1 input" if count == 1 else f"{count} inputs"
    print(f"{inputs}, {', '.join(engines)}: " + (f"{wrong} differ" if wrong else "no difference"))
    return 1 if wrong else 0
