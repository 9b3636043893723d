"""Findings as a pytest file: a test for each, which fails until the program is mended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from enum import Enum
from typing import Any

from ebpfjit.fuzzing.finding import Entries, Finding
from ebpfjit.fuzzing.handlers import Handler
from ebpfjit.record import dataclass


class Source(Enum):
    """What kind of file a program is of: how a test reads it."""

    OBJECT = "load({file!r}{load})"
    ASSEMBLY = "Program.from_assembly(Path({file!r}).read_text(), name={name!r})"
    BYTECODE = "Program.from_bytes(Path({file!r}).read_bytes(), name={name!r})"


@dataclass(frozen=True)
class Origin:
    """Where a program is from: a file, its name there, and the file of the version it is held `against`.

    Objects are loaded with the arguments of `load` besides; `before` are entries that maps held when the
    search began, and those of a fresh object do not.
    """

    file: str
    program: str
    against: str = ""
    source: Source = Source.OBJECT
    load: Mapping[str, Any] = field(default_factory=dict)
    before: Entries = field(default_factory=dict)


def pytest_file(findings: Sequence[Finding], origin: Origin, first: int = 1) -> str:
    """Return a file with a test for each finding, numbered from `first` on."""
    what = _one_line(findings[0].text) if len(findings) == 1 else f"{len(findings)} tests for {origin.file}"
    lines = [f'"""Found by a fuzzer: {what}"""']
    handlers = [each for finding in findings for each in (*finding.handlers, *finding.other_handlers)]
    of_object = origin.source is Source.OBJECT
    names = ["Program"] if not of_object or any(each.code for each in handlers) else []
    names += ["load"] if of_object or any(each.file for each in handlers) else []
    lines += [
        "",
        *([] if of_object else ["from pathlib import Path", ""]),
        f"from ebpfjit import {', '.join(names)}",
    ]
    if any(each.kind == "verdict" for each in findings):
        lines += ["from ebpfjit.fuzzing import Predicate"]
    for number, finding in enumerate(findings, first):
        lines += ["", "", *_test(finding, origin, number)]
    return "\n".join(lines) + "\n"


def _test(finding: Finding, origin: Origin, number: int) -> Iterable[str]:
    """Yield the lines of one test."""
    name = re.sub(r"\W+", "_", f"{origin.program}_{finding.fault or finding.kind}_{number}").lower()
    yield f"def test_{name}():"
    yield f"    # {_one_line(finding.text)}"
    files = {"obj": origin.file}
    if finding.kind == "difference":
        files["other"] = origin.against
    for holder, file in files.items():
        variable = "program" if holder == "obj" else "old"
        more = "".join(f", {each}={value!r}" for each, value in origin.load.items())
        opened = origin.source.value.format(file=file, name=origin.program, load=more)
        if origin.source is Source.OBJECT:
            yield f"    {holder} = {opened}"
            opened = f"{holder}.program({origin.program!r})"
        yield f"    {variable} = {opened}"
    for holder in files:
        yield from _handled(holder, finding.handlers if holder == "obj" else finding.other_handlers)
        yield from _filled(holder, origin.before)
        yield from (f"    {holder}.maps[{map_name!r}].clear()" for map_name in finding.cleared)
        yield from _filled(holder, finding.maps)
    yield from _given(finding)
    yield from _runs(finding)


def _handled(holder: str, handlers: Iterable[Handler]) -> Iterable[str]:
    """Yield the lines that put programs where tail calls find them."""
    user = "program" if holder == "obj" else "old"
    for each in handlers:
        place = f"{holder}.maps[{each.array!r}][{each.index}]"
        if each.file:
            yield f"    {place} = load({each.file!r}).program({each.name!r})"
        elif each.is_foreign:
            yield f"    # {_one_line(f'{place} = ...  # program {each.name!r} of another object')}"
        elif each.code:
            told = f"{_literal(each.code)}, name={each.name!r}, type={user}.type"
            yield f"    {place} = Program.from_bytes({told})"
        else:
            yield f"    {place} = " + (f"{holder}.program({each.name!r})" if each.name else "None")


def _filled(holder: str, entries: Entries) -> Iterable[str]:
    for map_name, items in entries.items():
        place = f"{holder}.maps[{map_name!r}]"
        yield from (f"    {place}[{_literal(key)}] = {_literal(value)}" for key, value in items)


def _given(finding: Finding) -> Iterable[str]:
    """Yield the lines that say what runs are given."""
    if finding.scapy:
        yield f"    # {_one_line(finding.scapy)}"
    contexts = finding.contexts or [{}] * len(finding.packets)
    given = [*zip(finding.packets, contexts, strict=True)]
    is_same = all(each == given[0] for each in given)
    yield "    packets = [" if finding.frames else "    inputs = ["
    for packet, context in given[:1] if is_same else given:
        yield f"        (bytes.fromhex({packet.hex()!r}), {context or None!r}),"
    yield f"    ] * {len(given)}" if is_same and len(given) > 1 else "    ]"


def _runs(finding: Finding) -> Iterable[str]:
    """Yield the lines that run, and say what has to be so."""
    name, every = ("packet", "packets") if finding.frames else ("data", "inputs")
    given = f"{name}, context=context"
    if "BudgetExhausted" in (finding.fault, *re.split(r"\W+", finding.text)):
        given += f", limit={finding.limit}"
    yield f"    for {name}, context in {every}:"
    match finding.kind:
        case "difference":
            yield f"        new_result, old_result = program.run({given}), old.run({given})"
            yield "        assert new_result.return_value == old_result.return_value"
            yield "        assert new_result.data == old_result.data"
        case "engines":
            both = ", ".join(f"program.run({given}, engine={each!r})" for each in ("interpreter", "jit"))
            yield f"        one, two = {both}"
            yield "        assert (one.return_value, one.data) == (two.return_value, two.data)"
        case "verdict":
            yield f"        result = program.run({given})"
            yield f"        predicate = Predicate({finding.predicate!r})"
            yield f"        assert predicate.of_result(result, {name}, program, context)"
        case _:
            yield f"        program.run({given})  # raises {finding.fault}"


def _literal(value: Any) -> str:
    if isinstance(value, bytes):
        return f"bytes.fromhex({value.hex()!r})"
    return f"[{', '.join(map(_literal, value))}]"


def _one_line(text: str) -> str:
    shown = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in shown).replace('"""', "'''")
