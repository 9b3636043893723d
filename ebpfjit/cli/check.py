"""`ebpfjit check`: which kernels have what programs use, what one lacks, and whether they are safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from ebpfjit.cli import files
from ebpfjit.cli.options import Btf, File, Json, Kconfig, Maps, ProgramName, loading, opened
from ebpfjit.cli.output import print_json, shown_name
from ebpfjit.cli.parameters import Option
from ebpfjit.literals import named_type
from ebpfjit.record import replace

if TYPE_CHECKING:
    from ebpfjit.compatibility.need import Need
    from ebpfjit.compatibility.report import Compatibility, ObjectCompatibility
    from ebpfjit.compatibility.target import Kernel
    from ebpfjit.keywords import LoadOptions
    from ebpfjit.program import Program
    from ebpfjit.verifier.verdict import Verdict

REST = ""
"""What the needs of no program are under, in JSON."""


def check(
    file: File,
    program: ProgramName = None,
    kernel: Annotated[
        str | None,
        Option(
            "--kernel",
            metavar="RELEASE|BTF",
            help="What this kernel lacks: 5.15, a file with its types, or running.",
        ),
    ] = None,
    verify: Annotated[
        bool, Option("--verify", help="Say whether each program is safe, as Linux's verifier would.")
    ] = False,
    type_: Annotated[
        str | None, Option("--type", metavar="TYPE", help="The type of programs: xdp, tc, ...")
    ] = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Show which kernels have what programs use: helpers, maps, sections, instructions, kernel functions.

    Each has the release that Linux has it since, and the line that needs it. With --kernel only what that
    kernel lacks is shown, and what would help; an object is looked at with that kernel's types where they are
    at hand. The exit status is 1 where a kernel lacks something, or is not known to have it, and with
    --verify where a program is not accepted, or its object lacks what it needs.
    """
    from ebpfjit.compatibility.report import of_programs
    from ebpfjit.compatibility.target import find_kernel

    target = None if kernel is None else find_kernel(kernel)
    types: LoadOptions = {} if target is None or target.types is None else {"btf": target.types}
    found, obj = opened(file, loading(btf, kconfig, maps), may_be_empty=True, besides=types)
    if program is not None:
        found, obj = {program: files.find_program(file, found, program)}, None
    if type_ is not None:
        found = {name: _of_type(each, type_) for name, each in found.items()}
    report = of_programs(found, file, obj)
    verdicts = {name: each.verify() for name, each in found.items()} if verify else {}
    missing = report.missing(target) if target is not None else {}
    if as_json:
        print_json(_as_json(file, report, target, missing, verdicts))
    else:
        shown = [str(report)] if target is None else [_against(part, target) for part in report.parts]
        print("\n\n".join(text for text in (*shown, *map(str, verdicts.values())) if text))
    is_safe = all(
        verdict.status == "accepted" and not found[name].refusals for name, verdict in verdicts.items()
    )
    if missing or not is_safe:
        raise SystemExit(1)


def _of_type(program: Program, name: str) -> Program:
    """Return a program of another type. Raises InputError where there is no such type."""
    from ebpfjit.runtime.contexts.types import program_type

    return replace(program, type=named_type(program_type(name).name))


def _against(part: Compatibility, target: Kernel) -> str:
    """Return what a kernel lacks of what a program needs, as text; "" for a rest that needs nothing."""
    if not part.needs:
        return ""
    missing = part.missing(target)
    name = f"{shown_name(part.name)}" + (f" ({part.type})" if part.type is not None else "")
    if not missing:
        return f"{name}: {target.name} has all it needs"
    unknown = sum(target.has(need) is None for need in missing)
    lacking = len(missing) - unknown
    said = [f"lacks {lacking} of what it needs"] if lacking else []
    said += [f"is not known to have {unknown}" + ("" if lacking else " of what it needs")] if unknown else []
    lines = [f"{name}: {target.name} {' and '.join(said)}"]
    for need in missing:
        lines.append(f"  {_shown(need, target)}")
        lines += [f"    help: {need.advice}"] if need.advice else []
    return "\n".join(lines)


def _shown(need: Need, target: Kernel) -> str:
    """Return a need on one line, and that the kernel was built without it where only that is against it."""
    if not (target.was_built_without(need) and need.release is not None and need.release <= target.release):
        return str(need)
    where = f": {need.where}" if need.where else ""
    return f"{need.feature}, {need.since}, but not in this kernel's types{where}"


def _as_json(
    file: str,
    report: ObjectCompatibility,
    target: Kernel | None,
    missing: Mapping[str, tuple[Need, ...]],
    verdicts: Mapping[str, Verdict],
) -> dict[str, Any]:
    told = {"file": file, **report.json()}
    if target is not None:
        told["kernel"] = {"name": target.name, "release": target.release}
        told["rest"]["missing"] = _plain(missing.get(REST, ()), target)
    for name, each in told["programs"].items():
        each |= {} if target is None else {"missing": _plain(missing.get(name, ()), target)}
        each |= {"verdict": verdicts[name].json()} if name in verdicts else {}
    return told


def _plain(needs: Iterable[Need], target: Kernel) -> list[dict[str, Any]]:
    return [{**need.json(), "built_without": target.was_built_without(need)} for need in needs]
