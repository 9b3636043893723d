"""`ebpfjit diff`: one program on several engines, with many inputs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebpfjit.cli import files
from ebpfjit.cli.fuzz import _names

if TYPE_CHECKING:
    from ebpfjit.difftest.case import Case, Input

LARGEST_RANDOM = 128


def diff(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Object file, bytecode, assembly text, or a corpus file (.txt)."),
    ],
    program: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which program of an object file.")
    ] = None,
    engines: Annotated[
        str, typer.Option(metavar="NAMES", help="Engines to compare: interpreter, jit, kernel.")
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
) -> None:
    """Run a program on several engines and say where they differ.

    Each memory is what r1 points to. Without any, the program runs without memory. Where engines
    differ the answers are printed, and the first pc where they part, with its machine code; the exit
    status is 1 then.
    """
    from ebpfjit.difftest.engines import check_engines

    chosen = _names(engines)
    check_engines(chosen)
    memories = [*_parsed(hex_ or ()), *(path.read_bytes() for path in mem or ())]
    rng = random.Random(seed)
    memories += [rng.randbytes(rng.randrange(LARGEST_RANDOM + 1)) for _ in range(count)]
    case = _case(file, program, memories, limit)
    case.check()
    raise typer.Exit(_compare(case, chosen))


def _case(file: str, program: str | None, memories: list[bytes], limit: int | None) -> Case:
    from ebpfjit.difftest.case import Case, Input, read_case

    given = tuple(Input(memory, limit) for memory in memories)
    if Path(file).suffix == ".txt":
        case = read_case(Path(file))
        return replace(case, inputs=given) if given else case
    programs = files.read_programs(file)
    if program is not None:
        chosen = files.find_program(file, programs, program)
    elif len(programs) > 1:
        raise typer.BadParameter(
            f"{file} holds several programs, choose one with --program: {', '.join(programs)}"
        )
    else:
        chosen = next(iter(programs.values()))
    return Case(chosen.code, given or (Input(b"", limit),), name=file)


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
    print(
        f"{_count(case.inputs)}, {', '.join(engines)}: " + (f"{wrong} differ" if wrong else "no difference")
    )
    return 1 if wrong else 0


def _count(inputs: tuple[Input, ...]) -> str:
    return "1 input" if len(inputs) == 1 else f"{len(inputs)} inputs"
