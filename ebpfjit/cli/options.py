"""What commands that take a FILE share: its arguments, and the programs that they mean.

--btf FILE                           load(btf=...)
--kconfig FILE, --kconfig KEY=VALUE  load(kconfig=...)
--maps flows=128                     load(maps={"flows": 128})
--maps stacks.value_size=1016        load(maps={"stacks": {"value_size": 1016}})
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from ebpfjit.cli import files
from ebpfjit.cli.parameters import Argument, Option, WrongUsage
from ebpfjit.program import Program

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object
    from ebpfjit.keywords import LoadOptions

File = Annotated[
    str, Argument(metavar="FILE", help="Object file, bytecode (.bin), assembly text (.s), or -.")
]
ProgramName = Annotated[
    str | None, Option("--program", metavar="NAME", help="Which program of an object file.")
]
FilterExpression = Annotated[
    str | None,
    Option("--filter", metavar="EXPRESSION", help="Instead of a file: tcpdump's 'tcp port 80'."),
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
Btf = Annotated[
    str | None,
    Option("--btf", metavar="FILE", help="Types of the kernel that an object is for: BTF, or ELF."),
]
Kconfig = Annotated[
    list[str] | None,
    Option(
        metavar="FILE|KEY=VALUE",
        help="That kernel's configuration, or one value of it; may be repeated, the last one counts.",
    ),
]
Maps = Annotated[
    list[str] | None,
    Option(
        metavar="NAME=SIZE",
        help="How many entries a map has; NAME.value_size=SIZE and the like: its sizes. May be repeated.",
    ),
]

MapContents = Annotated[
    list[str] | None,
    Option(
        "--map",
        metavar="NAME=FILE|NAME[KEY]=VALUE",
        help="Fill a map, from a JSON file or with one entry; may be repeated.",
    ),
]
Variables = Annotated[
    list[str] | None,
    Option("--global", metavar="NAME=VALUE", help="Set a global variable; may be repeated."),
]

Engines = Annotated[
    str | None,
    Option(
        metavar="NAMES",
        help="Of interpreter, optimized, jit, gate, tiered, kernel; interpreter,jit unless told.",
    ),
]

NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def engines_of(text: str | None) -> tuple[str, ...]:
    """Return the engines of a list; those that are usual here where there is none."""
    from ebpfjit.difftest.engines import default_engines

    return default_engines() if text is None else names_of(text)


def names_of(text: str) -> tuple[str, ...]:
    """Return the names of a list, each once."""
    return tuple(dict.fromkeys(name for name in text.replace(",", " ").split()))


def check_one_of(file: str | None, expression: str | None, told: bool) -> None:
    """Raise WrongUsage where there are not a file or an expression, or something is told of no file."""
    if (file is None) is (expression is None):
        raise WrongUsage("there is a FILE, or --filter EXPRESSION, and not both")
    if expression is not None and told:
        raise WrongUsage("--program, --btf, --kconfig and what is said of maps and variables go with FILE")


def loading(btf: str | None, kconfig: list[str] | None, maps: list[str] | None) -> LoadOptions:
    """Return what the options say to `load`, by the names of its arguments; what is not told is left out.

    Raises WrongUsage for an option of another form, LoadError and OSError for a file that is
    not what it should be.
    """
    told: LoadOptions = {}
    if btf is not None:
        from ebpfjit.elf.loader import read_btf

        told["btf"] = read_btf(btf)
    if kconfig:
        told["kconfig"] = _configuration(kconfig)
    if maps:
        told["maps"] = _maps(maps)
    return told


def _configuration(texts: Iterable[str]) -> dict[str, int | str]:
    """Return the values of the configuration: of files, and single ones."""
    from ebpfjit.elf.kconfig import parse_config, parse_value

    values: dict[str, int | str] = {}
    for text in texts:
        key, is_pair, value = text.partition("=")
        if not is_pair or not NAME.fullmatch(key):
            values |= parse_config(files.read_bytes(text), text)
            continue
        try:
            values[key] = parse_value(value)
        except ValueError as error:
            raise WrongUsage(f"--kconfig {key}: {error}") from None
    return values


def _maps(texts: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return what is set of maps, by name; a size alone is the number of entries."""
    from ebpfjit.elf.given import SETTABLE

    given: dict[str, dict[str, int]] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        map_, _, what = name.rpartition(".")
        if not map_ or what not in SETTABLE:  # a map's own name may have dots
            map_, what = name, "max_entries"
        if not map_:
            raise WrongUsage(f"--maps takes NAME=SIZE, flows=128, not {text!r}")
        given.setdefault(map_, {})[what] = _number(value, what, text)
    return given


def _number(value: str, what: str, text: str) -> int:
    """Return what an option says of a map: a number, or the name of a type."""
    from ebpfjit.elf.given import map_type

    try:
        return int(value, 0)
    except ValueError:
        if what != "type":
            raise WrongUsage(f"--maps {text}: {value!r} is not a number") from None
    try:
        return map_type(value, f"--maps {text}")
    except TypeError as error:
        raise WrongUsage(str(error)) from None


def opened(
    file: str, told: LoadOptions, *, may_be_empty: bool = False, besides: LoadOptions | None = None
) -> tuple[dict[str, Program], Object | None]:
    """Return the programs of a file, and the object where it is one; `told` is what `loading` returned.

    `besides` is more of it, which a file that is no object goes without.
    """
    return files.read_file(file, told, may_be_empty=may_be_empty, besides=besides)


def programs(file: str, name: str | None, told: LoadOptions) -> dict[str, Program]:
    """Return the programs of a file, or the one that was asked for."""
    found, _ = opened(file, told)
    return found if name is None else {name: files.find_program(file, found, name)}


def one_program(file: str, name: str | None, told: LoadOptions) -> Program:
    """Return the program that was asked for, or the only one there is."""
    return one_of(file, name, told)[0]


def one_of(file: str, name: str | None, told: LoadOptions) -> tuple[Program, Object | None]:
    """Return the program that was asked for, or the only one there is; and the object that it is of."""
    found, obj = opened(file, told)
    if name is not None:
        return files.find_program(file, found, name), obj
    if len(found) > 1:
        raise WrongUsage(f"{file} holds several programs, choose one with --program: {', '.join(found)}")
    return next(iter(found.values())), obj


def in_hex(texts: Iterable[str]) -> list[bytes]:
    """Return bytes that options give in hex. Raises WrongUsage for what is none."""
    found = []
    for text in texts:
        try:
            found.append(bytes.fromhex("".join(text.removeprefix("0x").replace(":", " ").split())))
        except ValueError:
            raise WrongUsage(f"--hex takes pairs of hexadecimal digits, not {text!r}") from None
    return found


def captured(file: str) -> list[bytes]:
    """Return the packets of a capture, as frames."""
    from ebpfjit import capture

    return [bytes(packet) for batch in capture.read(file) for packet in batch.frames()]
