"""`ebpfjit verify`: the structural rules, and with --kernel what Linux's verifier says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from ebpfjit.cli.options import Btf, File, Json, Kconfig, Maps, ProgramName, loading, programs
from ebpfjit.cli.output import naming, one_line, print_json, shown_name
from ebpfjit.cli.parameters import Option
from ebpfjit.errors import EbpfError

if TYPE_CHECKING:
    from ebpfjit.program import Program


def verify(
    file: File,
    program: ProgramName = None,
    kernel: Annotated[
        bool, Option("--kernel", help="Let this machine's kernel load each program, too.")
    ] = False,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Check programs against the rules of the structural verifier.

    What a valid program needs and its object lacks is told too, as what Linux refuses for its license. With
    --kernel each program is loaded as libbpf would load it, and closed again: the exit status is 1 where the
    kernel refuses one, and its verifier's words are shown.
    """
    from ebpfjit.analysis.verifier import check
    from ebpfjit.runtime.helpers.licenses import describe, restricted_calls

    found = programs(file, program, loading(btf, kconfig, maps))
    for name, chosen in found.items():
        with naming(f"{file}: {shown_name(name)}"):
            check(chosen)
    if kernel:
        _require_kernel()
    told: dict[str, Any] = {}
    for name, chosen in found.items():
        missing = [str(first) for first in (chosen.refusal, *chosen.unmet.values()) if first is not None]
        told[name] = {"slots": len(chosen), "type": chosen.type}
        told[name] |= {"missing": missing[0]} if missing and as_json else {}
        told[name] |= {"kernel": _kernel_says(chosen)} if kernel else {}
        if as_json:
            continue
        print(f"{shown_name(name)}: {len(chosen)} slots, valid")
        for refusal in missing[:1]:
            print(f"{shown_name(name)}: cannot run as it is: {refusal}")
        for helper, call in restricted_calls(chosen).items():
            print(f"{shown_name(name)}: {describe(chosen, helper, call)}")
        if kernel:
            _print_kernel(shown_name(name), told[name]["kernel"])
    if as_json:
        print_json(told)
    if any(each.get("kernel", {}).get("status") == "refused" for each in told.values()):
        raise SystemExit(1)


def _require_kernel() -> None:
    """Raise KernelUnavailable where this machine's kernel cannot be asked."""
    from ebpfjit.engines import unavailable
    from ebpfjit.errors import EbpfError

    reason = unavailable("kernel")
    if reason:
        raise EbpfError(f"--kernel: {reason}")


def _kernel_says(program: Program) -> dict[str, Any]:
    """Load a program into the kernel; return whether that took it, and why not."""
    from ebpfjit.kernel import load_program

    if program.type is None:
        return {"status": "not loaded", "reason": "it has no type; Linux loads none such"}
    try:
        load_program(program)
    except EbpfError as error:
        return {"status": "refused", "reason": one_line(error), "log": str(error).splitlines()[1:]}
    return {"status": "accepted"}


def _print_kernel(name: str, said: dict[str, Any]) -> None:
    reason = f": {said['reason']}" if "reason" in said else ""
    print(f"{name}: kernel: {said['status']}{reason}")
    for line in said.get("log", ()):
        print(f"  {line}")
