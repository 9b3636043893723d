"""`ebpfjit info`: what a file holds, what it calls, and what of it is missing here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfjit.cli.options import Btf, File, Json, Kconfig, Maps, loading, opened
from ebpfjit.cli.output import print_columns, print_json, shown_name
from ebpfjit.named import cut

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object
    from ebpfjit.program import Program


WIDTH = 60
"""Characters of a value, or of its type, that are shown."""


def info(
    file: File, btf: Btf = None, kconfig: Kconfig = None, maps: Maps = None, as_json: Json = False
) -> None:
    """Show the programs, maps and variables of a file, what programs call, and what is missing here.

    Missing are helpers and kernel functions that ebpfjit does not have, and what the object itself lacks; a
    program of such can be looked at and, where it does not come by it, run.
    """
    found, obj = opened(file, loading(btf, kconfig, maps), may_be_empty=True)
    shown: dict[str, Any] = {
        "file": file,
        "license": None if obj is None else obj.license,
        "programs": {name: _program(each) for name, each in found.items()},
        "maps": {} if obj is None else _maps(obj),
        "globals": {} if obj is None else _variables(obj),
        "refusals": {} if obj is None else {name: str(error) for name, error in obj.refusals.items()},
    }
    if as_json:
        print_json(shown)
    else:
        _print(shown)


def _program(program: Program) -> dict[str, Any]:
    """Return what a program is and calls."""
    from ebpfjit.cli.state import is_section
    from ebpfjit.isa.spec import Kind
    from ebpfjit.ready import is_plain
    from ebpfjit.runtime.helpers import stock, table

    rows = ((insn.row, insn.imm) for insn in program.instructions)
    called = (imm for row, imm in rows if row is not None and row.kind is Kind.CALL_HELPER)
    numbers = dict.fromkeys(imm & 0xFFFFFFFF for imm in called)
    here = set(table.bound())
    if is_plain(program):
        here |= {stock.BPF_KTIME_GETNS_IDX, stock.BPF_TRACE_PRINTK_IDX}
    missing = [f"helper {table.name_of(number)}" for number in numbers if number not in here]
    refusal = program.refusal
    missing += [str(error) for error in ([] if refusal is None else [refusal]) + list(program.unmet.values())]
    return {
        "section": program.section,
        "type": program.type,
        "slots": len(program),
        "functions": list(program.functions.values()),
        "maps": [map_.name for map_ in program.maps if not is_section(map_)],
        "helpers": [table.name_of(number) for number in numbers],
        "kfuncs": sorted({called.name for called in program.kfuncs.values()}),
        "missing": missing,
    }


def _maps(obj: Object) -> dict[str, Any]:
    """Return what the maps of an object are, but for the sections of its variables."""
    from ebpfjit.cli.state import is_section, kind_of

    found = {}
    for name, map_ in obj.maps.items():
        what = map_.definition
        if is_section(map_):
            continue
        found[name] = {
            "type": what.type_name,
            "key_size": what.key_size,
            "value_size": what.value_size,
            "max_entries": what.max_entries,
            "flags": what.flags,
            "pinning": what.pinning,
            "key": kind_of(what.key_type, what.key_size) if what.key_size else None,
            "value": kind_of(what.value_type, what.value_size) if what.value_size else None,
        }
    return found


def _variables(obj: Object) -> dict[str, Any]:
    """Return the variables of an object: their section, their type, whether programs may write them."""
    from ebpfjit.cli.state import kind_of, shown_state

    values = shown_state(obj)["globals"]
    found = {}
    for name, variable in obj.globals.places.items():
        codec = obj.globals.codec(name)
        found[name] = {
            "section": variable.map.name,
            "type": kind_of(codec, codec.size),
            "value": values[name],
            "readonly": bool(variable.map.is_readonly),
        }
    return found


def _print(shown: dict[str, Any]) -> None:
    programs, maps, variables = shown["programs"], shown["maps"], shown["globals"]
    titles = ("program", "type", "section", "slots")
    rows = [
        (shown_name(name), each["type"] or "-", each["section"] or "-", str(each["slots"]))
        for name, each in programs.items()
    ]
    if rows:
        print_columns(titles, rows)
    for name, each in programs.items():
        for what in ("maps", "helpers", "kfuncs", "missing"):
            if each[what]:
                print(f"{shown_name(name)}: {what}: {', '.join(each[what])}")
    if maps:
        print()
        print_columns(
            ("map", "type", "key", "value", "entries"),
            [
                (name, each["type"], str(each["key_size"]), str(each["value_size"]), str(each["max_entries"]))
                for name, each in maps.items()
            ],
        )
        for name, each in maps.items():
            print(f"{name}: {each['key'] or 'no key'} -> {each['value'] or 'no value'}")
    if variables:
        print()
        for name, each in variables.items():
            constant = ", read-only" if each["readonly"] else ""
            print(
                cut(f"{name} = {each['value']}", 60),
                f"   {cut(each['type'], 60)}, {each['section']}{constant}",
            )
    if shown["license"] is not None:
        print(f"\nlicense: {shown['license'] or 'none'}")
    for name, reason in shown["refusals"].items():
        print(f"refused: {shown_name(name)}: {reason}")
